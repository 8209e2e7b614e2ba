//! Colour by meaning. Whether there is colour at all is decided once, where the terminal is known.

use std::fmt::Write;

/// What a piece of text means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// It worked.
    Good,
    /// It failed.
    Bad,
    /// It needs a look, or will be tried again.
    Uneasy,
    /// It is happening now.
    Active,
    /// It is there for completeness.
    Faint,
    /// It heads what follows.
    Strong,
}

/// Whether to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    /// Plain text: a file, a pipe, `NO_COLOR`.
    #[default]
    Never,
    /// ANSI codes of the terminal's own sixteen colours, so that every theme stays readable.
    Ansi,
}

impl Colour {
    /// Returns what standard output should get: colour on a terminal, unless `NO_COLOR` or `TERM=dumb` says no.
    #[must_use]
    pub fn for_stdout() -> Self {
        if console::colors_enabled() { Self::Ansi } else { Self::Never }
    }

    /// Returns what standard error should get.
    #[must_use]
    pub fn for_stderr() -> Self {
        if console::colors_enabled_stderr() { Self::Ansi } else { Self::Never }
    }

    /// Returns `text` in the colour of `tone`.
    #[must_use]
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let mut painted = String::with_capacity(text.len() + 9);
        match (self, tone.code()) {
            (Self::Never, _) | (Self::Ansi, None) => painted.push_str(text),
            (Self::Ansi, Some(code)) => {
                write!(painted, "\x1b[{code}m{text}\x1b[0m").expect("a String takes everything");
            }
        }
        painted
    }
}

impl Tone {
    /// Returns the parameter of the SGR code.
    const fn code(self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Good => Some(32),
            Self::Bad => Some(31),
            Self::Uneasy => Some(33),
            Self::Active => Some(36),
            Self::Faint => Some(2),
            Self::Strong => Some(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_the_text_is_untouched() {
        assert_eq!(Colour::Never.paint(Tone::Bad, "failed"), "failed");
    }

    #[test]
    fn a_colour_ends_where_its_text_ends() {
        assert_eq!(Colour::Ansi.paint(Tone::Bad, "failed"), "\x1b[31mfailed\x1b[0m");
        assert_eq!(Colour::Ansi.paint(Tone::Plain, "as is"), "as is");
    }
}
