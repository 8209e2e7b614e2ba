//! Starts a process with as little work as possible between the end of one task and the start of the next.
//!
//! `std::process::Command` copies and sorts the whole environment for every child, and opens files that the child can
//! open itself. Here the inherited environment is turned into C strings once, and the rest is one `posix_spawn`, which
//! does not copy our page tables either.

use std::collections::HashSet;
use std::ffi::{CString, OsStr, OsString, c_char};
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::process;
use crate::run::engine::Launch;

/// What every child inherits from this process: the environment, as C strings (`NAME=value`), and what signals do.
#[derive(Debug)]
pub(super) struct Inherited {
    entries: Vec<CString>,
    path: OsString,
    /// Signals that do to a child what they usually do. All but those that whoever started us ignores.
    usual: Vec<libc::c_int>,
}

impl Inherited {
    /// Takes this process's environment, and what signals do to it.
    pub(super) fn new() -> Self {
        let entry = |(mut name, value): (OsString, OsString)| {
            name.push("=");
            name.push(value);
            CString::new(name.into_vec()).ok()
        };
        // As `execvp` does where the variable is not set.
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        // Named one by one: of a signal that is not named, the C library asks in every child what it does there.
        let usual = (1..=libc::SIGRTMAX()).filter(|signal| !stays_ignored(*signal)).collect();
        Self { entries: std::env::vars_os().filter_map(entry).collect(), path, usual }
    }

    /// Starts the program of an attempt as the leader of a process group of its own. Both output streams go to
    /// `output`; there is no input.
    ///
    /// # Errors
    /// The system's reason why there is no process.
    pub(super) fn spawn(&self, launch: &Launch, output: BorrowedFd<'_>) -> io::Result<u32> {
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
    ) -> io::Result<u32> {
        let program = c_string(file.as_os_str())?;
        let args = launch.args.iter().map(|arg| c_string(OsStr::new(arg))).collect::<io::Result<Vec<_>>>()?;
        let own = own_entries(&launch.env)?;
        let names: HashSet<&[u8]> = own.iter().map(name_of).collect();
        let inherited = self.entries.iter().filter(|entry| !names.contains(name_of(entry)));
        let cwd = c_string(launch.cwd.as_os_str())?;
        let name = c_string(OsStr::new(&launch.program))?;
        let argv = Pointers::new(std::iter::once(&name).chain(&args));
        let envp = Pointers::new(inherited.chain(&own));
        let mut actions = Actions::new()?;
        actions.prepare(output, &cwd)?;
        let attributes = Attributes::new(group, &self.usual)?;
        let mut pid = 0;
        // SAFETY: all strings and both arrays, which end with a null pointer, outlive the call, and the call changes
        // neither; actions and attributes are initialised.
        let failed = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                program.as_ptr(),
                actions.0.as_ptr(),
                attributes.0.as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
            )
        };
        check(failed)?;
        u32::try_from(pid).map_err(io::Error::other)
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

/// Whether a signal is to be ignored by children, as it is by us, and not only by us: we outlive a reader that goes away
/// and a limit of file sizes, children need not.
fn stays_ignored(signal: libc::c_int) -> bool {
    process::is_ignored(signal) && !matches!(signal, libc::SIGPIPE | libc::SIGXFSZ)
}

/// Turns the attempt's own variables into entries, of which the last of a name counts.
fn own_entries(env: &[(String, String)]) -> io::Result<Vec<CString>> {
    let mut seen = HashSet::new();
    let last = env.iter().rev().filter(|(name, _)| seen.insert(name));
    last.map(|(name, value)| c_string(OsStr::new(&format!("{name}={value}")))).collect()
}

fn name_of(entry: &CString) -> &[u8] {
    let bytes = entry.as_bytes();
    // A name may begin with `=` where a foreign shell left one.
    bytes.iter().skip(1).position(|byte| *byte == b'=').map_or(bytes, |at| &bytes[..=at])
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "it contains a zero byte"))
}

/// The pointers to strings, and a null pointer behind them; the strings outlive them.
struct Pointers<'a>(Vec<*const c_char>, PhantomData<&'a CString>);

impl<'a> Pointers<'a> {
    fn new(strings: impl Iterator<Item = &'a CString>) -> Self {
        let pointers = strings.map(|string| string.as_ptr()).chain(std::iter::once(std::ptr::null()));
        Self(pointers.collect(), PhantomData)
    }

    const fn as_ptr(&self) -> *const *mut c_char {
        self.0.as_ptr().cast()
    }
}

fn check(error: libc::c_int) -> io::Result<()> {
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// What the child does before its program is loaded.
struct Actions(MaybeUninit<libc::posix_spawn_file_actions_t>);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the call initialises what it points to.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        Ok(Self(actions))
    }

    fn prepare(&mut self, output: BorrowedFd<'_>, cwd: &CString) -> io::Result<()> {
        let actions = self.0.as_mut_ptr();
        let null = c"/dev/null".as_ptr();
        // SAFETY: the actions are initialised, and the calls copy the strings that they are given.
        unsafe {
            check(libc::posix_spawn_file_actions_addopen(actions, 0, null, libc::O_RDONLY, 0))?;
            check(libc::posix_spawn_file_actions_adddup2(actions, output.as_raw_fd(), 1))?;
            check(libc::posix_spawn_file_actions_adddup2(actions, output.as_raw_fd(), 2))?;
            check(libc::posix_spawn_file_actions_addchdir_np(actions, cwd.as_ptr()))
        }
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: they were initialised, and are not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(self.0.as_mut_ptr()) };
    }
}

/// The process group that a child belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// A new one, which it leads.
    Own,
    /// A new one in a session of its own. Where whoever started a group dies, the kernel sends SIGHUP to it if one of it is
    /// stopped: only within a session.
    Session,
    /// That of this process.
    Ours,
}

impl Group {
    /// Returns the group of an attempt.
    pub(super) const fn of(launch: &Launch) -> Self {
        if launch.suspends { Self::Session } else { Self::Own }
    }
}

/// What kind of process the child is: its group, no signal blocked, and what signals do.
struct Attributes(MaybeUninit<libc::posix_spawnattr_t>);

impl Attributes {
    fn new(group: Group, usual: &[libc::c_int]) -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the first call initialises what it points to.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        let mut attributes = Self(attributes);
        let own_group = match group {
            Group::Own => libc::POSIX_SPAWN_SETPGROUP,
            Group::Session => libc::POSIX_SPAWN_SETSID.into(),
            Group::Ours => 0,
        };
        let flags = own_group | libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        let to = attributes.0.as_mut_ptr();
        let mut signals = MaybeUninit::uninit();
        // SAFETY: attributes are initialised above, the set of signals by `sigemptyset` before it is used.
        unsafe {
            check(libc::posix_spawnattr_setflags(to, libc::c_short::try_from(flags).map_err(io::Error::other)?))?;
            check(libc::posix_spawnattr_setpgroup(to, 0))?;
            libc::sigemptyset(signals.as_mut_ptr());
            check(libc::posix_spawnattr_setsigmask(to, signals.as_ptr()))?;
            for signal in usual {
                // Refuses those that the C library needs for itself, and resets them in any case.
                libc::sigaddset(signals.as_mut_ptr(), *signal);
            }
            check(libc::posix_spawnattr_setsigdefault(to, signals.as_ptr()))?;
        }
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: they were initialised, and are not used again.
        unsafe { libc::posix_spawnattr_destroy(self.0.as_mut_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;

    fn output_of(launch: &Launch) -> io::Result<String> {
        let (mut reader, writer) = io::pipe()?;
        let spawned = Inherited::new().spawn(launch, writer.as_fd());
        drop(writer);
        spawned?;
        let mut output = String::new();
        reader.read_to_string(&mut output)?;
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
