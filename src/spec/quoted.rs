//! Where a part of a TOML text value stands in the file: past the quotes, with escapes counted as they are written.
//!
//! Knows the four kinds of TOML strings; does not judge them, since the parser has accepted them.

use std::ops::Range;

/// Returns the bytes of `raw` (the value as written, quotes included) that stand for the bytes `part` of its meaning.
///
/// A text without quotes stands for itself. `None` if `part` does not lie within the meaning.
#[must_use]
pub(super) fn raw_range(raw: &str, part: Range<usize>) -> Option<Range<usize>> {
    let (open, escapes) = opening(raw);
    let (mut at, mut meant) = (open, 0);
    let mut start = None;
    while at < raw.len() {
        let (written, means) = step(&raw[at..], escapes)?;
        if means > 0 && part.start < meant + means && start.is_none() {
            start = Some(at);
        }
        if part.end <= meant && means > 0 {
            break;
        }
        at += written;
        meant += means;
        if part.end <= meant && start.is_some() {
            break;
        }
    }
    start.filter(|start| *start <= at).map(|start| start..at)
}

/// Returns how many bytes the opening quotes take, with the line break behind them that means nothing, and whether
/// backslashes escape.
fn opening(raw: &str) -> (usize, bool) {
    for (quotes, escapes) in [("\"\"\"", true), ("'''", false)] {
        if let Some(body) = raw.strip_prefix(quotes).filter(|body| body.ends_with(quotes)) {
            let newline = if body.starts_with("\r\n") { 2 } else { usize::from(body.starts_with('\n')) };
            return (3 + newline, escapes);
        }
    }
    match raw.as_bytes().first() {
        Some(b'"') => (1, true),
        Some(b'\'') => (1, false),
        _ => (0, false),
    }
}

/// Returns how many bytes the next character takes as written, and how many it means.
fn step(rest: &str, escapes: bool) -> Option<(usize, usize)> {
    let first = rest.chars().next()?;
    if first != '\\' || !escapes {
        return Some((first.len_utf8(), first.len_utf8()));
    }
    let digits = match rest[1..].chars().next()? {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        // A backslash at the end of a line takes all white space behind it away.
        c if c.is_whitespace() => return Some((1 + rest[1..].len() - rest[1..].trim_start().len(), 0)),
        c => return Some((1 + c.len_utf8(), 1)),
    };
    let code = u32::from_str_radix(rest.get(2..2 + digits)?, 16).ok()?;
    Some((2 + digits, char::from_u32(code)?.len_utf8()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(raw: &str, part: &str) -> Option<String> {
        let value = toml::de::DeValue::parse(raw).expect("a TOML string");
        let meant = value.get_ref().as_str().expect("a string").to_owned();
        let start = meant.find(part)?;
        raw_range(raw, start..start + part.len()).map(|range| raw[range].to_owned())
    }

    #[test]
    fn a_part_is_found_past_quotes_and_escapes() {
        assert_eq!(written(r#""a {x}""#, "{x}").as_deref(), Some("{x}"));
        assert_eq!(written(r#""\t\u00e9\\ {x}""#, "{x}").as_deref(), Some("{x}"));
        assert_eq!(written(r"'\t {x}'", "{x}").as_deref(), Some("{x}"));
        assert_eq!(written("\"\"\"\n  a \\\n    {x}\"\"\"", "{x}").as_deref(), Some("{x}"));
        assert_eq!(written("'''\r\na\r\n{x}'''", "{x}").as_deref(), Some("{x}"));
    }

    #[test]
    fn a_text_without_quotes_stands_for_itself() {
        assert_eq!(raw_range("8GiB", 1..4), Some(1..4));
    }

    proptest! {
        #[test]
        fn every_character_is_found_where_it_is_written(text in any::<String>(), marker in 0_usize..20) {
            let marked: String = text.chars().filter(|c| *c != 'ß').take(marker).chain(['ß']).chain(text.chars().filter(|c| *c != 'ß').skip(marker)).collect();
            let raw = toml::Value::String(marked).to_string();
            prop_assert_eq!(written(&raw, "ß"), Some("ß".to_owned()));
        }
    }
}
