//! `trainyard bench` from the outside: what it prints in each form, what it refuses, and durations of a recorded run.

#![expect(clippy::disallowed_methods, reason = "runs the real binary")]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

type Tested = Result<(), Box<dyn Error>>;

const TWO: &str = "name = 'two'\n[[node]]\nname = 'box'\ncpus = 8\n[[node.gpu]]\ncount = 2\nmemory = '16GiB'\n";

const FIVE: &str = "
name = 'five'
[stage.a]
run = ['true']
matrix = { n = [1, 2, 3] }
duration = '3s'
resources = { gpus = 1 }
[stage.b]
run = ['true']
matrix = { n = [1, 2] }
duration = '4s'
resources = { gpus = 1 }
";

fn trainyard(folder: &Path, args: &[&str]) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    Ok(command
        .args(args)
        .current_dir(folder)
        .env("TRAINYARD_BOX", folder.join(".box"))
        .env("NO_COLOR", "1")
        .output()?)
}

fn folder() -> Result<tempfile::TempDir, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("five.toml"), FIVE)?;
    fs::write(folder.path().join("two.toml"), TWO)?;
    Ok(folder)
}

fn bench(args: &[&str]) -> Result<Output, Box<dyn Error>> {
    let folder = folder()?;
    trainyard(folder.path(), &[&["bench", "five.toml", "--fleet", "two.toml"], args].concat())
}

fn rows(output: &Output) -> Result<Vec<Value>, Box<dyn Error>> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn behind_the_last_seed_comes_the_first() -> Tested {
    let last = u64::MAX.to_string();
    let rows = rows(&bench(&["--policies", "random", "--seed", &last, "--seeds", "3", "--json"])?)?;
    assert_eq!(rows[0]["seeds"], 3);
    Ok(())
}

#[test]
fn each_policy_has_a_row_and_the_best_is_proven_optimal() -> Tested {
    let rows = rows(&bench(&["--policies", "fifo,ga,auto", "--seeds", "2", "--json"])?)?;
    let policies: Vec<_> = rows.iter().filter_map(|row| row["policy"].as_str()).collect();
    assert_eq!(policies, ["fifo+earliest-finish", "ga", "auto"]);
    for row in &rows {
        assert_eq!((&row["pipeline"], &row["fleet"], &row["seeds"]), (&"five".into(), &"two".into(), &2.into()));
        let number = |key: &str| row[key].as_u64().unwrap_or(0);
        assert!(number("makespan_ms") >= number("lower_bound_ms") && number("lower_bound_ms") >= 8_500, "{row}");
        assert!(number("evaluations") >= 1, "{row}");
        assert_eq!(row["error"], Value::Null);
    }
    // 3 + 3 + 3 on one device and 4 + 4 on the other.
    assert_eq!(rows[2]["makespan_ms"], 9_000);
    Ok(())
}

#[test]
fn searches_get_the_same_number_of_schedules() -> Tested {
    let hard = "name = 'hard'\n[stage.a]\nrun = ['true']\nmatrix = { n = [1, 2, 3, 4, 5] }\nduration = '3s'\n\
                [stage.b]\nrun = ['true']\nmatrix = { n = [1, 2, 3, 4] }\nduration = '5s'\n";
    let folder = folder()?;
    fs::write(folder.path().join("hard.toml"), hard)?;
    fs::write(folder.path().join("cpus.toml"), "[[node]]\nname = 'n'\ncpus = 4\n")?;
    let args = ["bench", "hard.toml", "--fleet", "cpus.toml", "--policies", "ga", "--evaluations", "50", "--json"];
    let rows = rows(&trainyard(folder.path(), &args)?)?;
    assert!(rows.iter().all(|row| row["optimal"].as_u64() > Some(0) || row["evaluations"] == 50), "{rows:?}");
    Ok(())
}

#[test]
fn a_star_stands_for_every_order_or_fit() -> Tested {
    let of = |policies: &str| rows(&bench(&["--policies", policies, "--seeds", "1", "--json"])?).map(|rows| rows.len());
    let (orders, fits) = (of("*+best-fit")?, of("fifo+*")?);
    assert!(orders >= 7 && fits >= 10, "{orders} orders, {fits} fits");
    assert!(of("all")? > orders * fits);
    Ok(())
}

#[test]
fn csv_has_a_heading_and_a_line_for_each_policy() -> Tested {
    let output = bench(&["--policies", "fifo,ljf", "--csv"])?;
    let text = String::from_utf8(output.stdout)?;
    let lines: Vec<_> = text.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("pipeline,tasks,fleet,devices,policy,"), "{text}");
    let fields = |line: &str| line.split(',').count();
    assert!(lines.iter().all(|line| fields(line) == fields(lines[0])));
    Ok(())
}

#[test]
fn a_page_has_the_tables_and_the_best_plan() -> Tested {
    let folder = folder()?;
    let args = ["bench", "five.toml", "--fleet", "two.toml", "--policies", "fifo,auto", "--html", "page.html"];
    let output = trainyard(folder.path(), &args)?;
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout)?.contains("five on two: 5 tasks, 2 GPUs"));
    let page = fs::read_to_string(folder.path().join("page.html"))?;
    assert!(page.contains("<td>auto</td>") && page.contains("The best plan: 9s by") && page.contains("a[n=1]: "));
    Ok(())
}

#[test]
fn an_unknown_policy_ends_with_2_and_a_suggestion() -> Tested {
    let output = bench(&["--policies", "fifo,critcal-path"])?;
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("did you mean `critical-path`?"), "{words}");
    Ok(())
}

#[test]
fn what_can_never_run_ends_with_4() -> Tested {
    let output = bench(&["--set", "a.resources.gpus=3"])?;
    assert_eq!(output.status.code(), Some(4));
    Ok(())
}

#[test]
fn a_history_with_nothing_to_replay_is_refused() -> Tested {
    let output = bench(&["--from-history"])?;
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("no recorded run of `five`"), "{words}");
    Ok(())
}

#[test]
fn durations_of_a_recorded_run_replace_those_declared() -> Tested {
    let folder = folder()?;
    let pipeline = "name = 'quick'\n[stage.a]\nrun = ['true']\nduration = '10h'\nresources = { cpus = 0 }\n";
    fs::write(folder.path().join("quick.toml"), pipeline)?;
    let run = trainyard(folder.path(), &["run", "quick.toml", "--quiet"])?;
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let args = ["bench", "quick.toml", "--fleet", "two.toml", "--policies", "auto", "--from-history", "--json"];
    let rows = rows(&trainyard(folder.path(), &args)?)?;
    assert!(rows[0]["makespan_ms"].as_u64() < Some(36_000_000), "{rows:?}");
    Ok(())
}

#[test]
fn what_earlier_runs_took_is_learned_as_plan_does() -> Tested {
    let folder = folder()?;
    let pipeline = "name = 'open'\n[stage.a]\nrun = ['true']\nresources = { cpus = 0 }\n";
    fs::write(folder.path().join("open.toml"), pipeline)?;
    let bench = ["bench", "open.toml", "--fleet", "two.toml", "--policies", "fifo, auto", "--json"];
    let before = trainyard(folder.path(), &bench)?;
    let words = String::from_utf8_lossy(&before.stderr);
    assert!(words.contains("taken to need 1m00s each") && words.contains("`a`"), "{words}");
    assert_eq!(rows(&before)?[0]["makespan_ms"], 60_000);
    assert!(trainyard(folder.path(), &["run", "open.toml", "--quiet"])?.status.success());
    let after = trainyard(folder.path(), &bench)?;
    assert_eq!(String::from_utf8_lossy(&after.stderr), "");
    let plan = trainyard(folder.path(), &["plan", "open.toml", "--fleet", "two.toml", "--json"])?;
    let plan: Value = serde_json::from_slice(&plan.stdout)?;
    assert_eq!(rows(&after)?[0]["makespan_ms"], plan["makespan_ms"]);
    assert!(plan["makespan_ms"].as_u64() < Some(60_000), "{plan}");
    Ok(())
}

#[test]
fn tasks_that_did_not_run_in_the_recorded_run_take_what_was_learned_and_are_named() -> Tested {
    let folder = folder()?;
    let pipeline = "name = 'half'\n[stage.a]\nrun = 'touch out'\noutputs = ['out']\n[stage.b]\nrun = ['true']\n";
    fs::write(folder.path().join("half.toml"), pipeline)?;
    for more in [&[][..], &["--force-stage", "b"]] {
        let run = trainyard(folder.path(), &[&["run", "half.toml", "--quiet"], more].concat())?;
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }
    let args = ["bench", "half.toml", "--fleet", "two.toml", "--policies", "auto", "--from-history", "--json"];
    let output = trainyard(folder.path(), &args)?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("1 of 2 tasks did not run to a good end in") && words.contains("`a`"), "{words}");
    assert!(rows(&output)?[0]["makespan_ms"].as_u64() < Some(60_000), "{output:?}");
    Ok(())
}

#[test]
fn what_is_for_a_trace_is_refused_beside_a_pipeline() -> Tested {
    for args in [["--fits", "best-fit"], ["--placements", "here"], ["--nodes", "n.csv"], ["--arrivals", "a.json"]] {
        let output = bench(&args)?;
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && words.contains(args[0]) && words.contains("--trace"), "{words}");
    }
    for args in [["--quantum", "1m"], ["--state", "here"], ["--objective", "energy"]] {
        let output = bench(&["--trace", ".", args[0], args[1]])?;
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && words.contains(args[0]) && words.contains("--trace"), "{words}");
    }
    Ok(())
}

#[test]
fn beside_a_pipeline_that_can_never_run_others_are_compared() -> Tested {
    let folder = folder()?;
    fs::write(folder.path().join("huge.toml"), FIVE.replace("gpus = 1", "gpus = 3"))?;
    let args = ["bench", "huge.toml", "five.toml", "--fleet", "two.toml", "--policies", "fifo", "--json"];
    let output = trainyard(folder.path(), &args)?;
    assert_eq!(output.status.code(), Some(4));
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    assert_eq!((rows.len(), &rows[0]["pipeline"]), (1, &"five".into()));
    Ok(())
}

/// A fast GPU that takes much, and a slow one that takes little.
const WATTS: &str = "name = 'two'\n[[node]]\nname = 'box'\ncpus = 8\n\
    [[node.gpu]]\nmodel = 'H100'\nmemory = '16GiB'\nspeed = 2.0\nidle_watts = 10\nactive_watts = 700\n\
    [[node.gpu]]\nmodel = 'L4'\nmemory = '16GiB'\nspeed = 1.0\nidle_watts = 5\nactive_watts = 70\n";

fn by_energy(args: &[&str]) -> Result<Output, Box<dyn Error>> {
    let folder = folder()?;
    fs::write(folder.path().join("watts.toml"), WATTS)?;
    let bench = ["bench", "five.toml", "--fleet", "watts.toml", "--objective", "energy"];
    trainyard(folder.path(), &[&bench, args].concat())
}

#[test]
fn plans_are_compared_by_another_objective() -> Tested {
    let rows = rows(&by_energy(&["--policies", "fifo+earliest-finish,auto,ga", "--seeds", "1", "--json"])?)?;
    let number = |row: &Value, key: &str| row[key].as_u64().ok_or(format!("no {key} in {row}"));
    for row in &rows[..2] {
        assert_eq!(row["objective"], "energy");
        let (value, bound) = (number(row, "objective_value")?, number(row, "objective_bound")?);
        let gap = row["gap"].as_f64().unwrap_or(-1.0);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let expected = (value - bound) as f64 / bound as f64;
        assert!(bound > 0 && (gap - expected).abs() < 1e-9, "{row}");
    }
    // What ends early takes more than what saves energy.
    assert!(number(&rows[1], "objective_value")? < number(&rows[0], "objective_value")?, "{rows:?}");
    assert!(rows[2]["error"].as_str().is_some_and(|words| words.contains("makes plans short")), "{rows:?}");
    Ok(())
}

#[test]
fn the_table_of_another_objective_says_which() -> Tested {
    let output = by_energy(&["--policies", "fifo,auto", "--html", "page.html"])?;
    let text = String::from_utf8(output.stdout)?;
    assert!(text.contains("; by energy; no plan is under "), "{text}");
    assert!(text.lines().nth(1).is_some_and(|line| line.contains("energy") && line.contains("makespan")), "{text}");
    // Nobody named a search, so those that know the makespan only are left out.
    let usual = String::from_utf8(by_energy(&["--seeds", "1", "--csv"])?.stdout)?;
    assert!(usual.contains(",auto,") && !usual.contains(",ga,"), "{usual}");
    Ok(())
}

#[test]
fn objectives_that_cannot_be_had_end_with_2_and_what_helps() -> Tested {
    let refused = |output: Output, words: &str| {
        let said = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
        assert!(output.status.code() == Some(2) && said.contains(words), "{}: {said}", output.status);
    };
    refused(bench(&["--objective", "enrgy"])?, "did you mean `energy`?");
    refused(bench(&["--objective", "energy"])?, "idle_watts");
    refused(by_energy(&["--policies", "ga,sa"])?, "for `--objective energy` take `auto`");
    Ok(())
}

#[test]
fn turns_may_end_before_any_plan_without_and_the_bounds_know() -> Tested {
    let folder = folder()?;
    // In one piece they take two rounds of two, in turns one and a half.
    let half = "name = 'half'\n[stage.a]\nrun = ['true']\nmatrix = { n = [1, 2, 3] }\nduration = '20m'\nsuspend = true\n\
                resources = { gpus = 0.5, gpu_memory = '1GiB' }\n";
    fs::write(folder.path().join("half.toml"), half)?;
    fs::write(folder.path().join("one.toml"), TWO.replace("count = 2", "count = 1"))?;
    let of = ["bench", "half.toml", "--fleet", "one.toml", "--policies", "exact,time-slice", "--quantum", "10m"];
    let rows = rows(&trainyard(folder.path(), &[&of[..], &["--json"]].concat())?)?;
    let of_row = |at: usize| ["makespan_ms", "lower_bound_ms", "optimal"].map(|key| rows[at][key].as_u64());
    let minutes = |minutes: u64| Some(minutes * 60_000);
    assert_eq!(of_row(0), [minutes(40), minutes(40), Some(3)]);
    assert_eq!(of_row(1), [minutes(30), minutes(30), Some(3)]);
    let said = String::from_utf8(trainyard(folder.path(), &of)?.stdout)?;
    assert!(
        said.contains("no plan ends before 30m") && said.contains("no plan without turns ends before 40m"),
        "{said}"
    );
    Ok(())
}
