//! Processes of this machine: told apart for good, found by a mark in their environment, waited for and ended.
//!
//! Linux only. Knows nothing of tasks; the marks are the caller's.

use std::cell::Cell;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use rustix::time::{ClockId, clock_gettime};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

use crate::run::event::Process;
use crate::units::{Bytes, Millis};

/// How a child ended and what it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// The exit code, or the signal that ended it.
    pub status: Status,
    /// Peak resident memory of the child or the largest of its own awaited children.
    pub peak_memory: Bytes,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It called exit.
    Exited(i32),
    /// A signal ended it.
    Signalled(i32),
}

impl Status {
    /// Whether it ended by a signal that all processes get when a machine is shut down; a shell says so by its exit code.
    pub(super) const fn is_as_by_shutdown(self) -> bool {
        matches!(self, Self::Signalled(libc::SIGTERM | libc::SIGHUP) | Self::Exited(143 | 129))
    }
}

/// Returns the process with its start time, or `None` where it is gone.
#[must_use]
pub fn identify(pid: u32) -> Option<Process> {
    // Longer than any line of it: one read instead of several of growing size.
    let mut stat = [0; 1024];
    let read = fs::File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut stat)).ok()?;
    start_time(&String::from_utf8_lossy(&stat[..read])).map(|started| Process { pid, started })
}

/// Tells when children started: by the clock where that is unambiguous, otherwise from `/proc`, which costs a third of
/// what starting a process does.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// Whether `/proc` was seen to count as the clock does.
    agree: Cell<Option<bool>>,
}

impl Starts {
    /// Starts a child and returns it with what it cannot be mistaken by; the inner `None` where `/proc` does not show it.
    ///
    /// # Errors
    /// Those of `start`.
    pub(super) fn of<T, E>(
        &self,
        start: impl FnOnce() -> Result<(u32, T), E>,
    ) -> Result<((u32, T), Option<Process>), E> {
        let before = ticks_since_boot();
        let started = start()?;
        let pid = started.0;
        // Started within one tick: that is what `/proc` says as well.
        let by_clock = (before == ticks_since_boot()).then_some(Process { pid, started: before });
        if let (Some(process), Some(true)) = (by_clock, self.agree.get()) {
            return Ok((started, Some(process)));
        }
        let shown = identify(pid);
        if let (Some(by_clock), Some(shown), None) = (by_clock, shown, self.agree.get()) {
            self.agree.set(Some(by_clock == shown));
        }
        Ok((started, shown))
    }
}

/// Returns for how long this very process has run, whatever became of the clock on the wall; `None` where it is gone.
#[must_use]
pub fn age(process: Process) -> Option<Millis> {
    is_alive(process).then(|| Millis(ticks_since_boot().saturating_sub(process.started) * 1_000 / ticks_per_second()))
}

fn ticks_per_second() -> u64 {
    // SAFETY: no preconditions.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1)
}

/// Returns the time since the host's boot in the unit of `/proc/PID/stat`, rounded down as there.
fn ticks_since_boot() -> u64 {
    let per_second = ticks_per_second();
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, ns) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds * per_second + ns / (1_000_000_000 / per_second)
}

/// Whether this very process still runs (a zombie does not).
#[must_use]
pub fn is_alive(process: Process) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", process.pid))
        .is_ok_and(|stat| start_time(&stat) == Some(process.started) && !is_zombie(&stat))
}

/// Returns when a process started, by its `/proc/PID/stat`: in ticks since the machine did.
fn start_time(stat: &str) -> Option<u64> {
    field(stat, 22)
}

/// Returns a field of `/proc/PID/stat`, from the third on, counted as `proc(5)` does. The command's name, field 2, may hold
/// blanks and brackets.
fn field<T: std::str::FromStr>(stat: &str, number: usize) -> Option<T> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

/// Returns the process that a process is a child of.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    field(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, 4)
}

/// Returns the session of a process: the number of the one that began it, 0 where that is outside our container.
pub(super) fn session(pid: u32) -> Option<u32> {
    field(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, 6)
}

/// Finds a process itself, whoever began its session, or the nearest above it of which something is known. What a stage
/// starts may carry another environment than ours, or have written over it, as programs do that set their title.
pub fn find_kin<T>(pid: u32, known: impl Fn(u32) -> Option<T>) -> Option<T> {
    let above = || std::iter::successors(parent(pid), |pid| parent(*pid)).take_while(|pid| *pid > 1).take(HIGHEST);
    // Mostly it is known itself, and nothing more is read.
    known(pid).or_else(|| known(session(pid)?)).or_else(|| above().find_map(&known))
}

/// Whether a process has started others that it has not buried.
#[must_use]
pub(super) fn has_children(pid: u32) -> bool {
    table().any(|(_, parent)| parent == pid)
}

/// Yields all processes that have not ended, each with the one that it is a child of.
pub fn table() -> impl Iterator<Item = (u32, u32)> {
    running(4)
}

/// Returns the processes of a group that have not ended; one that has and is still on the process table does not count.
pub(super) fn group(leader: u32) -> Vec<Process> {
    groups().filter(|(_, group)| *group == leader).filter_map(|(pid, _)| identify(pid)).collect()
}

/// Yields all processes that have not ended, each with its group.
pub(super) fn groups() -> impl Iterator<Item = (u32, u32)> {
    running(5)
}

/// Yields the numbers of all processes.
pub(super) fn pids() -> impl Iterator<Item = u32> {
    pids_in(Path::new("/proc"))
}

/// The same of a folder that is like `/proc`.
pub(super) fn pids_in(proc: &Path) -> impl Iterator<Item = u32> + use<> {
    let entries = fs::read_dir(proc).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Yields all processes that have not ended, each with a field of its `/proc/PID/stat`.
fn running(number: usize) -> impl Iterator<Item = (u32, u32)> {
    pids().filter_map(move |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok().filter(|stat| !is_zombie(stat))?;
        Some((pid, field(&stat, number)?))
    })
}

fn is_zombie(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| matches!(rest.trim_start().as_bytes().first(), Some(b'Z' | b'X')))
}

/// Whether a path names a file that we may execute.
#[must_use]
pub fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Returns the host's boot id, empty where the system has none.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Returns the PID namespace that this process is in: in another one, the same number is another process.
#[must_use]
pub fn namespace() -> Option<u64> {
    rustix::fs::stat("/proc/self/ns/pid").ok().map(|namespace| namespace.st_ino)
}

/// Returns all processes whose environment holds every one of `marks` (`NAME=value`), this one excepted.
///
/// Sees through `setsid` and double forks, since a child inherits its parent's environment; does not see processes
/// that replaced their environment or that we may not read.
#[must_use]
pub fn find_marked(marks: &[String]) -> Vec<u32> {
    let own = std::process::id();
    let mut environment = Environment::default();
    pids().filter(|pid| *pid != own && environment.of(*pid).is_some_and(|of| has_marks(of, marks))).collect()
}

/// A process of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) pid: u32,
    /// Whether it is stopped, or has ended and was not waited for yet.
    pub(super) stands: bool,
}

/// Returns all processes of a group and all whose environment holds every one of `marks`, this one excepted.
pub(super) fn members(marks: &[String], group: u32) -> Vec<Member> {
    let own = std::process::id();
    let member = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let stands = matches!(fields.next()?, "T" | "t" | "Z" | "X");
        let of_group = fields.nth(1)?.parse() == Ok(group);
        (of_group || is_marked(pid, marks)).then_some(Member { pid, stands })
    };
    pids().filter(|pid| *pid != own).filter_map(member).collect()
}

/// Whether a process's environment holds every one of `marks` (`NAME=value`).
#[must_use]
pub fn is_marked(pid: u32, marks: &[String]) -> bool {
    Environment::default().of(pid).is_some_and(|of| has_marks(of, marks))
}

fn has_marks(environment: &[u8], marks: &[String]) -> bool {
    marks.iter().all(|mark| has(environment, mark))
}

fn has(environment: &[u8], mark: &str) -> bool {
    environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
}

fn value(environment: &[u8], variable: &str) -> Option<String> {
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(variable.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(value.to_vec()).ok()
}

/// Reads environments of processes, one after the other: the kernel looks the process up for every read, and most are one
/// read long.
#[derive(Debug, Default)]
struct Environment(Vec<u8>);

impl Environment {
    /// More than most are.
    const USUAL: usize = 16 << 10;

    /// Returns that of a process, `None` where we may not read it or there is none.
    fn of(&mut self, pid: u32) -> Option<&[u8]> {
        let mut file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
        let mut length = 0;
        loop {
            if self.0.len() - length < Self::USUAL {
                self.0.resize(length + Self::USUAL, 0);
            }
            let read = file.read(&mut self.0[length..]).ok()?;
            length += read;
            // Only its end makes a read shorter.
            if length < self.0.len() {
                return Some(&self.0[..length]);
            }
        }
    }
}

/// So many processes above one are looked at.
const HIGHEST: usize = 64;

/// Returns the value of a variable in the environment of a process that carries `mark` (`NAME=value`).
#[must_use]
pub fn marked_as(pid: u32, mark: &str, variable: &str) -> Option<String> {
    let mut environment = Environment::default();
    let of = environment.of(pid).filter(|of| has(of, mark))?;
    value(of, variable)
}

/// Returns the values of these variables in the environment of a process that has all of them.
#[must_use]
pub fn marked<const N: usize>(pid: u32, variables: [&str; N]) -> Option<[String; N]> {
    let mut environment = Environment::default();
    let of = environment.of(pid)?;
    let mut values = variables.map(|variable| value(of, variable));
    values.iter().all(Option::is_some).then(|| values.each_mut().map(|value| value.take().unwrap_or_default()))
}

/// Opens a descriptor that becomes readable when the process has ended.
///
/// # Errors
/// Where the process is gone or the system has no pidfds (Linux before 5.3).
pub fn watch(pid: u32) -> rustix::io::Result<OwnedFd> {
    pidfd_open(as_pid(pid).ok_or(rustix::io::Errno::SRCH)?, PidfdFlags::NONBLOCK)
}

/// Like [`watch`], for the reactor of the running tokio runtime.
///
/// # Errors
/// As [`watch`].
pub fn watch_async(pid: u32) -> std::io::Result<AsyncFd<OwnedFd>> {
    await_readable(watch(pid)?)
}

/// Hands what [`watch`] returned to the reactor of the running tokio runtime.
///
/// # Errors
/// Where the reactor does not take it.
pub(super) fn await_readable(watched: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` refers to the same open descriptor for as long as it lives.
    unsafe { AsyncFd::register_with_interest(watched, Interest::READABLE) }.map_err(Into::into)
}

/// Sends a signal to a process; one that is gone is no error.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = as_pid(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Sends a signal to a process group; one that is gone is no error.
pub fn signal_group(leader: u32, signal: Signal) {
    if let Some(leader) = as_pid(leader) {
        let _ = kill_process_group(leader, signal);
    }
}

/// Whether we may send signals to a process.
#[must_use]
pub fn may_signal(pid: u32) -> bool {
    as_pid(pid).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

/// Whether a process group has a member that can be signalled.
#[must_use]
pub fn group_is_alive(leader: u32) -> bool {
    as_pid(leader).is_some_and(|leader| rustix::process::test_kill_process_group(leader).is_ok())
}

fn as_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Returns the peak resident memory of this process.
///
/// A child starts in our address space (see `vfork`), and the kernel counts that as the child's until it
/// execs: a child's peak that is not above this one says nothing.
#[must_use]
pub fn own_peak_memory() -> Bytes {
    // SAFETY: a zeroed `rusage` is valid, and the pointer is to a live local variable.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    max_resident(&usage)
}

/// Linux counts `ru_maxrss` in KiB.
fn max_resident(usage: &libc::rusage) -> Bytes {
    Bytes(u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024))
}

/// Takes a child that has ended off the process table, or returns `None` while it runs.
#[must_use]
pub fn reap(pid: u32) -> Option<Reaped> {
    wait(libc::pid_t::try_from(pid).ok()?).map(|(_, reaped)| reaped)
}

/// Waits until a child has ended, and takes it off the process table.
pub(super) fn await_end(pid: u32) {
    if let Some(pid) = as_pid(pid) {
        let _ =
            rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()));
    }
}

/// Kills a child that nobody can attend to, with its group, and takes it off the process table.
pub(super) fn kill_and_reap(pid: u32) {
    signal_group(pid, Signal::KILL);
    await_end(pid);
}

/// Takes any child that has ended off the process table, or returns `None` while all run or where there is none.
#[must_use]
pub fn reap_any() -> Option<(u32, Reaped)> {
    let (pid, reaped) = wait(-1)?;
    Some((u32::try_from(pid).ok()?, reaped))
}

fn wait(pid: libc::pid_t) -> Option<(libc::pid_t, Reaped)> {
    let mut status = 0;
    // SAFETY: a zeroed `rusage` is valid, and both pointers are to live local variables.
    let (waited, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage), usage)
    };
    if waited <= 0 {
        return None;
    }
    let status = if libc::WIFEXITED(status) {
        Status::Exited(libc::WEXITSTATUS(status))
    } else {
        Status::Signalled(libc::WTERMSIG(status))
    };
    Some((waited, Reaped { status, peak_memory: max_resident(&usage) }))
}

/// Whether this process ignores a signal.
#[must_use]
pub fn is_ignored(signal: libc::c_int) -> bool {
    action(signal) == libc::SIG_IGN
}

/// Returns what a signal does to this process: `SIG_DFL`, `SIG_IGN` or the address of its handler.
pub(super) fn action(signal: libc::c_int) -> libc::sighandler_t {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is changed, and the pointer is to a live local variable, for which zero is valid.
    let now = unsafe {
        libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr());
        now.assume_init()
    };
    now.sa_sigaction
}

/// Waits until all these processes have ended or the time is up.
pub(super) async fn wait_for(pids: &[u32], until: Instant) {
    for pid in pids {
        let Ok(watched) = watch_async(*pid) else { continue };
        let _ = timeout_at(until, watched.readable()).await;
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "these tests are about processes")]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn the_start_time_is_read_behind_a_hostile_name() {
        let stat = "12 (a) b (c)) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        assert_eq!(start_time(stat), Some(4711));
    }

    #[test]
    fn when_a_child_started_is_told_by_the_clock_as_by_proc() {
        let starts = Starts::default();
        for _ in 0..50 {
            let mut child = None;
            let spawn = || -> std::io::Result<_> { Ok((child.insert(Command::new("true").spawn()?).id(), ())) };
            let ((pid, ()), process) = starts.of(spawn).unwrap();
            // Not awaited yet, it is still to be seen.
            assert_eq!(process, identify(pid));
            child.unwrap().wait().unwrap();
        }
    }

    #[test]
    fn a_process_is_found_by_its_mark_and_gone_once_killed() {
        let mark = format!("TRAINYARD_TEST_MARK={}", std::process::id());
        let (name, value) = mark.split_once('=').unwrap();
        // It answers once its program runs: before that, its environment cannot be read yet.
        let mut child =
            Command::new("cat").env(name, value).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let pid = child.id();
        let process = identify(pid).unwrap();
        assert!(is_alive(process));
        let all = Millis(ticks_since_boot() * 1_000 / ticks_per_second());
        assert!(age(process).is_some_and(|age| age <= all));
        assert_eq!(age(Process { started: process.started + 1, ..process }), None);
        assert!(!is_alive(Process { started: process.started + 1, ..process }), "a recycled number is another process");
        assert_eq!(find_marked(std::slice::from_ref(&mark)), [pid]);
        signal(pid, Signal::KILL);
        child.wait().unwrap();
        assert!(!is_alive(process));
        assert!(find_marked(&[mark]).is_empty());
    }
}
