//! `trainyard check` and `trainyard schema` as a user sees them.
#![expect(clippy::disallowed_methods, reason = "the command is started")]

use std::path::Path;
use std::process::{Command, Output};

fn trainyard(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command.env_clear().env("LANG", "C.UTF-8").env("NO_COLOR", "1").current_dir(folder);
    command.args(args).output().expect("the command starts")
}

fn folder_with(text: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("p.toml"), text).expect("a file");
    folder
}

const BAD: &str = r#"name = "digits"

[stage.clean]
run = "python clean.py {matrix.lr}"
outputs = ["work/clean.npz"]
resources = { cpus = 2, memory = "1 gig" }

[stage.train]
use = "torch.trian"
inputs = ["work/clean.npz", "data/labels.csv"]
outputs = ["./work//clean.npz"]
retris = 2
after = ["evaluate"]

[stage.evaluate]
run = "python evaluate.py"
after = ["train"]
"#;

#[test]
fn every_problem_is_shown_with_excerpt_caret_and_help() {
    let folder = folder_with(BAD.as_bytes());
    let output = trainyard(folder.path(), &["check", "p.toml", "--set", "trian.retries=3"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, b"");
    insta::assert_snapshot!(String::from_utf8_lossy(&output.stderr));
}

#[test]
fn problems_as_json_have_line_and_column() {
    let folder = folder_with(b"[stage.a]\nrun = 'x'\nretris = 2\n");
    let output = trainyard(folder.path(), &["check", "p.toml", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        r#"{"file":"p.toml","problems":[{"line":3,"column":1,"message":"unknown key `retris`","help":"did you mean `retries`?"}]}"#
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_as_json_too() {
    let folder = folder_with(b"");
    let output = trainyard(folder.path(), &["check", "none.toml", "--json"]);
    assert_eq!((output.status.code(), &*output.stderr), (Some(3), &b""[..]));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        r#"{"file":"none.toml","problems":[{"line":null,"column":null,"message":"cannot read none.toml: No such file or directory (os error 2)","help":null}]}"#
    );
    let output = trainyard(folder.path(), &["check", ".", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["problems"][0]["message"], "cannot read .: Is a directory (os error 21)");
}

#[test]
fn of_many_problems_the_first_are_shown_and_the_rest_is_counted() {
    let text = format!("[stage.a]\nrun = 'x'\n{}", "retries = 1\n".repeat(500));
    let folder = folder_with(text.as_bytes());
    let output = trainyard(folder.path(), &["check", "p.toml"]);
    let shown = String::from_utf8_lossy(&output.stderr);
    assert_eq!(shown.matches("is written twice").count(), 50);
    let last = "499 problems in p.toml; 449 more are not shown: `trainyard check --json` lists all\n";
    assert!(shown.ends_with(last), "{}", &shown[shown.len() - 200..]);
    let output = trainyard(folder.path(), &["check", "p.toml", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["problems"].as_array().map(Vec::len), Some(499));
}

#[test]
fn problems_of_an_argument_as_json_name_the_argument() {
    let folder = folder_with(b"[stage.a]\nrun = 'x'\n");
    let output =
        trainyard(folder.path(), &["check", "p.toml", "--json", "--set", "a.retries=1", "--set", "a.retris=2"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        r#"{"file":"p.toml","problems":[{"line":null,"column":null,"message":"unknown key `retris`","help":"did you mean `retries`?","argument":"--set a.retris=2"}]}"#
    );
}

#[test]
fn at_least_one_task_is_allowed() {
    let folder = folder_with(b"[stage.a]\nrun = 'x'\n");
    let output = trainyard(folder.path(), &["check", "p.toml", "--max-tasks", "0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("invalid value '0' for '--max-tasks <N>'"));
    let output = trainyard(folder.path(), &["check", "p.toml", "--max-tasks", "1"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn an_absolute_path_below_the_project_is_one_of_its_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let project = folder.path().join("project");
    std::fs::create_dir(&project).expect("a folder");
    std::os::unix::fs::symlink("project", folder.path().join("link")).expect("a link");
    for name in ["project", "link"] {
        let input = folder.path().join(name).join("work/a");
        let text = "[stage.a]\nrun = 'a'\noutputs = ['work/a']\n[stage.b]\nrun = 'b'\ninputs = ['INPUT']\n";
        std::fs::write(project.join("p.toml"), text.replace("INPUT", &input.display().to_string())).expect("a file");
        let output = trainyard(folder.path(), &["check", "link/p.toml"]);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "link/p.toml: no problems; stages: 2, tasks: 2\n",
            "{name}"
        );
    }
}

#[test]
fn one_slip_in_an_output_is_one_problem() {
    for outputs in ["outputs = ['m-{matrix.y}']", "outpts = ['m-1']", "outputs = [1]", "outputs = 0x"] {
        let text =
            format!("[stage.a]\nrun = 'a'\nmatrix.x = [1, 2]\n{outputs}\n[stage.b]\nrun = 'b'\ninputs = ['m-*']\n");
        let folder = folder_with(text.as_bytes());
        let output = trainyard(folder.path(), &["check", "p.toml"]);
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(shown.contains("\n1 problem in p.toml\n"), "{outputs}: {shown}");
    }
}

#[test]
fn a_good_file_has_no_problems() {
    let folder = folder_with(b"[stage.a]\nrun = 'x'\nmatrix.n = [1, 2]\n");
    let output = trainyard(folder.path(), &["check", "p.toml"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "p.toml: no problems; stages: 1, tasks: 2\n");
    let output = trainyard(folder.path(), &["check", "p.toml", "--json"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"file\":\"p.toml\",\"problems\":[]}\n");
}

#[test]
fn a_missing_input_that_nobody_makes_is_reported() {
    let folder = folder_with(b"[stage.a]\nrun = 'x'\ninputs = ['gone.csv']\n");
    let output = trainyard(folder.path(), &["check", "p.toml"]);
    assert_eq!(output.status.code(), Some(3));
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(shown.contains("there is no file `gone.csv`, and no stage writes it"), "{shown}");
    assert!(shown.contains("p.toml:3:11"), "{shown}");
}

#[test]
fn a_file_that_cannot_be_read_is_rejected() {
    let folder = folder_with(b"[stage.a]\nrun = '\xff'\n");
    let missing = trainyard(folder.path(), &["check", "none.toml"]);
    assert_eq!(missing.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot read none.toml: No such file or directory"));
    let binary = trainyard(folder.path(), &["check", "p.toml"]);
    assert_eq!(binary.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&binary.stderr).contains("this file is not UTF-8 text: byte 18 cannot be read"));
}

#[test]
fn the_schema_names_every_key_and_every_op() {
    use trainyard::spec::decode::Key;
    use trainyard::spec::keys::{CommonKey, StageKey, TopKey};
    let output = trainyard(Path::new("."), &["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for field in TopKey::FIELDS {
        assert!(schema["properties"].get(field.word).is_some(), "{}", field.word);
    }
    let stage = &schema["properties"]["stage"]["additionalProperties"];
    for field in StageKey::FIELDS.iter().chain(CommonKey::FIELDS) {
        assert_eq!(stage["properties"][field.word]["description"], field.about, "{}", field.word);
    }
    assert_eq!(stage["additionalProperties"], false);
    for (i, op) in trainyard::spec::op::CATALOGUE.iter().enumerate() {
        assert_eq!(stage["allOf"][i]["if"]["properties"]["use"]["const"], op.name);
        let with = &stage["allOf"][i]["then"]["properties"]["with"]["properties"];
        assert!(op.params.iter().all(|param| with.get(param.name).is_some()), "{}", op.name);
    }
}

#[test]
fn a_reader_that_goes_away_and_a_full_disk_are_no_panic() {
    let folder = folder_with(b"[stage.a]\nrun = \"true\"\n");
    let commands = [
        &["check", "p.toml"][..],
        &["plan", "p.toml"],
        &["devices"],
        &["schema"],
        &["completions", "bash"],
        &["bench", "p.toml", "--policies", "auto"],
    ];
    for args in commands {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command.args(args).current_dir(folder.path()).stderr(std::process::Stdio::piped());
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command.stdout(writer).output().expect("the command starts");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));

        let full = std::fs::File::options().write(true).open("/dev/full").expect("every Linux has it");
        let output = command.stdout(full).output().expect("the command starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(70), "{args:?}: {said}");
        assert!(said.contains("cannot write the output"), "{args:?}: {said}");
    }
    let full = std::fs::File::options().write(true).open("/dev/full").expect("every Linux has it");
    let rejected = Command::new(env!("CARGO_BIN_EXE_trainyard")).args(["check", "none.toml"]).stderr(full).status();
    assert_eq!(rejected.expect("the command starts").code(), Some(3));
}

#[test]
fn a_memory_limit_without_a_gpu_is_pointed_at_and_no_reason_to_reject() {
    let text = "[defaults]\nmemory_limit = 'framework'\n[stage.a]\nrun = 'x'\nmemory_limit = 'watch'\n\
                [stage.b]\nrun = 'x'\n[stage.c]\nrun = 'x'\nmemory_limit = 'none'\n\
                [stage.d]\nrun = 'x'\nmemory_limit = 'watch'\nresources = { gpu_memory = '1GiB' }\n";
    let folder = folder_with(text.as_bytes());
    let output = trainyard(folder.path(), &["check", "p.toml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("`memory_limit` has no effect: `a` asks for no GPU"), "{said}");
    assert!(said.contains("p.toml:5:1]") && said.matches("has no effect").count() == 1, "{said}");
    let output = trainyard(folder.path(), &["check", "p.toml", "--log-format", "json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("p.toml:5:1: `memory_limit` has no effect") && !said.contains('⚠'), "{said}");
}
