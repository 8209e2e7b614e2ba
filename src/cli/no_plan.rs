//! How a plan that cannot be made is reported: every reason at once, with the numbers and what would help.

use std::fmt::Write;

use super::{Exit, Failure};
use crate::fleet::Unseen;
use crate::plan::impossible::Reason;
use crate::plan::{Impossible, Overspent, PlanError};
use crate::report::text;
use crate::spec::Pipeline;

/// Returns why there is no plan, in words, and the exit code for it.
pub(super) fn failure(pipeline: &Pipeline, error: &PlanError) -> Failure {
    let exit = match error {
        PlanError::Impossible { .. } | PlanError::Budgets => Exit::Impossible,
        PlanError::TooLong | PlanError::TooManyResources | PlanError::UnknownBudget { .. } => Exit::Rejected,
        PlanError::NoWatts { .. } | PlanError::OnlyMakespan { .. } | PlanError::Quantum { .. } => Exit::Usage,
        PlanError::Illegal(_) => Exit::Bug,
    };
    let mut words = error.to_string();
    if let PlanError::Impossible { stages, budgets } = error {
        stages.iter().for_each(|one| explain(pipeline, one, &mut words));
        budgets.iter().for_each(|one| explain_spent(pipeline, one, &mut words));
    }
    Failure { exit, report: miette::miette!("{words}") }
}

/// Whether `CUDA_VISIBLE_DEVICES` hides devices that might do.
fn hides_devices(reason: &Reason) -> bool {
    match reason {
        Reason::NoDevice { unseen, .. } => *unseen == Some(Unseen::Masked),
        Reason::DeviceMemory { aside, .. } | Reason::Gang { aside, .. } => aside.masked,
        Reason::Node { .. } | Reason::UntoldMemory { .. } | Reason::AllHeadroom { .. } | Reason::Together => false,
    }
}

/// Adds how much is spent of a budget that is exceeded, on what, and what would help.
fn explain_spent(pipeline: &Pipeline, overspent: &Overspent, words: &mut String) {
    let Overspent { budget, least, limit, dearest: (stage, its) } = overspent;
    let (budget, stage) = (text::visible(budget), text::visible(&pipeline.stages[*stage].name));
    let help = "raise it in `[budgets]` of the fleet file, or give the stage a mode that spends less";
    write!(
        words,
        "\n`{budget}`: at least {least} is spent, {its} of it by `{stage}`, and there is {limit}\n  help: {help}"
    )
    .expect("a String takes everything");
}

/// Adds why the tasks of a stage fit nowhere, mode by mode, and what would help.
fn explain(pipeline: &Pipeline, impossible: &Impossible, words: &mut String) {
    let stage = text::visible(&pipeline.stages[impossible.stage].name);
    let tasks = impossible.tasks.len();
    let several = if tasks > 1 { format!(" ({tasks} tasks)") } else { String::new() };
    for (index, reasons) in impossible.modes.iter().enumerate() {
        let mode = if impossible.modes.len() > 1 { format!(", mode {index}") } else { String::new() };
        for reason in reasons {
            let around = std::env::var_os("TRAINYARD_TASK").filter(|_| hides_devices(reason));
            let help = around.map_or_else(
                || reason.help(),
                |task| {
                    let task = text::visible(&task.to_string_lossy()).into_owned();
                    format!("task `{task}` of another run has started this and sees no GPUs but its own: ask for more in its stage")
                },
            );
            write!(words, "\n`{stage}`{several}{mode}: {reason}\n  help: {help}").expect("a String takes everything");
        }
    }
}
