//! What is known of GPU models: the name that people use, and the speed `P` to plan with until it is measured.

use crate::units::Speed;

/// Peak dense 16-bit tensor throughput in TFLOP/s (BF16, or FP16 where the chip has no BF16; FP32 accumulation), from
/// NVIDIA's data sheets and architecture white papers: V100, T4, A100, A30, A40, A10, "Ada" (L4, L40, L40S, RTX 6000,
/// RTX 4090), "GA102" (RTX 3090, A6000), H100 and H200 (figures with sparsity halved), H20, "Blackwell" (B200).
///
/// Longest name first where one is the beginning of another. Training is rarely bound by this alone: it orders models
/// sensibly, no more.
const TFLOPS: [(&str, f64); 26] = [
    ("B200", 2250.0),
    ("GB200", 2500.0),
    ("GH200", 989.4),
    ("H200-NVL", 835.5),
    ("H200", 989.4),
    ("H100-PCIe", 756.5),
    ("H100-NVL", 835.5),
    ("H100", 989.4),
    ("H800", 989.4),
    ("H20", 148.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("A40", 149.7),
    ("A30", 165.0),
    ("A10G", 70.0),
    ("A10", 125.0),
    ("L40S", 362.0),
    ("L40", 181.0),
    ("L4", 121.0),
    ("V100", 125.0),
    ("T4", 65.0),
    ("RTX-6000-Ada", 364.2),
    ("RTX-A6000", 154.8),
    ("RTX-4090", 165.2),
    ("RTX-3090", 71.2),
    ("P100", 21.2),
];

/// The model that durations are declared for: speed 1.
const REFERENCE: f64 = 989.4; // H100 SXM, TFLOP/s

/// Returns the short name of a model: `NVIDIA A100-SXM4-80GB` is `A100-80GB`, `NVIDIA H100 80GB HBM3` is `H100`.
///
/// Makers' words, sockets and memory kinds go; the memory's size stays only where one name was sold in two sizes.
#[must_use]
pub fn short_name(full: &str) -> String {
    let words: Vec<&str> = full.split([' ', '-', '_']).filter(|word| !word.is_empty()).collect();
    let sizes = words.iter().any(|word| matches!(*word, "A100" | "A800" | "V100" | "P100"));
    let kept = words.iter().filter(|word| !is_noise(word, sizes)).map(|word| match *word {
        "PCIE" | "PCIe" => "PCIe",
        word => word,
    });
    let name = kept.collect::<Vec<_>>().join("-");
    if name.is_empty() { "GPU".to_owned() } else { name }
}

/// Whether a word of a full name says nothing that tells models apart.
fn is_noise(word: &str, keep_size: bool) -> bool {
    const MAKERS: [&str; 8] = ["NVIDIA", "Tesla", "GeForce", "Quadro", "Graphics", "Generation", "MIG", "GPU"];
    let is_size = word.strip_suffix("GB").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    MAKERS.contains(&word) || word.starts_with("SXM") || word.starts_with("HBM") || (is_size && !keep_size)
}

/// Returns the speed of a model by its short name, relative to an H100 SXM; `None` for a model that is not known.
#[must_use]
pub fn speed(short: &str) -> Option<Speed> {
    let (_, tflops) = TFLOPS
        .iter()
        .find(|(name, _)| short.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 3 million")]
    Some(Speed((tflops / REFERENCE * Speed::ONE.0 as f64).round() as u64))
}

/// Returns the speed of a slice of a card: its part of the compute slices.
#[must_use]
pub fn slice_speed(card: Speed, short: &str, slices: u32) -> Speed {
    // NVIDIA's MIG user guide: an A30 has four compute slices, every other card seven.
    let all = if short.starts_with("A30") { 4 } else { 7 };
    Speed((card.0 * u64::from(slices.min(all)) / all as u64).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_as_short_as_people_say_them() {
        for (full, short) in [
            ("NVIDIA H200", "H200"),
            ("NVIDIA H100 80GB HBM3", "H100"),
            ("NVIDIA H100 PCIe", "H100-PCIe"),
            ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
            ("NVIDIA A100-PCIE-40GB", "A100-PCIe-40GB"),
            ("Tesla V100-SXM2-32GB", "V100-32GB"),
            ("Tesla T4", "T4"),
            ("NVIDIA GeForce RTX 4090", "RTX-4090"),
            ("NVIDIA RTX 6000 Ada Generation", "RTX-6000-Ada"),
            ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", "A100-80GB-3g.40gb"),
            ("", "GPU"),
        ] {
            assert_eq!(short_name(full), short, "{full}");
        }
    }

    #[test]
    fn known_models_have_a_speed_and_others_none() {
        assert_eq!(speed("H100"), Some(Speed::ONE));
        assert_eq!(speed("A100-80GB"), Some(Speed(315_343)));
        assert!(speed("H100-PCIe") < speed("H100"));
        assert!(speed("L4") < speed("L40"));
        assert_eq!(speed("Voodoo2"), None);
        assert_eq!(speed("A1000"), None);
    }

    #[test]
    fn a_slice_has_its_part_of_the_speed() {
        assert_eq!(slice_speed(Speed(700_000), "A100-80GB", 3), Speed(300_000));
        assert_eq!(slice_speed(Speed(400_000), "A30", 1), Speed(100_000));
    }
}
