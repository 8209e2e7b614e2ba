//! `suspend = true`: a stage whose tasks may be stopped and continued, where that makes sense.
//!
//! Turns are taken at the share of one device. Several devices work in step: a collective operation runs into its
//! time limit while one of its processes stands still. A whole device is shared with nobody, and without a share nobody ever
//! has to stand back.

use super::decode::Decoder;
use super::{Gpus, Mode, Problem, Span, Stage};

/// Lets the tasks of a stage be suspended in those modes in which they hold a share of a device, and reports where there
/// is none. `second` is where a second attempt is asked for.
pub(super) fn settle(decoder: &mut Decoder<'_>, stage: &mut Stage, place: Span, second: Option<Span>) {
    if let Some(second) = second {
        let problem = Problem::new(place, "`suspend` beside a second attempt: while one is stopped, the other wins");
        decoder
            .report(problem.help("leave one of the two out").related(second, "the second attempt is asked for here"));
        return;
    }
    let shares = |mode: &&mut Mode| matches!(mode.auto.unwrap_or(mode.resources.gpus), Gpus::Share(_));
    let mut any = false;
    for mode in stage.modes.iter_mut().filter(shares) {
        (mode.resources.suspend, any) = (true, true);
    }
    // What could not be read may have said a share.
    if any || stage.modes.is_empty() || decoder.is_torn() {
        return;
    }
    let gpus = stage.modes.iter().map(|mode| mode.auto.unwrap_or(mode.resources.gpus)).max_by_key(|gpus| match gpus {
        Gpus::None => 0,
        Gpus::Share(_) | Gpus::Shared => 1,
        Gpus::Whole(count) => 1 + *count,
    });
    let (message, help) = match gpus.unwrap_or_default() {
        Gpus::None | Gpus::Share(_) => (
            "`suspend` has no meaning without a GPU: its tasks take no turns",
            "leave it out, or ask for a share of a device: `resources = { gpus = 0.5, gpu_memory = \"8GiB\" }`",
        ),
        Gpus::Shared => (
            "`suspend` has no meaning without a share: its tasks run beside each other and take no turns",
            "say how much of the device's compute a task takes: `resources = { gpus = 0.5, … }`",
        ),
        Gpus::Whole(1) => (
            "`suspend` has no meaning on a whole device, which nobody shares",
            "ask for a share of it, and for its memory: `resources = { gpus = 0.9, gpu_memory = \"8GiB\" }`",
        ),
        Gpus::Whole(_) => (
            "tasks on several devices cannot be suspended: collective operations time out while one stands still",
            "leave it out, or ask for a share of one device",
        ),
    };
    decoder.report(Problem::new(place, message).help(help));
}
