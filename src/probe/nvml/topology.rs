//! How cards are joined to each other and to the host: by NVLink, over PCIe, and which CPUs are near.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{P2pCapabilitiesIndex, P2pStatus, TopologyLevel};

use crate::probe::gpu::{Link, Path};

/// The most NVLinks that a device has had (`NVML_NVLINK_MAX_LINKS`).
const MOST_LINKS: u32 = 18;

/// Words of a set of CPUs: Linux knows 8,192 at most.
const CPU_WORDS: usize = 8_192 / BITS as usize;

/// Words of a set of NUMA nodes: Linux knows 1,024 at most.
const NODE_WORDS: usize = 1_024 / BITS as usize;

/// Bits of a word, a C `long`.
const BITS: u32 = std::ffi::c_ulong::BITS;

/// `NVML_AFFINITY_SCOPE_NODE`: near means at the same NUMA node.
const SAME_NODE: u32 = 0;

/// Returns what joins any two cards, in their order; each comes with its position among all cards.
pub(super) fn links(cards: &[(u32, Device<'_>)]) -> Vec<Link> {
    let pairs = cards.iter().enumerate().flat_map(|(at, a)| cards[at + 1..].iter().map(move |b| (a, b)));
    let link = |((at, a), (behind, b)): (&(u32, Device<'_>), &(u32, Device<'_>))| Link {
        between: (*at, *behind),
        nvlink: joined_by_nvlink(a, b),
        pcie: path(a, b),
    };
    pairs.map(link).collect()
}

fn path(a: &Device<'_>, b: &Device<'_>) -> Option<Path> {
    // The call takes a device, whose handle lives as long as the library: a copy of it is as good.
    // SAFETY: both handles come from the library that `b` borrows.
    let other = unsafe { Device::new(b.handle(), b.nvml()) };
    Some(match a.topology_common_ancestor(other).ok()? {
        TopologyLevel::Internal => Path::Board,
        TopologyLevel::Single => Path::Switch,
        TopologyLevel::Multiple => Path::Switches,
        TopologyLevel::HostBridge => Path::HostBridge,
        TopologyLevel::Node => Path::Numa,
        TopologyLevel::System => Path::System,
    })
}

/// Returns the NUMA node that a card is nearest to; `None` if the driver does not say, or names several.
pub(super) fn numa_node(card: &Device<'_>) -> Option<u32> {
    let nodes = card.memory_affinity(NODE_WORDS, SAME_NODE).ok()?;
    let mut nodes = members(&nodes);
    nodes.next().filter(|_| nodes.next().is_none())
}

/// Returns the CPUs that a card is nearest to, ascending; none if the driver does not say.
pub(super) fn near_cpus(card: &Device<'_>) -> Vec<u32> {
    card.cpu_affinity(CPU_WORDS).map(|cpus| members(&cpus).collect()).unwrap_or_default()
}

/// Yields the numbers in a set of bits.
fn members(words: &[std::ffi::c_ulong]) -> impl Iterator<Item = u32> + '_ {
    let numbers =
        (0..).zip(words).flat_map(|(word, bits)| (0..BITS).map(move |bit| (word * BITS + bit, bits >> bit & 1)));
    numbers.filter(|(_, is_in)| *is_in == 1).map(|(number, _)| number)
}

/// Whether NVLink joins two cards: the driver says so, or a link of one ends at the other.
fn joined_by_nvlink(a: &Device<'_>, b: &Device<'_>) -> bool {
    match a.p2p_status(b, P2pCapabilitiesIndex::NvLink) {
        Ok(status) => matches!(status, P2pStatus::Ok),
        Err(_) => {
            let Ok(other) = b.pci_info() else { return false };
            (0..MOST_LINKS).map(|link| a.link_wrapper_for(link)).any(|link| {
                link.is_active().unwrap_or(false)
                    && link.remote_pci_info().is_ok_and(|remote| same_place(&remote.bus_id, &other.bus_id))
            })
        }
    }
}

/// Whether two PCI bus ids are the same; the width of the domain and the case differ from call to call.
fn same_place(a: &str, b: &str) -> bool {
    let place = |id: &str| id.trim_start_matches('0').to_ascii_lowercase();
    place(a) == place(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bus_ids_of_either_width_are_the_same_place() {
        assert!(same_place("0000:1A:00.0", "00000000:1a:00.0"));
        assert!(!same_place("0000:1A:00.0", "00000000:1B:00.0"));
    }

    #[test]
    fn the_numbers_of_a_set_are_its_bits() {
        assert_eq!(members(&[0b101, 0, 1]).collect::<Vec<_>>(), [0, 2, 2 * BITS]);
        assert_eq!(members(&[0, 0]).count(), 0);
    }
}
