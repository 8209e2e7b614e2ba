//! Whether NVIDIA's Multi-Process Service runs here, which shares a device among processes and can limit their memory.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Where its daemon can be reached, unless `CUDA_MPS_PIPE_DIRECTORY` says otherwise.
const PIPES: &str = "/tmp/nvidia-mps";

/// Whether a daemon runs that processes of ours would reach.
#[must_use]
pub fn runs() -> bool {
    let named = std::env::var_os("CUDA_MPS_PIPE_DIRECTORY").filter(|path| !path.is_empty());
    runs_in(&named.map_or_else(|| PathBuf::from(PIPES), PathBuf::from), Path::new("/proc"))
}

/// Looks into the daemon's folder: what was left behind there by one that is gone does not count.
fn runs_in(pipes: &Path, proc: &Path) -> bool {
    let control = pipes.join("control");
    if !control.exists() || is_deserted(&control) {
        return false;
    }
    let pid = fs::read_to_string(pipes.join("nvidia-cuda-mps-control.pid"));
    // A daemon that leaves no number is believed.
    pid.map_or(true, |pid| proc.join(pid.trim_matches(['\0', ' ', '\n'])).is_dir())
}

/// Whether a pipe or socket is certainly one at whose other end nobody is. Nothing is sent.
fn is_deserted(path: &Path) -> bool {
    let Ok(kind) = fs::symlink_metadata(path).map(|of| of.file_type()) else { return false };
    if kind.is_fifo() {
        let opened = rustix::fs::open(path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
        return opened.is_err_and(|error| error == Errno::NXIO);
    }
    // One that takes connections refuses a datagram's by its kind, one whose owner is gone as such.
    let connects = || UnixDatagram::unbound().and_then(|socket| socket.connect(path));
    kind.is_socket() && connects().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
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

    #[test]
    fn a_pipe_or_socket_counts_as_long_as_somebody_is_at_its_other_end() {
        use std::os::unix::net::UnixListener;
        let (folder, proc) = (tempfile::tempdir().unwrap(), Path::new("/proc"));
        let control = folder.path().join("control");
        rustix::fs::mknodat(rustix::fs::CWD, &control, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert!(!runs_in(folder.path(), proc));
        let reader = rustix::fs::open(&control, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        assert!(runs_in(folder.path(), proc));
        drop(reader);
        assert!(!runs_in(folder.path(), proc));
        fs::remove_file(&control).unwrap();
        let listener = UnixListener::bind(&control).unwrap();
        assert!(runs_in(folder.path(), proc));
        drop(listener);
        assert!(!runs_in(folder.path(), proc));
    }
}
