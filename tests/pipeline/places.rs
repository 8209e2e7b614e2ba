//! What is said about stages that do not go together, and that nothing is said in the wrong place.

use trainyard::spec::{Source, Span};

use super::{problems, said, said_of, source};

#[test]
fn an_unknown_stage_is_rejected_with_the_one_that_was_meant() {
    assert_eq!(
        said("[stage.clean]\nrun = 'c'\n[stage.b]\nrun = 'b'\nafter = ['claen']\n"),
        ["5:10 'claen': unknown stage `claen` (did you mean `clean`?)"]
    );
}

#[test]
fn outputs_that_leave_the_project_are_rejected() {
    let leaves = |place: &str, path: &str| {
        format!("{place}: the output `{path}` leaves the project (outputs lie beside or below the pipeline file)")
    };
    assert_eq!(said_of("outputs = ['../x']"), [leaves("3:12 '../x'", "../x")]);
    assert_eq!(said_of("outputs = ['a/../../x']"), [leaves("3:12 'a/../../x'", "a/../../x")]);
    let by_matrix = said_of("matrix.d = ['a', '../..']\noutputs = ['{matrix.d}/x']");
    assert_eq!(by_matrix, [leaves("4:12 '{matrix.d}/x'", "../../x")]);
    assert!(said_of("outputs = ['/x']")[0].contains("is an absolute path"));
    assert!(said_of("outputs = ['a/..']")[0].contains("the project's own folder"));
    assert!(said_of("outputs = ['*.bin']")[0].contains("is a pattern"));
}

#[test]
fn files_seen_from_a_folder_outside_the_project_are_rejected() {
    assert!(said("[stage.a]\nrun = 'cat {inputs}'\ncwd = '/tmp'\n")[0].starts_with("3:7 '/tmp': `/tmp` is outside"));
    assert_eq!(said("[stage.a]\nrun = 'cat x'\ncwd = '/tmp'\n"), [""; 0]);
}

#[test]
fn two_stages_that_write_one_output_are_rejected_with_both_places() {
    let text = "[stage.a]\nrun = 'a'\noutputs = ['w/x']\n[stage.b]\nrun = 'b'\noutputs = ['./w//x']\n";
    assert_eq!(said(text), ["6:12 './w//x': `a` and `b` both write `w/x` (let each write a file of its own)"]);
    let (Span::File(first), words) = &problems(text)[0].related[0] else { panic!("a place") };
    assert_eq!((&text[first.clone()], words.as_str()), ("'w/x'", "`a` writes it here"));
}

#[test]
fn an_output_within_another_stages_output_is_rejected_with_both_places() {
    let text = "[stage.a]\nrun = 'a'\noutputs = ['work/']\n[stage.b]\nrun = 'b'\noutputs = ['work/x/y']\n\
                [stage.c]\nrun = 'c'\ninputs = ['work']\n";
    let help = "(let each write a folder of its own: nobody could tell when one of both is complete)";
    assert_eq!(said(text), [format!("6:12 'work/x/y': `b` writes `work/x/y` within `work`, which `a` writes {help}")]);
    let (Span::File(outer), words) = &problems(text)[0].related[0] else { panic!("a place") };
    assert_eq!((&text[outer.clone()], words.as_str()), ("'work/'", "`a` writes it here"));
    // Also where the order is clear: who else reads the folder may come in between.
    let after = "[stage.a]\nrun = 'a'\noutputs = ['w']\n[stage.b]\nrun = 'b'\ninputs = ['w']\noutputs = ['w/x']\n";
    assert_eq!(said(after), [format!("7:12 'w/x': `b` writes `w/x` within `w`, which `a` writes {help}")]);
}

#[test]
fn the_outputs_of_one_task_may_lie_within_each_other() {
    assert_eq!(said_of("outputs = ['work', 'work/x']"), [""; 0]);
    assert_eq!(
        said("[stage.a]\nrun = 'a'\noutputs = ['w/x']\n[stage.b]\nrun = 'b'\noutputs = ['w/y', 'wx']\n"),
        [""; 0]
    );
}

#[test]
fn tasks_of_a_matrix_that_write_within_each_other_are_rejected_once() {
    assert_eq!(
        said_of("matrix.n = ['x', 'x/a', 'x/b', 'x/b/c']\noutputs = ['{matrix.n}']"),
        ["4:12 '{matrix.n}': `a[n=x/a]` writes `x/a` within `x`, which `a[n=x]` writes \
          (let each write a folder of its own: nobody could tell when one of both is complete)"]
    );
}

#[test]
fn the_tasks_of_a_matrix_that_write_one_output_are_rejected_once() {
    assert_eq!(
        said_of("matrix.n = [1, 2, 3]\noutputs = ['x']"),
        ["4:12 'x': `a[n=1]` and `a[n=2]` both write `x` \
         (name the axes of the matrix in the path, like `model-{matrix.lr}.bin`)"]
    );
}

#[test]
fn a_stage_that_waits_for_itself_is_rejected() {
    assert_eq!(said_of("after = ['a']"), ["3:10 'a': stage `a` waits for itself"]);
    assert_eq!(said_of("inputs = ['x']\noutputs = ['x']"), ["3:11 'x': `a` reads `x`, its own output"]);
}

#[test]
fn a_cycle_is_named_with_what_makes_each_hop() {
    let text = "[stage.A]\nrun = 'a'\nafter = ['B']\noutputs = ['x']\n[stage.B]\nrun = 'b'\ninputs = ['x']\n";
    assert_eq!(said(text), ["3:10 'B': these wait for each other: A → B → A (take one of these dependencies away)"]);
    let problems = problems(text);
    let hops: Vec<_> = problems[0].related.iter().map(|(_, words)| words.as_str()).collect();
    assert_eq!(hops, ["`B` reads `x`, which `A` writes", "`A` comes after `B`"]);
}

#[test]
fn every_tangle_is_named_once() {
    let ring = |names: [&str; 3]| {
        let after = |i: usize| names[(i + 2) % 3];
        (0..3).map(|i| format!("[stage.{}]\nrun = 'x'\nafter = ['{}']\n", names[i], after(i))).collect::<String>()
    };
    let said = said(&(ring(["a", "b", "c"]) + &ring(["d", "e", "f"]) + "[stage.z]\nrun = 'z'\nafter = ['a', 'd']\n"));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("a → b → c → a") && said[1].contains("d → e → f → d"), "{said:?}");
}

#[test]
fn a_long_cycle_is_shortened() {
    let stages: String =
        (0..100).map(|i| format!("[stage.s{i}]\nrun = 'x'\nafter = ['s{}']\n", (i + 99) % 100)).collect();
    let said = said(&stages);
    assert!(said[0].contains("s0 → s1 → s2 → s3 → s4 → s5 → s6 → s7 → … → s0"), "{said:?}");
}

#[test]
fn too_many_pairs_are_rejected_before_they_fill_the_memory() {
    let points: Vec<_> = (0..10_000).map(|n| n.to_string()).collect();
    let matrix = format!("matrix.n = [{}]", points.join(","));
    let said = said(&format!("[stage.a]\nrun = 'a'\n{matrix}\n[stage.b]\nrun = 'b'\n{matrix}\nafter = ['a']\n"));
    assert!(said[0].starts_with("7:10 'a': this makes more than 10000000 pairs"), "{said:?}");
}

#[test]
fn behind_a_syntax_error_nothing_is_said_to_be_absent() {
    let text = "[stage.a]\nrun = \"abc\ninputs = ['x']\n[stage.b]\nretris = 1\nrun = 'b'\nafter = ['q']\n";
    assert_eq!(
        said(text),
        [
            "2:7 \": this `\"` is never closed (close it with `\"` on the same line)",
            "5:1 retris: unknown key `retris` (did you mean `retries`?)"
        ]
    );
}

#[test]
fn every_problem_of_a_long_file_is_on_its_line() {
    let mut text = String::new();
    let mut wrong = Vec::new();
    for i in 0..300 {
        text += &format!("# é {i}\r\n[stage.s{i}]\nrun = \"\"\"\n  echo \\\n {i}\"\"\"\n");
        if i % 3 == 0 {
            wrong.push(text.matches('\n').count() + 1);
            text += "timeout = '5 parsecs'\n";
        }
        if i % 7 == 0 {
            wrong.push(text.matches('\n').count() + 1);
            text += "after = ['nobody']\n";
        }
    }
    let source: Source = source(&text);
    let lines = problems(&text).into_iter().map(|problem| match problem.span {
        Span::File(range) => source.position(range.start).0,
        Span::Set(..) | Span::Whole => 0,
    });
    assert_eq!(lines.collect::<Vec<_>>(), wrong);
}
