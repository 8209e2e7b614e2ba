//! What is said about the values of a file that is wrong: each kind of bad input, with its place and what mends it.

use trainyard::graph::{self, Limits};
use trainyard::spec::{Source, Span};

use super::{problems, said, said_of, said_with, source};

const NAME_HELP: &str = "a name has letters (a to z, A to Z), digits, `_`, `.` and `-`";

#[test]
fn a_file_that_is_not_utf8_is_rejected_where_it_stops_being_text() {
    let (source, problem) = Source::from_bytes("p.toml".to_owned(), b"[stage.a]\nrun = '\xff'\n".to_vec());
    let problem = problem.expect("not UTF-8");
    assert_eq!(problem.message, "this file is not UTF-8 text: byte 18 cannot be read");
    let Span::File(range) = problem.span else { panic!("a place") };
    assert_eq!(source.position(range.start), (2, 8));
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let (source, problem) = Source::from_bytes("p.toml".to_owned(), "\u{feff}[stage.a]".into());
    assert_eq!((source.text.as_str(), problem), ("[stage.a]", None));
}

#[test]
fn an_empty_file_is_rejected() {
    for text in ["", "\n# nothing\n", "name = 'x'\n"] {
        assert_eq!(said(text), ["-: there is no stage (add one: [stage.hello] with the line run = \"echo hello\")"]);
    }
    assert_eq!(said("[stage]\n"), ["1:1 [stage]: there is no stage in this table"]);
    let fleet = said("[[node]]\nname = 'box'\n");
    assert_eq!(fleet[0], "-: there is no stage (this looks like a fleet: give each with a `--fleet` of its own)");
}

#[test]
fn an_unknown_key_is_rejected_with_the_one_that_was_meant() {
    assert_eq!(said_of("retris = 1"), ["3:1 retris: unknown key `retris` (did you mean `retries`?)"]);
    assert_eq!(said_of("[defaults]\ntimout = '1s'"), ["4:1 timout: unknown key `timout` (did you mean `timeout`?)"]);
    assert_eq!(
        said_of("outputs = [{ path = 'a', sise = '1B' }]"),
        ["3:26 sise: unknown key `sise` (did you mean `size`?)"]
    );
    assert_eq!(said("nam = 'x'\n[stage.a]\nrun = 'x'"), ["1:1 nam: unknown key `nam` (did you mean `name`?)"]);
}

#[test]
fn failures_that_do_not_exist_are_rejected_with_what_was_meant() {
    let on = |on: &str| said_of(&format!("retry = {{ on = [{on}] }}")).join("; ");
    assert_eq!(on("'exti:75'"), "3:18 exti: unknown failure `exti` (did you mean `exit`?)");
    assert_eq!(on("'timeut'"), "3:18 timeut: unknown failure `timeut` (did you mean `timeout`?)");
    assert!(
        on("'sorrow'")
            .ends_with("known: exit, signal, timeout, oom, output-missing, any; `exit:1-9` and `signal:9` say which)")
    );
    let range = "this is not an exit code, nor a range of them (write a number from 1 to 255, or a range like `1-9`)";
    assert_eq!(on("'exit:0'"), format!("3:23 0: {range}"));
    assert_eq!(on("'exit:9-1'"), format!("3:23 9-1: {range}"));
    assert_eq!(on("'exit:256'"), format!("3:23 256: {range}"));
    assert!(on("'signal:65'").contains("a number from 1 to 64"));
    assert_eq!(on("'oom:1'"), "3:21 :1: `oom` takes no number");
    assert!(on("").contains("`on` is empty"));
    assert_eq!(said_of("retry = { mx = 1 }"), ["3:11 mx: unknown key `mx` (did you mean `max`?)"]);
    assert_eq!(
        said_of("retries = 1\nretry = { max = 2 }"),
        ["3:1 retries: `retries` says the same as `max` in `retry` (keep one of the two)"]
    );
}

#[test]
fn a_retry_that_is_wrong_throughout_is_told_throughout() {
    let said = said_of("retry = { on = ['sigal:9', 'exit:0'], max = -1, backoff = '5m..5s' }");
    let places: Vec<_> = said.iter().map(|line| line.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(places, ["3:18 sigal", "3:34 0", "3:45 -1", "3:59 '5m..5s'"], "{said:?}");
}

#[test]
fn a_resource_in_the_wrong_place_or_misspelt_is_rejected() {
    assert_eq!(
        said_of("memory = '1GiB'"),
        ["3:1 memory: `memory` is not a key of a stage (write it into `resources = { memory = … }`)"]
    );
    assert_eq!(said_of("resources = { gpu = 1 }"), ["3:15 gpu: unknown resource `gpu` (did you mean `gpus`?)"]);
    assert_eq!(
        said_of("resources = { gpu_mem = '6GiB' }"),
        ["3:15 gpu_mem: unknown resource `gpu_mem` (did you mean `gpu_memory`?)"]
    );
    // A resource of the user's own is counted; a size is that of one which is known.
    let vram = said_of("resources = { vram = '6GiB' }");
    assert_eq!(vram, ["3:15 vram: unknown resource `vram` (known: `cpus`, `memory`, `gpus`, `gpu_memory`)"]);
}

#[test]
fn an_unknown_op_is_rejected_with_the_one_that_was_meant() {
    assert_eq!(said("[stage.a]\nuse = 'test.po'\n"), ["2:7 'test.po': unknown op `test.po` (did you mean `test.op`?)"]);
}

#[test]
fn parameters_are_checked_against_the_catalogue() {
    let with = |with: &str| said(&format!("[stage.a]\nuse = 'test.op'\nwith = {{ {with} }}\n")).join("; ");
    let no = "`test.op` has no parameter";
    assert_eq!(with("epochs = 1, modle = 'mlp'"), format!("3:22 modle: {no} `modle` (did you mean `model`?)"));
    assert_eq!(with("epoch = 1"), format!("3:10 epoch: {no} `epoch` (did you mean `epochs`?)"));
    assert_eq!(with(""), "2:7 'test.op': `test.op` needs the parameter `epochs` (epochs: what it is)");
    assert_eq!(
        with("epochs = 1979-05-27"),
        "3:19 1979-05-27: expected a text, a number, true, false or an array of them, found a date"
    );
    assert_eq!(with("epochs = 0"), "3:19 0: expected a whole number from 1 to 100, found 0");
    assert_eq!(with("epochs = 1.0"), "3:19 1.0: expected a whole number from 1 to 100, found 1.0");
    assert_eq!(with("epochs = 1, lr = 0"), "3:27 0: expected a number above 0 and at most 10, found 0");
    assert_eq!(with("epochs = 1, shuffle = 'yes'"), "3:32 'yes': expected true or false, found \"yes\"");
    assert_eq!(
        with("epochs = 1, hidden = [1, 'a']"),
        "3:31 [1, 'a']: expected an array of at most 3 whole numbers from 1 to 4096, found [1,a]"
    );
    assert_eq!(
        with("epochs = 1, model = 'mpl'"),
        "3:30 'mpl': expected one of \"mlp\", \"cnn\", found \"mpl\": did you mean \"mlp\"?"
    );
    assert_eq!(
        with("epochs = 1, note = { a = 1 }"),
        "3:29 { a = 1 }: expected a text, a number, true, false or an array of them, found a table"
    );
}

#[test]
fn parameters_are_checked_at_every_point_of_the_matrix_and_said_once() {
    let text =
        "[stage.a]\nuse = 'test.op'\nwith = { epochs = '{matrix.e}' }\nmatrix = { e = [1, 0, -1], s = [1, 2] }\n";
    assert_eq!(said(text), ["3:19 '{matrix.e}': expected a whole number from 1 to 100, found 0 (at e=0)"]);
}

#[test]
fn a_parameter_with_an_unknown_axis_is_said_once() {
    let text = "[stage.a]\nuse = 'test.op'\nwith = { epochs = '{matrix.ee}' }\nmatrix = { e = [1] }\n";
    assert_eq!(said(text), ["3:28 ee: unknown matrix axis `ee` (known: `e`)"]);
}

#[test]
fn an_op_with_too_many_files_is_rejected() {
    let text = "[stage.a]\nuse = 'test.op'\nwith = { epochs = 1 }\noutputs = ['a', 'b']\n";
    assert_eq!(said(text), ["2:7 'test.op': `test.op` needs 0 to 1 output, found 2 (outputs: the files)"]);
}

#[test]
fn an_unknown_unit_is_rejected() {
    let sizes = "write B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024)";
    let gigs = format!("3:24 '6 gigs': this is not a memory size: unknown unit `gigs`: {sizes}");
    assert_eq!(said_of("resources = { memory = '6 gigs' }"), [gigs]);
    assert_eq!(said_of("timeout = 30"), ["3:11 30: expected a duration as a text with its unit, found a whole number"]);
    assert_eq!(
        said_of("backoff = '5s..1x'"),
        ["3:16 1x: this is not a duration: unknown unit `x`: write ms, s, m, h or d, like 250ms, 20s or 1h30m"]
    );
}

#[test]
fn negative_numbers_are_rejected() {
    assert_eq!(said_of("retries = -1"), ["3:11 -1: -1 is negative (write a number from 0 to 1000)"]);
    assert_eq!(
        said_of("resources = { cpus = -0.5 }"),
        ["3:22 -0.5: -0.5 is negative (write a number from 0 to 1000000)"]
    );
    assert_eq!(said_of("resources = { gpus = -1 }"), ["3:22 -1: -1 is negative (write a number from 0 to 1024)"]);
    assert_eq!(said_of("duration = '-5s'"), ["3:12 '-5s': this is not a duration: it is negative"]);
    assert_eq!(said_of("spend = { money = -3 }"), ["3:19 -3: -3 is negative (write a number from 0 to 1000000000000)"]);
}

#[test]
fn overflowing_numbers_are_rejected() {
    assert_eq!(
        said_of("priority = 99999999999999999999"),
        ["3:12 99999999999999999999: this number is too large: whole numbers have 64 bits"]
    );
    assert_eq!(said_of("retries = 0x"), ["3:11 0x: this is not a whole number"]);
    assert_eq!(
        said_of("resources = { gpus = 5000000000 }"),
        ["3:22 5000000000: 5000000000 is too large (write a number from 0 to 1024)"]
    );
    assert_eq!(
        said_of("timeout = '99999999999999999999h'"),
        ["3:11 '99999999999999999999h': this is not a duration: it is too large: the most is ten years"]
    );
    assert_eq!(said_of("resources = { cpus = inf }"), ["3:22 inf: this is not a finite number"]);
    assert_eq!(
        said_of("resources = { memory = '99999999TiB' }"),
        ["3:24 '99999999TiB': this is not a memory size: it is too large: the most is 1 EiB"]
    );
}

#[test]
fn half_devices_beside_whole_ones_are_rejected() {
    assert_eq!(
        said_of("resources = { gpus = 1.5 }"),
        ["3:22 1.5: 1.5 devices cannot be held (write whole devices, like 2, or a share of one below 1, like 0.5)"]
    );
    assert_eq!(
        said_of("resources = { gpus = 0, gpu_memory = '1GiB' }"),
        ["3:38 '1GiB': `gpu_memory` is asked for, but `gpus = 0` asks for no device \
         (leave `gpus` out to share a device, or leave `gpu_memory` out)"]
    );
}

#[test]
fn a_stage_has_a_command_or_an_op() {
    let help = "add `run = \"…\"` with a command, or `use = \"…\"` with a built-in op";
    assert_eq!(said("[stage.a]\n"), [format!("1:8 a: stage `a` has neither `run` nor `use` ({help})")]);
    assert_eq!(
        said_of("use = 'test.op'\nwith.epochs = 1"),
        ["3:1 use: stage `a` has both `run` and `use` (keep one of the two)"]
    );
    assert_eq!(
        said_of("with = {}"),
        ["3:1 with: `with` has no meaning without `use` (`with` holds the parameters of a built-in op)"]
    );
    assert_eq!(said("[stage.a]\nrun = ' '\n"), ["2:7 ' ': this command is empty"]);
    assert_eq!(
        said("[stage.a]\nrun = []\n"),
        ["2:7 []: this command has no program (write the program first, then its arguments)"]
    );
}

#[test]
fn a_bad_name_is_rejected() {
    assert_eq!(said("[stage.\"a b\"]\nrun = 'x'\n"), [format!("1:8 \"a b\": `a b` is not a name ({NAME_HELP})")]);
    assert_eq!(said("[stage.\"\"]\nrun = 'x'\n"), [format!("1:8 \"\": this name is empty ({NAME_HELP})")]);
    let is_folder = |name: &str| format!("1:8 \"{name}\": `{name}` is a folder, not a name ({NAME_HELP})");
    assert_eq!(said("[stage.\".\"]\nrun = 'x'\n"), [is_folder(".")]);
    assert_eq!(said("[stage.\"..\"]\nrun = 'x'\n"), [is_folder("..")]);
    assert_eq!(said_of("kind = 'a/b'"), [format!("3:8 'a/b': `a/b` is not a name ({NAME_HELP})")]);
    assert_eq!(
        said_of("env = { \"A=B\" = '' }"),
        ["3:9 \"A=B\": this cannot be the name of an environment variable (it must not be empty nor contain `=`)"]
    );
}

#[test]
fn a_stage_written_twice_is_rejected() {
    assert_eq!(
        said("[stage.a]\nrun = 'x'\n[stage.a]\nkind = 'x'\n"),
        ["3:8 a: `a` is written twice (keep one of the two)"]
    );
}

#[test]
fn what_is_wrong_with_a_stage_written_twice_is_said_at_its_first_header() {
    let text = "[stage.a]\nfoo = 1\n[stage.b]\nrun = 'x'\n[ \"stage\" . 'a' ]\nfoo = 2\nbar = 2\n";
    let [missing, foo, twice, bar] = &said(text)[..] else { panic!("{:?}", said(text)) };
    assert!(missing.starts_with("1:8 a: stage `a` has neither `run` nor `use`"), "{missing}");
    assert!(foo.starts_with("2:1 foo: unknown key `foo`"), "{foo}");
    assert_eq!(twice, "5:13 'a': `'a'` is written twice (keep one of the two)");
    assert!(bar.starts_with("7:1 bar: unknown key `bar`"), "{bar}");
    let twice = problems(text).into_iter().find(|problem| problem.message.contains("twice")).expect("a problem");
    assert_eq!(twice.related, [(Span::File(7..8), "first written here".to_owned())]);
    assert_eq!(
        said("[stage.\"\"]\nrun = 'x'\n[stage.\"\"]\nrun = 'y'\n"),
        [
            format!("1:8 \"\": this name is empty ({NAME_HELP})"),
            "3:8 \"\": `\"\"` is written twice (keep one of the two)".to_owned()
        ]
    );
}

#[test]
fn an_axis_is_neither_empty_nor_repeats_a_point() {
    assert_eq!(
        said_of("matrix = { lr = [] }"),
        ["3:17 []: axis `lr` is empty: the stage would have no task at all (write at least one value)"]
    );
    assert_eq!(said_of("matrix = { lr = [1, 2, 1.0] }"), ["3:24 1.0: `1` is twice on the axis `lr`"]);
}

#[test]
fn a_matrix_that_is_too_large_is_rejected_unless_allowed() {
    let points: Vec<_> = (0..317).map(|n| n.to_string()).collect();
    let points = points.join(",");
    let text = format!("[stage.a]\nrun = 'x'\nmatrix = {{ x = [{points}], y = [{points}] }}\n");
    assert_eq!(
        said(&text),
        ["3:12 x: the matrix of `a` has 100489 points, more than 10000 \
         (317 × 317: if that is meant, allow it with --max-tasks 100489)"]
    );
    // A stage without a matrix is one task, whatever is allowed.
    assert!(graph::load(&source("[stage.a]\nrun = 'x'\n"), &[], &[], Limits { max_tasks: 0 }).is_ok());
    let allowed = graph::load(&source(&text), &[], &[], Limits { max_tasks: 100_489 });
    assert_eq!(allowed.expect("allowed").1.len(), 100_489);
}

#[test]
fn a_matrix_whose_size_overflows_is_rejected() {
    let axes: Vec<_> = (0..70).map(|n| format!("a{n} = [1, 2]")).collect();
    let said = said_of(&format!("matrix = {{ {} }}", axes.join(", ")));
    assert!(said[0].contains("has far too many points"), "{said:?}");
}

#[test]
fn an_unknown_template_is_rejected_at_its_place_in_the_text() {
    assert_eq!(
        said_of("matrix.lr = [1]\nenv = { A = \"\\t é {matrix.rl}\" }"),
        ["4:27 rl: unknown matrix axis `rl` (did you mean `lr`?)"]
    );
    assert_eq!(
        said_of("cwd = 'x/{matrix.lr}'"),
        ["3:18 lr: there is no matrix for `{matrix.lr}` here (add `matrix = { … }` to the stage that uses it)"]
    );
    assert_eq!(
        said_of("matrix.lr = [1]\ncwd = '{matrix.lr'"),
        ["4:8 {matrix.: this template has no end (write it like `{matrix.lr}`)"]
    );
    assert_eq!(
        said_of("outputs = ['{inputs}.x']"),
        ["3:13 {inputs}: `{inputs}` stands for files in `run` only (write `{{inputs}}` for the text itself)"]
    );
}

#[test]
fn a_misspelt_template_is_rejected_wherever_it_stands() {
    let slip = |place: &str, written: &str, meant: &str| {
        format!(
            "{place} {written}: unknown template `{written}` \
             (did you mean `{meant}`? write `{{{written}}}` for the text itself)"
        )
    };
    assert_eq!(
        said("[stage.a]\nrun = 'echo {inptus} {matix.x} ${input} {a,b}'\n"),
        [slip("2:13", "{inptus}", "{inputs}"), slip("2:22", "{matix.x}", "{matrix.x}")]
    );
    assert_eq!(
        said("[stage.a]\nrun = ['x', 1, '{ouputs}']\n"),
        [
            "2:13 1: expected a text: one argument, found a whole number".to_owned(),
            slip("2:17", "{ouputs}", "{outputs}")
        ]
    );
    let x = "[stage.a]\nrun = 'x'\nmatrix.x = [1]\n";
    let lines = ["outputs = ['{mtrix.x}']", "inputs = ['{mtrix.x}']", "cwd = '{mtrix.x}'", "env = { A = '{mtrix.x}' }"];
    for line in lines {
        let place = format!("4:{}", line.find("{m").unwrap_or_default() + 1);
        assert_eq!(said(&format!("{x}{line}\n")), [slip(&place, "{mtrix.x}", "{matrix.x}")]);
    }
    let with = "[stage.a]\nuse = 'test.op'\nwith = { epochs = 1, note = '{matrx.x}' }\nmatrix.x = [1]\n";
    assert_eq!(said(with), [slip("3:30", "{matrx.x}", "{matrix.x}")]);
    assert_eq!(
        said_of("matrix.lr = [1]\ncwd = '{matrix.}'"),
        ["4:8 {matrix.}: this template names no axis (known: `{matrix.lr}`)"]
    );
}

#[test]
fn variables_that_every_task_gets_cannot_be_set() {
    assert_eq!(
        said_of("env = { TRAINYARD_TASK = 'x', TRAINYARD_NVML = 'y' }"),
        ["3:9 TRAINYARD_TASK: `TRAINYARD_TASK` is set for every task (choose another name)"]
    );
    let said = said("env.CUDA_VISIBLE_DEVICES = 0\n[stage.a]\nrun = 'x'\n");
    assert!(said[0].starts_with("1:5 CUDA_VISIBLE_DEVICES: `CUDA_VISIBLE_DEVICES` is set for every task"), "{said:?}");
}

#[test]
fn an_unknown_template_in_a_path_is_said_once() {
    let unknown = |place: &str| format!("{place} y: unknown matrix axis `y` (known: `x`)");
    let text = "[stage.a]\nrun = 'a'\nmatrix.x = [1, 2]\noutputs = ['q-{matrix.y}']\n\
                [stage.b]\nrun = 'b'\nmatrix.x = [1]\ninputs = ['q-{matrix.y}', 'q-1']\n";
    let examined = graph::examine(&source(text), &[], &[], Limits::default(), &[]);
    assert!(examined.torn, "nobody knows what `a` writes");
    assert_eq!(said(text), [unknown("4:23"), unknown("8:22")]);
}

#[test]
fn bad_overrides_are_rejected_where_they_are_written() {
    let said = |set: &str| said_with("[stage.train]\nrun = 'x'\n", &[set]).join("; ");
    assert_eq!(said("trian.retries=1"), "--set trian: unknown stage `trian` (did you mean `train`?)");
    assert_eq!(said("stage.q.run=x"), "--set q: unknown stage `q` (known: `train`)");
    assert_eq!(said("train.retris=1"), "--set retris: unknown key `retris` (did you mean `retries`?)");
    assert_eq!(said("defaults.retris=1"), "--set retris: unknown key `retris` (did you mean `retries`?)");
    assert_eq!(said("train.retries=-1"), "--set -1: -1 is negative (write a number from 0 to 1000)");
    assert!(said("train.timeout=10q").starts_with("--set 10q: this is not a duration: unknown unit `q`"));
    assert!(said("train").starts_with("--set train: this override has no `=`"));
    assert!(said("train=1").starts_with("--set train: which key of stage `train` is meant?"));
    assert!(said("train..x=1").contains("a key is missing here"));
    assert!(said("train.run.x=1").contains("`run` is a text and has no keys"));
    assert!(said("train.run=[\"a\"").starts_with("--set [\"a\": this begins like an array and is none: "));
    assert!(said("train.run='a").starts_with("--set 'a: this begins like a text in quotes and is none: "));
    assert!(said("train.run=[false]").starts_with("--set false: expected a text"));
}

#[test]
fn a_size_that_is_nearly_one_is_rejected_with_what_was_meant() {
    let meant = |size: &str| {
        let said = said_of(&format!("resources = {{ gpu_memory = '{size}' }}")).join("; ");
        said.split("did you mean `").nth(1).and_then(|rest| rest.split('`').next()).unwrap_or_default().to_owned()
    };
    for (size, wanted) in [
        ("AUTO", "auto"),
        ("20gib", "20GiB"),
        ("20 gb", "20 GB"),
        ("20G", "20GiB"),
        ("20Gi", "20GiB"),
        ("1.5t", "1.5TiB"),
        ("20", ""),
        ("20b", ""),
        ("20 gigs", ""),
        ("much", ""),
    ] {
        assert_eq!(meant(size), wanted, "{size}");
    }
}
