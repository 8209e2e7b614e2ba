//! How a task is kept to the device memory that is reserved for it: which tier is in force, and what its environment says.
//!
//! Pure. `framework` and `mps` ask the frameworks and the driver to keep to it; `watch` ends what does not. NVIDIA's
//! names: docs.nvidia.com/deploy/mps; PyTorch's: CUDA semantics, "Memory management"; JAX's: "GPU memory allocation".

use super::event::Place;
use crate::fleet::Device;
use crate::fleet::headroom::CONTEXT;
use crate::spec::{Gpus, MemoryLimit};
use crate::units::{Bytes, Share};

/// The variables that are looked at before they are set.
pub const VARIABLES: [&str; 8] =
    [PYTORCH[0], PYTORCH[1], JAX[0], JAX[1], JAX_AT_ONCE, TENSORFLOW_GROWS, MPS_MEMORY, MPS_THREADS];

/// PyTorch reads the newer name first, where it is set.
const PYTORCH: [&str; 2] = ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"];
const PYTORCH_PART: &str = "per_process_memory_fraction";
/// JAX refuses to start where both of its names are set.
const JAX: [&str; 2] = ["XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"];
const JAX_AT_ONCE: &str = "XLA_PYTHON_CLIENT_PREALLOCATE";
const TENSORFLOW_GROWS: &str = "TF_FORCE_GPU_ALLOW_GROWTH";
const MPS_MEMORY: &str = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT";
const MPS_THREADS: &str = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE";

/// Returns the tier in force where this one is asked for: without a daemon MPS limits nothing, and the task is watched.
#[must_use]
pub const fn in_force(asked: MemoryLimit, mps_runs: bool) -> MemoryLimit {
    match asked {
        MemoryLimit::Mps if !mps_runs => MemoryLimit::Watch,
        same @ (MemoryLimit::None | MemoryLimit::Watch | MemoryLimit::Framework | MemoryLimit::Mps) => same,
    }
}

/// Returns the tier in force on devices, and whether it is another one since their driver hides who holds their memory:
/// then nobody can be watched.
#[must_use]
pub const fn in_force_on(asked: MemoryLimit, mps_runs: bool, hidden: bool) -> (MemoryLimit, bool) {
    match (in_force(asked, mps_runs), hidden) {
        (MemoryLimit::Watch, true) => (MemoryLimit::None, true),
        (same, _) => (same, false),
    }
}

/// Returns the variables that limit a task's memory already, and are kept instead of what its tier would set.
pub fn kept(limit: MemoryLimit, has: impl Fn(&str) -> Option<String>) -> Vec<&'static str> {
    let is_kept = |name: &&str| {
        let set = has(name).filter(|set| !set.is_empty());
        set.is_some_and(|set| !PYTORCH.contains(name) || set.contains(PYTORCH_PART))
    };
    let names: &[&str] = match limit {
        MemoryLimit::None | MemoryLimit::Watch => &[],
        MemoryLimit::Framework => &[PYTORCH[0], PYTORCH[1], JAX[0], JAX[1]],
        MemoryLimit::Mps => &[MPS_MEMORY],
    };
    names.iter().copied().filter(is_kept).collect()
}

/// Returns the variables that a task is started with under its tier. `has` returns what is set already, by the stage or
/// around us: it is added to, not replaced.
#[must_use]
pub fn env(
    place: &Place,
    devices: &[&Device],
    gpus: Gpus,
    has: impl Fn(&str) -> Option<String>,
) -> Vec<(String, String)> {
    let smallest = devices.iter().map(|device| device.memory).min().unwrap_or(Bytes::ZERO);
    if place.gpu_memory == Bytes::ZERO || smallest == Bytes::ZERO {
        return Vec::new();
    }
    let memory = cap(place, devices, gpus);
    match place.limit {
        MemoryLimit::None | MemoryLimit::Watch => Vec::new(),
        MemoryLimit::Framework => framework(for_tensors(memory, is_alone(place, gpus)), smallest, has),
        MemoryLimit::Mps => mps(memory, devices, gpus, has),
    }
}

/// Returns what a framework may take of so much: what is reserved for a task is also for its CUDA context, which no framework
/// counts; the headroom has room for that of who is alone.
fn for_tensors(memory: Bytes, is_alone: bool) -> Bytes {
    if is_alone { memory } else { (memory - CONTEXT).max(Bytes(memory.0 / 2)) }
}

/// Returns what a task may take of each device: what is reserved for it, and all that a device gives where no other task
/// is let onto it. There a limit would protect nobody, and who ran out of memory would run out of it again.
#[must_use]
pub fn cap(place: &Place, devices: &[&Device], gpus: Gpus) -> Bytes {
    let all = devices.iter().map(|device| device.whole_memory()).min().filter(|_| is_alone(place, gpus));
    all.map_or(place.gpu_memory, |all| all.max(place.gpu_memory))
}

/// Whether no other task is let onto its devices: the whole share beside a stage that asks for less is what running out of
/// memory has led to.
fn is_alone(place: &Place, gpus: Gpus) -> bool {
    matches!(gpus, Gpus::Whole(_)) || (place.share == Share::WHOLE && gpus.share() < Share::WHOLE)
}

fn framework(memory: Bytes, of: Bytes, has: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let thousandths = (u128::from(memory.0) * 1_000 / u128::from(of.0.max(1))).clamp(1, 1_000);
    let fraction = format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
    let mut env = Vec::new();
    let name = PYTORCH.into_iter().find(|name| has(name).is_some()).unwrap_or(PYTORCH[1]);
    let set = has(name).filter(|set| !set.is_empty());
    if !set.as_ref().is_some_and(|set| set.contains(PYTORCH_PART)) {
        let own = format!("{PYTORCH_PART}:{fraction}");
        env.push((name, set.map_or(own.clone(), |set| format!("{set},{own}"))));
    }
    if JAX.iter().all(|name| has(name).is_none()) {
        env.push((JAX[1], fraction));
    }
    if has(TENSORFLOW_GROWS).is_none() {
        env.push((TENSORFLOW_GROWS, "true".to_owned()));
    }
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Returns the variables that let a task take memory as it needs it, where what it takes is to be learned: JAX and TensorFlow
/// take most of a device at once otherwise, whatever they need. `has` as for [`env()`].
pub fn to_be_learned(has: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let wanted = [(JAX_AT_ONCE, "false"), (TENSORFLOW_GROWS, "true")];
    wanted
        .into_iter()
        .filter(|(name, _)| has(name).is_none())
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn mps(memory: Bytes, devices: &[&Device], gpus: Gpus, has: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut env = Vec::new();
    if has(MPS_MEMORY).is_none() {
        let mib = memory.0.div_ceil(Bytes::MIB.0);
        // Counted as the task sees its devices.
        let limits: Vec<_> = (0..devices.len()).map(|ordinal| format!("{ordinal}={mib}M")).collect();
        env.push((MPS_MEMORY.to_owned(), limits.join(",")));
    }
    if let (Gpus::Share(Share(millionths)), None) = (gpus, has(MPS_THREADS)) {
        let percent = millionths.div_ceil(10_000).clamp(1, 100);
        env.push((MPS_THREADS.to_owned(), percent.to_string()));
    }
    // The server counts devices in an order of its own.
    let uuids: Option<Vec<_>> = devices.iter().map(|device| device.uuid.clone()).collect();
    env.extend(uuids.map(|uuids| ("CUDA_VISIBLE_DEVICES".to_owned(), uuids.join(","))));
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        Device { memory: Bytes(80 << 30), uuid: Some("GPU-1".to_owned()), ..Device::default() }
    }

    fn set(limit: MemoryLimit, gpus: Gpus, has: &[(&str, &str)]) -> Vec<(String, String)> {
        let place = Place { gpu_memory: Bytes(20 << 30), limit, ..Place::default() };
        let has = |name: &str| has.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
        env(&place, &[&device()], gpus, has)
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn frameworks_are_told_their_part_of_the_device() {
        let env = set(MemoryLimit::Framework, Gpus::Shared, &[]);
        assert_eq!(
            env,
            [
                pair("PYTORCH_CUDA_ALLOC_CONF", "per_process_memory_fraction:0.243"),
                pair("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.243"),
                pair("TF_FORCE_GPU_ALLOW_GROWTH", "true"),
            ]
        );
    }

    #[test]
    fn what_is_set_already_is_added_to_and_not_replaced() {
        let has = [("PYTORCH_ALLOC_CONF", "expandable_segments:True"), ("XLA_CLIENT_MEM_FRACTION", ".1")];
        let env = set(MemoryLimit::Framework, Gpus::Shared, &has);
        let both = "expandable_segments:True,per_process_memory_fraction:0.243";
        assert_eq!(env, [pair("PYTORCH_ALLOC_CONF", both), pair("TF_FORCE_GPU_ALLOW_GROWTH", "true")]);
    }

    #[test]
    fn who_limits_himself_is_known_by_the_variables_that_say_so() {
        let set = [
            ("PYTORCH_ALLOC_CONF", "expandable_segments:True"),
            (JAX[1], ".5"),
            (MPS_MEMORY, "0=1G"),
            (MPS_THREADS, ""),
        ];
        let has = |name: &str| set.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
        assert_eq!(kept(MemoryLimit::Framework, has), [JAX[1]]);
        assert_eq!(kept(MemoryLimit::Mps, has), [MPS_MEMORY]);
        assert!(kept(MemoryLimit::Watch, has).is_empty());
        let place = Place { gpu_memory: Bytes(1 << 30), limit: MemoryLimit::Mps, ..Place::default() };
        let told = env(&place, &[&device()], Gpus::Share(Share(300_000)), has);
        assert_eq!(told, [pair("CUDA_VISIBLE_DEVICES", "GPU-1")]);
    }

    #[test]
    fn a_framework_leaves_room_for_its_context_and_keeps_half_of_little() {
        let told = |mib: u64| {
            let place = Place { gpu_memory: Bytes(mib << 20), limit: MemoryLimit::Framework, ..Place::default() };
            env(&place, &[&Device { memory: Bytes(10_000 << 20), ..device() }], Gpus::Shared, |_| None)[1].1.clone()
        };
        assert_eq!([2_512, 1_024, 512].map(told), ["0.200", "0.051", "0.025"]);
    }

    #[test]
    fn who_is_measured_takes_what_it_needs_and_keeps_what_it_says_itself() {
        let own = |name: &str| (name == JAX_AT_ONCE).then(|| "true".to_owned());
        assert_eq!(to_be_learned(|_| None), [pair(JAX_AT_ONCE, "false"), pair(TENSORFLOW_GROWS, "true")]);
        assert_eq!(to_be_learned(own), [pair(TENSORFLOW_GROWS, "true")]);
    }

    #[test]
    fn the_mps_server_is_told_memory_and_share() {
        let env = set(MemoryLimit::Mps, Gpus::Share(Share(300_000)), &[]);
        assert_eq!(
            env,
            [
                pair("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", "0=20480M"),
                pair("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "30"),
                pair("CUDA_VISIBLE_DEVICES", "GPU-1"),
            ]
        );
        assert_eq!(in_force(MemoryLimit::Mps, false), MemoryLimit::Watch);
        assert_eq!(in_force_on(MemoryLimit::Mps, false, true), (MemoryLimit::None, true), "nobody can be watched");
        assert_eq!(in_force_on(MemoryLimit::Framework, false, true), (MemoryLimit::Framework, false));
    }

    #[test]
    fn who_is_alone_on_a_device_may_take_all_that_it_gives() {
        let device = Device { headroom: Bytes(4 << 30), ..device() };
        let told = |gpus, share, limit| {
            let place = Place { gpu_memory: Bytes(20 << 30), limit, share, ..Place::default() };
            env(&place, &[&device], gpus, |_| None)[0].1.clone()
        };
        let framework = |gpus, share| told(gpus, share, MemoryLimit::Framework);
        let (all, reserved) = ("per_process_memory_fraction:0.950", "per_process_memory_fraction:0.243");
        assert_eq!(framework(Gpus::Whole(1), Share::WHOLE), all);
        assert_eq!(framework(Gpus::Shared, Share::WHOLE), all, "it ran out of memory before");
        assert_eq!(framework(Gpus::Shared, Share::ZERO), reserved);
        assert_eq!(framework(Gpus::Share(Share::WHOLE), Share::WHOLE), reserved, "others may use its memory");
        assert_eq!(told(Gpus::Whole(1), Share::WHOLE, MemoryLimit::Mps), "0=77824M");
    }

    #[test]
    fn a_task_that_is_only_watched_is_told_nothing() {
        assert!(set(MemoryLimit::Watch, Gpus::Shared, &[]).is_empty());
        assert!(
            env(&Place { limit: MemoryLimit::Framework, ..Place::default() }, &[&device()], Gpus::Whole(1), |_| None)
                .is_empty()
        );
    }
}
