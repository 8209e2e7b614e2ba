//! What is said about a text that is not TOML: one slip is one problem, where it is, and the rest is read as it is meant.

use trainyard::spec::Span;

use super::properties::GOOD;
use super::{problems, said, said_of, source};

/// A pipeline whose stage `clean` ends with `line`, which is its fifth line.
fn with(line: &str) -> String {
    format!(
        "name = 'p'\n\n[stage.clean]\nrun = 'clean'\n{line}\n\n[stage.train]\nrun = 'train'\ninputs = ['work/c']\n\
         outputs = ['work/m']\nretries = 2\nresources = {{ cpus = 2, memory = '1GiB' }}\n\
         matrix = {{ x = [[1, 2],\n[3, 4]], y = [true] }}\n"
    )
}

#[test]
fn a_bracket_that_is_never_closed_is_named_where_it_opens() {
    let square = |place: &str| [format!("{place} [: this `[` is never closed (close it with `]`)")];
    let curly = |place: &str| [format!("{place} {{: this `{{` is never closed (close it with `}}`)")];
    assert_eq!(said(&with("outputs = ['work/c'")), square("5:11"));
    assert_eq!(said(&with("outputs = ['work/c',")), square("5:11"));
    assert_eq!(said(&with("outputs = [\n  'work/c', # é\n  'work/d'\nretries = 2")), square("5:11"));
    assert_eq!(said(&with("matrix = { x = [1, 2")), square("5:16"));
    assert_eq!(said(&with("matrix = { x = [1, 2 }")), square("5:16"));
    assert_eq!(said(&with("resources = { cpus = 2, memory = '1GiB'")), curly("5:13"));
    assert_eq!(said(&with("resources = { cpus = 2, memory = '1GiB'\nretries = 3")), curly("5:13"));
    assert_eq!(said(&with("resources = {")), curly("5:13"));
    assert_eq!(said(&with("modes = [{ resources = { cpus = 2 }, { resources = { cpus = 1 } }]")), curly("5:10"));
    assert_eq!(said("[stage.a]\nrun = ['x',\n'y'"), square("2:7"));
}

#[test]
fn a_bracket_of_the_wrong_kind_is_named_with_the_one_it_should_close() {
    let text = with("outputs = ['work/c'}");
    assert_eq!(said(&text), ["5:20 }: expected `]`, found `}`"]);
    let related = &problems(&text)[0].related;
    let (Span::File(opened), "opened here") = (&related[0].0, related[0].1.as_str()) else { panic!("{related:?}") };
    assert_eq!(&text[opened.clone()], "[");
    assert_eq!(said(&with("outputs = ['a'},\n'b']")), ["5:15 }: expected `]`, found `}`"]);
}

#[test]
fn quotes_that_are_never_closed_are_named_where_they_open() {
    let open = |place: &str, quotes: &str| {
        [format!("{place} {quotes}: this `{quotes}` is never closed (close it with `{quotes}`)")]
    };
    for quotes in ["\"\"\"", "'''"] {
        assert_eq!(said(&with(&format!("cwd = {quotes}a\nb"))), open("5:7", quotes));
        assert_eq!(said(&with(&format!("inputs = ['a', {quotes}b\n]"))), open("5:16", quotes));
        // It is not the last one that lacks its end.
        let next = format!("cwd = {quotes}a\nretris = 1\n[stage.b]\nrun = {quotes}\nb\n{quotes}\nretris = 2");
        let expected = ["11:1 retris: unknown key `retris` (did you mean `retries`?)".to_owned()];
        assert_eq!(said(&with(&next)), [&open("5:7", quotes)[..], &expected[..]].concat());
    }
    for quotes in ["\"", "'"] {
        let said_at = |place: &str| {
            [format!("{place} {quotes}: this `{quotes}` is never closed (close it with `{quotes}` on the same line)")]
        };
        assert_eq!(said(&with(&format!("cwd = {quotes}a"))), said_at("5:7"));
        assert_eq!(said(&with(&format!("outputs = [{quotes}a]"))), said_at("5:12"));
        assert_eq!(said(&with(&format!("outputs = [\n  {quotes}a,\n  'b',\n]"))), said_at("6:3"));
    }
    assert_eq!(said_of("cwd = \"a\\\""), ["3:7 \": this `\"` is never closed (close it with `\"` on the same line)"]);
}

#[test]
fn what_stands_around_a_bracket_that_is_never_closed_is_judged() {
    let text = "[stage.a]\nretris = 1\nrun = ['x'\ntimout = 1\n[stage.b]\nrun = 'b'\npriorty = 1\n";
    assert_eq!(
        said(text),
        [
            "2:1 retris: unknown key `retris` (did you mean `retries`?)",
            "3:7 [: this `[` is never closed (close it with `]`)",
            "4:1 timout: unknown key `timout` (did you mean `timeout`?)",
            "7:1 priorty: unknown key `priorty` (did you mean `priority`?)",
        ]
    );
}

#[test]
fn a_comma_that_is_missing_is_not_taken_for_a_bracket() {
    let comma =
        |text: &str| said(text).iter().all(|said| said.contains("this is not TOML") && said.contains("expected `,`"));
    for line in [
        "outputs = ['a'\n'b']",
        "resources = { cpus = 2\nmemory = '1GiB' }",
        "resources = {\n  cpus = 2\n  memory = '1GiB'\n}",
    ] {
        let said_of_it = said(&with(line));
        assert!(said_of_it.len() == 1 && comma(&with(line)), "{said_of_it:?}");
    }
}

#[test]
fn a_key_with_thousands_of_parts_is_named() {
    let deep = |n: usize| format!("x{}", ".a".repeat(n - 1));
    let many = |place: &str, n: usize| {
        format!("{place} x: this key has {n} parts, more than 80 (write a key with fewer points)")
    };
    let retris = |line: usize| format!("{line}:1 retris: unknown key `retris` (did you mean `retries`?)");
    assert_eq!(said_of(&format!("{} = [1,\n2]\nretris = 1", deep(5_000))), [many("3:1", 5_000), retris(5)]);
    assert_eq!(said_of(&format!("{} = 1\nretris = 1", deep(81))), [many("3:1", 81), retris(4)]);
    assert!(!said_of(&format!("{} = 1", deep(80))).concat().contains("parts"));
    assert_eq!(
        said_of(&format!("resources = {{ cpus = 1, {} = 1 }}\nretris = 1", deep(200))),
        [many("3:25", 200), retris(4)]
    );
    let headers = format!("[{}]\ny = 1\n[[{}]]\n[stage.b]\nretris = 1\n", deep(100), deep(100));
    assert_eq!(said_of(&headers), [many("3:2", 100), many("5:3", 100), retris(7)]);
}

#[test]
fn nothing_is_said_about_what_the_parser_made_up() {
    let not_toml = |line: &str| {
        let said = said_of(line);
        assert!(said.len() == 1 && said[0].starts_with("3:") && said[0].contains("this is not TOML"), "{said:?}");
    };
    not_toml("retries = 02");
    not_toml("retries = True");
    not_toml("cwd = ");
    not_toml("resources = { cpus = 2 memory = '1GiB' }");
    not_toml("outputs = ['a',,'b']");
    not_toml("env = { = 1 }");
    not_toml("env = { A = \"\\q\" }");
    assert_eq!(said("[stage.a]\nrun = \n").len(), 1);
    assert_eq!(said("[stage.]\nrun = 'x'\n").len(), 1);
}

#[test]
fn what_is_right_beside_what_is_not_toml_is_judged() {
    assert_eq!(said_of("resources = { cpus = True, memory = '6 gib' }\nenv = { A = 1, B = 02, \"C=\" = 3 }").len(), 4);
}

#[test]
fn one_slip_is_one_problem() {
    for (n, line) in (1..).zip(GOOD.lines()) {
        let Some((key, value)) = line.split_once(" = ") else { continue };
        let shorter = &value[..value.len() - 1];
        let cut = if value.ends_with([']', '}', '"']) { shorter } else { "\"" };
        for slip in ["", "True", "02", "0x", "'x", "\"\"\"x", "[1, 2", "{ a = 1", "[1, 2}", cut] {
            let text = GOOD.replacen(line, &format!("{key} = {slip}"), 1);
            let found = problems(&text);
            let lines: Vec<_> = found
                .iter()
                .map(|problem| match &problem.span {
                    Span::File(range) => source(&text).position(range.start).0,
                    Span::Set(..) | Span::Whole => 0,
                })
                .collect();
            assert_eq!(lines, [n], "{key} = {slip}: {found:#?}");
        }
    }
}
