//! Named points at which a test can have this program killed, to see what a crash there leaves behind.
//!
//! Only in builds with debug assertions: there `TRAINYARD_CRASH_AT=NAME` or `NAME:N` kills it by SIGKILL when it passes
//! that point for the n-th time. A kill from outside meets such a point by chance, if ever.

/// Every point, in the order in which a run passes them.
pub const POINTS: [&str; 11] = [
    "begun",
    "taken-over",
    "swept",
    "resumed",
    "decided",
    "committed",
    "spawned",
    "ended",
    "told",
    "closing",
    "dismissed",
];

/// The points that the sentinel of an attempt passes.
pub const POINTS_OF_SENTINELS: [&str; 4] =
    ["sentinel-begun", "sentinel-spawned", "sentinel-ended", "sentinel-recorded"];

/// Where somebody was told that the run is over, and that is not on record yet.
pub const POINT_OF_ON_FINISH: &str = "finish-told";

/// Passes a point.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);

    let known = POINTS.contains(&name) || POINTS_OF_SENTINELS.contains(&name) || name == POINT_OF_ON_FINISH;
    debug_assert!(known, "{name} is not in the list");
    let wanted = WANTED.get_or_init(|| {
        let wanted = std::env::var_os("TRAINYARD_CRASH_AT")?.into_string().ok()?;
        let (name, nth) = wanted.split_once(':').unwrap_or((&wanted, "1"));
        Some((name.to_owned(), nth.parse().ok()?))
    });
    if let Some((wanted, nth)) = wanted
        && wanted == name
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *nth
    {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Passes a point.
#[cfg(not(debug_assertions))]
pub const fn point(_: &str) {}
