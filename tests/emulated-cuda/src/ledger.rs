//! Memory that several processes share: where an emulated NVML keeps its books (`MOCK_NVML_STATE`), what is allocated here is
//! written there, so that the one driver shows what the other gives out.
//!
//! A file `held/PID-CARD` holds a number of MiB, and counts while the process lives; `room-CARD` is what a card has.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

const MIB: usize = 1 << 20;

/// Says that this process holds so many bytes now; `false` where the card has less left.
pub(crate) fn hold(bytes: usize) -> bool {
    let Some(folder) = std::env::var_os("MOCK_NVML_STATE").map(PathBuf::from) else { return true };
    let visible = std::env::var_os("CUDA_VISIBLE_DEVICES").and_then(|list| list.into_string().ok()).unwrap_or_default();
    let card = visible.split(',').next().filter(|card| !card.is_empty()).unwrap_or("0");
    // NVML knows cards by their UUID as well.
    let known = fs::read_to_string(folder.join(format!("card-{card}")));
    let card = known.as_ref().map_or(card, |number| number.trim());
    write(&folder, card, bytes.div_ceil(MIB)).unwrap_or(false)
}

fn write(folder: &Path, card: &str, mib: usize) -> std::io::Result<bool> {
    let lock = File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
    // SAFETY: an open file. The lock goes with it.
    if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let number = |path: &Path| fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let own = format!("{}-{card}", std::process::id());
    let mut left: usize = number(&folder.join(format!("room-{card}")));
    for entry in fs::read_dir(folder.join("held"))?.flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let Some((pid, place)) = name.split_once('-') else { continue };
        if name != own && place == card && Path::new("/proc").join(pid).exists() {
            left = left.saturating_sub(number(&entry.path()));
        }
    }
    if mib > left {
        return Ok(false);
    }
    let draft = folder.join(format!("{own}.draft"));
    fs::write(&draft, mib.to_string())?;
    fs::rename(draft, folder.join("held").join(own))?;
    Ok(true)
}
