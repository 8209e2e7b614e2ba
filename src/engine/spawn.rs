//! Starts a process with as little work as possible between the end of one task and the start of the next.
//!
//! `std::process::Command` copies and sorts the whole environment for every child, and opens files anew. Here the inherited
//! environment is turned into C strings once.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::process;
pub(super) use super::vfork::Group;
use super::vfork::{self, Begin};
use crate::run::engine::Launch;
use crate::run::launch::is_about_others;

/// What every child inherits from this process: the environment, and what signals do. And what it reads: nothing.
#[derive(Debug)]
pub(super) struct Inherited {
    entries: Vec<Entry>,
    path: OsString,
    /// Signals that do something else here than they usually do, and are to do to a child what they usually do. One that is
    /// handled does so anyway once the program is loaded.
    usual: Vec<libc::c_int>,
    nothing: File,
}

/// A variable with its value, as programs are given it: `NAME=value`.
#[derive(Debug)]
struct Entry {
    text: CString,
    /// Bytes of its name.
    name: usize,
}

impl Entry {
    fn new(text: Vec<u8>) -> io::Result<Self> {
        // A name may begin with `=` where a foreign shell left one.
        let name = memchr::memchr(b'=', text.get(1..).unwrap_or_default()).map_or(text.len(), |at| at + 1);
        Ok(Self { text: c_string(text)?, name })
    }

    fn name(&self) -> &[u8] {
        &self.text.as_bytes()[..self.name]
    }
}

/// Strings one behind the other, each with a zero byte at its end.
#[derive(Debug, Default)]
struct Texts {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Texts {
    /// Adds a string that is put together.
    fn add(&mut self, parts: &[&str]) -> io::Result<()> {
        self.starts.push(self.bytes.len());
        for part in parts {
            if memchr::memchr(0, part.as_bytes()).is_some() {
                return Err(zero_byte());
            }
            self.bytes.extend_from_slice(part.as_bytes());
        }
        self.bytes.push(0);
        Ok(())
    }

    fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.starts.iter().map(|start| CStr::from_bytes_until_nul(&self.bytes[*start..]).unwrap_or_default())
    }
}

impl Inherited {
    /// Takes this process's environment but for what is about others, and what signals do to it.
    ///
    /// # Errors
    /// Where there is no `/dev/null`.
    pub(super) fn new() -> io::Result<Self> {
        let entry = |(mut name, value): (OsString, OsString)| {
            name.push("=");
            name.push(value);
            Entry::new(name.into_vec()).ok()
        };
        // As `execvp` does where the variable is not set.
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        Ok(Self {
            entries: std::env::vars_os()
                .filter(|(name, _)| !is_about_others(name.as_bytes()))
                .filter_map(entry)
                .collect(),
            path,
            usual: (1..=libc::SIGRTMAX()).filter(|signal| is_to_be_reset(*signal)).collect(),
            nothing: File::open("/dev/null")?,
        })
    }

    /// Starts the program of an attempt as the leader of a process group of its own. Both output streams go to
    /// `output`; there is no input. Returns its number and what becomes readable when it has ended.
    ///
    /// # Errors
    /// The system's reason why there is no process.
    pub(super) fn spawn(&self, launch: &Launch, output: BorrowedFd<'_>) -> io::Result<(u32, OwnedFd)> {
        self.spawn_file(&self.find(launch)?, launch, output, Group::of(launch))
    }

    /// Like [`Inherited::spawn`], with the program's file known and as a member of this group.
    ///
    /// # Errors
    /// The system's reason why there is no process.
    pub(super) fn spawn_file(
        &self,
        file: &Path,
        launch: &Launch,
        output: BorrowedFd<'_>,
        group: Group,
    ) -> io::Result<(u32, OwnedFd)> {
        let mut words = Texts::default();
        std::iter::once(&launch.program).chain(&launch.args).try_for_each(|word| words.add(&[word]))?;
        let mut own = Texts::default();
        for (at, (name, value)) in launch.env.iter().enumerate() {
            // The last of a name counts.
            if launch.env[at + 1..].iter().all(|(other, _)| other != name) {
                own.add(&[name, "=", value])?;
            }
        }
        let is_own = |entry: &&Entry| launch.env.iter().any(|(name, _)| name.as_bytes() == entry.name());
        let inherited = self.entries.iter().filter(|entry| !is_own(entry));
        vfork::start(&Begin {
            usual: &self.usual,
            group,
            input: self.nothing.as_fd(),
            output,
            cwd: &c_string(launch.cwd.as_os_str().as_bytes())?,
            program: &c_string(file.as_os_str().as_bytes())?,
            args: words.iter().collect(),
            env: inherited.map(|entry| entry.text.as_c_str()).chain(own.iter()).collect(),
        })
    }

    /// Returns the file of a program: looked for in the attempt's own `PATH` where its name has no slash.
    pub(super) fn find(&self, launch: &Launch) -> io::Result<PathBuf> {
        let name = Path::new(&launch.program);
        if launch.program.contains('/') {
            return Ok(name.to_owned());
        }
        let own = launch.env.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| OsStr::new(value));
        std::env::split_paths(own.unwrap_or(&self.path))
            .map(|folder| launch.cwd.join(folder).join(name))
            .find(|file| process::is_executable(file))
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }
}

impl Group {
    /// Returns the group of an attempt.
    pub(super) const fn of(launch: &Launch) -> Self {
        if launch.suspends { Self::Session } else { Self::Own }
    }
}

/// Whether a signal does something here that it is not to do to children: what we handle, and what we ignore but whoever
/// started us does not. We outlive a reader that goes away and a limit of file sizes, children need not.
fn is_to_be_reset(signal: libc::c_int) -> bool {
    match process::action(signal) {
        libc::SIG_DFL => false,
        libc::SIG_IGN => matches!(signal, libc::SIGPIPE | libc::SIGXFSZ),
        _ => true,
    }
}

fn c_string(text: impl Into<Vec<u8>>) -> io::Result<CString> {
    CString::new(text).map_err(|_| zero_byte())
}

fn zero_byte() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it contains a zero byte")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::io::Read;

    fn output_of(launch: &Launch) -> io::Result<String> {
        let (mut reader, writer) = io::pipe()?;
        let spawned = Inherited::new()?.spawn(launch, writer.as_fd());
        drop(writer);
        let (pid, ended) = spawned?;
        let mut output = String::new();
        reader.read_to_string(&mut output)?;
        poll(&mut [PollFd::new(&ended, PollFlags::IN)], None)?;
        assert!(process::reap(pid).is_some(), "what tells of its end does so once it has come");
        Ok(output)
    }

    fn shell(line: &str) -> Launch {
        let args = vec!["-c".to_owned(), line.to_owned()];
        Launch { program: "sh".to_owned(), args, cwd: "/".into(), ..Launch::default() }
    }

    #[test]
    fn both_streams_are_read_in_order_and_there_is_no_input() {
        assert_eq!(output_of(&shell("echo out; echo err >&2; cat; pwd")).unwrap(), "out\nerr\n/\n");
    }

    #[test]
    fn a_program_is_told_its_name_and_arguments() {
        let name = "/bin/cat";
        let launch = Launch { program: name.to_owned(), args: vec!["/proc/self/cmdline".to_owned()], ..shell("") };
        assert_eq!(output_of(&launch).unwrap(), format!("{name}\0/proc/self/cmdline\0"));
    }

    #[test]
    fn the_last_value_of_a_variable_counts_and_hides_the_inherited_one() {
        let env = ["HOME=one", "HOME=two", "X=1=2"].map(|entry| entry.split_once('=').unwrap());
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let launch = Launch { env, ..shell("echo $HOME $X; env | grep -c ^HOME=") };
        assert_eq!(output_of(&launch).unwrap(), "two 1=2\n1\n");
    }

    #[test]
    fn a_program_is_looked_for_in_the_attempts_own_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tool");
        std::os::unix::fs::symlink("/bin/echo", &file).unwrap();
        let env = vec![("PATH".to_owned(), dir.path().display().to_string())];
        let launch = Launch { program: "tool".to_owned(), args: vec!["hi".to_owned()], env, ..shell("") };
        assert_eq!(output_of(&launch).unwrap(), "hi\n");
        let launch = Launch { env: Vec::new(), ..launch };
        assert_eq!(output_of(&launch).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn signals_that_were_ignored_before_us_stay_so_and_those_that_we_ignore_do_not() {
        // SAFETY: no handler is installed, and nobody sends this signal.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        let ignored = output_of(&shell("grep SigIgn /proc/self/status")).unwrap();
        let ignored = u64::from_str_radix(ignored.trim_start_matches("SigIgn:").trim(), 16).unwrap();
        let is_ignored = |signal: libc::c_int| ignored & 1 << (signal - 1) != 0;
        assert_eq!([libc::SIGUSR2, libc::SIGPIPE, libc::SIGXFSZ].map(is_ignored), [true, false, false]);
    }

    #[test]
    fn why_a_program_cannot_be_loaded_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("no-program");
        std::fs::write(&file, "neither this nor that").unwrap();
        let launch = Launch { program: file.display().to_string(), ..shell("") };
        let code = |launch: &Launch| output_of(launch).unwrap_err().raw_os_error();
        assert_eq!(code(&launch), Some(libc::EACCES));
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&file, all).unwrap();
        assert_eq!(code(&launch), Some(libc::ENOEXEC));
        assert_eq!(code(&Launch { cwd: dir.path().join("gone"), ..shell("true") }), Some(libc::ENOENT));
    }

    #[test]
    fn a_zero_byte_is_refused() {
        assert_eq!(output_of(&shell("echo \0")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
