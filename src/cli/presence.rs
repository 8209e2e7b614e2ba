//! What this machine tells of the processes of other runs.

use std::path::Path;

use super::state;
use crate::engine::process;
use crate::engine::sentinel::{self, How};
use crate::run::cache::since::AsLeft;
use crate::run::event::Process;
use crate::run::launch::run_mark;
use crate::run::neighbours::Presence;
use crate::run::store::Orchestrator;

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

    fn within(&self) -> Option<(String, String)> {
        let set = |name| std::env::var_os(name)?.into_string().ok();
        Some((set("TRAINYARD_RUN")?, set("TRAINYARD_TASK")?))
    }
}
