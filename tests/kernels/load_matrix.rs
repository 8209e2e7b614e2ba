//! `kernels/load_matrix.cu` against `timing::loads`.

use kernels_cpu::Launch;
use trainyard::timing::loads::{self, Fastest, Reciprocal};
use trainyard::units::{Millis, Speed};

use super::{ORDERS, launch, params};
use trainyard::timing::sample::Random;

/// Speeds that divide evenly, do not, and are at the ends of what reciprocals are exact for.
fn speeds() -> Vec<Speed> {
    [1_000_000, 3_000_000, 999_983, 1_000, 4_294_967, 2_500_000, 1_000_000_000_000, 333_333].map(Speed).to_vec()
}

/// Times at the ends of what fits and random ones. The slowest device is a thousand times slower.
fn times(n: usize) -> Vec<u32> {
    let mut random = Random::new(n as u64);
    let largest = u32::MAX / 1_000;
    let mut times: Vec<u32> = (0..n).map(|_| random.below(u64::from(largest)) as u32).collect();
    times.iter_mut().zip([0, 1, largest, 3, 1_000_003]).for_each(|(time, fixed)| *time = fixed);
    times
}

fn reciprocals(speeds: &[Speed], times: &[u32]) -> (Vec<u32>, Vec<u64>) {
    let longest = times.iter().copied().max().unwrap_or(0);
    speeds
        .iter()
        .map(|speed| Reciprocal::new(*speed, longest).expect("an exact reciprocal"))
        .map(|Reciprocal { whole, fraction }| (whole, fraction))
        .unzip()
}

fn millis(times: &[u32]) -> Vec<Millis> {
    times.iter().map(|time| Millis((*time).into())).collect()
}

#[test]
fn every_entry_of_the_load_matrix_equals_the_cpu() {
    for n in [1, 2, 3, 4, 5, 31, 32, 33, 127, 1_000] {
        let (times, speeds) = (times(n), speeds());
        let (whole, fraction) = reciprocals(&speeds, &times);
        let stride = n.next_multiple_of(4);
        let mut padded = times.clone();
        padded.resize(stride + 4, 0);
        // Words of 16 bytes need an address that is a multiple of 16, as device memory has.
        let skip = padded.as_ptr().align_offset(16);
        padded.resize(skip + stride, 0);
        padded.rotate_right(skip);
        let mut load = vec![u32::MAX; skip.max(4) + speeds.len() * stride + 4];
        let to = load.as_ptr().align_offset(16);
        for order in ORDERS {
            let (tasks, devices, wide) = (n as u32, speeds.len() as u32, stride as u32);
            let (d, w, f) = (padded[skip..].as_ptr(), whole.as_ptr(), fraction.as_ptr());
            let out = load[to..].as_mut_ptr();
            let grid = (stride as u32 / 4).div_ceil(64);
            let how = Launch { grid, block: 64, shared_bytes: 0, cooperative: false, order };
            // SAFETY: the arguments of the kernel, arrays as large as it says.
            unsafe { launch(c"load_matrix", how, &mut params![tasks, devices, wide, d, w, f, out]) };
            let rows = load[to..].chunks(stride).take(speeds.len()).map(|row| millis(&row[..n]));
            assert_eq!(rows.collect::<Vec<_>>(), loads::matrix(&millis(&times), &speeds), "{n} tasks");
        }
    }
}

#[test]
fn the_fastest_device_and_what_it_gets_equal_the_cpu() {
    // Without the one that is always fastest, so that ties and roundings decide.
    let speeds: Vec<Speed> = [1_000_000, 2_999_999, 3_000_000, 3_000_001].map(Speed).to_vec();
    for n in [1, 31, 32, 33, 64, 500] {
        let times: Vec<u32> = times(n).iter().map(|time| time % 50).collect();
        let (whole, fraction) = reciprocals(&speeds, &times);
        // Sums of all devices are kept by the blocks, of some, of none.
        for (order, held) in ORDERS.into_iter().flat_map(|order| [4_u32, 2, 0].map(|held| (order, held))) {
            let mut device = vec![u16::MAX; n];
            let (mut total, mut chosen) = (vec![0_u64; speeds.len()], vec![0_u32; speeds.len()]);
            let (tasks, devices) = (n as u32, speeds.len() as u32);
            let (d, w, f) = (times.as_ptr(), whole.as_ptr(), fraction.as_ptr());
            let (to, sum, count) = (device.as_mut_ptr(), total.as_mut_ptr(), chosen.as_mut_ptr());
            let how = Launch { grid: 2, block: 64, shared_bytes: held * 12, cooperative: false, order };
            // SAFETY: the arguments of the kernel, arrays as large as it says, and shared memory for those that are held.
            unsafe { launch(c"fastest_device", how, &mut params![tasks, devices, held, d, w, f, to, sum, count]) };
            let total = total.iter().copied().map(Millis).collect();
            let found = Fastest { device, total, chosen };
            assert_eq!(found, loads::fastest(&millis(&times), &speeds), "{n} tasks, {held} devices held");
        }
    }
}
