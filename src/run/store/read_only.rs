//! A record that may be read and not written to: on a file system that is mounted so, or of another user.

use std::path::Path;

use rustix::fs::{Access, access};

use super::aside::with;

/// Returns the name by which SQLite reads a database without writing anything beside it; `None` where it may write, or where
/// somebody is at it: only their log tells the newest then.
pub(in crate::run) fn name(database: &Path) -> Option<String> {
    let may_write = |path: &Path| access(path, Access::WRITE_OK).is_ok();
    let log = with(database, "-wal");
    if may_write(database) && database.parent().is_some_and(may_write) || log.exists() {
        return None;
    }
    let escaped = database.to_str()?.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    Some(format!("file:{escaped}?immutable=1"))
}
