//! Who a process is: its command and its user, for the people who ask what is on their GPU.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process that is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its user's name, or the number where there is no name for it.
    pub user: String,
    /// The name of its program.
    pub command: String,
}

/// Returns who a process is; `None` if it is gone, or hidden from us by a container.
#[must_use]
pub fn identify(root: &Path, pid: u32) -> Option<Identity> {
    let folder = root.join("proc").join(pid.to_string());
    let command = fs::read_to_string(folder.join("comm")).ok()?.trim_end().to_owned();
    let uid = fs::metadata(&folder).ok()?.uid();
    let users = fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
    Some(Identity { user: user(&users, uid).map_or_else(|| uid.to_string(), str::to_owned), command })
}

/// Returns the name of a user in the text of `/etc/passwd`.
fn user(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_user_and_a_command() {
        let identity = identify(Path::new("/"), std::process::id()).unwrap();
        assert!(!identity.command.is_empty() && !identity.user.is_empty());
    }

    #[test]
    fn a_process_that_is_gone_is_nobody() {
        // The largest pid that Linux allows is 2^22.
        assert_eq!(identify(Path::new("/"), (1 << 22) + 1), None);
    }

    #[test]
    fn users_are_found_by_number() {
        assert_eq!(user("root:x:0:0::/:\nana:x:1000:1000::/:\n", 1000), Some("ana"));
        assert_eq!(user("root:x:0:0::/:\n", 7), None);
    }
}
