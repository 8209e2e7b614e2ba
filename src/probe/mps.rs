//! Whether NVIDIA's Multi-Process Service runs here, which shares a device among processes and can limit their memory.

use std::fs;
use std::path::{Path, PathBuf};

/// Where its daemon can be reached, unless `CUDA_MPS_PIPE_DIRECTORY` says otherwise.
const PIPES: &str = "/tmp/nvidia-mps";

/// Whether a daemon runs that processes of ours would reach.
#[must_use]
pub fn runs() -> bool {
    let named = std::env::var_os("CUDA_MPS_PIPE_DIRECTORY").filter(|path| !path.is_empty());
    runs_in(&named.map_or_else(|| PathBuf::from(PIPES), PathBuf::from), Path::new("/proc"))
}

/// Looks into the daemon's folder: a pipe that was left behind by one that is gone does not count.
fn runs_in(pipes: &Path, proc: &Path) -> bool {
    if !pipes.join("control").exists() {
        return false;
    }
    let pid = fs::read_to_string(pipes.join("nvidia-cuda-mps-control.pid"));
    // A daemon that leaves no number is believed.
    pid.map_or(true, |pid| proc.join(pid.trim_matches(['\0', ' ', '\n'])).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_without_its_daemon_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let proc = Path::new("/proc");
        assert!(!runs_in(folder.path(), proc));
        fs::write(folder.path().join("control"), "").unwrap();
        assert!(runs_in(folder.path(), proc));
        let pid = folder.path().join("nvidia-cuda-mps-control.pid");
        fs::write(&pid, format!("{}\n", std::process::id())).unwrap();
        assert!(runs_in(folder.path(), proc));
        // The largest pid that Linux allows is 2^22.
        fs::write(&pid, "4194305").unwrap();
        assert!(!runs_in(folder.path(), proc));
    }
}
