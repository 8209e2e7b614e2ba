//! The CPUs that a child may run on.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Returns what CPUs to give a thread so that it has those that this one has: every one where none was taken from it, so
/// that it will use what its control group is given later. `None` where the system does not say.
pub(super) fn ours() -> Option<CpuSet> {
    let now = sched_getaffinity(None).ok()?;
    let mut every = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| every.set(cpu));
    sched_setaffinity(None, &every).ok()?;
    if sched_getaffinity(None) == Ok(now) {
        return Some(every);
    }
    sched_setaffinity(None, &now).ok().map(|()| now)
}

/// Returns those of this thread's CPUs that are among `wanted`; `None` where that is none of them or all.
pub(super) fn narrowed(wanted: &[u32]) -> Option<CpuSet> {
    let ours = if wanted.is_empty() { None } else { sched_getaffinity(None).ok() }?;
    let mut narrowed = CpuSet::new();
    let index = wanted.iter().filter_map(|cpu| usize::try_from(*cpu).ok());
    index.filter(|cpu| *cpu < CpuSet::MAX_CPU && ours.is_set(*cpu)).for_each(|cpu| narrowed.set(cpu));
    (narrowed.count() > 0 && narrowed.count() < ours.count()).then_some(narrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_of_our_own_cpus_narrow_them() {
        let before = sched_getaffinity(None).unwrap();
        let ours = (0..CpuSet::MAX_CPU).filter(|cpu| before.is_set(*cpu)).map(|cpu| u32::try_from(cpu).unwrap());
        let ours: Vec<u32> = ours.collect();
        assert_eq!(narrowed(&ours[..1]).map(|cpus| cpus.count()), (ours.len() > 1).then_some(1));
        assert_eq!([narrowed(&ours), narrowed(&[u32::MAX]), narrowed(&[])], [None; 3]);
    }

    #[test]
    fn a_thread_stays_as_narrow_as_it_was() {
        let before = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).unwrap();
        let mut one = CpuSet::new();
        one.set(first);
        sched_setaffinity(None, &one).unwrap();
        assert_eq!((ours(), sched_getaffinity(None)), (Some(one), Ok(one)));
        sched_setaffinity(None, &before).unwrap();
        let given = ours().unwrap();
        sched_setaffinity(None, &given).unwrap();
        assert_eq!(sched_getaffinity(None), Ok(before));
    }
}
