//! What the driver's error numbers (Xid) mean: which of them make a device unfit for work, and which end no more
//! than a program.
//!
//! From NVIDIA's Xid catalogue for Ampere and newer
//! (docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html), in words of our own. Its immediate action decides:
//! where the device has to be reset or the machine restarted, the device is unfit; where the program has to be started
//! again, the fault is the program's or was contained to it. Numbers whose
//! action depends on details that NVML does not pass on (144 to 149, of NVLink 5) are not held against the device, nor
//! are those that are not listed.

/// Errors after which nothing on a device can be relied on until it was reset or serviced.
const FATAL: [(u64, &str); 17] = [
    (46, "it stopped processing"),
    (48, "a double-bit memory error"),
    (62, "its micro-controller halted"),
    (64, "a memory row could not be remapped"),
    (74, "an NVLink error"),
    (79, "it has fallen off the bus"),
    (95, "an uncontained memory error"),
    (109, "a context switch timed out"),
    (110, "a security fault"),
    (119, "its system processor does not answer"),
    (120, "its system processor failed"),
    (136, "an NVLink could not be trained"),
    (140, "an unrecovered memory error"),
    (143, "it could not be initialised"),
    (150, "an NVLink's error of its own management"),
    (155, "an NVLink went down"),
    (158, "it timed out for good"),
];

/// Errors that end one program and leave the device as it was.
const OF_PROGRAMS: [(u64, &str); 11] = [
    (8, "the device gave up waiting for it"),
    (11, "its commands for the device were corrupt"),
    (13, "an illegal instruction or address in a kernel"),
    (31, "a kernel used an address that is not mapped"),
    (32, "its commands for the device were corrupt"),
    (43, "the device stopped working on it after an error of its own"),
    (45, "it was ended or failed, and its work on the device was removed"),
    (68, "the video decoder failed on what it was given"),
    (69, "a kernel was not one for this device"),
    (80, "data for the device arrived corrupted"),
    (94, "a memory error that was contained to it"),
];

/// Returns what an error that makes a device unfit means; `None` for any other.
#[must_use]
pub fn fatal(code: u64) -> Option<&'static str> {
    words(&FATAL, code)
}

/// Returns what an error means that ended a program and says nothing about the device; `None` for any other.
fn of_program(code: u64) -> Option<&'static str> {
    words(&OF_PROGRAMS, code)
}

/// Returns what is said of an error that makes no device unfit.
#[must_use]
pub fn harmless(code: u64) -> &'static str {
    match code {
        154 => "what is to be done about it has changed: `nvidia-smi -q` says whether it must be reset",
        _ => of_program(code).unwrap_or("nothing that makes it unfit"),
    }
}

fn words(table: &'static [(u64, &'static str)], code: u64) -> Option<&'static str> {
    table.iter().find(|(number, _)| *number == code).map(|(_, words)| *words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_device_is_unfit_and_one_on_which_a_program_failed_is_not() {
        assert_eq!(fatal(79), Some("it has fallen off the bus"));
        assert!([13, 31, 43, 45, 94].into_iter().all(|code| fatal(code).is_none() && of_program(code).is_some()));
    }

    #[test]
    fn what_the_catalogue_lets_pass_is_held_against_nobody() {
        // A row was remapped, corrected errors are frequent, a link reported something that may mean nothing.
        assert!([63, 92, 144, 154, 4_711].into_iter().all(|code| fatal(code).is_none() && of_program(code).is_none()));
        assert!(harmless(154).contains("reset") && harmless(31).contains("not mapped"));
    }

    #[test]
    fn no_error_is_both_the_devices_and_the_programs() {
        assert!(FATAL.iter().all(|(code, _)| of_program(*code).is_none()));
    }
}
