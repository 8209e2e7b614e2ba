//! What a device tells of its health and of how it is joined to the host: asked when it is described, not at every look.

use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, ComputeMode, EccCounter, MemoryError};
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};

use crate::probe::gpu::{Details, Remapped};

/// Asks a device; what it does not say is `None`.
pub(super) fn details(device: &Device) -> Details {
    Details {
        sm_clock: device.clock_info(Clock::SM).ok(),
        memory_clock: device.clock_info(Clock::Memory).ok(),
        ecc: device.is_ecc_enabled().ok().map(|mode| mode.currently_enabled),
        uncorrected_errors: device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile).ok(),
        remapped: remapped(device).ok(),
        persistence: device.is_in_persistent_mode().ok(),
        compute_mode: device.compute_mode().ok().map(compute_mode),
        pcie_generation: device.current_pcie_link_gen().ok(),
        pcie_width: device.current_pcie_link_width().ok(),
    }
}

/// Returns why it runs slower than it could, where somebody should know; an idle device is slow and well.
pub(super) fn slowed(device: &Device) -> Option<Vec<&'static str>> {
    let reasons = device.current_throttle_reasons().ok()?;
    let known = [
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, "hot (hardware)"),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, "hot"),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power brake"),
        (ThrottleReasons::SW_POWER_CAP, "power limit"),
        (ThrottleReasons::HW_SLOWDOWN, "hardware slowdown"),
    ];
    Some(known.into_iter().filter(|(reason, _)| reasons.contains(*reason)).map(|(_, words)| words).collect())
}

/// `nvml-wrapper` does not offer this call.
fn remapped(device: &Device) -> Result<Remapped, NvmlError> {
    let call = nvml_sym(device.nvml().lib().nvmlDeviceGetRemappedRows.as_ref())?;
    let (mut corrected, mut uncorrected, mut pending, mut failed) = (0, 0, 0, 0);
    // SAFETY: the handle belongs to `device`, whose library is still loaded, and all pointers are to live local numbers.
    unsafe {
        let answer = call(device.handle(), &raw mut corrected, &raw mut uncorrected, &raw mut pending, &raw mut failed);
        nvml_try(answer)?;
    }
    Ok(Remapped { corrected, uncorrected, pending: pending != 0, failed: failed != 0 })
}

const fn compute_mode(mode: ComputeMode) -> &'static str {
    match mode {
        ComputeMode::Default => "default",
        ComputeMode::ExclusiveThread => "exclusive-thread",
        ComputeMode::Prohibited => "prohibited",
        ComputeMode::ExclusiveProcess => "exclusive-process",
    }
}
