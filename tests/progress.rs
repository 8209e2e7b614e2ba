//! What is understood of the output of real programs, recorded byte by byte: see `fixtures/progress/README.md`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use trainyard::progress::{Progress, Reader};

/// Returns the recordings, by name.
fn recordings() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/progress");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

/// What became known of an output.
#[derive(Clone, Debug, Default, PartialEq)]
struct Heard {
    figures: Vec<(String, Option<f64>, f64)>,
    progress: Progress,
}

fn hear(pieces: &[&[u8]]) -> Heard {
    let (mut reader, mut heard) = (Reader::default(), Heard::default());
    for piece in pieces {
        reader.read(piece, |figure| heard.figures.push((figure.name.to_owned(), figure.step, figure.value)));
    }
    reader.finish(|figure| heard.figures.push((figure.name.to_owned(), figure.step, figure.value)));
    heard.progress = reader.progress();
    heard
}

/// Tells how the progress went, a line per change, as one would see it who looks after every write of the program, and
/// the first and last point of every figure.
fn story(output: &[u8]) -> String {
    let (mut reader, mut told) = (Reader::default(), String::new());
    let mut last = Progress::default();
    for line in output.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
        let (text, end) = line.split_at(line.len() - 1);
        for piece in [text, end] {
            reader.read(piece, |_| {});
            let now = reader.progress();
            if (now.progress, &now.phase) != (last.progress, &last.phase) {
                let part = now.progress.map_or("  -  ".to_owned(), |part| format!("{:5.3}", part));
                writeln!(told, "{part} {}", now.phase.as_deref().unwrap_or("-")).unwrap();
            }
            last = now;
        }
    }
    writeln!(told, "loss {:?}, accuracy {:?}", last.loss, last.accuracy).unwrap();
    type Points = Vec<(Option<f64>, f64)>;
    let mut series: Vec<(String, Points)> = Vec::new();
    for (name, step, value) in hear(&[output]).figures {
        match series.iter_mut().find(|(known, _)| *known == name) {
            Some((_, points)) => points.push((step, value)),
            None => series.push((name, vec![(step, value)])),
        }
    }
    for (name, points) in series {
        // How fast a machine was says nothing.
        let shown = |(step, value): (Option<f64>, f64)| {
            let step = step.map_or("-".to_owned(), |step| step.to_string());
            if name.contains("/s") || name.contains("second") || name.contains("runtime") {
                format!("at {step}")
            } else {
                format!("{value} at {step}")
            }
        };
        writeln!(told, "{name}: {} points, {} to {}", points.len(), shown(points[0]), shown(*points.last().unwrap()))
            .unwrap();
    }
    told
}

#[test]
fn what_real_programs_print_is_understood() {
    let recordings = recordings();
    assert!(recordings.len() > 10, "{}", recordings.len());
    for (name, output) in recordings {
        insta::assert_snapshot!(name, story(&output));
    }
}

#[test]
fn how_the_output_is_cut_into_pieces_does_not_matter() {
    for (name, output) in recordings() {
        let whole = hear(&[&output]);
        for size in [1, 7, 100, 4_095] {
            let pieces: Vec<&[u8]> = output.chunks(size).collect();
            assert_eq!(hear(&pieces), whole, "{name} in pieces of {size}");
        }
    }
}

/// Bytes that look like progress more often than chance would have it.
fn output() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::sample::select(vec![
            "\r",
            "\n",
            "\x1b[A",
            "\x1b[1m",
            "\x1b",
            "\x08",
            "Epoch ",
            "epoch: ",
            "step ",
            "3/10",
            "12/300",
            "40%",
            "|",
            "[",
            "]",
            "loss",
            "=",
            ": ",
            "0.5",
            "1e-",
            "nan",
            "9999999999999999999999",
            "/",
            "%|",
            "| ",
            "it/s",
            "s/it",
            "{'",
            "': ",
            "}",
            "-",
            "'s ",
            "━━",
            "\t",
            "k/",
            ".",
            "[12]\t",
            "rows [",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop::collection::vec(word, 0..200).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_pieces_give_the_same(output in output(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let whole = hear(&[&output]);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(output.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&output[from..cut]);
            from = cut;
        }
        pieces.push(&output[from..]);
        // As text: what is no number is not equal to itself.
        prop_assert_eq!(format!("{:?}", hear(&pieces)), format!("{whole:?}"));
        let part = whole.progress.progress;
        prop_assert!(part.is_none_or(|part| (0.0..=1.0).contains(&part)), "{:?}", part);
        let is_bounded = |step: &Option<f64>| step.is_none_or(f64::is_finite);
        prop_assert!(whole.figures.iter().all(|(name, step, _)| is_bounded(step) && name.len() <= 130));
    }

    #[test]
    fn a_look_at_any_moment_changes_nothing(output in output()) {
        let mut looked = Reader::default();
        for byte in &output {
            looked.read(std::slice::from_ref(byte), |_| {});
            let _ = looked.progress();
        }
        looked.finish(|_| {});
        prop_assert_eq!(looked.progress(), hear(&[&output]).progress);
    }
}
