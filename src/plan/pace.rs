//! How fast schedules are made: what benches measure. Does not know what time it is.

use super::amounts::in_words;
use super::decode::{Decoder, Direction, FREE, Wanted};
use super::draft::Draft;
use super::fit::{Fit, FitRule};
use super::instance::Instance;
use super::machine;
use super::order::OrderRule;
use crate::timing::Timing;
use crate::units::Millis;

/// Makes the schedule of `critical-path+earliest-finish` so many times and returns its makespan; `None` for more resources
/// than the planner can hold.
#[must_use]
pub fn schedules(instance: &Instance<'_>, timing: &Timing, times: u64) -> Option<Millis> {
    in_words!(machine::words(instance), W => decoded::<W>(instance, timing, times))
}

fn decoded<const W: usize>(instance: &Instance<'_>, timing: &Timing, times: u64) -> Millis {
    let order = OrderRule::CriticalPath.order(instance, timing);
    let choice = vec![FREE; order.len()];
    let mut decoder = Decoder::<W>::new(instance);
    let mut fit = Fit::new(FitRule::EarliestFinish, 0, instance);
    let mut draft = Draft::default();
    let direction = Direction::Forward;
    if let Some(serial) = &mut decoder.serial {
        // As searches do: two at once.
        let mut both = [Draft::default(), Draft::default()];
        (0..times.div_ceil(2)).for_each(|_| {
            serial.decode_both([std::hint::black_box(&order), std::hint::black_box(&order)], direction, &mut both);
        });
        return Millis(both[0].makespan);
    }
    for _ in 0..times {
        let order = std::hint::black_box(&order);
        let wanted = Wanted { order, choice: &choice, paid: false, direction, kept: None, near: None, by: None };
        if decoder.decode(&wanted, &mut fit, &mut draft).is_err() {
            break;
        }
    }
    Millis(draft.makespan)
}
