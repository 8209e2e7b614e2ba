//! Room on the disks that a run writes to.

use std::path::Path;

use crate::probe::disk::Disk;
use crate::report::wording;
use crate::run::launch::Ground;
use crate::run::remains;
use crate::run::supervisor::FullDisk;
use crate::units::Bytes;

/// After how many looks at a full disk it is counted again what takes the room.
const COUNT_AGAIN: u32 = 30;

/// Returns what looks whether the disk of the record, or that of the pipeline, is full.
pub(super) fn full(ground: &Ground, keep_free: Option<Bytes>) -> Box<dyn FnMut() -> Option<FullDisk> + '_> {
    let state = ground.dir.ancestors().nth(2).unwrap_or(&ground.dir);
    let device = |folder: &Path| rustix::fs::stat(folder).map(|found| found.st_dev).ok();
    let (mut looks, mut held) = (0, None);
    Box::new(move || {
        let full = [&ground.dir, &ground.root].into_iter().find_map(|folder| {
            let disk = Disk::of(folder)?;
            let reserve = keep_free.unwrap_or_else(|| disk.usual_reserve());
            (disk.free < reserve).then_some(FullDisk { disk, reserve, held: None })
        });
        let Some(full) = full else {
            looks = 0;
            return None;
        };
        if looks % COUNT_AGAIN == 0 {
            let is_there = device(&full.disk.folder) == device(state);
            held = is_there.then(|| remains::what_may_go(state)).flatten().map(|held| wording::may_go(&held));
        }
        looks += 1;
        Some(FullDisk { held: held.clone(), ..full })
    })
}
