//! What a pipeline file means.

use trainyard::graph::{self, Limits, TaskGraph, TaskId};
use trainyard::spec::{Action, Failures, Gpus, Mode, Value, op_params};
use trainyard::units::{Bytes, Cpus, Millis, Share};

use super::{OPS, load, load_with, source};

fn modes(lines: &str) -> Vec<Mode> {
    load(&format!("[stage.a]\nrun = 'true'\n{lines}\n")).0.stages[0].modes.clone()
}

fn names(graph: &TaskGraph) -> Vec<&str> {
    graph.tasks.iter().map(|task| task.name.as_str()).collect()
}

fn before(graph: &TaskGraph, task: &str) -> Vec<String> {
    let id = graph.ids().find(|id| graph.tasks[id.index()].name == task).expect("a task of this name");
    graph.before.of(id).iter().map(|edge| graph.tasks[edge.task.index()].name.clone()).collect()
}

fn command(graph: &TaskGraph, task: usize) -> &str {
    let Action::Shell(line) = &graph.tasks[task].action else { panic!("a shell line") };
    &line.text
}

#[test]
fn defaults_are_what_a_stage_starts_from() {
    let (pipeline, _) = load(
        "[defaults]\nretries = 1\ntimeout = '30m'\nbackoff = '5s..1m'\nenv = { A = 'd', B = 2 }\n\
         resources = { cpus = 4, memory = '1GiB' }\n\
         [stage.a]\nrun = 'true'\nretries = 3\nenv = { A = 's' }\nresources = { cpus = 0.5 }\n\
         [stage.b]\nrun = 'true'\n",
    );
    let [a, b] = &pipeline.stages[..] else { panic!("two stages") };
    assert_eq!((a.retry.retries, b.retry.retries), (3, 1));
    assert_eq!((a.retry.backoff, a.retry.backoff_most), (Millis(5_000), Millis(60_000)));
    assert_eq!((a.limits.timeout, a.limits.grace), (Some(Millis(1_800_000)), Millis(30_000)));
    assert_eq!((a.env["A"].as_str(), a.env["B"].as_str()), ("s", "2"));
    assert_eq!((a.modes[0].resources.cpus, a.modes[0].resources.memory), (Cpus(500), Bytes::GIB));
    assert_eq!(b.modes[0].resources.cpus, Cpus(4_000));
    assert_eq!(pipeline.name, "p");
}

#[test]
fn a_stage_says_after_which_failures_it_is_tried_again() {
    let (pipeline, _) = load(
        "[defaults]\nretry = { on = ['exit:75', 'signal:9', 'timeout'], backoff = '5s..5m' }\n\
         [stage.a]\nrun = 'true'\n\
         [stage.b]\nrun = 'true'\nretries = 1\nretry = { on = ['exit', 'exit:1-9', 'oom', 'any'] }\n\
         [stage.c]\nrun = 'true'\nretry = { max = 7 }\n",
    );
    let [a, b, c] = &pipeline.stages[..] else { panic!("three stages") };
    let below = [Failures::Exit(75..=75), Failures::Signal(9..=9), Failures::TimedOut];
    assert_eq!((a.retry.retries, &a.retry.on[..]), (3, &below[..]));
    assert_eq!((a.retry.backoff, a.retry.backoff_most), (Millis(5_000), Millis(300_000)));
    let own = [Failures::Exit(1..=255), Failures::Exit(1..=9), Failures::OutOfMemory, Failures::Any];
    assert_eq!((b.retry.retries, &b.retry.on[..], b.retry.backoff), (1, &own[..], Millis(5_000)));
    assert_eq!((c.retry.retries, &c.retry.on[..]), (7, &below[..]));
}

#[test]
fn gpus_are_whole_shared_or_a_share() {
    let gpus = |resources: &str| modes(&format!("resources = {{ {resources} }}"))[0].resources.gpus;
    assert_eq!(gpus(""), Gpus::None);
    assert_eq!(gpus("gpus = 2"), Gpus::Whole(2));
    assert_eq!(gpus("gpus = 2.0"), Gpus::Whole(2));
    assert_eq!(gpus("gpus = 0.5"), Gpus::Share(Share(500_000)));
    assert_eq!(gpus("gpu_memory = '6GiB'"), Gpus::Shared);
    assert_eq!(gpus("gpus = 1, gpu_memory = '6GiB'"), Gpus::Whole(1));
}

#[test]
fn a_mode_without_gpu_takes_no_gpu_memory_from_the_defaults() {
    let (pipeline, _) = load(
        "[defaults]\nresources = { gpu_memory = '6GiB', cpus = 2 }\n\
         [stage.a]\nrun = 'a'\nmodes = [{ duration = '1m' }, { resources = { gpus = 0 }, duration = '1h' }]\n",
    );
    let [gpu, cpu] = &pipeline.stages[0].modes[..] else { panic!("two modes") };
    assert_eq!((gpu.resources.gpus, gpu.resources.gpu_memory), (Gpus::Shared, Bytes(6 << 30)));
    assert_eq!((cpu.resources.gpus, cpu.resources.gpu_memory), (Gpus::None, Bytes::ZERO));
    assert_eq!(cpu.resources.cpus, Cpus(2_000));
}

#[test]
fn cpus_may_be_none_and_are_one_when_absent() {
    assert_eq!(modes("")[0].resources.cpus, Cpus::ONE);
    assert_eq!(modes("resources = { cpus = 0 }")[0].resources.cpus, Cpus::ZERO);
    assert_eq!(modes("resources = { cpus = 0.0001 }")[0].resources.cpus, Cpus(1), "never rounded to nothing");
}

#[test]
fn a_preferred_gpu_is_a_mode_with_a_fallback() {
    let modes = modes("resources = { gpus = 'prefer', gpu_memory = '2GiB', memory = '1GiB' }\nduration = '20s'");
    let [gpu, cpu] = &modes[..] else { panic!("two modes: {modes:?}") };
    assert_eq!((gpu.resources.gpus, gpu.resources.gpu_memory, gpu.fallback), (Gpus::Shared, Bytes(2 << 30), false));
    assert_eq!((cpu.resources.gpus, cpu.resources.gpu_memory, cpu.fallback), (Gpus::None, Bytes::ZERO, true));
    assert_eq!((cpu.resources.memory, cpu.duration.base), (Bytes::GIB, Some(Millis(20_000))));
}

#[test]
fn a_preferred_gpu_without_memory_is_a_whole_one() {
    assert_eq!(modes("resources = { gpus = 'prefer' }")[0].resources.gpus, Gpus::Whole(1));
}

#[test]
fn modes_have_their_own_resources_durations_and_costs() {
    let modes = modes(
        "modes = [{ resources = { gpus = 1, licenses = 2 }, duration = { H100 = '10m', A100 = '19m' } }, \
         { resources = { cpus = 8 }, duration = '2h', spend = { money = 3 } }]",
    );
    assert_eq!(modes.len(), 2);
    assert_eq!(modes[0].resources.custom["licenses"], 2);
    assert_eq!(modes[0].duration.by_model["A100"], Millis(19 * 60_000));
    assert_eq!((modes[1].resources.gpus, modes[1].spend["money"]), (Gpus::None, 3));
}

#[test]
fn a_matrix_expands_in_row_major_order() {
    let (_, graph) = load("[stage.t]\nrun = 'x {matrix.lr}'\nmatrix = { lr = [0.1, 0.01], seed = [1, 2] }\n");
    assert_eq!(names(&graph), ["t[lr=0.1,seed=1]", "t[lr=0.1,seed=2]", "t[lr=0.01,seed=1]", "t[lr=0.01,seed=2]"]);
    assert_eq!(command(&graph, 2), "x 0.01");
}

#[test]
fn values_that_would_blur_a_name_are_quoted_in_it() {
    let (_, graph) = load("[stage.t]\nrun = 'x'\nmatrix = { a = ['x,b=1', '', 'c d'], l = [[1, 2]] }\n");
    assert_eq!(names(&graph), [r#"t[a="x,b=1",l=[1,2]]"#, r#"t[a="",l=[1,2]]"#, "t[a=c d,l=[1,2]]"]);
}

#[test]
fn templates_reach_every_text_of_a_stage() {
    let (pipeline, graph) = load(
        "[env]\nP = 'p'\n[stage.t]\nrun = ['x', '{matrix.n}', '{inputs}', '--out={outputs}', '${HOME}']\n\
         inputs = ['in/{matrix.n}', 'b c']\noutputs = ['out/{matrix.n}.bin']\nenv = { N = '{matrix.n}' }\n\
         cwd = 'w/{matrix.n}'\nmatrix = { n = [7] }\n",
    );
    let task = &graph.tasks[0];
    let Action::Exec(words) = &task.action else { panic!("a program") };
    let words: Vec<_> = words.iter().map(|word| word.text.as_str()).collect();
    assert_eq!(words, ["x", "7", "../../in/7", "../../b c", "--out=../../out/7.bin", "${HOME}"]);
    assert_eq!((task.inputs[0].as_str(), task.outputs[0].as_str()), ("in/7", "out/7.bin"));
    let env: Vec<_> = task.env(&pipeline).into_iter().collect();
    assert_eq!(env, [("N".to_owned(), "7".to_owned()), ("P".to_owned(), "p".to_owned())]);
    assert_eq!(task.cwd(&pipeline), "w/7");
}

#[test]
fn files_in_a_shell_line_are_quoted() {
    let (_, graph) =
        load("[stage.t]\nrun = 'cat {inputs} > {outputs}'\ninputs = ['a b', 'c d/*.csv']\noutputs = [\"it's\"]\n");
    assert_eq!(command(&graph, 0), r"cat 'a b' 'c d/'*.csv > 'it'\''s'");
}

#[test]
fn who_reads_comes_after_who_writes() {
    let (_, graph) = load(
        "[stage.read]\nrun = 'r'\ninputs = ['./work//a.bin']\n\
         [stage.write]\nrun = 'w'\noutputs = [{ path = 'work/a.bin', size = '2GiB' }]\n",
    );
    assert_eq!(before(&graph, "read"), ["write"]);
    assert_eq!(graph.before.of(TaskId(0))[0].data, Bytes(2 << 30));
    assert_eq!(graph.order, [TaskId(1), TaskId(0)]);
}

#[test]
fn a_pattern_gathers_what_a_matrix_writes() {
    let (_, graph) = load(
        "[stage.t]\nrun = 't'\noutputs = ['m/{matrix.n}.bin']\nmatrix = { n = [2, 1] }\n\
         [stage.g]\nrun = 'cat {inputs}'\ninputs = ['m/*.bin']\noutputs = ['m/all.bin']\n",
    );
    assert_eq!(before(&graph, "g"), ["t[n=2]", "t[n=1]"]);
    assert_eq!(command(&graph, 2), "cat m/1.bin m/2.bin");
}

#[test]
fn a_file_in_a_folder_that_is_an_output_comes_from_it() {
    let (_, graph) = load("[stage.a]\nrun = 'a'\noutputs = ['d']\n[stage.b]\nrun = 'b'\ninputs = ['d/x/y']\n");
    assert_eq!(before(&graph, "b"), ["a"]);
}

#[test]
fn a_folder_gathers_the_outputs_in_it() {
    let (_, graph) = load("[stage.a]\nrun = 'a'\noutputs = ['d/x/y']\n[stage.b]\nrun = 'b'\ninputs = ['d']\n");
    assert_eq!(before(&graph, "b"), ["a"]);
}

#[test]
fn a_folder_waits_for_all_who_write_in_it() {
    let (_, graph) = load(
        "[stage.a]\nrun = 'a'\noutputs = ['w/x/1', 'w/x/2']\n[stage.b]\nrun = 'b'\noutputs = ['w/b']\n\
         [stage.c]\nrun = 'c'\noutputs = ['wide']\n[stage.d]\nrun = 'd'\ninputs = ['./w/']\noutputs = ['w/d']\n",
    );
    assert_eq!(before(&graph, "d"), ["a", "b"]);
}

#[test]
fn a_pattern_in_a_folder_that_is_an_output_comes_from_it() {
    let text = "[stage.a]\nrun = 'a'\noutputs = ['w']\n[stage.b]\nrun = 'cat {inputs}'\ninputs = ['PATTERN']\n";
    for pattern in ["w/*.bin", "w/x/*/y", "?/x"] {
        let (_, graph) = load(&text.replace("PATTERN", pattern));
        assert_eq!(before(&graph, "b"), ["a"], "{pattern}");
        assert_eq!(command(&graph, 1), format!("cat {pattern}"));
    }
    for pattern in ["w*", "v/*", "*"] {
        let (_, graph) = load(&text.replace("PATTERN", pattern));
        assert_eq!(before(&graph, "b").is_empty(), pattern == "v/*", "{pattern}");
    }
}

#[test]
fn a_pattern_that_files_and_folders_may_match_stays_one() {
    let (_, graph) = load(
        "[stage.a]\nrun = 'a'\noutputs = ['w-1']\n[stage.b]\nrun = 'b'\noutputs = ['w-2/x']\n\
         [stage.c]\nrun = 'cat {inputs}'\ninputs = ['w-?/x']\n",
    );
    assert_eq!(before(&graph, "c"), ["a", "b"]);
    assert_eq!(command(&graph, 2), "cat w-?/x");
}

#[test]
fn an_absolute_input_below_the_project_is_the_file_that_a_stage_writes() {
    let text = "[stage.a]\nrun = 'a'\noutputs = ['out/a']\n[stage.b]\nrun = 'cat {inputs}'\n\
                inputs = ['/else/p//out/a', '/else/q/b']\n";
    let roots = ["/mnt/p".to_owned(), "/else/p".to_owned()];
    let examined = graph::examine(&source(text), &[], OPS, Limits::default(), &roots);
    assert_eq!(examined.problems, []);
    assert_eq!(before(&examined.graph, "b"), ["a"]);
    assert_eq!(command(&examined.graph, 1), "cat out/a /else/q/b");
}

#[test]
fn after_waits_for_all_tasks_of_a_stage() {
    let (_, graph) = load(
        "[stage.t]\nrun = 't'\nmatrix = { n = [1, 2] }\n\
         [stage.g]\nrun = 'g'\nafter = [{ stage = 't', data = '1GiB' }, 't']\n",
    );
    assert_eq!(before(&graph, "g"), ["t[n=1]", "t[n=2]"]);
    assert_eq!(graph.before.of(TaskId(2))[0].data, Bytes::GIB);
}

#[test]
fn only_inputs_that_nobody_writes_come_from_outside() {
    let (pipeline, graph) = load(
        "[stage.a]\nrun = 'a'\ninputs = ['raw.csv', 'raw/*.csv']\noutputs = ['d']\n\
         [stage.b]\nrun = 'b'\ninputs = ['d/x', 'raw.csv']\n",
    );
    let outside: Vec<_> = graph.outside_inputs(&pipeline).into_iter().map(|o| (o.stage, o.input, o.path)).collect();
    assert_eq!(outside, [(0, 0, "raw.csv".to_owned()), (0, 1, "raw/*.csv".to_owned()), (1, 1, "raw.csv".to_owned())]);
}

#[test]
fn overrides_are_written_over_the_file() {
    let text = "[stage.t]\nuse = 'test.op'\nwith = { epochs = 1 }\nmatrix = { lr = [1] }\n[stage.'x.y']\nrun = 'x'\n";
    let sets = [
        "t.with.epochs=5",
        "stage.t.resources.gpu_memory=8GiB",
        "t.matrix.lr=[0.1, 0.2]",
        "x.y.run=echo a = b",
        "defaults.retries=2",
        "env.X=1",
        "name=other",
    ];
    let (pipeline, graph) = load_with(text, &sets).expect("good overrides");
    assert_eq!(names(&graph), ["t[lr=0.1]", "t[lr=0.2]", "x.y"]);
    let Action::Op { with, .. } = &graph.tasks[0].action else { panic!("an op") };
    assert_eq!(with[0].1, Value::Int(5));
    assert_eq!(pipeline.stages[0].modes[0].resources.gpu_memory, Bytes(8 << 30));
    assert_eq!(command(&graph, 2), "echo a = b");
    assert_eq!((pipeline.name.as_str(), pipeline.env["X"].as_str()), ("other", "1"));
    assert_eq!(pipeline.stages[1].retry.retries, 2);
    let (_, graph) = load_with(text, &["x.y.run=false"]).expect("a bare word");
    assert_eq!(command(&graph, 1), "false");
}

#[test]
fn an_op_gets_all_of_its_parameters() {
    let (_, graph) = load(
        "[stage.t]\nuse = 'test.op'\nwith = { epochs = '{matrix.e}', lr = 1, note = 'e{matrix.e}' }\nmatrix.e = [3]\n",
    );
    let Action::Op { with, .. } = &graph.tasks[0].action else { panic!("an op") };
    let params = serde_json::Value::Object(op_params(&OPS[0], with)).to_string();
    assert_eq!(params, r#"{"epochs":3,"lr":1.0,"model":"mlp","hidden":[64],"note":"e3"}"#);
}
