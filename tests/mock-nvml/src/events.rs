//! Sets of events: who listens to which card, and what of it was heard.

use std::collections::HashMap;
use std::sync::Mutex;

use nvml_wrapper_sys::bindings::nvmlEventSet_t;

/// The kind of an event that is an Xid error, as `nvml.h` numbers it.
pub(crate) const XID: u64 = 8;

/// What cards report: memory errors that cannot be corrected, and Xid errors.
pub(crate) const TYPES: u64 = 2 | XID;

/// For each set and card in it: how many of the card's errors were heard.
static HEARD: Mutex<Option<HashMap<(usize, usize), usize>>> = Mutex::new(None);
static CREATED: Mutex<usize> = Mutex::new(0);

fn with<T>(work: impl FnOnce(&mut HashMap<(usize, usize), usize>) -> T) -> T {
    let mut heard = HEARD.lock().expect("nobody panics while holding it");
    work(heard.get_or_insert_default())
}

pub(crate) fn create() -> nvmlEventSet_t {
    let mut created = CREATED.lock().expect("nobody panics while holding it");
    *created += 1;
    std::ptr::without_provenance_mut(*created)
}

pub(crate) fn free(set: nvmlEventSet_t) {
    with(|heard| heard.retain(|(of, _), _| *of != set.addr()));
}

/// Listens to a card, of which so many errors are past.
pub(crate) fn register(set: nvmlEventSet_t, card: usize, past: usize) {
    with(|heard| heard.insert((set.addr(), card), past));
}

/// Returns the next error that a set has not heard of, and the card.
pub(crate) fn next<'a>(set: nvmlEventSet_t, xids: impl Fn(usize) -> &'a [u64]) -> Option<(usize, u64)> {
    with(|heard| {
        heard.iter_mut().filter(|((of, _), _)| *of == set.addr()).find_map(|((_, card), past)| {
            let xid = *xids(*card).get(*past)?;
            *past += 1;
            Some((*card, xid))
        })
    })
}
