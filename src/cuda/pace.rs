//! How fast a device is: arithmetic and memory, each measured by itself.
//!
//! Both are needed: training is bound by the one here and the other there. What it means for a schedule is not known here.

use super::device::Device;
use super::driver::CudaError;
use super::kernels::{Kernel, Launch, Source};
use super::memory::Buffer;

/// What a device was measured to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Fused multiply-adds of 32-bit floats in a second, in millions.
    pub mega_fmas: u64,
    /// Bytes read and written in a second while copying within its memory, in millions.
    pub megabytes: u64,
}

/// Chains of a thread, and steps of each in a round: as `calibrate.cu` has them.
const CHAINS: u32 = 8;
const STEPS: u32 = 16;

/// Threads of a block, and blocks of a multiprocessor: enough to keep every one of them busy.
const BLOCK: u32 = 256;
const BLOCKS: u32 = 8;

/// A measurement takes at least so long: clocks have risen by then, and starting it is a small part.
const LONG_ENOUGH: u64 = 100_000_000; // ns

/// The most rounds at once: some seconds on the slowest device that runs the kernels.
const MOST_ROUNDS: u32 = 1 << 20;

/// Of the largest of so many measurements; what disturbs one makes it slower, never faster.
const TIMES: usize = 3;

/// Measures a device. It must not be busy otherwise.
///
/// # Errors
/// Of the driver, and where what it computed is wrong.
pub fn measure(device: &Device) -> Result<Pace, CudaError> {
    Ok(Pace { mega_fmas: arithmetic(device)?, megabytes: memory(device)? })
}

/// Measures its arithmetic, in millions of fused multiply-adds a second.
///
/// # Errors
/// As [`measure`].
pub fn arithmetic(device: &Device) -> Result<u64, CudaError> {
    let kernel = device.kernel(Source::Calibrate, "fused_multiply_adds")?;
    let watch = device.stopwatch()?;
    let blocks = device.about().multiprocessors.saturating_mul(BLOCKS);
    let threads = blocks as usize * BLOCK as usize;
    let sums = device.array::<u32>(threads)?;
    let launch = Launch { grid: blocks, block: BLOCK, shared: 0, cooperative: false };
    let run = |rounds: u32| {
        watch.time(|| {
            // SAFETY: what `fused_multiply_adds` takes, and an array of a word for each thread.
            unsafe { kernel.start(launch, &[&rounds, &sums]) }
        })
    };
    let mut rounds = 1_u32;
    let mut time = run(rounds)?;
    while time < LONG_ENOUGH && rounds < MOST_ROUNDS {
        rounds *= 2;
        time = run(rounds)?;
    }
    let wanted: Vec<u32> = (0..BLOCK).map(|thread| chains(thread, rounds)).collect();
    if sums.read()?.chunks(BLOCK as usize).any(|block| block != wanted) {
        return Err(CudaError::Wrong("multiplies and adds"));
    }
    for _ in 1..TIMES {
        time = time.min(run(rounds)?);
    }
    let done = threads as u64 * u64::from(CHAINS * STEPS) * u64::from(rounds);
    Ok(millions_a_second(done, time))
}

fn memory(device: &Device) -> Result<u64, CudaError> {
    const MOST: u64 = 256 << 20;
    let (free, _) = device.memory()?;
    let mut copy = Copy::new(device, free.0.min(8 * MOST) / 8 / WORD)?;
    let watch = device.stopwatch()?;
    let mut run = |copies: u32| watch.time(|| (0..copies).try_for_each(|_| copy.start()));
    let mut copies = 1_u32;
    let mut time = run(copies)?;
    while time < LONG_ENOUGH && copies < 1 << 14 {
        copies *= 2;
        time = run(copies)?;
    }
    for _ in 1..TIMES {
        time = time.min(run(copies)?);
    }
    copy.check()?;
    Ok(millions_a_second(copy.bytes() * u64::from(copies), time))
}

/// Bytes of what a thread copies at once.
const WORD: u64 = 16;

/// A copy within a device's memory by a kernel: what another kernel can reach that reads and writes as much.
#[derive(Debug)]
pub struct Copy<'d> {
    kernel: Kernel<'d>,
    launch: Launch,
    words: u64,
    from: Buffer<'d, u64>,
    to: Buffer<'d, u64>,
}

impl<'d> Copy<'d> {
    /// Makes one of so many words of 16 bytes.
    ///
    /// # Errors
    /// Of the driver.
    pub fn new(device: &'d Device, words: u64) -> Result<Self, CudaError> {
        let length = usize::try_from(words.saturating_mul(WORD / 8)).unwrap_or(usize::MAX);
        let mut from = device.array(length)?;
        // Every word is another one, so that none can stand in for its neighbour.
        let values: Vec<u64> = (0_u64..).take(length).collect();
        from.write(&values)?;
        let grid = device.about().multiprocessors.saturating_mul(BLOCKS);
        let launch = Launch { grid, block: BLOCK, shared: 0, cooperative: false };
        let kernel = device.kernel(Source::Calibrate, "copy_words")?;
        Ok(Self { kernel, launch, words, from, to: device.array(length)? })
    }

    /// Returns how many bytes it reads and writes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.words * 2 * WORD
    }

    /// Starts copying. Does not wait.
    ///
    /// # Errors
    /// Of the driver.
    pub fn start(&mut self) -> Result<(), CudaError> {
        // SAFETY: what `copy_words` takes, arrays of so many words.
        unsafe { self.kernel.start(self.launch, &[&self.words, &self.from, &self.to]) }
    }

    /// Compares what was copied.
    ///
    /// # Errors
    /// Of the driver, and where it is not what it was copied from.
    pub fn check(&self) -> Result<(), CudaError> {
        if (0_u64..).zip(self.to.read()?).all(|(wanted, copied)| wanted == copied) {
            return Ok(());
        }
        Err(CudaError::Wrong("copies"))
    }
}

/// Returns millions a second of what was done in so many nanoseconds.
fn millions_a_second(done: u64, nanos: u64) -> u64 {
    u64::try_from(u128::from(done) * 1_000 / u128::from(nanos.max(1))).unwrap_or(u64::MAX)
}

/// Returns what a thread of `fused_multiply_adds` comes to.
fn chains(thread: u32, rounds: u32) -> u32 {
    let chain = |chain: u32| {
        let mut value = (thread + chain) as f32;
        for _ in 0..rounds.saturating_mul(STEPS) {
            let next = value.mul_add(0.5, 1.0);
            // It comes to rest at 2 and stays there.
            if next == value {
                break;
            }
            value = next;
        }
        value.to_bits()
    };
    (0..CHAINS).map(chain).fold(0, u32::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_come_to_rest() {
        // 0.5 x + 1 from 0 is 1, 1.5, 1.75 ... 2, and from above as well.
        assert_eq!(chains(0, 100), (0..CHAINS).fold(0_u32, |sum, _| sum.wrapping_add(2.0_f32.to_bits())));
        assert_ne!(chains(0, 0), chains(1, 0));
    }

    #[test]
    fn a_pace_is_what_was_done_by_how_long_it_took() {
        assert_eq!(millions_a_second(3_000_000, 1_000_000_000), 3);
        assert_eq!(millions_a_second(u64::MAX, 0), u64::MAX);
    }
}
