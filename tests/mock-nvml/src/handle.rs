//! A device handle: NVML hands out pointers that mean something only to itself; here they are small numbers.

use nvml_wrapper_sys::bindings::nvmlDevice_t;

/// What a handle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handle {
    Card(usize),
    Slice(usize, usize),
}

/// Slices start here within the numbers of their card: no card has so many.
const CARDS: usize = 0x1000;

impl Handle {
    pub(crate) const fn card(self) -> usize {
        match self {
            Self::Card(card) | Self::Slice(card, _) => card,
        }
    }

    pub(crate) fn to_raw(self) -> nvmlDevice_t {
        let number = match self {
            Self::Card(card) => card + 1,
            Self::Slice(card, slice) => CARDS * (slice + 1) + card + 1,
        };
        std::ptr::without_provenance_mut(number)
    }

    pub(crate) fn from_raw(raw: nvmlDevice_t) -> Option<Self> {
        let number = raw.addr().checked_sub(1)?;
        let (slice, card) = (number / CARDS, number % CARDS);
        Some(if slice == 0 { Self::Card(card) } else { Self::Slice(card, slice - 1) })
    }
}
