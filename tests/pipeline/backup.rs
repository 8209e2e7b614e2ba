//! What is said where two attempts of a stage could not run side by side.

use trainyard::graph::{self, Limits};
use trainyard::spec::Backup;

use super::{OPS, said, source};

/// Returns what is said of a stage with this command and these further lines.
fn said_of(run: &str, lines: &str) -> String {
    said(&format!("[stage.a]\nrun = {run}\n{lines}\n")).join("; ")
}

const OUTPUT: &str = "outputs = ['out/a']\n";

fn read(lines: &str) -> Option<Backup> {
    let text = format!("[stage.a]\nrun = 'x {{outputs}}'\n{OUTPUT}{lines}");
    let (pipeline, _) = graph::load(&source(&text), &[], OPS, Limits::default()).expect("it is right");
    pipeline.stages[0].backup
}

#[test]
fn a_backup_is_read_in_thousandths_and_replicas_are_two_or_none() {
    assert_eq!(read("backup = { after = 1.5 }"), Some(Backup::After { thousandths: 1_500 }));
    assert_eq!(read("backup = { after = 2 }"), Some(Backup::After { thousandths: 2_000 }));
    assert_eq!((read("replicas = 2"), read("replicas = 1"), read("")), (Some(Backup::AtOnce), None, None));
}

#[test]
fn numbers_that_make_no_sense_are_refused_with_their_bounds() {
    let of = |lines: &str| said_of("'x {outputs}'", &format!("{OUTPUT}{lines}"));
    for after in ["1", "1.0", "0.5", "0"] {
        assert_eq!(
            of(&format!("backup = {{ after = {after} }}")),
            format!("4:20 {after}: {} is too small (write a number from 1.001 to 1000)", after.trim_end_matches(".0"))
        );
    }
    assert!(of("backup = { after = -1 }").contains("-1 is negative"));
    assert!(of("backup = { after = 1001 }").contains("1001 is too large"));
    assert_eq!(of("replicas = 0"), "4:12 0: 0 is too small (write a number from 1 to 2)");
    assert_eq!(of("replicas = 1000"), "4:12 1000: 1000 is too large (write a number from 1 to 2)");
    assert!(of("backup = {}").contains("does not say when the second attempt starts"));
    assert!(of("backup = { aftr = 2 }").contains("did you mean `after`?"));
    assert!(of("backup = 1.5").contains("a table like { after = 1.5 }"));
}

#[test]
fn both_are_one_too_many() {
    let said = said_of("'x {outputs}'", &format!("{OUTPUT}backup = {{ after = 2 }}\nreplicas = 2"));
    assert!(said.starts_with("5:1 replicas: `replicas` beside `backup`: there is one second attempt"), "{said}");
}

#[test]
fn a_command_that_names_its_outputs_itself_is_refused_where_it_does() {
    let said = said_of("'python t.py --out out/a'", &format!("{OUTPUT}replicas = 2"));
    assert_eq!(
        said,
        "2:26 out/a: with `replicas` two attempts would both write `out/a` (write `{outputs}` or `$TRAINYARD_OUTPUTS` \
         instead: each attempt gets a place of its own)"
    );
    let said = said_of("['t', '--out=out/a', '{outputs}']", &format!("{OUTPUT}backup = {{ after = 2 }}"));
    assert!(said.starts_with("2:20 out/a: with `backup` two attempts would both write"), "{said}");
}

#[test]
fn a_command_that_is_not_told_where_to_write_is_refused() {
    let said = said_of("'python t.py'", &format!("{OUTPUT}replicas = 2"));
    assert!(said.contains("with `replicas` two attempts of `a` would write the same files"), "{said}");
    assert_eq!(said_of("'t > \"$TRAINYARD_OUTPUTS\"'", &format!("{OUTPUT}replicas = 2")), "");
    let said = said_of("'python t.py'", "replicas = 2");
    assert!(said.starts_with("3:1 replicas: `replicas` needs `outputs`"), "{said}");
}
