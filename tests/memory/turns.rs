//! Two trainings that hold more than a card together, and take turns at it: one runs, the other stands still.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::{Tested, World, attempts, cards};

/// Each writes its name down again and again until there is a file `over`, and when it is told to end that it was: what a shell
/// says of its `sleep` that was ended as well goes nowhere, for nobody may read it any more.
const TWO: &str = r#"
[stage.train]
matrix = { n = [1, 2] }
suspend = true
run = """
exec 2>/dev/null
trap 'echo {matrix.n} >> cleaned; exit 1' TERM
until test -e over; do echo {matrix.n} >> ticks; sleep 0.01; done"""
resources = { gpus = 0.6, gpu_memory = "1GiB", cpus = 0 }
grace = "60s"
"#;

const TURNS: [&str; 6] = ["p.toml", "--policy", "time-slice", "--quantum", "150ms", "--json"];

/// Reads a file of the world.
fn text(world: &World, name: &str) -> String {
    fs::read_to_string(world.path().join(name)).unwrap_or_default()
}

/// Returns how often the one has written after the other.
fn changes(ticks: &str) -> usize {
    let lines: Vec<&str> = ticks.lines().collect();
    lines.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// Waits until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Tested {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        if Instant::now() > deadline {
            return Err(format!("never: {what}").into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// Starts a command that tells its events to a file: nobody reads them before it ends.
fn begin(world: &World, mut command: Command) -> std::io::Result<Child> {
    command.stdout(fs::File::create(world.path().join("events"))?).stderr(Stdio::null()).spawn()
}

fn start(world: &World) -> std::io::Result<Child> {
    begin(world, world.prepare(&[&["run"], &TURNS[..]].concat()))
}

/// Waits for the end and returns the events that were told.
fn events(world: &World, mut run: Child) -> Result<(Option<i32>, Vec<Value>), Box<dyn std::error::Error>> {
    let code = run.wait()?.code();
    Ok((code, told(world)))
}

/// Returns the events that were told so far.
fn told(world: &World) -> Vec<Value> {
    // The last line may not be whole yet.
    text(world, "events").lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Returns the turns that were told: a task and whether it stands still from then on.
fn turns(events: &[Value]) -> Vec<(String, bool)> {
    let turn = |event: &Value| {
        let stands = match event["event"].as_str()? {
            "task-suspended" => true,
            "task-continued" => false,
            _ => return None,
        };
        Some((event["task"].as_str()?.to_owned(), stands))
    };
    events.iter().filter_map(turn).collect()
}

fn kill(run: &Child, signal: Signal) -> Tested {
    let pid = Pid::from_raw(i32::try_from(run.id())?).ok_or("no process")?;
    Ok(kill_process(pid, signal)?)
}

#[test]
fn two_that_do_not_fit_together_take_turns() -> Tested {
    let world = World::new(cards(&[8_192]), TWO)?;
    let run = start(&world)?;
    until("each has had two turns", || turns(&told(&world)).len() >= 7)?;
    assert!(changes(&text(&world, "ticks")) > 0);
    fs::write(world.path().join("over"), "")?;
    let (code, events) = events(&world, run)?;
    assert_eq!(code, Some(0));
    let turns = turns(&events);
    let (first, second) = ("train[n=1]".to_owned(), "train[n=2]".to_owned());
    // The second one is started and stands still; then they change places again and again.
    let expected =
        [(&second, true), (&first, true), (&second, false), (&second, true), (&first, false), (&first, true)];
    assert_eq!(turns[..6], expected.map(|(task, stands)| (task.clone(), stands)));
    let shown = world.shown()?;
    for task in [0, 1] {
        let attempt = &shown["tasks"][task]["attempts"][0];
        assert_eq!(attempt["outcome"], "succeeded");
        assert!(attempt["segments"].as_array().is_some_and(|pieces| pieces.len() >= 2), "{attempt:#}");
    }
    // The picture of it has a bar for each turn.
    let svg = world.path().join("run.svg");
    assert!(world.command(&["show", "--gantt", &svg.display().to_string()])?.status.success());
    Ok(())
}

#[test]
fn what_may_not_be_suspended_waits_as_ever() -> Tested {
    let world = World::new(cards(&[8_192]), &TWO.replace("suspend = true", ""))?;
    let run = start(&world)?;
    until("the first one runs", || !text(&world, "ticks").is_empty())?;
    fs::write(world.path().join("over"), "")?;
    let (code, events) = events(&world, run)?;
    assert_eq!((code, turns(&events).len()), (Some(0), 0));
    assert_eq!(changes(&text(&world, "ticks")), 0);
    Ok(())
}

#[test]
fn who_is_cancelled_while_it_stands_still_can_clean_up() -> Tested {
    let world = World::new(cards(&[8_192]), TWO)?;
    let run = start(&world)?;
    until("each has had a turn", || turns(&told(&world)).len() >= 3 && changes(&text(&world, "ticks")) > 0)?;
    kill(&run, Signal::TERM)?;
    let (code, _) = events(&world, run)?;
    assert_eq!(code, Some(130));
    let mut cleaned: Vec<String> = text(&world, "cleaned").lines().map(str::to_owned).collect();
    cleaned.sort();
    assert_eq!(cleaned, ["1", "2"]);
    Ok(())
}

#[test]
fn nothing_is_left_standing_still_where_the_orchestrator_is_killed() -> Tested {
    let world = World::new(cards(&[8_192]), TWO)?;
    let run = start(&world)?;
    until("each has had a turn", || turns(&told(&world)).len() >= 3 && changes(&text(&world, "ticks")) > 0)?;
    kill(&run, Signal::KILL)?;
    events(&world, run)?;
    // Its warden ends both; only what goes on can say so.
    until("both have cleaned up", || text(&world, "cleaned").lines().count() == 2)
}

#[test]
fn a_run_that_survives_goes_on_and_takes_turns_again_once_it_is_resumed() -> Tested {
    for point in ["turned:1", "turned:2", "turned:3", "turned:4"] {
        let world = World::new(cards(&[8_192]), TWO)?;
        let mut command = world.prepare(&[&["run"], &TURNS[..], &["--survive"]].concat());
        command.env("TRAINYARD_CRASH_AT", point);
        let (code, _) = events(&world, begin(&world, command)?)?;
        assert_eq!(code, None, "it was killed at {point}");
        // While nobody is there whose turn it is to say, nobody stands still.
        let before = text(&world, "ticks").len();
        let both = |ticks: &str| ["1", "2"].iter().all(|name| ticks.lines().any(|line| line == *name));
        until("both go on", || text(&world, "ticks").get(before..).is_some_and(both))?;
        // How turns are taken is on record: it need not be said again.
        let run = begin(&world, world.prepare(&["resume", "--json"]))?;
        let turns_again = || {
            let explained = world.printed(&["show", "--json"]).unwrap_or_default();
            let shown: Value = serde_json::from_str(&explained).unwrap_or(Value::Null);
            let pieces = |task: usize| shown["tasks"][task]["attempts"][0]["segments"].as_array().map_or(0, Vec::len);
            pieces(0) >= 3 && pieces(1) >= 3
        };
        until("they take turns", turns_again)?;
        fs::write(world.path().join("over"), "")?;
        let (code, events) = events(&world, run)?;
        assert_eq!(code, Some(0), "{point}: {events:#?}");
        assert!(turns(&events).len() >= 4, "{point}: {events:#?}");
        let shown = world.shown()?;
        assert_eq!(attempts(&shown, "outcome"), ["succeeded"], "{point}: it was adopted");
    }
    Ok(())
}
