//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::units::Millis;

/// Returns the time, ms since the Unix epoch.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where it is read")]
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
