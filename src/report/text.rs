//! Text from users made safe for a terminal, and cut to a width.
//!
//! Names, phases and logs are written by others: a control sequence in them could move the cursor, hide a line or set
//! the window's title. Does not know what a text means.

use std::borrow::Cow;
use std::fmt::Write;

/// Returns `text` with everything that a terminal would act on written out: `\u{1b}`, `\u{7}`.
///
/// Line ends and tabs count as well: the result is one line. Printable text, in any script, is left as it is.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\t' => safe.push_str("    "),
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            c if acts(c) => write!(safe, "\\u{{{:x}}}", u32::from(c)).expect("a String takes everything"),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// Whether a terminal does something else with the character than show it: C0, C1 and DEL, and the marks that reverse
/// the direction of what follows or break the line.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Returns `text` with a replacement of the same length in bytes for everything that a terminal would act on, line ends
/// and tabs excepted: places in the text stay where they are.
#[must_use]
pub fn in_place(text: &str) -> Cow<'_, str> {
    let mut safe = String::new();
    let mut copied = 0;
    for (at, c) in text.char_indices() {
        let ends_line = c == '\r' && text[at + 1..].starts_with('\n');
        if !acts(c) || matches!(c, '\n' | '\t') || ends_line {
            continue;
        }
        safe.push_str(&text[copied..at]);
        // No character of four bytes acts.
        safe.push(['?', '¿', '\u{fffd}'][c.len_utf8() - 1]);
        copied = at + c.len_utf8();
    }
    if copied == 0 { Cow::Borrowed(text) } else { Cow::Owned(safe + &text[copied..]) }
}

/// Returns a text of several lines that may have colours of our own: line ends, tabs and colour codes stay, everything
/// else that a terminal would act on is written out.
#[must_use]
pub fn coloured(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(acts) {
        let (plain, behind) = rest.split_at(at);
        safe.push_str(plain);
        let length =
            match behind.strip_prefix("\x1b[").and_then(|code| code.find(|c: char| !c.is_ascii_digit() && c != ';')) {
                Some(end) if behind[2 + end..].starts_with('m') => end + 3,
                _ => 0,
            };
        let c = behind.chars().next().expect("`find` points at a character");
        if length > 0 || matches!(c, '\n' | '\t') {
            let kept = length.max(1);
            safe.push_str(&behind[..kept]);
            rest = &behind[kept..];
        } else {
            safe.push_str(&visible(&behind[..c.len_utf8()]));
            rest = &behind[c.len_utf8()..];
        }
    }
    safe + rest
}

/// Returns one line of a log as it would have looked: colours and cursor movements are dropped, of a line that was
/// overwritten with carriage returns only the last state stays, and what is still not plain text is written out.
#[must_use]
pub fn log_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = console::strip_ansi_codes(text.trim_end_matches(['\r', '\n']));
    let last = text.rsplit('\r').find(|state| !state.is_empty()).unwrap_or_default();
    visible(last).into_owned()
}

/// Returns the first line of an error report of ours that says something.
#[must_use]
pub fn first_words(report: &[u8]) -> String {
    let mut lines = report.split(|byte| *byte == b'\n').map(log_line);
    let line = lines.find(|line| line.contains(|c: char| c.is_alphanumeric())).unwrap_or_default();
    let words = line.trim_start();
    words.strip_prefix("× ").unwrap_or(words).to_owned()
}

/// Returns an error report of ours in one line: what is wrong, and what helps.
#[must_use]
pub fn report_words(report: &[u8]) -> String {
    let lines = report.split(|byte| *byte == b'\n').map(log_line);
    let lines: Vec<String> = lines.filter(|line| line.contains(|c: char| c.is_alphanumeric())).collect();
    let words: Vec<&str> =
        lines.iter().map(|line| line.trim_start_matches(['×', '│', '╰', '├', '─', '▶', ' '])).collect();
    words.join(" ")
}

/// Returns how many columns a terminal needs for `text`. Colour codes take none.
#[must_use]
pub fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

/// Returns `text` cut to `columns`, with `…` as its last column where something was cut.
#[must_use]
pub fn fit(text: &str, columns: usize) -> Cow<'_, str> {
    console::truncate_str(text, columns, if columns == 0 { "" } else { "…" })
}

/// Returns `text` cut to `columns` in the middle, so that the end of a path or of a matrix point stays.
#[must_use]
pub fn fit_middle(text: &str, columns: usize) -> Cow<'_, str> {
    let total = width(text);
    if total <= columns || columns < 5 {
        return fit(text, columns);
    }
    let tail = (columns - 1) / 2;
    let mut start = text.len();
    for (at, _) in text.char_indices().rev() {
        if width(&text[at..]) > tail {
            break;
        }
        start = at;
    }
    let head = console::truncate_str(text, columns - 1 - width(&text[start..]), "").into_owned();
    Cow::Owned(format!("{head}…{}", &text[start..]))
}

/// Returns `text` with spaces behind it up to `columns`; a longer text stays as it is.
#[must_use]
pub fn pad(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(width(text));
    format!("{text}{}", " ".repeat(missing))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_control_sequence_is_shown_instead_of_obeyed() {
        assert_eq!(visible("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(visible("two\nlines\r"), "two\\nlines\\r");
        assert_eq!(visible("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(visible("abc\u{202e}fdp.exe"), "abc\\u{202e}fdp.exe");
    }

    #[test]
    fn the_first_words_of_a_report_say_what_is_wrong() {
        assert_eq!(
            first_words("\n  \x1b[31m×\x1b[0m p.toml has changed\n  help: …\n".as_bytes()),
            "p.toml has changed"
        );
        assert_eq!(first_words(b""), "");
        let report =
            "\n  \x1b[31m×\x1b[0m p.toml has changed\n  │ since then\n  help: `trainyard run`\n        starts anew\n";
        assert_eq!(report_words(report.as_bytes()), "p.toml has changed since then help: `trainyard run` starts anew");
    }

    #[test]
    fn colours_and_lines_stay_and_nothing_else() {
        assert_eq!(coloured("\x1b[31;1mred\x1b[0m\n\tx"), "\x1b[31;1mred\x1b[0m\n\tx");
        assert_eq!(coloured("\x1b[2J\x1b]0;t\x07\r\x1b[31"), "\\u{1b}[2J\\u{1b}]0;t\\u{7}\\r\\u{1b}[31");
    }

    #[test]
    fn printable_text_in_any_script_stays() {
        assert_eq!(visible("größe=0.1 模型"), "größe=0.1 模型");
    }

    #[test]
    fn a_progress_bar_in_a_log_is_shown_by_its_last_state() {
        assert_eq!(log_line(b" 10%|#   |\r 50%|##  |\r100%|####|\r\n"), "100%|####|");
        assert_eq!(log_line(b"\x1b[31mred\x1b[0m\x1b]0;title\x07 bell\x07"), "red bell\\u{7}");
    }

    #[test]
    fn a_wide_character_counts_two_columns() {
        assert_eq!(width("模型"), 4);
        assert_eq!(fit("模型模型", 5), "模型…");
        assert_eq!(pad("模", 4), "模  ");
    }

    #[test]
    fn the_end_of_a_long_name_stays() {
        assert_eq!(fit_middle("train[lr=0.1,batch=64,seed=1]", 16), "train[lr…seed=1]");
        assert_eq!(fit_middle("short", 16), "short");
    }

    proptest! {
        #[test]
        fn nothing_that_a_terminal_obeys_gets_through(text in any::<String>()) {
            prop_assert!(!visible(&text).contains(acts));
            prop_assert!(!log_line(text.as_bytes()).contains(acts));
        }

        #[test]
        fn a_replacement_in_place_moves_nothing(text in any::<String>()) {
            let safe = in_place(&text);
            prop_assert!(!safe.replace("\r\n", "").contains(|c| acts(c) && c != '\n' && c != '\t'));
            let lengths = |text: &str| text.chars().map(char::len_utf8).collect::<Vec<_>>();
            prop_assert_eq!(lengths(&safe), lengths(&text));
        }

        #[test]
        fn a_fitted_text_is_never_wider_than_asked(text in "\\PC*", columns in 0_usize..40) {
            let text = visible(&text);
            prop_assert!(width(&fit(&text, columns)) <= columns);
            prop_assert!(width(&fit_middle(&text, columns)) <= columns);
        }
    }
}
