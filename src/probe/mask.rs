//! What an inherited `CUDA_VISIBLE_DEVICES` leaves visible, by CUDA's own rules.
//!
//! CUDA reads the list up to the first entry that means nothing and hides everything from there on. Pure.

/// A device as a mask can name it.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// `GPU-…` or `MIG-…`.
    pub uuid: &'a str,
    /// That of its card, if it is a slice of one.
    pub card: Option<&'a str>,
    /// The card's position in PCI order.
    pub pci_index: u32,
}

/// What a mask leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visible {
    /// Indices of the visible devices, ascending.
    pub devices: Vec<usize>,
    /// Why the rest of the list does not count.
    pub problem: Option<Problem>,
    /// Whether an index was used, whose meaning depends on `CUDA_DEVICE_ORDER`.
    pub by_index: bool,
}

/// What is wrong with an entry of a mask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Neither an index nor a UUID.
    #[error("`{entry}` is neither an index nor a UUID, so CUDA ignores it and all that follows")]
    Nonsense {
        /// The entry.
        entry: String,
    },
    /// An index that no card has.
    #[error("there is no GPU {entry} among the {cards} here, so CUDA ignores it and all that follows")]
    NoIndex {
        /// The entry.
        entry: String,
        /// How many cards there are.
        cards: usize,
    },
    /// A UUID that no device has.
    #[error("no GPU here is called `{entry}`, so CUDA ignores it and all that follows")]
    NoUuid {
        /// The entry.
        entry: String,
    },
    /// The UUID of a card that is in MIG mode.
    #[error(
        "`{entry}` is in MIG mode, of which programs see only slices, so CUDA ignores it and all that follows: name one \
         of them, like `{slice}`"
    )]
    Sliced {
        /// The entry.
        entry: String,
        /// The UUID of its first slice.
        slice: String,
    },
    /// A prefix that several devices share.
    #[error("`{entry}` is the beginning of several UUIDs, so CUDA ignores it and all that follows")]
    Ambiguous {
        /// The entry.
        entry: String,
    },
    /// A device named twice: CUDA then shows none at all.
    #[error("`{entry}` names a GPU a second time, for which CUDA hides all of them")]
    Twice {
        /// The entry.
        entry: String,
    },
}

/// Returns what a mask leaves of the devices.
///
/// An index stands for the card in PCI order, or for its first slice if it is in MIG mode. A UUID may be shortened as
/// long as it is unambiguous. An empty mask and `-1` leave nothing, without complaint.
#[must_use]
pub fn visible(mask: &str, devices: &[Named]) -> Visible {
    let mut found = Visible::default();
    if mask.trim().is_empty() {
        return found;
    }
    for entry in mask.split(',').map(str::trim) {
        if entry.starts_with('-') && entry[1..].bytes().all(|byte| byte.is_ascii_digit()) && entry.len() > 1 {
            break;
        }
        found.by_index |= entry.parse::<u32>().is_ok();
        match named(entry, devices) {
            Ok(device) if found.devices.contains(&device) => {
                found.devices.clear();
                found.problem = Some(Problem::Twice { entry: entry.to_owned() });
                break;
            }
            Ok(device) => found.devices.push(device),
            Err(problem) => {
                found.problem = Some(problem);
                break;
            }
        }
    }
    found.devices.sort_unstable();
    found
}

/// Returns the device that one entry stands for.
fn named(entry: &str, devices: &[Named]) -> Result<usize, Problem> {
    if let Ok(index) = entry.parse::<u32>() {
        let cards = devices.iter().map(|device| device.pci_index + 1).max().unwrap_or(0) as usize;
        let card = devices.iter().position(|device| device.pci_index == index);
        return card.ok_or_else(|| Problem::NoIndex { entry: entry.to_owned(), cards });
    }
    if !entry.starts_with("GPU-") && !entry.starts_with("MIG-") {
        return Err(Problem::Nonsense { entry: entry.to_owned() });
    }
    let mut matching = devices.iter().enumerate().filter(|(_, device)| device.uuid.starts_with(entry));
    match (matching.next(), matching.next()) {
        (None, _) => {
            let slice = devices.iter().find(|device| device.card.is_some_and(|card| card.starts_with(entry)));
            let (entry, slice) = (entry.to_owned(), slice.map(|slice| slice.uuid.to_owned()));
            Err(slice.map_or(Problem::NoUuid { entry: entry.clone() }, |slice| Problem::Sliced { entry, slice }))
        }
        (Some((device, _)), None) => Ok(device),
        (Some(_), Some(_)) => {
            let exact = devices.iter().position(|device| device.uuid == entry);
            exact.ok_or_else(|| Problem::Ambiguous { entry: entry.to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICES: [Named; 4] = [
        Named { uuid: "GPU-aa11", card: None, pci_index: 0 },
        Named { uuid: "GPU-aa22", card: None, pci_index: 1 },
        Named { uuid: "MIG-bb11", card: Some("GPU-cc33"), pci_index: 2 },
        Named { uuid: "MIG-bb22", card: Some("GPU-cc33"), pci_index: 2 },
    ];

    fn left(mask: &str) -> Vec<usize> {
        visible(mask, &DEVICES).devices
    }

    #[test]
    fn indices_uuids_and_prefixes_name_devices() {
        assert_eq!(left("1,0"), [0, 1]);
        assert_eq!(left("GPU-aa22"), [1]);
        assert_eq!(left("GPU-aa1, MIG-bb22"), [0, 3]);
    }

    #[test]
    fn an_index_of_a_card_in_mig_mode_is_its_first_slice() {
        assert_eq!(left("2"), [2]);
    }

    #[test]
    fn a_card_in_mig_mode_is_named_by_its_slices() {
        let found = visible("GPU-aa11,GPU-cc,GPU-aa22", &DEVICES);
        let (entry, slice) = ("GPU-cc".to_owned(), "MIG-bb11".to_owned());
        assert_eq!((found.devices, found.problem), (vec![0], Some(Problem::Sliced { entry, slice })));
    }

    #[test]
    fn an_empty_mask_hides_all_without_complaint() {
        for mask in ["", " ", "-1", "-1,0"] {
            assert_eq!(visible(mask, &DEVICES), Visible::default(), "{mask:?}");
        }
    }

    #[test]
    fn nothing_counts_behind_an_entry_that_means_nothing() {
        let found = visible("0,9,1", &DEVICES);
        assert_eq!(found.devices, [0]);
        assert_eq!(found.problem, Some(Problem::NoIndex { entry: "9".into(), cards: 3 }));
        assert!(matches!(visible("all", &DEVICES).problem, Some(Problem::Nonsense { .. })));
        assert!(matches!(visible("GPU-ff", &DEVICES).problem, Some(Problem::NoUuid { .. })));
        assert!(matches!(visible("0,,1", &DEVICES).problem, Some(Problem::Nonsense { .. })));
    }

    #[test]
    fn a_prefix_of_several_uuids_is_ambiguous() {
        assert_eq!(visible("GPU-aa", &DEVICES).problem, Some(Problem::Ambiguous { entry: "GPU-aa".into() }));
    }

    #[test]
    fn a_device_named_twice_hides_all() {
        let found = visible("0,GPU-aa1", &DEVICES);
        assert!(found.devices.is_empty());
        assert!(matches!(found.problem, Some(Problem::Twice { .. })));
    }
}
