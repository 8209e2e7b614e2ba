//! How facts are put into words for people. Machines read the codes of `Outcome`'s `Display` instead.

use std::fmt::Write;

use super::summary::shell_word;
use super::text;
use crate::graph::TaskId;
use crate::run::event::{Because, RunEnd, StopReason};
use crate::run::outcome::{Cause, Limit, LogCut, Outcome};
use crate::run::raise::{NoMore, Raise, Step};
use crate::run::remains::MayGo;
use crate::run::state::{Attempt, Ended};
use crate::spec::MemoryLimit;
use crate::units::{Bytes, Millis, Share};

/// Returns how an attempt ended, to stand behind "failed: ". Safe for a terminal.
#[must_use]
pub fn ending(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded => "succeeded".into(),
        Outcome::Exited { code: 127 } => "exit code 127, the shell's code for a command that is not found".into(),
        Outcome::Exited { code } => format!("exit code {code}"),
        Outcome::Signalled { signal } => match signal_name(*signal) {
            Some(name) => format!("ended by signal {signal} ({name})"),
            None => format!("ended by signal {signal}"),
        },
        Outcome::TimedOut { limit: Limit::Wall } => "timed out: it ran longer than `timeout`".into(),
        Outcome::TimedOut { limit: Limit::Idle } => "timed out: it printed nothing for `idle_timeout`".into(),
        Outcome::TimedOut { limit: Limit::FirstOutput } => {
            "timed out: it printed nothing within `first_output_timeout`".into()
        }
        Outcome::OutOfMemory { device: Some(device) } => format!("out of memory on {}", text::visible(device)),
        Outcome::OutOfMemory { device: None } => "out of host memory".into(),
        Outcome::OutputMissing { path, leads_to: None, also } => {
            let paths = std::iter::once(path).chain(also).map(|path| format!("`{}`", text::visible(path)));
            let paths = paths.collect::<Vec<_>>().join(", ");
            format!("it ended well but did not write {paths}, which `outputs` promises")
        }
        Outcome::OutputMissing { path, leads_to: Some(target), .. } => format!(
            "it ended well but made of its output `{}` a link out of the project, to `{}`",
            text::visible(path),
            text::visible(target)
        ),
        Outcome::SpawnFailed { reason } => format!("it could not be started: {}", text::visible(reason)),
        Outcome::Displaced { device, cause: Cause::Taken { promised, free, by } } => {
            let who = by.as_ref().map_or_else(
                || "others took".to_owned(),
                |task| format!("`{}` holds more than is reserved for it and took", text::visible(task)),
            );
            let device = text::visible(device);
            format!("{who} memory that was promised on {device} ({promised} still to be taken, {free} left)")
        }
        Outcome::Displaced { device, cause: Cause::Occupied } => {
            format!("others came to {}, which lets in one process at a time", text::visible(device))
        }
        Outcome::Displaced { device, cause: Cause::TurnedAway { or } } => {
            let names: Vec<_> = std::iter::once(device).chain(or).map(|device| text::visible(device)).collect();
            format!("{} turned it away as busy (compute mode exclusive-process)", names.join(" or "))
        }
        Outcome::Displaced { device, cause: Cause::Unfit { fault } } => {
            format!("{} fell out: it is {}", text::visible(device), text::visible(fault))
        }
        Outcome::Outrun => "another attempt was faster".into(),
        Outcome::Interrupted => "interrupted".into(),
    }
}

/// Returns how an attempt ended, and where it ran out of memory, what was reserved for it and what it was seen to hold.
#[must_use]
pub fn ending_in_numbers(attempt: &Attempt, ended: &Ended) -> String {
    let words = ending(&ended.outcome);
    let (reserved, peak) = match &ended.outcome {
        Outcome::OutOfMemory { device: Some(_) } => (attempt.place.gpu_memory, ended.usage.peak_gpu_memory),
        Outcome::OutOfMemory { device: None } => (attempt.place.memory, ended.usage.peak_memory),
        Outcome::Succeeded
        | Outcome::Exited { .. }
        | Outcome::Signalled { .. }
        | Outcome::TimedOut { .. }
        | Outcome::OutputMissing { .. }
        | Outcome::SpawnFailed { .. }
        | Outcome::Displaced { .. }
        | Outcome::Outrun
        | Outcome::Interrupted => return words,
    };
    // Who has a device to itself is not kept to what was reserved.
    let kept_to_it = attempt.place.limit == MemoryLimit::Watch && attempt.place.share < Share::WHOLE;
    let watched = kept_to_it && peak.is_some_and(|peak| peak > reserved);
    let words = if watched { format!("{words}: it took more than its limit and was ended") } else { words };
    let has_all =
        attempt.place.share == Share::WHOLE && matches!(ended.outcome, Outcome::OutOfMemory { device: Some(_) });
    let reserved = match reserved {
        Bytes::ZERO if has_all => "all of it".to_owned(),
        Bytes::ZERO => "nothing".to_owned(),
        some => some.to_string(),
    };
    match peak {
        Some(peak) => format!("{words} ({reserved} reserved, {peak} seen)"),
        None => format!("{words} ({reserved} reserved)"),
    }
}

/// Returns how an attempt is kept to its device memory, in force and not only asked for; `None` where it is not and need
/// not be. `hidden`: the driver has turned out to hide who holds memory.
#[must_use]
pub fn limit(attempt: &Attempt, hidden: bool) -> Option<&'static str> {
    let hidden = hidden || attempt.ended.as_ref().is_some_and(|ended| ended.usage.hidden);
    match attempt.place.limit {
        MemoryLimit::Watch if hidden => Some(NOT_WATCHED),
        MemoryLimit::None => attempt.place.hidden.then_some(NOT_WATCHED),
        set @ (MemoryLimit::Watch | MemoryLimit::Framework | MemoryLimit::Mps) => Some(set.word()),
    }
}

/// What is in force where nobody can be watched.
pub const NOT_WATCHED: &str = "none (processes are hidden)";

/// Returns why the order of what waits was thought over; `name` names a task.
#[must_use]
pub fn because<'n>(because: &Because, name: impl Fn(&TaskId) -> &'n str) -> String {
    match because {
        Because::Drift { expected, planned, task } => {
            let (more, less) = if expected > planned { ("longer", "more") } else { ("shorter", "less") };
            let who = task.as_ref().map_or_else(|| "what ran took".to_owned(), |task| format!("{} takes", name(task)));
            let differs = seconds(Millis(expected.0.abs_diff(planned.0)));
            format!("{who} {more} than planned, the run {differs} {less}")
        }
        Because::Lost { device } => format!("{device} has fallen out"),
        Because::Back { device } => format!("{device} is back"),
    }
}

/// Returns what a task asks for since it ran out of memory, to stand behind "again in 1s ".
#[must_use]
pub fn raised(raise: &Raise) -> String {
    match raise.step {
        Step::Again => "with as much: others hold what it lacked".into(),
        Step::More => format!("with {} of a GPU", raise.gpu_memory),
        Step::Alone => "alone on a GPU".into(),
        Step::Larger => format!("alone on a larger GPU, of more than {}", raise.gpu_memory),
        Step::MoreOfHost => format!("with {} of host memory", raise.memory),
        Step::OnCpu => "on the CPU".into(),
    }
}

/// Returns why a task that ran out of memory is not tried again with more of it.
#[must_use]
pub const fn no_more(why: NoMore) -> &'static str {
    match why {
        NoMore::Largest => "no GPU here is larger",
        NoMore::AllOfHost => "it could count on all of the host's memory",
        NoMore::Tries => "that is all that `oom_retries` and this machine allow",
    }
}

/// Returns why a task failed for which there is no place.
#[must_use]
pub fn unplaced(lacks: &str) -> String {
    format!("nothing here could hold it: {}", text::visible(lacks))
}

/// Returns the name that `kill -l` shows for the signals that end processes in practice.
const fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}

/// Returns the word for a run's end.
#[must_use]
pub const fn end(end: RunEnd) -> &'static str {
    match end {
        RunEnd::Succeeded => "succeeded",
        RunEnd::Failed => "failed",
        RunEnd::Interrupted => "interrupted",
    }
}

/// Returns why a run stops early, as a sentence.
#[must_use]
pub const fn stopping(reason: StopReason) -> &'static str {
    match reason {
        StopReason::TaskFailed => "a task failed, so nothing new is started; --keep-going would go on",
        StopReason::Signal => "running tasks are asked to end; a second signal (Ctrl-C) kills them",
    }
}

/// Returns a span of time in whole seconds, for what changes while one looks: `0s`, `12s`, `1m20s`.
#[must_use]
pub fn seconds(time: Millis) -> String {
    if time.0 < 1_000 { "0s".into() } else { Millis(time.0 / 1_000 * 1_000).to_string() }
}

/// Returns the parts as `2 failed, 3 skipped`, those that are zero left out.
#[must_use]
pub fn counts(parts: &[(usize, &str)]) -> String {
    let mut list = String::new();
    for (count, what) in parts.iter().filter(|(count, _)| *count > 0) {
        let comma = if list.is_empty() { "" } else { ", " };
        write!(list, "{comma}{count} {what}").expect("a String takes everything");
    }
    list
}

/// Returns what holds room on a full disk, and how it goes.
#[must_use]
pub fn may_go(what: &MayGo) -> String {
    match what {
        MayGo::Aside { all, largest: (path, bytes) } => format!(
            "what failed attempts left, or what was in their way, holds {all}: `rm -r {}` frees {bytes}",
            shell_word(&path.to_string_lossy())
        ),
        MayGo::Cache(bytes) => {
            format!("the cache holds {bytes}: `trainyard cache gc --max-size SIZE` makes it smaller")
        }
    }
}

/// Returns what is said of a log that is cut short.
#[must_use]
pub const fn log_cut(cut: LogCut) -> &'static str {
    match cut {
        LogCut::DiskFull => "the log is cut short: the disk was full",
        LogCut::Unwritable => "the log is cut short: it could not be written",
    }
}

/// Returns `1 task`, `2 tasks`.
#[must_use]
pub fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_says_what_a_person_wants_to_know() {
        assert_eq!(ending(&Outcome::Exited { code: 2 }), "exit code 2");
        assert_eq!(ending(&Outcome::Signalled { signal: 9 }), "ended by signal 9 (SIGKILL)");
        assert_eq!(ending(&Outcome::Signalled { signal: 40 }), "ended by signal 40");
        assert_eq!(ending(&Outcome::OutOfMemory { device: Some("box/gpu0".into()) }), "out of memory on box/gpu0");
    }

    #[test]
    fn an_ending_with_a_users_text_is_safe_for_a_terminal() {
        let hostile = Outcome::OutputMissing { path: "\x1b[2J".into(), leads_to: None, also: Box::default() };
        assert!(!ending(&hostile).contains('\x1b'));
    }

    #[test]
    fn counts_leave_out_what_is_zero() {
        assert_eq!(counts(&[(2, "failed"), (0, "skipped"), (1, "running")]), "2 failed, 1 running");
        assert_eq!(counts(&[(0, "failed")]), "");
    }

    #[test]
    fn running_time_is_shown_in_whole_seconds() {
        assert_eq!(seconds(Millis(999)), "0s");
        assert_eq!(seconds(Millis(12_900)), "12s");
        assert_eq!(seconds(Millis(80_500)), "1m20s");
    }
}
