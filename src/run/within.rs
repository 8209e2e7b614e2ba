//! Which attempts a process is part of: one may start a run of its own, whose tasks may start others.

/// Attempts that something is part of, the outermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Within(Vec<Around>);

/// An attempt with something in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Around {
    /// The run's id.
    pub run: String,
    /// The task's name.
    pub task: String,
    /// The attempt's number.
    pub attempt: u32,
}

impl Within {
    /// Reads what [`Within::lines`] wrote; what is no whole attempt is passed over.
    #[must_use]
    pub fn read(lines: &str) -> Self {
        let lines: Vec<&str> = lines.lines().collect();
        let attempt =
            |of: &[&str]| Some(Around { run: of[0].into(), task: of[1].into(), attempt: of[2].parse().ok()? });
        Self(lines.chunks_exact(3).filter_map(attempt).collect())
    }

    /// Returns them with one more within the last of them.
    #[must_use]
    pub fn and(mut self, run: &str, task: &str, attempt: u32) -> Self {
        self.0.push(Around { run: run.to_owned(), task: task.to_owned(), attempt });
        self
    }

    /// Writes a run, a task of it, the number of the attempt, the next run, each on a line.
    #[must_use]
    pub fn lines(&self) -> String {
        let lines = self.0.iter().map(|Around { run, task, attempt }| format!("{run}\n{task}\n{attempt}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Yields them, the innermost first.
    pub fn outwards(&self) -> impl Iterator<Item = &Around> {
        self.0.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::Within;

    #[test]
    fn what_is_written_is_read() {
        let within = Within::default().and("r1", "a", 2).and("r2", "b c", 1);
        assert_eq!(Within::read(&within.lines()), within);
        assert_eq!(Within::read(""), Within::default());
        assert_eq!(Within::read("r1\na\n2\nr2"), Within::default().and("r1", "a", 2));
        assert!(within.outwards().map(|of| of.task.as_str()).eq(["b c", "a"]));
    }
}
