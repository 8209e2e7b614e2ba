//! The CPUs that a child may run on: it inherits those of the thread that starts it.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Narrows the CPUs of this thread, and so of the children that it starts, until it is dropped.
#[derive(Debug)]
pub(super) struct Affinity {
    before: Option<CpuSet>,
}

impl Affinity {
    /// Leaves this thread those of its CPUs that are among `wanted`; all of them where none is, or the system refuses.
    pub(super) fn narrow(wanted: &[u32]) -> Self {
        let before = if wanted.is_empty() { None } else { sched_getaffinity(None).ok() };
        let narrowed = before.as_ref().and_then(|before| narrowed(before, wanted));
        let done = narrowed.is_some_and(|narrowed| sched_setaffinity(None, &narrowed).is_ok());
        Self { before: before.filter(|_| done) }
    }
}

impl Drop for Affinity {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = sched_setaffinity(None, before)
        {
            tracing::warn!(%error, "the CPUs of this thread cannot be widened again");
        }
    }
}

/// Returns the CPUs of a set that are wanted; `None` where they are none or all.
fn narrowed(set: &CpuSet, wanted: &[u32]) -> Option<CpuSet> {
    let mut narrowed = CpuSet::new();
    let index = wanted.iter().filter_map(|cpu| usize::try_from(*cpu).ok());
    index.filter(|cpu| *cpu < CpuSet::MAX_CPU && set.is_set(*cpu)).for_each(|cpu| narrowed.set(cpu));
    (narrowed.count() > 0 && narrowed.count() < set.count()).then_some(narrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_its_cpus_back() {
        let before = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).unwrap();
        let near = Affinity::narrow(&[u32::try_from(first).unwrap()]);
        assert_eq!(sched_getaffinity(None).unwrap().count(), 1);
        drop(near);
        assert_eq!(sched_getaffinity(None).unwrap(), before);
        // None of ours, and no set at all.
        for wanted in [&[u32::MAX][..], &[]] {
            let _near = Affinity::narrow(wanted);
            assert_eq!(sched_getaffinity(None).unwrap(), before);
        }
    }
}
