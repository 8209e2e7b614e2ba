//! `on_finish`: who is told that a run is over, how often that is tried, and what a crash in between means.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and starts the binary")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use serde_json::Value;
use tempfile::TempDir;

struct World(TempDir);

impl World {
    fn new(on_finish: &str, command: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pipeline = format!("name = \"digits\"\non_finish = {on_finish}\n[stage.train]\nrun = \"{command}\"\n");
        std::fs::write(dir.path().join("p.toml"), pipeline).unwrap();
        Self(dir)
    }

    fn output(&self, args: &[&str], crash_at: Option<&str>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command
            .args(args)
            .current_dir(self.0.path())
            .env("TRAINYARD_BOX", self.0.path().join(".box"))
            .env("HOME", self.0.path())
            .env("NO_COLOR", "1");
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        command.envs(crash_at.map(|point| ("TRAINYARD_CRASH_AT", point))).output().unwrap()
    }

    /// Runs the pipeline and returns the exit code with what is said.
    fn run(&self) -> (Option<i32>, String) {
        let output = self.output(&["run", "p.toml"], None);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    fn id(&self) -> String {
        let runs: Value = serde_json::from_slice(&self.output(&["runs", "--json"], None).stdout).unwrap();
        runs[0]["run"].as_str().unwrap().to_owned()
    }

    fn resume(&self) {
        let output = self.output(&["resume", &self.id()], None);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Returns the lines of a file; none where it is not there.
    fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.0.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

const TELL: &str = r#"{ run = "echo $TRAINYARD_PIPELINE $TRAINYARD_OUTCOME $TRAINYARD_FINISH >> told" }"#;

#[test]
fn a_command_is_told_once_how_a_run_ended() {
    let world = World::new(TELL, "test -e fixed");
    assert_eq!(world.run().0, Some(1), "the run's own exit code");
    assert_eq!(world.lines("told"), [format!("digits failed {}", world.lines("told")[0].rsplit(' ').next().unwrap())]);
    std::fs::write(world.0.path().join("fixed"), "").unwrap();
    world.resume();
    world.resume();
    let told = world.lines("told");
    assert!(told.len() == 2 && told[1].starts_with(&format!("digits succeeded {}@", world.id())), "{told:?}");
}

#[test]
fn a_crash_before_it_was_told_is_made_good_by_resume() {
    let world = World::new(TELL, "true");
    assert_eq!(world.output(&["run", "p.toml"], Some("closing")).status.code(), None);
    assert_eq!(world.lines("told").len(), 0);
    world.resume();
    world.resume();
    assert_eq!(world.lines("told").len(), 1);
}

#[test]
fn a_crash_before_that_is_on_record_tells_again_under_the_same_key() {
    let world = World::new(TELL, "true");
    assert_eq!(world.output(&["run", "p.toml"], Some("finish-told")).status.code(), None);
    world.resume();
    world.resume();
    let told = world.lines("told");
    assert!(told.len() == 2 && told[0] == told[1], "{told:?}");
}

#[test]
fn a_command_that_fails_is_tried_again() {
    let world = World::new(
        r#"{ run = "echo try >> tries; test $(wc -l < tries) -ge 3", retries = 4, backoff = "1ms" }"#,
        "true",
    );
    let (code, said) = world.run();
    assert_eq!((code, world.lines("tries").len()), (Some(0), 3));
    assert!(!said.contains("could not be told"), "{said}");
}

#[test]
fn a_run_that_nobody_can_be_told_of_has_ended_all_the_same() {
    let world = World::new(r#"{ run = "echo why not; exit 7", retries = 1, backoff = "1ms" }"#, "true");
    let (code, said) = world.run();
    assert_eq!(code, Some(0));
    assert!(said.contains("could not be told: the command ended with exit status: 7"), "{said}");
    let log = format!(".trainyard/runs/{}/on_finish.log", world.id());
    assert_eq!(world.lines(&log), ["why not", "why not"]);
    world.resume();
    assert_eq!(world.lines(&log).len(), 2, "it was given up");
}

#[test]
fn a_command_that_takes_too_long_is_ended_with_what_it_started() {
    // Long enough for a busy machine to start a shell.
    let world = World::new(r#"{ run = "sleep 1000 & echo $! > pid; wait", timeout = "5s", retries = 0 }"#, "true");
    let (code, said) = world.run();
    assert_eq!(code, Some(0));
    assert!(said.contains("it took longer than 5s"), "{said}");
    let pid = &world.lines("pid")[0];
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}

/// A webhook that answers with these numbers in turn; gives what it was sent, head and body.
fn webhook(answers: &'static [u16]) -> (String, JoinHandle<Vec<(String, Value)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/hook", listener.local_addr().unwrap());
    let serve = move || {
        let mut sent = Vec::new();
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(&stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            write!(&stream, "HTTP/1.1 {answer} So\r\nLocation: http://127.0.0.1:1/there\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            sent.push((head, serde_json::from_slice(&body).unwrap()));
        }
        sent
    };
    (address, std::thread::spawn(serve))
}

#[test]
fn a_webhook_is_posted_to_until_it_takes_it() {
    let (address, served) = webhook(&[503, 204]);
    let world = World::new(&format!(r#"{{ webhook = "{address}", backoff = "1ms" }}"#), "true");
    assert_eq!(world.run().0, Some(0));
    let sent = served.join().unwrap();
    let (head, body) = &sent[1];
    assert!(head.starts_with("POST /hook HTTP/1.1"), "{head}");
    assert_eq!(
        (&body["pipeline"], &body["outcome"], &body["run"]),
        (&"digits".into(), &"succeeded".into(), &world.id().into())
    );
    assert!(body["text"].as_str().unwrap().contains("succeeded"), "{body}");
    let key =
        |head: &str| head.lines().find(|line| line.to_lowercase().starts_with("idempotency-key")).unwrap().to_owned();
    assert_eq!(key(&sent[0].0), key(head));
    world.resume();
}

#[test]
fn a_webhook_that_refuses_is_not_asked_again() {
    let (address, served) = webhook(&[404]);
    let world = World::new(&format!(r#"{{ webhook = "{address}", backoff = "1ms" }}"#), "true");
    let (code, said) = world.run();
    assert_eq!(code, Some(0));
    assert!(said.contains("could not be told: the address answered 404"), "{said}");
    assert_eq!(served.join().unwrap().len(), 1);
}

#[test]
fn a_webhook_that_leads_elsewhere_is_not_followed_and_named() {
    let (address, served) = webhook(&[302]);
    let world = World::new(&format!(r#"{{ webhook = "{address}", backoff = "1ms" }}"#), "true");
    let (code, said) = world.run();
    assert_eq!(code, Some(0));
    assert!(said.contains("the address answered 302: it leads on to http://127.0.0.1:1/there"), "{said}");
    assert_eq!(served.join().unwrap().len(), 1);
}

#[test]
fn check_points_at_what_is_wrong() {
    let world = World::new(r#"{ webhok = "https://example.org", webhook = "example.org" }"#, "true");
    let output = world.output(&["check", "p.toml", "--json"], None);
    assert_eq!(output.status.code(), Some(3));
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&checked["problems"][0]["line"], &checked["problems"][0]["column"]), (&2.into(), &15.into()));
    assert_eq!(checked["problems"][0]["help"], "did you mean `webhook`?");
    assert_eq!((&checked["problems"][1]["line"], &checked["problems"][1]["column"]), (&2.into(), &57.into()));
}
