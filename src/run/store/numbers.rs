//! How events are numbered in the database: by their run, and within it in their order.
//!
//! Both in one number, which is SQLite's own key of the row: the newest event stands at the end of the table, so that a
//! commit fills one page up and does not touch those beside it.

use std::ops::RangeInclusive;

/// The step of the format that numbers events so.
pub(super) const STEP: &str = "
CREATE TABLE numbered (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
INSERT INTO numbered SELECT (run << 32) + seq, at, body FROM event ORDER BY run, seq;
DROP TABLE event;
ALTER TABLE numbered RENAME TO event;
";

/// Yields, in a query over `run`, how many events a run has.
pub(super) const COUNT: &str = "(
    SELECT coalesce(max(number) - (run.key << 32) + 1, 0) FROM event
    WHERE number BETWEEN run.key << 32 AND (run.key << 32) + 0xFFFFFFFF
)";

/// Bits for the events of one run; those before them are the run's key.
const BITS: u32 = 32;

/// Returns the number of a run's event, which is counted from 0.
pub(super) const fn number(run: i64, seq: i64) -> i64 {
    (run << BITS) + seq
}

/// Returns all numbers that events of a run can have.
pub(super) const fn of(run: i64) -> RangeInclusive<i64> {
    number(run, 0)..=number(run, (1 << BITS) - 1)
}
