//! Random numbers from counters: what is drawn depends on what it is for, not on who drew before, so that thousands of
//! threads and a single one draw the same. Not for secrets.

/// What numbers are drawn for: no two uses see the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Which ready task an ant takes.
    Places = 1,
    /// Parents, cuts and shifts of a child.
    Children,
    /// Shifts of a neighbour.
    Neighbours,
    /// Whether what is longer is accepted.
    Chance,
    /// Where particles start.
    First,
    /// How strongly they are pulled.
    Flight,
}

/// Returns four words for a counter and a key.
///
/// Philox4x32-10. Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
#[must_use]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut a, mut b, mut c, mut d], [mut low, mut high]) = (counter, key);
    for _ in 0..10 {
        let (p, q) = (0xD251_1F53 * u64::from(a), 0xCD9E_8D57 * u64::from(c));
        (a, b, c, d) = (upper(q) ^ b ^ low, lower(q), upper(p) ^ d ^ high, lower(p));
        (low, high) = (low.wrapping_add(0x9E37_79B9), high.wrapping_add(0xBB67_AE85));
    }
    [a, b, c, d]
}

/// Returns the draw with a number, of a candidate in a generation.
pub(super) fn draw(seed: u64, purpose: Purpose, generation: u32, candidate: u32, number: u32) -> [u32; 4] {
    philox([number, candidate, generation, purpose as u32], [lower(seed), upper(seed)])
}

/// Makes a number below `end` of a drawn one.
pub(super) fn below(drawn: u32, end: u32) -> u32 {
    upper(u64::from(drawn) * u64::from(end))
}

fn upper(word: u64) -> u32 {
    lower(word >> 32)
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half of the word")]
const fn lower(word: u64) -> u32 {
    word as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: the known answers of the Random123 library, `philox4x32 10`.
    #[test]
    fn the_published_answers_are_given() {
        let zeros = philox([0; 4], [0; 2]);
        assert_eq!(zeros, [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]);
        let ones = philox([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]);
        let pi = philox([0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344], [0xA409_3822, 0x299F_31D0]);
        assert_eq!(pi, [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1]);
    }

    #[test]
    fn every_number_below_an_end_is_drawn_about_as_often() {
        let mut drawn = [0_u32; 7];
        for number in 0..7_000 {
            drawn[below(draw(1, Purpose::First, 0, 0, number)[0], 7) as usize] += 1;
        }
        assert!(drawn.iter().all(|count| (850..1_150).contains(count)), "{drawn:?}");
    }
}
