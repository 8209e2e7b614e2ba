//! The process group of an attempt: signalled only while its number is known to be the attempt's.
//!
//! A number is free once its process is off the process table and its group is empty: then anyone may be given it.

use rustix::process::Signal;

use super::process;
use crate::run::event::Process;

/// The group that an attempt's process leads, or led.
pub(super) struct OwnGroup {
    /// The attempt's process.
    leader: Process,
    /// Entries of the environment by which all processes of the attempt are known.
    marks: Vec<String>,
    /// Whoever was in it when it was last known to be the attempt's: as long as one of them lives, nobody is given its number.
    known: Vec<Process>,
}

impl OwnGroup {
    /// Makes the group of a process, which may have ended long ago.
    pub(super) fn of(leader: Process, marks: Vec<String>) -> Self {
        Self { leader, marks, known: Vec::new() }
    }

    /// Returns the number of its leader, and its own.
    pub(super) const fn pid(&self) -> u32 {
        self.leader.pid
    }

    /// Whether its leader runs.
    pub(super) fn is_led(&self) -> bool {
        process::is_alive(self.leader)
    }

    /// Takes in that its leader, a child of ours, was taken off the process table this moment: what is in it now was before.
    pub(super) fn has_lost_leader(&mut self) {
        if self.may_run() {
            self.known = process::group(self.leader.pid);
        }
    }

    /// Whether there is a group of this number, of whomever.
    pub(super) fn may_run(&self) -> bool {
        process::group_is_alive(self.leader.pid)
    }

    /// Whether anything of it runs. A group of this number with nobody in it who led it, was seen in it or carries the marks of
    /// the attempt is a stranger's.
    pub(super) fn runs(&mut self) -> bool {
        if !self.may_run() {
            return false;
        }
        let members = process::group(self.leader.pid);
        let is_known = |member: &Process| *member == self.leader || self.known.contains(member);
        let is_own = members.iter().any(|member| is_known(member) || process::is_marked(member.pid, &self.marks));
        if is_own {
            self.known = members;
        }
        is_own
    }

    /// Sends signals to all of it, one after the other.
    pub(super) fn signal(&mut self, signals: &[Signal]) {
        // Mostly it is led, and nobody else need be looked at.
        if self.is_led() || self.runs() {
            signals.iter().for_each(|signal| process::signal_group(self.leader.pid, *signal));
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "these tests are about processes")]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that leads a group and answers, with this entry in its environment.
    fn leader(mark: &str) -> Child {
        let (name, value) = mark.split_once('=').unwrap();
        let mut cat = Command::new("cat");
        cat.env(name, value).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn answers(child: &mut Child) -> bool {
        let _ = writeln!(child.stdin.as_mut().unwrap(), "there");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line == "there\n"
    }

    #[test]
    fn a_group_is_signalled_only_while_somebody_in_it_is_known() {
        let mark = format!("TRAINYARD_TEST_GROUP={}", std::process::id());
        for (worn, known, is_own) in [(mark.as_str(), false, true), ("OTHER=1", true, true), ("OTHER=1", false, false)]
        {
            let mut child = leader(worn);
            assert!(answers(&mut child));
            let there = process::identify(child.id()).unwrap();
            // What had the number once is gone.
            let gone = Process { started: there.started + 1, ..there };
            let mut group = OwnGroup::of(gone, vec![mark.clone()]);
            if known {
                group.has_lost_leader();
            }
            assert_eq!((group.may_run(), group.is_led(), group.runs()), (true, false, is_own));
            group.signal(&[Signal::TERM]);
            assert_eq!(answers(&mut child), !is_own);
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }
}
