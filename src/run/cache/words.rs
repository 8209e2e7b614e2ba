//! The words of a command that may name files. Pure, and not a shell: what a shell would expand stays as it is written, and
//! a word that names no file does no harm.

use crate::spec::Action;

/// Commands in quotes within commands in quotes are followed so deep.
const DEEPEST: usize = 4;

/// So many folders that a command goes to are looked into.
const MOST_FOLDERS: usize = 8;

/// Returns the words of a command that may name files, as seen from its folder.
pub(super) fn of(action: &Action) -> Vec<String> {
    let mut words = Words::default();
    match action {
        Action::Shell(line) => words.take_line(&line.text, 0),
        Action::Exec(arguments) => arguments.iter().for_each(|word| words.take(&word.text, 0)),
        Action::Op { .. } => {}
    }
    words.files
}

#[derive(Default)]
struct Words {
    files: Vec<String>,
    /// Folders that the command goes to, as seen from where it starts, the last one last.
    folders: Vec<String>,
    /// Whether the last word was `cd`.
    goes: bool,
}

impl Words {
    fn take_line(&mut self, line: &str, depth: usize) {
        shell_words(line, |word| self.take(word, depth));
    }

    fn take(&mut self, word: &str, depth: usize) {
        if let Some(file) = candidate(word) {
            let folders = self.folders.iter().filter(|_| !file.starts_with('/'));
            self.files.extend(folders.map(|folder| within(folder, file)));
            self.files.push(file.to_owned());
            if self.goes && self.folders.len() < MOST_FOLDERS {
                let folder = self.folders.last().map_or_else(|| file.to_owned(), |from| within(from, file));
                self.folders.push(folder);
            }
        }
        // `cd -P x` goes to `x` as well.
        self.goes = matches!(word, "cd" | "pushd") || self.goes && word.starts_with('-');
        // A command in one word, as behind `sh -c` or within backquotes.
        if depth < DEEPEST && word.contains(|c: char| is_between_words(c)) {
            self.take_line(word, depth + 1);
        }
    }
}

fn within(folder: &str, file: &str) -> String {
    if file.starts_with('/') { file.to_owned() } else { format!("{folder}/{file}") }
}

/// Returns what may be a file in a word: itself, or what is behind the `=` of `--config=a.toml`.
fn candidate(word: &str) -> Option<&str> {
    const NEVER: [char; 15] = ['$', '`', '{', '}', '(', ')', '<', '>', '|', ';', '&', '*', '?', '\n', '"'];
    // Longer than any path the kernel takes.
    const LONGEST: usize = 4_096;
    let file = match word.split_once('=') {
        Some((_, value)) => value,
        None if word.starts_with('-') => return None,
        None => word,
    };
    let is_number = file.parse::<f64>().is_ok();
    (!file.is_empty() && !is_number && file.len() < LONGEST && !file.contains(NEVER)).then_some(file)
}

/// Whether a character parts words, where it is not quoted.
fn is_between_words(c: char) -> bool {
    c.is_whitespace() || matches!(c, '|' | '&' | ';' | '(' | ')' | '<' | '`')
}

/// How far a shell line is behind a `|`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piped {
    No,
    /// The command follows.
    Command,
    /// It is `tee`, which empties the files that it names before it reads anything.
    Tee,
}

impl Piped {
    /// Takes in a word that is not written to by `>`; returns whether it is a file that is emptied.
    fn take(&mut self, word: &str) -> bool {
        let appends = || word == "--append" || !word.starts_with("--") && word.contains('a');
        *self = match self {
            Self::Command if word == "tee" => Self::Tee,
            Self::Tee if word.starts_with('-') && appends() => Self::No,
            Self::Tee => return !word.starts_with('-'),
            Self::No | Self::Command => Self::No,
        };
        false
    }

    /// Takes in what is between two words.
    fn pass(&mut self, c: char) {
        *self = match (*self, c) {
            (Self::Command, '|') => Self::No,
            (_, '|') => Self::Command,
            // `|&`, or no end of the command.
            (before, '&') if before == Self::Command => before,
            (before, c) if c.is_whitespace() && c != '\n' => before,
            _ => Self::No,
        };
    }
}

/// Tells the words of a shell line, quotes taken away, without those that it only writes to.
fn shell_words(line: &str, mut tell: impl FnMut(&str)) {
    let mut word = String::new();
    let (mut quote, mut written, mut piped) = (None, false, Piped::No);
    let mut chars = line.chars().peekable();
    let mut end = |word: &mut String, written: &mut bool, piped: &mut Piped| {
        if !word.is_empty() {
            if !std::mem::take(written) && !piped.take(word) {
                tell(word);
            }
            word.clear();
        }
    };
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('"') | None, '\\') => word.extend(chars.next()),
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => quote = Some(c),
            (None, '>') => {
                // The number of a stream before it is no word.
                if word.chars().all(|c| c.is_ascii_digit()) {
                    word.clear();
                }
                end(&mut word, &mut written, &mut piped);
                written = true;
                // `>>`, `>|` and `>&1`, which is no file.
                while let Some(more) = chars.next_if(|c| matches!(c, '>' | '|' | '&')) {
                    written = more != '&' || written;
                }
            }
            (None, c) if is_between_words(c) => {
                end(&mut word, &mut written, &mut piped);
                piped.pass(c);
            }
            (None, c) => word.push(c),
        }
    }
    end(&mut word, &mut written, &mut piped);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        let mut words = Words::default();
        words.take_line(line, 0);
        // Programs have names without a dot here.
        words.files.retain(|file| file.rsplit('/').next().is_some_and(|name| name.contains('.') || name == "other"));
        words.files.retain(|file| !file.contains(' '));
        words.files.sort();
        words.files
    }

    #[test]
    fn a_command_within_a_command_names_files_as_well() {
        for line in [
            "sh -c 'python3 top.py > arr.txt'",
            "bash -lc \"python3 top.py\" > x.txt",
            "echo `python3 top.py` > back.txt",
            "echo \"`python3 top.py`\"",
            "echo \"$(python3 top.py)\"",
            "ssh host \"sh -c 'python3 top.py'\"",
            "bash -c 'python3<top.py'",
        ] {
            assert_eq!(words(line), ["top.py"], "{line}");
        }
    }

    #[test]
    fn what_a_pipe_ends_in_is_written_and_not_read() {
        for line in [
            "python3 top.py | tee log.txt",
            "python3 top.py 2>&1 |& tee -i -- log.txt > /dev/null more.txt",
            "bash -c 'python3 top.py | tee \"log.txt\"'",
        ] {
            assert_eq!(words(line), ["top.py"], "{line}");
        }
        for line in [
            "true | tee -a top.py",
            "true | tee -ia top.py",
            "true | tee --append top.py",
            "true || tee top.py",
            "echo tee top.py",
            "true | cat tee top.py",
            "true | tee < top.py",
            "true | tee log.txt; sh top.py",
            "true | tee log.txt\nsh top.py",
            "true | tee log.txt && sh top.py",
            "true | tee log.txt | sh top.py",
            "true | tee top.py; sh top.py",
        ] {
            assert_eq!(words(line), ["top.py"], "{line}");
        }
    }

    #[test]
    fn after_a_change_of_folder_files_are_looked_for_there_too() {
        assert_eq!(words("cd sub && python3 clean.py > ../cd.txt"), ["clean.py", "sub/clean.py"]);
        assert_eq!(
            words("(cd -P sub; cd ../other; sh -c 'a.sh')"),
            ["../other", "a.sh", "sub/../other", "sub/../other/a.sh", "sub/a.sh"]
        );
        assert_eq!(words("cd /data; cat x.csv"), ["/data/x.csv", "x.csv"]);
        assert_eq!(words("cd \"$HERE\" && cat x.csv"), ["x.csv"], "who knows where that is");
    }

    #[test]
    fn quotes_without_end_come_to_one() {
        words(&"\\".repeat(1 << 16));
        words(&"'\"".repeat(1 << 12));
        words(&"cd a b;".repeat(1 << 10));
    }
}
