//! What a node has free, tick by tick, eight ticks side by side.
//!
//! A look tells of each of some ticks whether there is enough, one bit for each; a run of ticks with room for all of a task
//! is found by folding these bits onto themselves. Blocks are read and written as they lie in memory, so that a processor
//! hands on what one task takes to the look of the next. Runs of bits: Warren, "Hacker's Delight", 2nd edition, 6-3. Does
//! not know which tasks wait for which.

use std::ops::{BitAnd, Sub};

/// Ticks of a block.
const BLOCK: usize = 8;
/// Blocks of a look: one bit of a word for each tick.
const BLOCKS: usize = 4;
/// Ticks that a look tells of at least: it may begin with the last one of a block.
const SPAN: u32 = 25;
/// Ticks of a task that a look finds room for, at most.
const SHORT: usize = 16;
/// Blocks in which such a task lies, at most.
const TAKEN: usize = 3;

/// Free amounts of eight ticks.
#[derive(Clone, Copy)]
#[repr(align(32))]
pub(in crate::plan) struct Block<T>([T; BLOCK]);

/// Amounts of several resources, packed, with a guard above each.
pub(in crate::plan) trait Word:
    Copy + Default + PartialEq + Sub<Output = Self> + BitAnd<Output = Self>
{
    /// Returns which ticks have enough, in vectors of 32 bytes.
    ///
    /// # Safety
    /// The processor has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn fits_in_vectors(blocks: &[Block<Self>; BLOCKS], need: Self, guards: Self) -> u32;

    /// Takes a need from the ticks of a block that are inside, in vectors of 32 bytes.
    ///
    /// # Safety
    /// The processor has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn take_in_vectors(block: &mut Block<Self>, need: Self, inside: &[u32; BLOCK]);
}

/// What a task holds, and for how long.
#[derive(Clone, Copy)]
pub(super) struct Hold<T> {
    /// Nothing where that takes no time.
    pub(super) need: T,
    pub(super) ticks: u32,
    /// By how much bits are folded so that those stay from which on `ticks` of them are set; for short tasks.
    folds: [u8; 4],
}

impl<T: Word> Hold<T> {
    pub(super) fn new(need: T, ticks: u32) -> Self {
        let mut left = (ticks as usize).clamp(1, SHORT) - 1;
        let folds = [1, 2, 4, 8].map(|most: u8| {
            let by = left.min(most.into());
            left -= by;
            u8::try_from(by).unwrap_or(most)
        });
        Self { need: if ticks == 0 { T::default() } else { need }, ticks, folds }
    }

    /// Returns from which ticks on there is room for all of a short task, of those that have enough.
    #[inline(always)]
    fn room(&self, fits: u32) -> u32 {
        self.folds.into_iter().fold(fits, |room, by| room & room.wrapping_shr(by.into()))
    }
}

/// How blocks are read and written.
pub(super) trait Way: Copy {
    /// Returns which ticks have enough.
    fn fits<T: Word>(self, blocks: &[Block<T>; BLOCKS], need: T, guards: T) -> u32;

    /// Takes a need from the ticks of a block that are inside.
    fn take<T: Word>(self, block: &mut Block<T>, need: T, inside: &[u32; BLOCK]);
}

/// Tick by tick.
#[derive(Clone, Copy)]
pub(super) struct OneByOne;

impl Way for OneByOne {
    #[inline(always)]
    fn fits<T: Word>(self, blocks: &[Block<T>; BLOCKS], need: T, guards: T) -> u32 {
        let fits = |at: usize| u32::from((blocks[at / BLOCK].0[at % BLOCK] - need) & guards == guards);
        (0..BLOCKS * BLOCK).fold(0, |bits, at| bits | fits(at) << at)
    }

    #[inline(always)]
    fn take<T: Word>(self, block: &mut Block<T>, need: T, inside: &[u32; BLOCK]) {
        for (free, inside) in block.0.iter_mut().zip(inside) {
            *free = *free - if *inside == 0 { T::default() } else { need };
        }
    }
}

/// In vectors of 32 bytes. There is one only where the processor has AVX2, and what makes most of it: BMI1, BMI2, LZCNT.
#[derive(Clone, Copy)]
pub(super) struct Vectors(());

impl Vectors {
    /// Returns it where the processor has it.
    pub(super) fn found() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt");
        #[cfg(not(target_arch = "x86_64"))]
        let found = false;
        found.then_some(Self(()))
    }
}

#[cfg(target_arch = "x86_64")]
impl Way for Vectors {
    #[inline(always)]
    fn fits<T: Word>(self, blocks: &[Block<T>; BLOCKS], need: T, guards: T) -> u32 {
        // SAFETY: that there is a `Vectors` says that the processor has AVX2.
        unsafe { T::fits_in_vectors(blocks, need, guards) }
    }

    #[inline(always)]
    fn take<T: Word>(self, block: &mut Block<T>, need: T, inside: &[u32; BLOCK]) {
        // SAFETY: as above.
        unsafe { T::take_in_vectors(block, need, inside) }
    }
}

/// What is free, in words of type `T`.
pub(super) struct Room<T> {
    /// The guards of all amounts.
    pub(super) guards: T,
    /// What the empty node offers.
    pub(super) offer: T,
    /// At least a look more than are used.
    blocks: Vec<Block<T>>,
    /// From this tick on all of the node is free.
    used: usize,
}

impl<T: Word> Room<T> {
    /// Makes an empty node for so many ticks; more are added when they are taken.
    pub(super) fn new(guards: T, offer: T, horizon: usize) -> Self {
        let mut room = Self { guards, offer, blocks: Vec::new(), used: 0 };
        room.extend(horizon);
        room
    }

    #[cold]
    fn extend(&mut self, ticks: usize) {
        self.blocks.resize(ticks / BLOCK + 1 + BLOCKS, Block([self.offer; BLOCK]));
    }

    /// Makes the node empty.
    pub(super) fn clear(&mut self) {
        self.blocks[..self.used.div_ceil(BLOCK)].fill(Block([self.offer; BLOCK]));
        self.used = 0;
    }

    /// Whether a task can begin at a tick from which on what is free only grows.
    pub(super) fn begins(&self, tick: usize, hold: &Hold<T>) -> bool {
        let free = self.blocks.get(tick / BLOCK).map_or(self.offer, |block| block.0[tick % BLOCK]);
        (free - hold.need) & self.guards == self.guards
    }

    /// Returns the first tick from `start` on at which a task fits for all of its ticks.
    #[inline(always)]
    pub(super) fn earliest(&self, way: impl Way, start: usize, hold: &Hold<T>) -> usize {
        if hold.ticks as usize > SHORT {
            return self.earliest_for_long(way, start, hold);
        }
        let fits = self.look(way, start, hold.need);
        // No branch but whether anything was found: where is not foreseen by any processor.
        let room = hold.room(fits);
        if room == 0 { self.earliest_behind(way, start, fits, hold) } else { start + first(room) }
    }

    /// Goes on from a look that found no room.
    #[inline(always)]
    fn earliest_behind(&self, way: impl Way, mut start: usize, mut fits: u32, hold: &Hold<T>) -> usize {
        loop {
            // Between the last tick without room and the end of the look the task does not fit, but it may begin there.
            let known = BLOCKS * BLOCK - start % BLOCK;
            start += known - (fits << (start % BLOCK)).leading_ones() as usize;
            fits = self.look(way, start, hold.need);
            let room = hold.room(fits);
            if room != 0 {
                return start + first(room);
            }
        }
    }

    fn earliest_for_long(&self, way: impl Way, mut start: usize, hold: &Hold<T>) -> usize {
        // So many ticks from `start` on have room.
        let mut fitting = 0;
        while fitting < hold.ticks && start + (fitting as usize) < self.used {
            let fits = self.look(way, start + fitting as usize, hold.need);
            let run = fits.trailing_ones().min(SPAN);
            fitting += run;
            if run < SPAN && fitting < hold.ticks {
                start += fitting as usize + (fits >> run).trailing_zeros().min(SPAN - run) as usize;
                fitting = 0;
            }
        }
        start
    }

    /// Returns which of the ticks from `start` on have enough, one bit for each of [`SPAN`] or some more.
    #[inline(always)]
    fn look(&self, way: impl Way, start: usize, need: T) -> u32 {
        let first = start / BLOCK;
        let blocks = self.blocks.get(first..first + BLOCKS).and_then(|blocks| blocks.first_chunk::<BLOCKS>());
        // All is free where there are no blocks any more.
        blocks.map_or(u32::MAX, |blocks| way.fits(blocks, need, self.guards)) >> (start % BLOCK)
    }

    /// Takes what a task holds from a tick on and returns its end.
    #[inline(always)]
    pub(super) fn take(&mut self, way: impl Way, start: usize, hold: &Hold<T>) -> usize {
        let end = start + hold.ticks as usize;
        self.used = self.used.max(end);
        if end / BLOCK + BLOCKS >= self.blocks.len() {
            self.extend(end);
        }
        let first = start / BLOCK;
        // As many steps for each short task: the processor never goes on a step too far.
        if let Some(ticks) = INSIDE.get(hold.ticks as usize) {
            for (at, block) in self.blocks[first..first + TAKEN].iter_mut().enumerate() {
                let from = BLOCK * (at + 1) - start % BLOCK;
                let Some(inside) = ticks[from..].first_chunk() else { break };
                way.take(block, hold.need, inside);
            }
        } else {
            for tick in start..end {
                let free = &mut self.blocks[tick / BLOCK].0[tick % BLOCK];
                *free = *free - hold.need;
            }
        }
        end
    }
}

/// Returns the first bit that is set.
#[inline(always)]
const fn first(bits: u32) -> usize {
    bits.trailing_zeros() as usize
}

/// `[ticks][BLOCK + tick]`: all ones for the ticks of a short task that begins at tick 0, zeros around them.
static INSIDE: [[u32; (TAKEN + 2) * BLOCK]; SHORT + 1] = {
    let mut inside = [[0; (TAKEN + 2) * BLOCK]; SHORT + 1];
    let mut ticks = 0;
    while ticks <= SHORT {
        let mut tick = 0;
        while tick < ticks {
            inside[ticks][BLOCK + tick] = u32::MAX;
            tick += 1;
        }
        ticks += 1;
    }
    inside
};

#[cfg(target_arch = "x86_64")]
mod vectors {
    //! The same with vectors of 32 bytes.

    use std::arch::x86_64::{
        __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_castsi256_pd, _mm256_cmpeq_epi32, _mm256_cmpeq_epi64,
        _mm256_cvtepi32_epi64, _mm256_load_si256, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_movemask_pd,
        _mm256_packs_epi16, _mm256_packs_epi32, _mm256_permutevar8x32_epi32, _mm256_set1_epi32, _mm256_set1_epi64x,
        _mm256_setr_epi32, _mm256_store_si256, _mm256_sub_epi32, _mm256_sub_epi64,
    };

    use super::{BLOCK, BLOCKS, Block, Word};

    impl Word for u32 {
        #[target_feature(enable = "avx2")]
        #[inline]
        unsafe fn fits_in_vectors(blocks: &[Block<Self>; BLOCKS], need: Self, guards: Self) -> u32 {
            let (need, guards) = (_mm256_set1_epi32(need.cast_signed()), _mm256_set1_epi32(guards.cast_signed()));
            let fits = |block: &Block<Self>| {
                // SAFETY: a block is 32 bytes and aligned to as many.
                let free = unsafe { _mm256_load_si256(block.0.as_ptr().cast()) };
                _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_sub_epi32(free, need), guards), guards)
            };
            let [first, second, third, fourth] = blocks;
            let early = _mm256_packs_epi32(fits(first), fits(second));
            let late = _mm256_packs_epi32(fits(third), fits(fourth));
            // Packing goes by halves of vectors: first come the first halves of all blocks.
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(early, late), order);
            _mm256_movemask_epi8(bytes).cast_unsigned()
        }

        #[target_feature(enable = "avx2")]
        #[inline]
        unsafe fn take_in_vectors(block: &mut Block<Self>, need: Self, inside: &[u32; BLOCK]) {
            let place = block.0.as_mut_ptr().cast::<__m256i>();
            // SAFETY: both are 32 bytes, and a block is aligned to as many.
            unsafe {
                let held =
                    _mm256_and_si256(_mm256_loadu_si256(inside.as_ptr().cast()), _mm256_set1_epi32(need.cast_signed()));
                _mm256_store_si256(place, _mm256_sub_epi32(_mm256_load_si256(place), held));
            }
        }
    }

    impl Word for u64 {
        #[target_feature(enable = "avx2")]
        #[inline]
        unsafe fn fits_in_vectors(blocks: &[Block<Self>; BLOCKS], need: Self, guards: Self) -> u32 {
            let (need, guards) = (_mm256_set1_epi64x(need.cast_signed()), _mm256_set1_epi64x(guards.cast_signed()));
            let mut bits = 0;
            for (at, half) in (0..).step_by(4).zip(blocks.iter().flat_map(|block| block.0.as_chunks::<4>().0)) {
                // SAFETY: half a block is 32 bytes and aligned to as many.
                let free = unsafe { _mm256_load_si256(half.as_ptr().cast()) };
                let kept = _mm256_and_si256(_mm256_sub_epi64(free, need), guards);
                let fits = _mm256_castsi256_pd(_mm256_cmpeq_epi64(kept, guards));
                bits |= _mm256_movemask_pd(fits).cast_unsigned() << at;
            }
            bits
        }

        #[target_feature(enable = "avx2")]
        #[inline]
        unsafe fn take_in_vectors(block: &mut Block<Self>, need: Self, inside: &[u32; BLOCK]) {
            for (half, inside) in block.0.as_chunks_mut::<4>().0.iter_mut().zip(inside.as_chunks::<4>().0) {
                let place = half.as_mut_ptr().cast::<__m256i>();
                // SAFETY: half a block is 32 bytes and aligned to as many, half of what is inside 16.
                unsafe {
                    let inside = _mm256_cvtepi32_epi64(_mm_loadu_si128(inside.as_ptr().cast()));
                    let held = _mm256_and_si256(inside, _mm256_set1_epi64x(need.cast_signed()));
                    _mm256_store_si256(place, _mm256_sub_epi64(_mm256_load_si256(place), held));
                }
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Word for u32 {}
#[cfg(not(target_arch = "x86_64"))]
impl Word for u64 {}
