//! `backup = { after = 1.5 }` and `replicas = 2`: a second attempt beside the first one, where that is safe.
//!
//! It is where each attempt is told a place of its own to write to: by `{outputs}` in its command, by a variable, or by
//! the job of a built-in op. A command that names its outputs itself would write both attempts into the same file.

use super::decode::Decoder;
use super::keys::{AFTER, BackupKey};
use super::template::{Piece, pieces};
use super::tree::{Entry, Node};
use super::{Action, Backup, Located, Problem, Span, Stage};

/// The variable that names an attempt's outputs.
pub const OUTPUTS: &str = "TRAINYARD_OUTPUTS";

/// What a stage says about second attempts, each with its place.
#[derive(Default)]
pub(super) struct WrittenBackup {
    pub(super) backup: Option<(Option<Backup>, Span)>,
    pub(super) replicas: Option<(Option<i64>, Span)>,
}

/// Reads `backup`.
pub(super) fn after(decoder: &mut Decoder<'_>, node: &Node) -> Option<Backup> {
    let table = decoder.table(node, "a table like { after = 1.5 }")?;
    let mut written = false;
    let mut backup = None;
    for (BackupKey::After, Entry { node, .. }) in decoder.fields::<BackupKey>(table) {
        written = true;
        backup = decoder.fixed(node, 3, AFTER).map(|thousandths| Backup::After { thousandths });
    }
    if !written {
        let problem = Problem::new(node.span.clone(), "`backup` does not say when the second attempt starts");
        decoder.report_absent(problem.help("write `{ after = 1.5 }`: once it has taken 1.5 × its expected time"));
    }
    backup
}

impl WrittenBackup {
    /// Returns where a second attempt is asked for.
    pub(super) fn place(&self) -> Option<Span> {
        let at_once = self.replicas.as_ref().filter(|(replicas, _)| *replicas != Some(1)).map(|(_, place)| place);
        self.backup.as_ref().map(|(_, place)| place).or(at_once).cloned()
    }

    /// Returns what holds for a stage, and reports what cannot be done. `all_read`: whether its outputs could be read.
    pub(super) fn settle(self, decoder: &mut Decoder<'_>, stage: &Stage, all_read: bool) -> Option<Backup> {
        let (key, backup, place) = match (self.backup, self.replicas) {
            (Some((_, place)), Some((_, other))) => {
                let problem = Problem::new(other, "`replicas` beside `backup`: there is one second attempt");
                let help = "keep `replicas = 2` for one from the start, or `backup` for one that starts later";
                decoder.report(problem.help(help).related(place, "`backup` is here"));
                return None;
            }
            (Some((backup, place)), None) => ("backup", backup, place),
            (None, Some((Some(1), _)) | None) => return None,
            (None, Some((replicas, place))) => ("replicas", replicas.map(|_| Backup::AtOnce), place),
        };
        if all_read {
            check(decoder, stage, key, &place);
        }
        backup
    }
}

/// Reports what keeps two attempts of a stage from running side by side.
fn check(decoder: &mut Decoder<'_>, stage: &Stage, key: &str, place: &Span) {
    if stage.outputs.is_empty() {
        let message = format!("`{key}` needs `outputs`: nothing says what two attempts of `{}` write", stage.name);
        let help = "list what it writes in `outputs`, and name it `{outputs}` in `run`";
        return decoder.report_absent(Problem::new(place.clone(), message).help(help));
    }
    let words: &[Located] = match &stage.action {
        Action::Shell(line) => std::slice::from_ref(line),
        Action::Exec(words) => words,
        // The job says where it writes.
        Action::Op { .. } => return,
    };
    let Some(first) = words.first() else { return };
    let mut told = false;
    for word in words {
        told |= word.text.contains(OUTPUTS) || pieces(&word.text).any(|(piece, _)| piece == Piece::Outputs);
        for output in &stage.outputs {
            let Some(at) = named_at(&word.text, &output.path.text) else { continue };
            let span = decoder.inside(&word.span, at..at + output.path.text.len());
            let message = format!("with `{key}` two attempts would both write `{}`", output.path.text);
            let help = "write `{outputs}` or `$TRAINYARD_OUTPUTS` instead: each attempt gets a place of its own";
            return decoder.report(Problem::new(span, message).help(help).related(place.clone(), "asked for here"));
        }
    }
    if !told {
        let message = format!("with `{key}` two attempts of `{}` would write the same files", stage.name);
        let help = "name what it writes `{outputs}` or `$TRAINYARD_OUTPUTS` here: each attempt gets a place of its own";
        let problem = Problem::new(first.span.clone(), message).help(help);
        decoder.report(problem.related(place.clone(), "asked for here"));
    }
}

/// Returns where a command names a path as a word of its own, or as the beginning of a longer path.
fn named_at(command: &str, path: &str) -> Option<usize> {
    let part_of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut matches = command.match_indices(path).map(|(at, _)| at);
    matches.find(|at| {
        let (before, behind) = (&command[..*at], &command[at + path.len()..]);
        let before = before.strip_suffix("./").unwrap_or(before);
        let begins = !before.ends_with(|c: char| part_of_name(c) || c == '/');
        begins && !behind.starts_with(part_of_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_as_a_word_and_not_within_another() {
        for command in ["t --out out/a", "t > ./out/a", "t 'out/a'", "t --o=out/a/x"] {
            assert!(named_at(command, "out/a").is_some(), "{command}");
        }
        for command in ["t out/a.py", "t about/a", "t old/out/a", "t out/ab", ""] {
            assert_eq!(named_at(command, "out/a"), None, "{command}");
        }
    }
}
