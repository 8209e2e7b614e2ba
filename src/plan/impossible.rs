//! Why a task can never be placed on a fleet, with the numbers and what would help.
//!
//! Looks at an idle fleet: what is running now, ours or others', never makes a task impossible.

use std::fmt;

use super::budget::Overspent;
use super::build::{CPUS, HOST_MEMORY, asked, capacity, gang};
use crate::fleet::{Device, Fleet, Node, NotUsed, Unseen, Unused};
use crate::spec::{Mode, Resources, Stage};
use crate::units::{Bytes, Cpus};

/// Tasks of one stage that fit nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impossible {
    /// Index of the stage in the pipeline.
    pub stage: usize,
    /// Names of its tasks.
    pub tasks: Vec<String>,
    /// `[n_modes]`: why each mode fits nowhere.
    pub modes: Vec<Vec<Reason>>,
}

/// Says in short what is impossible.
pub(super) fn in_short(stages: &[Impossible], budgets: &[Overspent]) -> String {
    let nowhere = format!("{} of the pipeline's stages can never run on this fleet", stages.len());
    let names: Vec<_> = budgets.iter().map(|exceeded| format!("`{}`", exceeded.budget)).collect();
    let dear = format!("the pipeline spends more than the fleet has of {}", names.join(", "));
    match (stages.is_empty(), budgets.is_empty()) {
        (false, false) => format!("{nowhere}, and {dear}"),
        (true, false) => dear,
        (_, true) => nowhere,
    }
}

/// Devices that are there and not used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// The names of those that are set aside.
    pub drained: Vec<String>,
    /// Whether `CUDA_VISIBLE_DEVICES` hides some.
    pub masked: bool,
}

/// One reason why a mode fits nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It asks for more of a node's resource than any node has.
    Node {
        /// `CPUs`, `host memory` or a custom resource.
        resource: String,
        /// What is asked for, in the resource's unit.
        asked: u64,
        /// The most that a node has.
        most: u64,
        /// That node's name.
        node: String,
    },
    /// It asks for a device and the fleet has none, or none that may be used.
    NoDevice {
        /// Those that are there and cannot be used.
        unused: Vec<Unused>,
        /// Why none is known, where that is so.
        unseen: Option<Unseen>,
    },
    /// It asks for more memory than any device has.
    DeviceMemory {
        /// What is asked for, on each device.
        asked: Bytes,
        /// The most that tasks can have of a device.
        most: Bytes,
        /// That device's id.
        device: String,
        /// Its model.
        model: String,
        /// What of its memory its driver keeps.
        reserved: Bytes,
        /// What of the rest no task can have.
        headroom: Bytes,
        /// Devices that may have enough and are not used.
        aside: Aside,
    },
    /// It asks for memory of a device, and no device tells how much it has.
    UntoldMemory {
        /// All of them.
        devices: Vec<String>,
    },
    /// It asks for memory of a device, and all of it is kept as headroom.
    AllHeadroom {
        /// The largest device.
        device: String,
        /// Its model.
        model: String,
        /// All of its memory.
        memory: Bytes,
        /// Whether it is a device of a fleet file.
        is_of_file: bool,
    },
    /// It asks for more devices than any node has with enough memory.
    Gang {
        /// How many are asked for.
        asked: u32,
        /// The most on one node.
        most: u32,
        /// That node's name.
        node: String,
        /// What is asked for on each device.
        memory: Bytes,
        /// Whether that node has MIG slices, of which none counts.
        slices: bool,
        /// Devices that may have enough memory and are not used.
        aside: Aside,
    },
    /// Each part fits on some node, but no node has all of it.
    Together,
}

/// Returns, mode by mode, why a stage that fits nowhere does not.
pub(super) fn reasons(stage: &Stage, fleet: &Fleet) -> Vec<Vec<Reason>> {
    stage.modes.iter().map(|mode| reasons_of(mode, fleet)).collect()
}

fn reasons_of(mode: &Mode, fleet: &Fleet) -> Vec<Reason> {
    let held = &mode.resources;
    let names = [CPUS, HOST_MEMORY].into_iter().chain(held.custom.keys().map(String::as_str));
    let mut reasons: Vec<_> = names.filter_map(|name| node_reason(held, name, fleet)).collect();
    reasons.extend(device_reason(mode, fleet));
    if reasons.is_empty() {
        reasons.push(Reason::Together);
    }
    reasons
}

fn node_reason(held: &Resources, resource: &str, fleet: &Fleet) -> Option<Reason> {
    let asked = asked(held, resource);
    // The first of equal nodes is named.
    let largest = fleet.nodes.iter().rev().max_by_key(|node| capacity(node, resource));
    let (most, node) = largest.map_or((0, String::new()), |node: &Node| (capacity(node, resource), node.name.clone()));
    (asked > most).then(|| Reason::Node { resource: resource.to_owned(), asked, most, node })
}

fn device_reason(mode: &Mode, fleet: &Fleet) -> Option<Reason> {
    let held = &mode.resources;
    let gang = gang(mode);
    if gang == 0 {
        return None;
    }
    let size = |device: &&Device| (device.whole_memory(), device.memory);
    let Some(largest) = fleet.devices.iter().rev().max_by_key(size) else {
        return Some(Reason::NoDevice { unused: fleet.unused.clone(), unseen: fleet.unseen });
    };
    let may_have_it = |unused: &&Unused| unused.memory.is_none_or(|memory| held.gpu_memory <= memory);
    let aside = || {
        let aside = fleet.unused.iter().filter(|unused| unused.why == NotUsed::Aside).filter(may_have_it);
        let drained = aside.map(|unused| unused.name.clone()).collect();
        Aside { drained, masked: fleet.unseen == Some(Unseen::Masked) }
    };
    if held.gpu_memory > largest.whole_memory() {
        // The largest gives nothing: so do all.
        let (device, model) = (largest.id.clone(), largest.model.clone());
        if largest.whole_memory() == Bytes::ZERO {
            let is_of_file = largest.uuid.is_none();
            return Some(match largest.memory {
                memory if memory > Bytes::ZERO => Reason::AllHeadroom { device, model, memory, is_of_file },
                _ => Reason::UntoldMemory { devices: fleet.devices.iter().map(|device| device.id.clone()).collect() },
            });
        }
        return Some(Reason::DeviceMemory {
            asked: held.gpu_memory,
            most: largest.whole_memory(),
            device,
            model,
            reserved: largest.reserved,
            headroom: largest.headroom,
            aside: aside(),
        });
    }
    let fits = |device: &&Device| held.gpu_memory <= device.whole_memory() && device.can_join(gang);
    let mut on_node = vec![0_u32; fleet.nodes.len()];
    fleet.devices.iter().filter(fits).for_each(|device| on_node[device.node.index()] += 1);
    let (node, most) = on_node.iter().enumerate().rev().max_by_key(|(_, count)| **count)?;
    let slices = fleet.devices.iter().any(|device| device.node.index() == node && !device.can_join(gang));
    let node = fleet.nodes[node].name.clone();
    let (most, memory) = (*most, held.gpu_memory);
    (gang > most).then(|| Reason::Gang { asked: gang, most, node, memory, slices, aside: aside() })
}

/// Says how devices that are not used are taken back.
fn take_back(Aside { drained, masked }: &Aside) -> String {
    let drained = drained.first().map_or_else(String::new, |first| {
        let are = if drained.len() == 1 { "is" } else { "are" };
        format!("; {} {are} set aside: `trainyard devices --undrain {first}` takes it back", drained.join(", "))
    });
    let masked = if *masked { "; CUDA_VISIBLE_DEVICES hides others of this machine" } else { "" };
    drained + masked
}

/// Yields the names of those that cannot be used for a reason.
fn named(unused: &[Unused], why: NotUsed) -> impl Iterator<Item = &str> {
    unused.iter().filter(move |unused| unused.why == why).map(|unused| unused.name.as_str())
}

/// Writes what is asked for and the most there is, which is less, so that both differ and the most is no more than there
/// is: as short as usual where that will do, else in whole MiB, else in bytes.
fn finer(asked: Bytes, most: Bytes) -> (String, String) {
    let short = (asked.to_string(), most.to_string());
    let understated = short.1.parse::<Bytes>().is_ok_and(|shown| shown <= most);
    match most.0 / Bytes::MIB.0 {
        _ if short.0 != short.1 && understated => short,
        0 => (format!("{} B", asked.0), format!("{} B", most.0)),
        mib => {
            let asked = if short.0 == short.1 { format!("{} MiB", asked.0.div_ceil(Bytes::MIB.0)) } else { short.0 };
            (asked, format!("{mib} MiB"))
        }
    }
}

/// Writes what a node's resource is called where there is so much of it.
fn unit(resource: &str, amount: u64) -> &str {
    if resource == CPUS && Cpus(amount) == Cpus::ONE { "CPU" } else { resource }
}

/// Writes an amount of a node's resource in its own unit.
fn amount(resource: &str, amount: u64) -> String {
    match resource {
        CPUS => Cpus(amount).to_string(),
        HOST_MEMORY => Bytes(amount).to_string(),
        _ => amount.to_string(),
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node { resource, asked, most, node } => {
                let unit = unit(resource, *asked);
                let (asked, most) = match resource.as_str() {
                    HOST_MEMORY => finer(Bytes(*asked), Bytes(*most)),
                    _ => (amount(resource, *asked), amount(resource, *most)),
                };
                write!(f, "it asks for {asked} {unit}, and the most on one node is {most} (`{node}`)")
            }
            Self::NoDevice { unseen: Some(Unseen::Masked), .. } => {
                f.write_str("it asks for a GPU, and CUDA_VISIBLE_DEVICES hides every one")
            }
            Self::NoDevice { unseen: Some(Unseen::NoAnswer), .. } => {
                f.write_str("it asks for a GPU, and the driver does not answer")
            }
            Self::NoDevice { unseen: Some(Unseen::TooOld), .. } => {
                f.write_str("it asks for a GPU, and the driver is too old to say which there are")
            }
            Self::NoDevice { unused, .. } if unused.is_empty() => {
                f.write_str("it asks for a GPU, and the fleet has none")
            }
            Self::NoDevice { unused, .. } => {
                let all = |why, word| {
                    let names: Vec<_> = named(unused, why).collect();
                    (!names.is_empty()).then(|| format!("{} {word}", names.join(", ")))
                };
                let words = [
                    (NotUsed::Aside, "set aside"),
                    (NotUsed::Lost, "lost"),
                    (NotUsed::Prohibited, "closed to programs (compute mode prohibited)"),
                    (NotUsed::NoSlices, "in MIG mode without slices"),
                    (NotUsed::Unreadable, "unreadable"),
                ];
                let all: Vec<_> = words.into_iter().filter_map(|(why, word)| all(why, word)).collect();
                write!(f, "it asks for a GPU, and none may be used: {}", all.join(", "))
            }
            Self::DeviceMemory { asked, most, device, model, reserved, headroom, .. } => {
                let (asked, most) = finer(*asked, *most);
                write!(
                    f,
                    "it asks for {asked} of GPU memory, and the most on one device is {most} (`{device}`, {model}"
                )?;
                if *reserved > Bytes::ZERO {
                    write!(f, ", {reserved} kept by its driver")?;
                }
                if *headroom > Bytes::ZERO {
                    write!(f, ", {headroom} kept as headroom")?;
                }
                f.write_str(")")
            }
            Self::UntoldMemory { devices } => match devices.as_slice() {
                [device] => write!(f, "it asks for GPU memory, and `{device}` does not tell how much it has"),
                several => {
                    let several = several.join("`, `");
                    write!(f, "it asks for GPU memory, and none of `{several}` tells how much it has")
                }
            },
            Self::AllHeadroom { device, model, memory, .. } => {
                write!(f, "it asks for GPU memory, and all {memory} of `{device}` ({model}) are kept as headroom")
            }
            Self::Gang { asked, most, node, memory, slices, .. } => {
                write!(f, "it asks for {asked} GPUs")?;
                if *memory > Bytes::ZERO {
                    write!(f, " with {memory} each")?;
                }
                write!(f, ", and the most on one node is {most} (`{node}`)")?;
                if *slices {
                    f.write_str("; MIG slices do not count, since a process can use only one")?;
                }
                Ok(())
            }
            Self::Together => f.write_str("each part of its request fits on some node, but no node has all of it"),
        }
    }
}

impl Reason {
    /// Returns what would help, one sentence.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Node { resource, asked, most, .. } if *most > 0 => {
                let unit = unit(resource, *most);
                let most = match resource.as_str() {
                    HOST_MEMORY => finer(Bytes(*asked), Bytes(*most)).1,
                    _ => amount(resource, *most),
                };
                format!("ask for at most {most} {unit}, or add a node that has more")
            }
            Self::Node { resource, .. } => {
                format!("plan with a fleet file (`--fleet FILE`) whose node declares {resource}; the machine that runs tasks has none")
            }
            Self::NoDevice { unseen: Some(Unseen::Masked), .. } => {
                "unset CUDA_VISIBLE_DEVICES, or name a GPU of `trainyard devices` in it".to_owned()
            }
            Self::NoDevice { unseen: Some(Unseen::NoAnswer), .. } => {
                "see what the driver says to `nvidia-smi`; a reboot of the host starts it anew".to_owned()
            }
            Self::NoDevice { unseen: Some(Unseen::TooOld), .. } => "update the NVIDIA driver".to_owned(),
            Self::NoDevice { unused, .. } => match (named(unused, NotUsed::Aside).next(), unused.is_empty()) {
                (Some(first), _) => {
                    format!("`trainyard devices` says why; `trainyard devices --undrain {first}` takes it back")
                }
                (None, false) if named(unused, NotUsed::Prohibited).next().is_some() => {
                    "`nvidia-smi --compute-mode=DEFAULT` opens it to programs again".to_owned()
                }
                (None, false) if named(unused, NotUsed::NoSlices).next().is_some() => {
                    "`nvidia-smi mig -cgi PROFILE -C` makes slices of it, `nvidia-smi -mig 0` ends MIG mode".to_owned()
                }
                (None, false) if named(unused, NotUsed::Unreadable).next().is_some() => {
                    "`trainyard devices` says what it answers; a newer driver may say more".to_owned()
                }
                (None, false) => {
                    "reset what is lost (`nvidia-smi --gpu-reset`), or reboot the host; `trainyard devices` says whether it answers"
                        .to_owned()
                }
                (None, true) => "write gpus = \"prefer\" to let it run on the CPU where there is no GPU".to_owned(),
            },
            Self::DeviceMemory { asked, most, aside, .. } => {
                let aside = take_back(aside);
                format!("ask for at most {}, or use a larger device{aside}", finer(*asked, *most).1)
            }
            Self::UntoldMemory { .. } => {
                "leave `gpu_memory` out and ask for whole GPUs, like gpus = 1; one that `trainyard devices` shows as unreadable is \
                 used only once it can be read"
                    .to_owned()
            }
            Self::AllHeadroom { is_of_file: true, .. } => {
                "keep less headroom than a GPU has: `headroom` of its entry in the fleet file, or what goes before it, `--headroom` and TRAINYARD_HEADROOM".to_owned()
            }
            Self::AllHeadroom { is_of_file: false, .. } => {
                "keep less headroom than a GPU has, with `--headroom` or TRAINYARD_HEADROOM".to_owned()
            }
            Self::Gang { slices: true, most: 0 | 1, aside, .. } => {
                format!("ask for 1 GPU, which may be a slice, or turn MIG mode off{}", take_back(aside))
            }
            Self::Gang { slices: true, most, aside, .. } => {
                format!("ask for at most {most} GPUs, or turn MIG mode off{}", take_back(aside))
            }
            Self::Gang { most, aside, .. } => {
                let (plural, aside) = (if *most == 1 { "" } else { "s" }, take_back(aside));
                format!("ask for at most {most} GPU{plural}, or use a node that has more{aside}")
            }
            Self::Together => "split the stage, or use a node that has all of it".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_advised_is_never_more_than_there_is() {
        let mib = |mib: u64| Bytes(mib << 20);
        let words = |asked, most| {
            let (asked, most) = finer(asked, most);
            format!("{asked}, {most}")
        };
        assert_eq!(words(mib(100 << 10), mib(79 << 10)), "100.0 GiB, 79.0 GiB");
        assert_eq!(words(mib(23 << 10), mib((23 << 10) - 20)), "23552 MiB, 23532 MiB");
        assert_eq!(words(mib(30 << 10), mib((23 << 10) - 20)), "30.0 GiB, 23532 MiB");
        assert_eq!(words(Bytes((23 << 30) + 1), Bytes(23 << 30)), "23553 MiB, 23552 MiB");
        for most in [Bytes(1_000), mib(1_023), Bytes(24_700_000_123), Bytes(85_519_826_944)] {
            let advised: Bytes = finer(Bytes(most.0 + 1), most).1.parse().unwrap();
            assert!(advised <= most, "{advised:?} of {most:?}");
        }
    }

    #[test]
    fn one_cpu_is_one() {
        let reason = |asked, most| Reason::Node { resource: CPUS.to_owned(), asked, most, node: "box".to_owned() };
        assert!(reason(1_000, 500).to_string().starts_with("it asks for 1 CPU, and the most on one node is 0.5"));
        assert!(reason(2_000, 1_000).help().starts_with("ask for at most 1 CPU, or"));
        assert!(reason(4_000, 2_500).help().starts_with("ask for at most 2.5 CPUs, or"));
    }

    #[test]
    fn where_there_are_only_slices_one_of_them_can_be_had() {
        let reason = |most, slices| {
            let (node, aside) = ("box".to_owned(), Aside::default());
            let reason = Reason::Gang { asked: 4, most, node, memory: Bytes::ZERO, slices, aside };
            format!("{reason}; {}", reason.help())
        };
        for most in [0, 1] {
            let said = reason(most, true);
            assert!(said.ends_with("; ask for 1 GPU, which may be a slice, or turn MIG mode off"), "{said}");
        }
        assert!(reason(2, true).ends_with("ask for at most 2 GPUs, or turn MIG mode off"));
        assert!(reason(2, false).ends_with("is 2 (`box`); ask for at most 2 GPUs, or use a node that has more"));
    }

    #[test]
    fn memory_that_is_not_told_and_memory_that_is_all_headroom_are_not_zero() {
        let reason_among = |memory, headroom, uuid: Option<&str>, others: &[u64]| {
            let (id, model, uuid) = ("box/gpu0".into(), "GB10".into(), uuid.map(str::to_owned));
            let device = Device { id, model, uuid, memory, headroom, ..Device::default() };
            let other =
                |gib: &u64| Device { memory: Bytes(gib << 30), headroom: Bytes(gib << 30), ..Device::default() };
            let devices = others.iter().map(other).chain([device]).collect();
            let fleet = Fleet { nodes: vec![Node::default()], devices, ..Fleet::default() };
            let resources =
                Resources { gpus: crate::spec::Gpus::Shared, gpu_memory: Bytes::GIB, ..Resources::default() };
            let reason = device_reason(&Mode { resources, ..Mode::default() }, &fleet).unwrap();
            format!("{reason}; {}", reason.help())
        };
        let reason = |memory, headroom, uuid| reason_among(memory, headroom, uuid, &[]);
        let untold = reason(Bytes::ZERO, Bytes::ZERO, None);
        assert!(untold.contains("`box/gpu0` does not tell how much it has; leave `gpu_memory` out"), "{untold}");
        let headroom = reason(Bytes(24 << 30), Bytes(24 << 30), Some("GPU-1"));
        assert!(headroom.contains("all 24.0 GiB of `box/gpu0` (GB10) are kept as headroom; keep less"), "{headroom}");
        let largest = reason_among(Bytes(80 << 30), Bytes(80 << 30), Some("GPU-1"), &[24]);
        assert!(largest.contains("all 80.0 GiB of `box/gpu0`"), "{largest}");
        assert!(headroom.ends_with("than a GPU has, with `--headroom` or TRAINYARD_HEADROOM"), "{headroom}");
        let of_file = reason(Bytes(24 << 30), Bytes(24 << 30), None);
        assert!(of_file.contains("than a GPU has: `headroom` of its entry in the fleet file"), "{of_file}");
    }
}
