//! What the dashboard costs: `cargo bench --bench serve`.
//!
//! 20 recorded runs of 1,000 tasks, one of them under way. Printed are how long the first page takes with all that it loads,
//! from a server that has just started; the time from the moment an event is recorded until a browser has it; and the
//! processor time of the server while 100 browsers watch a run in which ten events happen each second.

#![expect(clippy::disallowed_methods, reason = "it measures a process from outside")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{Timespec, poll};
use trainyard::engine::process;
use trainyard::graph::TaskId;
use trainyard::run::event::{Event, Place, Recorded, Role, RunEnd};
use trainyard::run::outcome::{Outcome, Usage};
use trainyard::run::store::{Header, Invocation, Orchestrator, RunKey, Store, TaskHeader};
use trainyard::run::within::Within;
use trainyard::units::Millis;

const RUNS: usize = 20;
const TASKS: u32 = 1_000;
const BROWSERS: usize = 100;

fn now() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    Millis(u64::try_from(since.as_millis()).expect("before the year 500 million"))
}

fn started(task: u32) -> Recorded {
    let place = Place { node: "box".into(), ..Place::default() };
    Recorded { at: now(), event: Event::AttemptStarted { task: TaskId(task), number: 1, place } }
}

fn finished(task: u32) -> Recorded {
    let usage = Usage::default();
    let event = Event::AttemptFinished {
        task: TaskId(task),
        role: Role::Main,
        outcome: Outcome::Succeeded,
        usage,
        logged: false,
    };
    Recorded { at: now(), event }
}

/// Records a run of a preparation and as many trainings as there are tasks; the whole of it, or its beginning.
fn record(store: &mut Store, n: usize, whole: bool) -> (String, RunKey) {
    let id = format!("20261121-0930{n:02}-sweep");
    let task = |i: u32| TaskHeader {
        name: format!("train[lr=0.1,seed={i}]"),
        stage: if i == 0 { "clean".into() } else { "train".into() },
        planned: (Millis(u64::from(i) * 100), Millis(u64::from(i) * 100 + 400)),
        places: vec!["box/cpu".into()],
        after: if i == 0 { Vec::new() } else { vec![TaskId(0)] },
        critical: i.is_multiple_of(100),
        outputs: Vec::new(),
        pieces: Vec::new(),
    };
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let process = process::identify(std::process::id()).expect("this process is there");
    let header = Header {
        id: id.clone(),
        pipeline: "sweep".into(),
        file: "sweep.toml".into(),
        orchestrator: Orchestrator { host, boot: process::boot_id(), pids: None, process, within: Within::default() },
        started: now(),
        invocation: Invocation::default(),
        tasks: (0..TASKS).map(task).collect(),
    };
    let mut key = store.begin(&header).expect("a run is recorded");
    let until = if whole { TASKS } else { TASKS / 5 };
    let mut events: Vec<Recorded> = (0..until).flat_map(|task| [started(task), finished(task)]).collect();
    if whole {
        events.push(Recorded { at: now(), event: Event::RunFinished { end: RunEnd::Succeeded } });
    }
    store.append(&mut key, &events).expect("events are recorded");
    (id, key)
}

struct Server {
    child: Child,
    port: u16,
    token: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(state: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
        command.args(["serve", "--port", "0", "--state"]).arg(state).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("it says where it is");
        let (base, token) = line.trim().split_once("/?token=").expect("an address with a token");
        let port = base.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        Self { child, port, token: token.to_owned() }
    }

    fn send(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        let Self { token, .. } = self;
        let head = "Host: localhost\r\nConnection: close\r\nAuthorization: Bearer";
        write!(stream, "GET {path} HTTP/1.1\r\n{head} {token}\r\n\r\n").expect("it reads");
        stream
    }

    fn get(&self, path: &str) -> usize {
        let mut bytes = Vec::new();
        self.send(path).read_to_end(&mut bytes).expect("it answers");
        assert!(bytes.starts_with(b"HTTP/1.1 200"), "{path}");
        bytes.len()
    }

    /// Returns the processor time that it has used.
    fn used(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("a line of fields").split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number");
        // Linux tells it in hundredths of a second everywhere.
        Duration::from_millis(ticks * 10)
    }
}

fn pause(ms: i64) {
    let _ = poll(&mut [], Some(&Timespec { tv_sec: ms / 1_000, tv_nsec: ms % 1_000 * 1_000_000 }));
}

/// Reads on until each of these tasks was said to be in this state; one message may tell of several.
fn hear(lines: &mut impl BufRead, tasks: Range<u32>, state: &str) {
    let said =
        |task: u32| format!("\"index\":{task},\"task\":{{\"name\":\"train[lr=0.1,seed={task}]\",\"state\":\"{state}\"");
    let mut wanted: Vec<String> = tasks.map(said).collect();
    let mut line = String::new();
    while !wanted.is_empty() {
        line.clear();
        assert!(lines.read_line(&mut line).expect("it goes on") > 0, "the server ended");
        wanted.retain(|wanted| !line.contains(wanted));
    }
}

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let state = folder.path().join("state");
    let mut store = Store::open(&state).expect("a new record");
    for n in 1..RUNS {
        record(&mut store, n, true);
    }
    let (run, mut key) = record(&mut store, RUNS, false);

    let page = ["/", "/web/app.css", "/web/app.js", "/web/dom.js", "/web/words.js", "/web/runs.js", "/web/run.js"];
    let parts = ["live", "graph", "gantt", "memory", "curves", "tasks", "task", "log", "devices", "compare"];
    let mut first = Vec::new();
    let mut bytes = 0;
    for _ in 0..11 {
        let server = Server::start(&state);
        let begun = Instant::now();
        bytes = page.iter().map(|path| server.get(path)).sum();
        bytes += parts.iter().map(|part| server.get(&format!("/web/{part}.js"))).sum::<usize>();
        server.get("/api/about");
        server.get("/api/runs");
        first.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    first.sort_by(f64::total_cmp);
    println!(
        "first page, {RUNS} runs of {TASKS} tasks: median {:.0} ms, worst {:.0} ms, {} kB",
        first[5],
        first[10],
        bytes / 1_000
    );

    let server = Server::start(&state);
    let begun = Instant::now();
    let size = server.get(&format!("/api/runs/{run}")) + server.get(&format!("/api/runs/{run}/plan"));
    println!("a run of {TASKS} tasks: {:.0} ms, {} kB", begun.elapsed().as_secs_f64() * 1e3, size / 1_000);

    let path = format!("/api/runs/{run}/events");
    let mut lines = BufReader::new(server.send(&path));
    hear(&mut lines, 0..200, "succeeded");
    let mut told: Vec<f64> = Vec::new();
    for task in 200..300 {
        store.append(&mut key, &[started(task)]).expect("an event is recorded");
        let begun = Instant::now();
        hear(&mut lines, task..task + 1, "running");
        told.push(begun.elapsed().as_secs_f64() * 1e3);
        store.append(&mut key, &[finished(task)]).expect("an event is recorded");
        hear(&mut lines, task..task + 1, "succeeded");
        // Also from rest, not only in the rhythm of the server.
        pause(i64::from(task % 7) * 13);
    }
    told.sort_by(f64::total_cmp);
    println!("recorded to told: median {:.1} ms, 99 of 100 {:.1} ms, worst {:.1} ms", told[50], told[98], told[99]);
    drop(lines);

    let browsers: Vec<TcpStream> = (0..BROWSERS).map(|_| server.send(&path)).collect();
    let readers: Vec<_> = browsers
        .into_iter()
        .map(|browser| {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(browser);
                hear(&mut lines, 300..400, "succeeded");
            })
        })
        .collect();
    pause(1_000);
    let (used, begun) = (server.used(), Instant::now());
    for task in 300..400 {
        store.append(&mut key, &[started(task)]).expect("an event is recorded");
        pause(100);
        store.append(&mut key, &[finished(task)]).expect("an event is recorded");
        pause(100);
    }
    let part = (server.used() - used).as_secs_f64() / begun.elapsed().as_secs_f64();
    readers.into_iter().for_each(|reader| reader.join().expect("every browser hears everything"));
    println!("{BROWSERS} browsers, ten events a second: {:.1} % of a core", 100.0 * part);
}
