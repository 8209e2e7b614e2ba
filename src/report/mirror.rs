//! What stages print, line by line with the task's name before it, where somebody asked to see it.
//!
//! Does not write into the logs: those have every byte as it was printed.

use std::collections::HashMap;
use std::io::Write;

use super::paint::{Colour, Tone};
use super::text;
use crate::graph::TaskId;
use crate::run::event::{Event, Recorded, Role};
use crate::run::launch::QUOTED;
use crate::run::observer::{Observer, View};

/// A line longer than this is shown in parts: a program that never ends its line must not fill the memory.
const LONGEST: usize = 8 << 10;

/// Mirrors output.
pub struct Mirror {
    out: Box<dyn Write>,
    colour: Colour,
    /// What was printed after the last line end, by running attempt.
    begun: HashMap<(TaskId, Role), Vec<u8>>,
}

impl Mirror {
    /// Makes an observer that writes to `out`.
    #[must_use]
    pub fn new(out: Box<dyn Write>, colour: Colour) -> Self {
        Self { out, colour, begun: HashMap::new() }
    }

    fn write(&mut self, view: View<'_>, (task, role): (TaskId, Role), lines: &[u8]) {
        let name = text::visible(&view.graph.tasks[task.index()].name).into_owned();
        let beside = if role == Role::Backup { " (backup)" } else { "" };
        let prefix = self.colour.paint(Tone::Faint, &format!("{name}{beside} {}", QUOTED.trim_end()));
        let mut shown = String::new();
        for line in lines.split(|byte| *byte == b'\n') {
            shown.push_str(&format!("{prefix} {}\n", text::log_line(line)));
        }
        // The log has it, whether or not somebody reads the mirror.
        drop(self.out.write_all(shown.as_bytes()));
    }
}

impl Observer for Mirror {
    fn recorded(&mut self, view: View<'_>, recorded: &Recorded) {
        if let Event::AttemptFinished { task, role, .. } = &recorded.event
            && let Some(rest) = self.begun.remove(&(*task, *role)).filter(|rest| !rest.is_empty())
        {
            self.write(view, (*task, *role), &rest);
        }
    }

    fn printed(&mut self, view: View<'_>, task: TaskId, role: Role, output: &[u8]) {
        let mut lines = self.begun.remove(&(task, role)).unwrap_or_default();
        lines.extend_from_slice(output);
        let whole = lines.iter().rposition(|byte| *byte == b'\n');
        let rest = lines.split_off(whole.map_or(0, |end| end + 1));
        if !lines.is_empty() {
            lines.pop();
            self.write(view, (task, role), &lines);
        }
        if rest.len() > LONGEST {
            self.write(view, (task, role), &rest);
        } else {
            self.begun.insert((task, role), rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::{Paper, Scene, finished, id, started};

    fn mirrored(pieces: &[(usize, &[u8])]) -> (String, usize) {
        let paper = Paper::default();
        let mut mirror = Mirror::new(Box::new(paper.clone()), Colour::Never);
        let mut scene = Scene::side_by_side(&["a", "b"]);
        scene.tell(&mut mirror, 0, started(0, 1));
        scene.tell(&mut mirror, 0, started(1, 1));
        let mut most = 0;
        for (task, output) in pieces {
            mirror.printed(scene.view(), id(*task), Role::Main, output);
            most = most.max(mirror.begun.values().map(Vec::len).sum());
        }
        scene.tell(&mut mirror, 1, finished(0, 0));
        scene.tell(&mut mirror, 1, finished(1, 0));
        (paper.text(), most)
    }

    #[test]
    fn lines_of_tasks_side_by_side_are_not_torn() {
        let (text, _) = mirrored(&[(0, b"one tw"), (1, b"x\ny\n"), (0, b"o\nthr"), (0, b"ee")]);
        assert_eq!(text, "b │ x\nb │ y\na │ one two\na │ three\n");
    }

    #[test]
    fn a_line_that_never_ends_is_shown_in_parts() {
        let piece = [b'x'; 1000];
        let (text, most) = mirrored(&[(0, piece.as_slice()); 100]);
        assert!(most <= LONGEST + 1000);
        assert_eq!(text.matches('x').count(), 100_000);
    }

    #[test]
    fn an_empty_line_stays_and_a_control_sequence_is_not_obeyed() {
        let (text, _) = mirrored(&[(0, b"a\n\n\x1b[2Jb\x07\n")]);
        assert_eq!(text, "a │ a\na │ \na │ b\\u{7}\n");
    }
}
