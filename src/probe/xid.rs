//! What the driver's error numbers (Xid) mean, and which of them make a device unfit for work.
//!
//! From NVIDIA's Xid catalogue (docs.nvidia.com/deploy/xid-errors). Those that a program causes by itself, an illegal
//! address for example, end that program and say nothing about the device; numbers that are not listed are taken to be
//! of that kind.

/// Errors after which nothing on a device can be relied on until it was reset or serviced.
const FATAL: [(u64, &str); 14] = [
    (48, "a double-bit memory error"),
    (62, "its micro-controller halted"),
    (64, "a memory row could not be remapped"),
    (74, "an NVLink error"),
    (79, "it has fallen off the bus"),
    (95, "an uncontained memory error"),
    (109, "a context switch timed out"),
    (119, "its system processor does not answer"),
    (120, "its system processor failed"),
    (136, "an NVLink could not be trained"),
    (140, "an unrecovered memory error"),
    (143, "it could not be initialised"),
    (144, "an NVLink error"),
    (155, "an NVLink went down"),
];

/// Returns what an error that makes a device unfit means; `None` for any other.
#[must_use]
pub fn fatal(code: u64) -> Option<&'static str> {
    FATAL.iter().find(|(number, _)| *number == code).map(|(_, words)| *words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_device_is_unfit_and_one_on_which_a_program_failed_is_not() {
        assert_eq!(fatal(79), Some("it has fallen off the bus"));
        // 13, 31, 43 and 45 follow from an illegal access or an abort of one program; 94 was contained to one.
        assert!([13, 31, 43, 45, 94, 4_711].into_iter().all(|code| fatal(code).is_none()));
    }
}
