//! Named points at which a test can have this program killed, to see what a crash there leaves behind.
//!
//! Only in builds with debug assertions: there `TRAINYARD_CRASH_AT=NAME` or `NAME:N`, or several of them with commas, kills
//! it by SIGKILL when it passes that point for the n-th time; with `TRAINYARD_CRASH_ONCE=FOLDER` only the first process
//! that does, of all that share the folder. A kill from outside meets such a point by chance, if ever.
//! `TRAINYARD_CRASH_BY=INT` or several with commas (`INT,INT`) has these signals sent there instead.

/// Every point, in the order in which a run passes them.
pub const POINTS: [&str; 14] = [
    "read",
    "begun",
    "taken-over",
    "swept",
    "resumed",
    "decided",
    "committed",
    "spawned",
    "publishing",
    "ended",
    "keeping",
    "told",
    "closing",
    "dismissed",
];

/// The points that the sentinel of an attempt passes.
pub const POINTS_OF_SENTINELS: [&str; 4] =
    ["sentinel-begun", "sentinel-spawned", "sentinel-ended", "sentinel-recorded"];

/// Where a task was suspended or continued: on record, and done.
pub const POINT_OF_TURNS: &str = "turned";

/// Where somebody was told that the run is over, and that is not on record yet.
pub const POINT_OF_ON_FINISH: &str = "finish-told";

/// Where a run was removed from the record, and its folder is still there.
pub const POINT_OF_REMOVALS: &str = "removed";

/// Passes a point.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: OnceLock<Vec<(String, u32, AtomicU32)>> = OnceLock::new();

    let known = POINTS.contains(&name)
        || POINTS_OF_SENTINELS.contains(&name)
        || [POINT_OF_TURNS, POINT_OF_ON_FINISH, POINT_OF_REMOVALS].contains(&name);
    debug_assert!(known, "{name} is not in the list");
    let wanted = WANTED.get_or_init(|| {
        let wanted = std::env::var_os("TRAINYARD_CRASH_AT").and_then(|wanted| wanted.into_string().ok());
        let one = |text: &str| {
            let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
            Some((name.to_owned(), nth.parse().ok()?, AtomicU32::new(0)))
        };
        wanted.iter().flat_map(|wanted| wanted.split(',')).filter_map(one).collect()
    });
    if let Some((_, nth, passed)) = wanted.iter().find(|(wanted, ..)| wanted == name)
        && passed.fetch_add(1, Ordering::Relaxed) + 1 == *nth
        && is_first(name)
    {
        for signal in signals() {
            let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
        }
    }
}

/// Returns what is sent at a point.
#[cfg(debug_assertions)]
fn signals() -> Vec<rustix::process::Signal> {
    use rustix::process::Signal;
    let named = |name: &str| match name {
        "INT" => Signal::INT,
        "TERM" => Signal::TERM,
        "HUP" => Signal::HUP,
        "STOP" => Signal::STOP,
        _ => Signal::KILL,
    };
    let wanted = std::env::var_os("TRAINYARD_CRASH_BY").and_then(|wanted| wanted.into_string().ok());
    wanted.as_deref().unwrap_or("KILL").split(',').map(named).collect()
}

/// Whether no other process has been killed at this point, where only one is to be.
#[cfg(debug_assertions)]
fn is_first(name: &str) -> bool {
    std::env::var_os("TRAINYARD_CRASH_ONCE")
        .is_none_or(|folder| std::fs::File::create_new(std::path::Path::new(&folder).join(name)).is_ok())
}

/// Passes a point.
#[cfg(not(debug_assertions))]
pub const fn point(_: &str) {}
