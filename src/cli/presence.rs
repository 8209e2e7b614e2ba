//! What this machine tells of the processes of other runs.

use std::path::{Path, PathBuf};

use super::state;
use crate::engine::sentinel::{self, How};
use crate::engine::{attendance, process};
use crate::run::event::Process;
use crate::run::files::since::AsLeft;
use crate::run::launch::{AROUND, run_mark};
use crate::run::neighbours::Presence;
use crate::run::store::Orchestrator;
use crate::run::within::Within;

/// Looks into `/proc`, and at the locks of runs in other containers.
pub(super) struct Processes;

impl Presence for Processes {
    fn carries_out(&self, by: &Orchestrator, dir: &Path) -> bool {
        state::is_carried_out(by, dir)
    }

    fn lives(&self, process: Process) -> bool {
        process::is_alive(process)
    }

    fn of_tasks(&self, run: &str) -> Vec<(String, Process)> {
        let mark = run_mark(run);
        let marked = process::find_marked(std::slice::from_ref(&mark)).into_iter();
        marked
            .filter_map(|pid| Some((process::marked_as(pid, &mark, "TRAINYARD_TASK")?, process::identify(pid)?)))
            .collect()
    }

    fn ended_well(&self, record: &Path) -> Option<AsLeft> {
        let ended = sentinel::own_end(record)?;
        ended.left().filter(|_| ended.how == How::Exited(0))
    }

    fn within(&self) -> Within {
        let set = |name| std::env::var_os(name)?.into_string().ok();
        let around = || Within::read(&set(AROUND).unwrap_or_default());
        let attempt = || set("TRAINYARD_ATTEMPT")?.parse().ok();
        let nearest = || Some(around().and(&set("TRAINYARD_RUN")?, &set("TRAINYARD_TASK")?, attempt()?));
        nearest().unwrap_or_default()
    }

    fn attends_any(&self, state: &Path) -> bool {
        let runs = std::fs::read_dir(state.join("runs")).into_iter().flatten().flatten();
        runs.into_iter().any(|run| attendance::is_attended(&run.path()) == Some(true))
    }

    fn commons(&self) -> Option<PathBuf> {
        let named = std::env::var_os("TRAINYARD_BOX").filter(|named| !named.is_empty());
        let usual = || PathBuf::from(format!("/dev/shm/trainyard-{}", rustix::process::geteuid().as_raw()));
        Some(named.map_or_else(usual, |named| super::session::absolute(Path::new(&named))))
    }
}
