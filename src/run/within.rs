//! Which tasks a process is part of: a task may start a run of its own, whose tasks may start others.

/// Runs and tasks that something is part of, each with the names of both, the outermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Within(Vec<(String, String)>);

impl Within {
    /// Reads what [`Within::lines`] wrote; what is no whole pair of names is passed over.
    #[must_use]
    pub fn read(lines: &str) -> Self {
        let names: Vec<&str> = lines.lines().collect();
        Self(names.chunks_exact(2).map(|names| (names[0].to_owned(), names[1].to_owned())).collect())
    }

    /// Returns them with one more within the last of them.
    #[must_use]
    pub fn and(mut self, run: String, task: String) -> Self {
        self.0.push((run, task));
        self
    }

    /// Writes a run, a task of it, the next run, each on a line.
    #[must_use]
    pub fn lines(&self) -> String {
        self.0.iter().flat_map(|(run, task)| [run.as_str(), task]).collect::<Vec<_>>().join("\n")
    }

    /// Whether a task is among them.
    #[must_use]
    pub fn has(&self, run: &str, task: &str) -> bool {
        self.0.iter().any(|(of, name)| (of.as_str(), name.as_str()) == (run, task))
    }

    /// Yields run and task, the innermost first.
    pub fn outwards(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().rev().map(|(run, task)| (run.as_str(), task.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::Within;

    #[test]
    fn what_is_written_is_read() {
        let within = Within::default().and("r1".into(), "a".into()).and("r2".into(), "b c".into());
        assert_eq!(Within::read(&within.lines()), within);
        assert_eq!(Within::read(""), Within::default());
        assert_eq!(Within::read("r1\na\nr2"), Within::default().and("r1".into(), "a".into()));
        assert_eq!(within.outwards().collect::<Vec<_>>(), [("r2", "b c"), ("r1", "a")]);
        assert!(within.has("r1", "a") && !within.has("r1", "b c"));
    }
}
