//! The committed PTX is what was built from the committed sources. Needs no compiler: `scripts/kernels.py --check` builds it
//! again and compares bytes.

use std::fs;
use std::path::Path;

/// FNV-1a, 64 bits, as `scripts/kernels.py` computes it.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}

#[test]
fn the_ptx_is_what_was_built_from_these_sources() {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let names = |folder: &str, endings: &[&str]| -> Vec<String> {
        let entries = fs::read_dir(kernels.join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        let names = entries.map(|name| format!("{folder}{}", name.into_string().unwrap()));
        let mut names: Vec<_> = names.filter(|name| endings.iter().any(|ending| name.ends_with(ending))).collect();
        names.sort_unstable();
        names
    };
    // As the script has them: `.cu` and `.cuh` together, by name, then what was built.
    let [sources, old, new] =
        [("", &[".cu", ".cuh"][..]), ("ptx/compute_70/", &[".ptx"]), ("ptx/compute_90/", &[".ptx"])]
            .map(|(folder, endings)| names(folder, endings));
    let line = |name: &String| format!("{:016x}  {name}\n", fingerprint(&fs::read(kernels.join(name)).unwrap()));
    let now: String = [sources, old, new].concat().iter().map(line).collect();
    let built = fs::read_to_string(kernels.join("ptx/built.fnv")).unwrap();
    assert_eq!(now, built, "the kernels or their PTX have changed since `make kernels`");
}

#[test]
fn every_kernel_is_there_for_every_architecture_and_for_drivers_from_525() {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    for source in ["batch_timing", "calibrate", "list_schedule", "load_matrix", "search", "sgs", "timing"] {
        let text = fs::read_to_string(kernels.join(format!("{source}.cu"))).unwrap();
        for (folder, target) in [("compute_70", "sm_70"), ("compute_90", "sm_90")] {
            let ptx = fs::read_to_string(kernels.join(format!("ptx/{folder}/{source}.ptx"))).unwrap();
            assert!(ptx.contains("\n.version 8.0\n"), "{folder}/{source}: a newer PTX is refused by older drivers");
            assert!(ptx.contains(&format!("\n.target {target}\n")), "{folder}/{source}");
            assert_eq!(ptx.matches(".visible .entry ").count(), text.matches("KERNEL ").count(), "{folder}/{source}");
        }
    }
}
