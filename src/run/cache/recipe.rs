//! What the pipeline file says of a task that its result depends on, and which files are to be looked at.
//!
//! Pure: files are named here, not opened. What a program reads besides its declared inputs and the files that its
//! command names is not known.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::key::{Content, Digest, Ingredients, Part};
use super::words;
use crate::graph::{Task, path};
use crate::spec::{self, Action, Pipeline, op};

/// What a key is made from, once the files are looked at. Paths are relative to the pipeline file, or absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    pub(super) fixed: Vec<(Part, Content)>,
    /// Declared inputs; a pattern means the files that match.
    pub inputs: Vec<String>,
    /// Words of the command that may be files.
    pub named: Vec<String>,
    /// What it makes.
    pub outputs: Vec<String>,
    /// Whether it is a built-in op, whose program counts.
    pub is_op: bool,
}

/// A file that a command names and that its task has made itself, with what it held when the task had ended.
pub type Leftover = (String, Content);

/// What is looked for at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A file, or a folder with all that is in it.
    Anything,
    /// A file. A folder on a command line may hold the data of years, or be the whole machine: it is not read.
    File,
}

impl Recipe {
    /// Makes the recipe of a task.
    #[must_use]
    pub fn new(pipeline: &Pipeline, task: &Task) -> Self {
        let cwd = task.cwd(pipeline);
        let text = |text: String| Content::Text(Digest::of(text.as_bytes()));
        let mut fixed = vec![
            (Part::Command, text(command(&task.action))),
            (Part::Reads, text(task.inputs.join("\0"))),
            (Part::Writes, text(task.outputs.join("\0"))),
        ];
        fixed.extend(task.env(pipeline).into_iter().map(|(name, value)| (Part::Variable(name), text(value))));
        let mut named = words::of(&task.action);
        for word in &mut named {
            *word =
                if word.starts_with('/') { path::normalise(word) } else { path::normalise(&format!("{cwd}/{word}")) };
        }
        fixed.push((Part::Folder, Content::Text(Digest::of(cwd.as_bytes()))));
        // A stage may gather thousands of files, all of which are on its command line.
        let declared: HashSet<&str> = task.inputs.iter().map(String::as_str).collect();
        named.retain(|word| !declared.contains(word.as_str()) && !is_within(word, &task.outputs));
        named.sort_unstable();
        named.dedup();
        Self {
            fixed,
            inputs: task.inputs.clone(),
            named,
            outputs: task.outputs.clone(),
            is_op: matches!(task.action, Action::Op { .. }),
        }
    }

    /// Whether the task reads from a folder that is its own output: what was there before it starts must stay.
    #[must_use]
    pub fn reads_own_outputs(&self) -> bool {
        self.inputs.iter().any(|input| is_within(input, &self.outputs))
    }

    /// Puts the ingredients together. `files` finds what matches a pattern, `content` looks at a file or folder, or at a
    /// word that may be a file; words of the command that are in `made`, or that are no files, are left out.
    ///
    /// # Errors
    /// Those of `content` for the program and declared inputs.
    pub fn ingredients<E>(
        &self,
        tool: &str,
        made: &[Leftover],
        files: impl Fn(&str) -> Vec<String>,
        mut content: impl FnMut(&str, Wanted) -> Result<Content, E>,
    ) -> Result<Ingredients, E> {
        let mut parts = Vec::with_capacity(self.fixed.len() + self.inputs.len() + self.named.len() + 1);
        parts.extend_from_slice(&self.fixed);
        if self.is_op {
            let tool = match content(tool, Wanted::Anything)? {
                // That it may be executed goes without saying.
                Content::Program(digest) => Content::File(digest),
                other @ (Content::Text(_) | Content::File(_) | Content::Tree(_) | Content::Absent) => other,
            };
            parts.push((Part::Tool, tool));
        }
        for input in &self.inputs {
            if !path::is_pattern(input) {
                parts.push((Part::Input(input.clone()), content(input, Wanted::Anything)?));
                continue;
            }
            for file in files(input) {
                let found = content(&file, Wanted::Anything)?;
                parts.push((Part::Input(file), found));
            }
        }
        for word in self.named.iter().filter(|word| !made.iter().any(|(path, _)| path == *word)) {
            // A folder on the command line is where something goes as often as where it comes from, and what cannot be
            // looked at may be no file at all.
            if let Ok(found @ (Content::File(_) | Content::Program(_))) = content(word, Wanted::File) {
                parts.push((Part::Named(word.clone()), found));
            }
        }
        Ok(Ingredients::new(parts))
    }
}

/// Whether a path is one of the outputs or lies in one.
#[must_use]
pub fn is_within(path: &str, outputs: &[String]) -> bool {
    let inside = |output: &String| {
        path.strip_prefix(output.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    outputs.iter().any(inside)
}

/// Returns what is run, as one text. Neither lines nor words can hold a NUL.
fn command(action: &Action) -> String {
    match action {
        Action::Shell(line) => format!("sh\0{}", line.text),
        Action::Exec(words) => {
            let words = words.iter().map(|word| word.text.as_str());
            std::iter::once("exec").chain(words).collect::<Vec<_>>().join("\0")
        }
        Action::Op { name, with } => {
            let with = op::find(&name.text).map(|op| spec::op_params(op, with)).unwrap_or_default();
            format!("op\0{}\0{}", name.text, serde_json::Value::Object(with))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{self, Limits};
    use crate::spec::Source;

    fn recipe(stage: &str) -> Recipe {
        let source = Source { name: "p.toml".to_owned(), text: format!("[stage.a]\n{stage}\n") };
        let (pipeline, graph) = graph::load(&source, &[], op::CATALOGUE, Limits::default()).expect("a good file");
        Recipe::new(&pipeline, &graph.tasks[0])
    }

    /// The key where every file that may be one holds its own name.
    fn key(stage: &str) -> Digest {
        let content = |path: &str, _| Ok::<_, ()>(Content::File(Digest::of(path.as_bytes())));
        recipe(stage).ingredients("ops", &[], |_| Vec::new(), content).unwrap().key()
    }

    #[test]
    fn files_on_a_shell_line_are_found_and_what_it_writes_is_not() {
        let stage = r#"run = "FOO=1 python3 'my clean.py' --out work/a.npz --config=c.toml -v 20 < in.txt > o.log 2>> e.log && cat \"x y\" $HOME/z | tee *.t""#;
        let stage = format!("{stage}\noutputs = [\"work/a.npz\"]");
        assert_eq!(
            recipe(&stage).named,
            ["c.toml", "cat", "clean.py", "in.txt", "my", "my clean.py", "python3", "tee", "x", "x y", "y"]
        );
    }

    #[test]
    fn files_among_arguments_are_found_from_the_folder_of_the_command() {
        let stage = "run = [\"./train.sh\", \"/etc/x\", \"../data/a\", \"-q\"]\ncwd = \"scripts\"";
        assert_eq!(recipe(stage).named, ["/etc/x", "data/a", "scripts/train.sh"]);
    }

    #[test]
    fn what_makes_no_difference_to_a_result_is_not_in_the_key() {
        let plain = "run = \"make a\"\noutputs = [\"a\"]";
        for same in ["retries = 3", "priority = 7", "timeout = \"1h\"", "resources = { cpus = 2 }", "kind = \"train\""]
        {
            assert_eq!(key(plain), key(&format!("{plain}\n{same}")), "{same}");
        }
    }

    #[test]
    fn everything_that_a_result_depends_on_is_in_the_key() {
        let stages = [
            "run = \"make a\"\noutputs = [\"a\"]",
            "run = \"make  a\"\noutputs = [\"a\"]",
            "run = [\"make\", \"a\"]\noutputs = [\"a\"]",
            "run = [\"make\", \"a\", \"\"]\noutputs = [\"a\"]",
            "run = \"make a\"\noutputs = [\"b\"]",
            "run = \"make a\"\noutputs = [\"a\", \"b\"]",
            "run = \"make a\"\noutputs = [\"b\", \"a\"]",
            "run = \"make a\"\noutputs = [\"a\"]\ninputs = [\"x\"]",
            "run = \"make a\"\noutputs = [\"a\"]\ninputs = [\"x\", \"y\"]",
            "run = \"make a\"\noutputs = [\"a\"]\ninputs = [\"y\", \"x\"]",
            "run = \"make a\"\noutputs = [\"a\"]\ncwd = \"src\"",
            "run = \"make a\"\noutputs = [\"a\"]\nenv = { A = \"1\" }",
            "run = \"make a\"\noutputs = [\"a\"]\nenv = { A = \"2\" }",
            "run = \"make a\"\noutputs = [\"a\"]\nenv = { B = \"1\" }",
            "use = \"data.split\"\nwith = { test = 0.3 }\ninputs = [\"x\"]\noutputs = [\"a\", \"b\"]",
            "use = \"data.split\"\nwith = { test = 0.4 }\ninputs = [\"x\"]\noutputs = [\"a\", \"b\"]",
        ];
        for (i, a) in stages.iter().enumerate() {
            for b in &stages[..i] {
                assert_ne!(key(a), key(b), "{a}\n{b}");
            }
        }
    }

    #[test]
    fn the_order_of_variables_and_a_default_that_is_written_out_do_not_matter() {
        let with = |env: &str| format!("run = \"a\"\noutputs = [\"a\"]\nenv = {{ {env} }}");
        assert_eq!(key(&with("A = \"1\", B = \"2\"")), key(&with("B = \"2\", A = \"1\"")));
        let op = |with: &str| {
            format!("use = \"data.split\"\nwith = {{ {with} }}\ninputs = [\"x\"]\noutputs = [\"a\", \"b\"]")
        };
        let defaults = spec::op_params(op::find("data.split").unwrap(), &[]);
        assert_eq!(key(&op("")), key(&op(&format!("test = {}", defaults["test"]))));
    }

    #[test]
    fn a_stage_that_reads_in_its_own_folder_is_recognised() {
        let own = "run = \"a\"\noutputs = [\"work\"]\ninputs = [\"work/raw.csv\"]";
        assert!(recipe(own).reads_own_outputs());
        assert!(!recipe("run = \"a\"\noutputs = [\"work\"]\ninputs = [\"working.csv\"]").reads_own_outputs());
    }
}
