//! Device memory: each array ends where a page begins that nobody may touch, and begins behind another. A kernel that reads or
//! writes outside of an array ends the process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

const PAGE: usize = 4_096;

/// Arrays start at multiples of this, so that the guard behind them is at most so far away. A device gives 256.
const ALIGNED: usize = 16;

/// What a byte is before it is written, in the first of so many: what is never touched takes no memory of the host.
const GARBAGE: u8 = 0xA5;
const WRITTEN: usize = 16 << 20;

struct Array {
    bytes: usize,
    base: usize,
    mapped: usize,
}

#[derive(Default)]
struct Arrays {
    by_address: BTreeMap<u64, Array>,
    bytes: usize,
}

static ARRAYS: Mutex<Arrays> = Mutex::new(Arrays { by_address: BTreeMap::new(), bytes: 0 });

fn arrays() -> MutexGuard<'static, Arrays> {
    ARRAYS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes an array; `None` where the card has less.
pub(crate) fn allocate(bytes: usize, card: usize) -> Option<u64> {
    let mut arrays = arrays();
    if bytes > card - arrays.bytes.min(card) || !crate::ledger::hold(arrays.bytes + bytes) {
        return None;
    }
    let inside = bytes.next_multiple_of(PAGE);
    let mapped = inside + 2 * PAGE;
    let (none, anonymous) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    // SAFETY: a new mapping, of which the inside is then made accessible.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), mapped, none, anonymous, -1, 0) };
    if base == libc::MAP_FAILED {
        return None;
    }
    let base = base as usize;
    // SAFETY: as above.
    if unsafe { libc::mprotect((base + PAGE) as *mut _, inside, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
        return None;
    }
    let address = base + PAGE + inside - bytes.next_multiple_of(ALIGNED);
    // SAFETY: inside the mapping.
    unsafe { std::ptr::write_bytes(address as *mut u8, GARBAGE, bytes.min(WRITTEN)) };
    arrays.by_address.insert(address as u64, Array { bytes, base, mapped });
    arrays.bytes += bytes;
    Some(address as u64)
}

/// Frees an array; returns whether there was one.
pub(crate) fn free(address: u64) -> bool {
    let mut arrays = arrays();
    let Some(array) = arrays.by_address.remove(&address) else { return false };
    arrays.bytes -= array.bytes;
    // Less than before is always there.
    crate::ledger::hold(arrays.bytes);
    // SAFETY: mapped above, and unmapped once.
    unsafe { libc::munmap(array.base as *mut _, array.mapped) == 0 }
}

/// Whether all of these bytes are inside one array.
pub(crate) fn holds(address: u64, bytes: usize) -> bool {
    let arrays = arrays();
    let before = arrays.by_address.range(..=address).next_back();
    before.is_some_and(|(start, array)| address - start + bytes as u64 <= array.bytes as u64)
}

/// Returns how many bytes are in arrays.
pub(crate) fn held() -> usize {
    arrays().bytes
}
