//! `trainyard plan` from the outside: its JSON, its refusals and its exit codes, in a folder of its own.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

const CHAIN: &str = r#"
name = "p"
[stage.A]
run = ["true"]
duration = "2s"
resources = { gpu_memory = "6GiB" }
[stage.B]
run = ["true"]
after = ["A"]
duration = "2s"
[stage.C]
run = ["true"]
after = ["B"]
resources = { cpus = 2 }
duration = "3s"
"#;

const BOX: &str = r#"
name = "f"
[[node]]
name = "box"
cpus = 4
memory = "64GiB"
[[node.gpu]]
count = 1
model = "H100"
memory = "80GiB"
"#;

#[expect(clippy::unwrap_used, reason = "the helpers of tests")]
fn plan(folder: &Path, pipeline: &str, fleet: &str, arguments: &[&str]) -> Output {
    std::fs::write(folder.join("p.toml"), pipeline).unwrap();
    std::fs::write(folder.join("f.toml"), fleet).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test is about the process")]
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command.current_dir(folder).env_clear().args(["plan", "p.toml", "--fleet", "f.toml"]).args(arguments);
    command.output().unwrap()
}

#[expect(clippy::unwrap_used, reason = "the helpers of tests")]
fn outcome(pipeline: &str, fleet: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = plan(folder.path(), pipeline, fleet, arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn json_has_the_keys_that_are_promised() {
    let (code, stdout, stderr) = outcome(CHAIN, BOX, &["--json", "--load-matrix"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let plan: Value = serde_json::from_str(&stdout).unwrap();
    let keys: Vec<_> = plan.as_object().unwrap().keys().collect();
    let promised = [
        "pipeline",
        "fleet",
        "policy",
        "makespan_ms",
        "lower_bound_ms",
        "bound_by",
        "optimal",
        "gap",
        "objective",
        "objective_value",
        "objective_bound",
        "critical_path",
        "devices",
        "tasks",
        "load_matrix",
    ];
    assert_eq!(keys, promised);
    assert_eq!(
        (&plan["makespan_ms"], &plan["lower_bound_ms"], &plan["gap"]),
        (&json!(7000), &json!(7000), &json!(0.0))
    );
    assert_eq!((&plan["optimal"], &plan["critical_path"]), (&json!(true), &json!(["A", "B", "C"])));
    let device = json!({"id": "box/gpu0", "model": "H100", "memory_bytes": 85_899_345_920_u64, "speed": 1.0});
    assert_eq!(plan["devices"], json!([device]));
    let task = json!({
        "name": "A", "stage": "A", "duration_ms": 2000, "duration_from": "declared", "duration_runs": null,
        "earliest_start_ms": 0,
        "earliest_finish_ms": 2000, "latest_start_ms": 0, "latest_finish_ms": 2000, "slack_ms": 0, "critical": true,
        "mode": 0, "node": "box", "devices": ["box/gpu0"], "gpu_memory_bytes": 6_442_450_944_u64,
        "gpu_memory_from": "declared", "gpu_memory_runs": null, "memory_limit": "none", "start_ms": 0, "finish_ms": 2000,
    });
    assert_eq!(plan["tasks"][0], task);
    assert_eq!(plan["tasks"][1]["devices"], json!([]));
    let loads = json!({
        "devices": ["box/gpu0", "box/cpu"], "tasks": ["A", "B", "C"], "ms": [[2000, null, null], [null, 2000, 3000]],
    });
    assert_eq!(plan["load_matrix"], loads);
}

#[test]
fn a_load_matrix_is_shown_only_when_asked_for_and_lists_no_idle_host() {
    let only_gpu = "name = \"p\"\n[stage.A]\nrun = [\"true\"]\nduration = \"2s\"\nresources = { gpus = 1 }\n";
    let json = |arguments: &[&str]| serde_json::from_str::<Value>(&outcome(only_gpu, BOX, arguments).1).unwrap();
    assert_eq!(json(&["--json"]).get("load_matrix"), None);
    let expected = json!({"devices": ["box/gpu0"], "tasks": ["A"], "ms": [[2000]]});
    assert_eq!(json(&["--json", "--load-matrix"])["load_matrix"], expected);
}

#[test]
fn a_duration_that_nobody_declared_is_marked() {
    let (_, stdout, _) = outcome("name = \"p\"\n[stage.A]\nrun = [\"true\"]\n", BOX, &["--json"]);
    let plan: Value = serde_json::from_str(&stdout).unwrap();
    let task = &plan["tasks"][0];
    assert_eq!((&task["duration_ms"], &task["duration_from"]), (&json!(60_000), &json!("default")));
}

#[test]
fn the_table_shows_the_chart_and_how_good_the_plan_is() {
    let (code, stdout, _) = outcome(CHAIN, BOX, &[]);
    assert_eq!(code, Some(0));
    insta::assert_snapshot!(stdout, @r"
    task  where     start  finish  duration  slack alone  GPU memory
    A     box/gpu0    0ms      2s        2s          0ms     6.0 GiB  critical
    B     box/cpu      2s      4s        2s          0ms              critical
    C     box/cpu      4s      7s        3s          0ms              critical

              |0ms                  |1.75s                 |3.50s                |5.25s              7s|
    box/gpu0  [A######################]
    box/cpu                            [B#######################][C####################################]

    makespan       7s by auto
    lower bound    7s by critical path: proven optimal
    critical path  7s if nobody waited for room: A → B → C
    ");
}

#[test]
fn a_bar_has_its_name_in_every_script_that_is_as_narrow() {
    let (_, stdout, _) = outcome("name = \"p\"\n[stage.b]\nrun = [\"true\"]\nmatrix = { x = [\"é\"] }\n", BOX, &[]);
    assert!(stdout.contains("[b[x=é]####"), "{stdout}");
}

#[test]
fn a_proof_into_a_folder_that_is_not_there_ends_with_2() {
    let (code, _, stderr) = outcome(CHAIN, BOX, &["--policy", "exact", "--proof", "none/proof"]);
    assert!(code == Some(2) && stderr.contains("make the folder first"), "{stderr}");
}

#[test]
fn who_asks_for_what_no_node_declares_is_told_where_that_can_be_declared() {
    let pipeline = "name = \"p\"\n[stage.A]\nrun = [\"true\"]\nresources = { tape = 1 }\n";
    let (code, _, stderr) = outcome(pipeline, BOX, &[]);
    assert!(code == Some(4) && stderr.contains("whose node declares tape"), "{stderr}");
}

#[test]
fn models_that_the_fleet_does_not_have_are_named() {
    let pipeline =
        "name = \"p\"\n[stage.A]\nrun = [\"true\"]\nresources = { gpus = 1 }\nduration = { H1000 = \"5s\" }\n";
    let (code, _, stderr) = outcome(pipeline, BOX, &[]);
    assert!(code == Some(0) && stderr.contains("`A` (H1000; for `H1000`, did you mean `H100`?)"), "{stderr}");
}

#[test]
fn what_can_never_run_ends_with_4_and_every_reason() {
    let pipeline = CHAIN.replace("6GiB", "100GiB").replace("cpus = 2", "cpus = 5");
    let (code, stdout, stderr) = outcome(&pipeline, BOX, &[]);
    assert_eq!((code, stdout.as_str()), (Some(4), ""));
    for words in ["`A`: it asks for 100.0 GiB of GPU memory", "`C`: it asks for 5 CPUs", "help: "] {
        assert!(stderr.contains(words), "{stderr}");
    }
}

#[test]
fn an_unknown_policy_ends_with_2_and_a_suggestion() {
    let (code, _, stderr) = outcome(CHAIN, BOX, &["--policy", "critical-path+best-fti"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("did you mean `critical-path+best-fit`?"), "{stderr}");
}

#[test]
fn what_is_out_of_range_or_the_wrong_way_round_is_told_with_what_to_write() {
    for (arguments, told) in [
        (["--seed", "-1"], "write a whole number from 0 to"),
        (["--evaluations", "1e3"], "write a whole number from 0 to"),
        (["--budget", "-1s"], "it is negative"),
        (["--policy", "best-fit+critcal-path"], "did you mean `critical-path+best-fit`?"),
        (["--policy", "ga+best-fit"], "did you mean `ga`?"),
    ] {
        let (code, _, stderr) = outcome(CHAIN, BOX, &arguments);
        assert!(code == Some(2) && stderr.contains(told), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_bad_fleet_file_ends_with_3_at_its_place() {
    let (code, _, stderr) = outcome(CHAIN, &BOX.replace("cpus = 4", "cpus = \"four\""), &[]);
    assert_eq!(code, Some(3));
    assert!(stderr.contains("f.toml"), "{stderr}");
}

#[test]
fn between_nodes_without_a_link_data_takes_no_time_and_that_is_said() {
    let pipeline = r#"
name = "p"
[stage.a]
run = ["true"]
duration = "10s"
outputs = [{ path = "a.bin", size = "1TiB" }]
[stage.b]
run = ["true"]
matrix = { x = [1, 2] }
inputs = ["a.bin"]
duration = "10s"
"#;
    let fleet = "[[node]]\nname = \"n1\"\ncpus = 1\n[[node]]\nname = \"n2\"\ncpus = 1\n";
    let (code, stdout, stderr) = outcome(pipeline, fleet, &["--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap()["makespan_ms"], json!(20_000));
    let said =
        "no [[link]] for n1 and n2 (up to 1.0 TiB): data is taken to need no time there, as on a shared file system\n";
    assert_eq!(stderr, said);
    let link = |rate: &str| format!("{fleet}[[link]]\nbetween = [\"n2\", \"n1\"]\nbandwidth = \"{rate}\"\n");
    let (_, stdout, stderr) = outcome(pipeline, &link("1GB/s"), &["--json"]);
    assert_eq!(
        (serde_json::from_str::<Value>(&stdout).unwrap()["makespan_ms"].clone(), stderr.as_str()),
        (json!(30_000), "")
    );
    let (code, _, stderr) = outcome(pipeline, &link("0GB/s"), &[]);
    assert_eq!(code, Some(3));
    assert!(stderr.contains("nodes without a link share a file"), "{stderr}");
}

#[test]
fn as_many_evaluations_as_can_be_counted_are_no_reason_to_panic() {
    let (code, _, stderr) = outcome(CHAIN, BOX, &["--evaluations", &u64::MAX.to_string()]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[test]
fn every_policy_plans_the_chain_in_7_seconds() {
    let orders = ["fifo", "sjf", "ljf", "priority", "critical-path", "least-slack", "most-successors", "efficiency"];
    let fits = [
        "earliest-finish",
        "first-fit",
        "best-fit",
        "worst-fit",
        "dot-product",
        "fragmentation",
        "random",
        "round-robin",
        "least-loaded",
        "least-connections",
    ];
    let pairs = orders.iter().zip(fits.iter().cycle()).map(|(order, fit)| format!("{order}+{fit}"));
    let alone = fits.iter().map(|fit| (*fit).to_owned());
    for policy in pairs.chain(alone).chain(["auto", "ga", "sa", "lns", "aco", "pso", "exact"].map(str::to_owned)) {
        let (_, stdout, stderr) = outcome(CHAIN, BOX, &["--json", "--policy", &policy]);
        assert!(stdout.contains("\"makespan_ms\":7000"), "{policy}: {stdout}{stderr}");
    }
}

#[test]
fn islands_find_the_same_every_time_and_share_what_may_be_tried() {
    let stages = (0..14).map(|i| {
        let after = if i > 2 { format!("after = ['s{}']\n", i - 3) } else { String::new() };
        format!(
            "[stage.s{i}]\nrun = ['true']\nduration = '{}s'\nresources = {{ cpus = {} }}\n{after}",
            3 + i * 7 % 11,
            1 + i % 3
        )
    });
    let pipeline = format!("name = 'p'\n{}", stages.collect::<String>());
    for policy in ["ga", "sa", "lns", "aco", "pso"] {
        let found =
            || outcome(&pipeline, BOX, &["--policy", policy, "--islands", "3", "--evaluations", "900", "--json"]);
        let (code, first, stderr) = found();
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(found().1, first, "{policy}");
    }
}

#[test]
fn islands_are_for_searches_of_many_schedules() {
    for policy in ["auto", "exact", "fifo+best-fit"] {
        let (code, _, stderr) = outcome(CHAIN, BOX, &["--policy", policy, "--islands", "2"]);
        assert_eq!(code, Some(2));
        assert!(stderr.contains("`--islands` is for `ga`"), "{stderr}");
    }
    assert_eq!(outcome(CHAIN, BOX, &["--policy", "ga", "--islands", "0"]).0, Some(2));
}

const TURNS: &str = r#"
name = "p"
[stage.long]
run = ["true"]
suspend = true
duration = "10m"
resources = { gpus = 0.6, gpu_memory = "20GiB" }
[stage.short]
run = ["true"]
suspend = true
duration = "1m"
resources = { gpus = 0.6, gpu_memory = "20GiB" }
"#;

#[test]
fn turns_are_told_and_drawn() {
    let (code, stdout, stderr) = outcome(TURNS, BOX, &["--json", "--policy", "time-slice", "--quantum", "2m"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let plan: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(plan["policy"], "time-slice+earliest-finish");
    let (long, short) = (&plan["tasks"][0], &plan["tasks"][1]);
    assert_eq!(long["segments"], json!([[0, 120_000], [180_000, 660_000]]));
    assert_eq!(short["segments"], json!([[120_000, 180_000]]));
    assert_eq!((&long["duration_ms"], &long["finish_ms"]), (&json!(600_000), &json!(660_000)));
    let (_, stdout, _) = outcome(TURNS, BOX, &["--policy", "time-slice", "--quantum", "2m"]);
    assert!(stdout.contains("]....") && stdout.matches("[long").count() == 2, "{stdout}");
    // Nobody else interrupts a task.
    let (_, stdout, _) = outcome(TURNS, BOX, &["--json"]);
    assert!(!stdout.contains("segments"), "{stdout}");
}

#[test]
fn a_quantum_that_is_too_short_is_refused() {
    let (code, _, stderr) = outcome(TURNS, BOX, &["--policy", "time-slice", "--quantum", "5ms"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("a process is not stopped more often than every 100ms"), "{stderr}");
    let months = TURNS.replace("10m", "10000h");
    let (code, _, stderr) = outcome(&months, BOX, &["--policy", "time-slice", "--quantum", "1s"]);
    assert_eq!(code, Some(2));
    let words = stderr.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
    assert!(words.contains("plan with `--quantum 6m"), "{stderr}");
}
