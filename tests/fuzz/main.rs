//! No input makes a reader fail: pipelines, fleets, recorded events and progress, each mutated at random.
//!
//! `TRAINYARD_FUZZ=1000000` sets how many inputs there are, over all readers (20,000); the seed is printed, and
//! `TRAINYARD_FUZZ_SEED` repeats it.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and reads its seed")]

use trainyard::graph::{self, Limits, TaskId};
use trainyard::run::event::{Because, Event, Intent, Place, Process, Role, RunEnd, StopReason};
use trainyard::run::outcome::{LogCut, Outcome, Usage};
use trainyard::run::state::RunState;
use trainyard::spec::{Source, op};
use trainyard::units::{Bytes, Millis};

mod readers;

const PIPELINE: &str = include_str!("../fixtures/every-key.toml");

/// Returns the pipeline with an op that there is.
fn pipeline() -> String {
    PIPELINE.replace("test.op", "torch.train")
}

const FLEET: &str = r#"
name = "two boxes"
[[node]]
name = "box"
cpus = 112
memory = "2TiB"
speed = 1.0
resources = { licenses = 4 }
[[node.gpu]]
count = 8
model = "H100"
memory = "80GiB"
speed = 1.5
link = "nvlink"
[[node]]
name = "box2"
cpus = 8.5
memory = "64GB"
[[link]]
between = ["box", "box2"]
bandwidth = "12GB/s"
[budgets]
money = 100
"#;

/// SplitMix64 (Steele, Lea, Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }
}

/// Pieces that mean something to one of the readers.
const PIECES: [&str; 30] = [
    "",
    "\n",
    "\"",
    "'",
    "\"\"\"",
    "[",
    "]",
    "[[",
    "{",
    "}",
    "=",
    ",",
    ".",
    "#",
    "\\",
    "\0",
    "{matrix.",
    "{inputs}",
    "é",
    "\u{feff}",
    "99999999999999999999",
    "-1",
    "1e999",
    "nan",
    "inf",
    "0",
    "[stage.x]\n",
    "\"1GiB\"",
    "null",
    "1979-05-27",
];

/// Changes a text in a few places: pieces put in, cut out, doubled or swapped for others of it.
fn mutated(random: &mut Random, text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=random.below(4) {
        let start = random.below(bytes.len() + 1);
        let end = (start + random.below(16)).min(bytes.len());
        let with = match random.below(5) {
            0 => Vec::new(),
            1 => PIECES[random.below(PIECES.len())].as_bytes().to_vec(),
            2 => bytes[start..end].repeat(2),
            3 => {
                let from = random.below(bytes.len());
                bytes[from..(from + random.below(40)).min(bytes.len())].to_vec()
            }
            _ => random.next().to_le_bytes()[..1 + random.below(4)].to_vec(),
        };
        bytes.splice(start..end, with);
    }
    bytes
}

/// Recorded events of every kind, as they are written down.
fn events() -> Vec<String> {
    let task = TaskId(1);
    let place = Place { node: "box".to_owned(), devices: vec!["box/gpu0".to_owned()], ..Place::default() };
    let usage = Usage {
        peak_memory: Some(Bytes(1)),
        peak_gpu_memory: None,
        survivors: 1,
        hidden: true,
        began: Some(Millis(5)),
        ended: Some(Millis(7)),
        log_cut: Some(LogCut::DiskFull),
    };
    let outcome = Outcome::OutOfMemory { device: Some("box/gpu0".to_owned()) };
    [
        Event::AttemptStarted { task, number: 1, place },
        Event::TaskSuspended { task },
        Event::TaskContinued { task },
        Event::AttemptSpawned { task, role: Role::Main, process: Process { pid: 1, started: 2 } },
        Event::AttemptFinished { task, role: Role::Main, outcome, usage, logged: true },
        Event::RetryPlanned { task, not_before: Millis(1), raise: None },
        Event::TaskFailed { task, lacks: None },
        Event::TaskSkipped { task, because: Some(task) },
        Event::Replanned {
            because: Because::Drift { expected: Millis(3), planned: Millis(2), task: Some(task) },
            before: Millis(3),
            after: Millis(2),
            order: vec![task],
            moved: vec![Intent { task, mode: 0, node: "box".to_owned(), devices: vec!["box/gpu0".to_owned()] }],
        },
        Event::StopRequested { reason: StopReason::Signal },
        Event::RunFinished { end: RunEnd::Failed },
        Event::RunResumed { adopted: vec![task] },
    ]
    .map(|event| serde_json::to_string(&event).unwrap())
    .to_vec()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Gives a reader a part of all inputs.
fn fuzz(part: u64, mut read: impl FnMut(&mut Random)) {
    let inputs = number("TRAINYARD_FUZZ").unwrap_or(20_000) * part / 100;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let seed = number("TRAINYARD_FUZZ_SEED").unwrap_or(u64::try_from(now % u128::from(u64::MAX)).unwrap());
    println!("TRAINYARD_FUZZ_SEED={seed}");
    let mut random = Random(seed);
    for _ in 0..inputs {
        read(&mut random);
    }
}

#[test]
fn no_pipeline_makes_its_reader_fail() {
    let pipeline = pipeline();
    let source = Source { name: "p.toml".to_owned(), text: pipeline.clone() };
    assert!(graph::load(&source, &[], op::CATALOGUE, Limits::default()).is_ok(), "most of it would go unread");
    fuzz(30, |random| readers::pipeline(&mutated(random, &pipeline)));
}

#[test]
fn no_fleet_makes_its_reader_fail() {
    fuzz(30, |random| readers::fleet(&mutated(random, FLEET)));
}

#[test]
fn no_record_makes_its_reader_fail_and_no_event_is_both_refused_and_taken_in() {
    let events = events();
    let mut state = RunState::new(3);
    fuzz(30, |random| {
        let text = &events[random.below(events.len())];
        let bytes = mutated(random, text);
        readers::event(&bytes, Millis(random.next() >> 20), &mut state);
        if random.below(20) == 0 {
            state = RunState::new(random.below(4));
        }
    });
}

#[test]
fn no_progress_makes_its_reader_fail() {
    const SAID: [&str; 4] = [
        r#"{"progress":0.4,"loss":0.12,"accuracy":1e-3,"phase":"epoch 4/10"}"#,
        "Epoch 3/10\r\n 45%|████▌     | 45/100 [00:12<00:15,  3.61it/s, loss=0.31]\r\u{1b}[A\n",
        "[12/300] train-rmse:0.25\teval-logloss:1e-3\n[ 40%] Building\n",
        "{'loss': 0.5, 'learning_rate': 5e-05, 'epoch': 1.5}\n1563/1563 [====>...] - 9s 6ms/step - loss: 1.2\n",
    ];
    fuzz(10, |random| {
        let said = SAID[random.below(SAID.len())];
        readers::progress(&mutated(random, said));
    });
}
