//! A line without the sequences by which programs colour text and move the cursor.

use memchr::memchr;

/// Drops escape sequences from `line` into `clean` and returns how many lines the cursor was moved up behind the last
/// character: where bars are nested, a program draws the inner one further down and goes back up.
pub(super) fn without_escapes(line: &[u8], clean: &mut Vec<u8>) -> usize {
    clean.clear();
    let mut up = 0;
    let mut rest = line;
    while let Some(at) = memchr(0x1b, rest) {
        if at > 0 {
            clean.extend_from_slice(&rest[..at]);
            up = 0;
        }
        let (length, moved) = sequence(&rest[at..]);
        up += moved;
        rest = &rest[at + length..];
    }
    if !rest.is_empty() {
        clean.extend_from_slice(rest);
        up = 0;
    }
    up
}

/// Returns the length of the escape sequence at the beginning of `text`, and by how many lines it moves the cursor up.
fn sequence(text: &[u8]) -> (usize, usize) {
    match text.get(1) {
        Some(b'[') => {
            let parameters = text[2..].iter().take_while(|byte| (0x20..=0x3f).contains(*byte)).count();
            let end = 2 + parameters;
            let moved = match (text.get(end), &text[2..end]) {
                (Some(b'A'), []) => 1,
                // More lines than any terminal has are no movement that matters.
                (Some(b'A'), [digit @ b'1'..=b'9']) => usize::from(digit - b'0'),
                _ => 0,
            };
            ((end + 1).min(text.len()), moved)
        }
        // A window's title and the like: up to BEL or ESC \.
        Some(b']') => {
            let end = text[2..].iter().position(|byte| matches!(byte, 7 | 0x1b)).map_or(text.len(), |end| end + 2);
            let length = match text.get(end) {
                Some(7) => end + 1,
                Some(_) if text.get(end + 1) == Some(&b'\\') => end + 2,
                _ => end,
            };
            (length.min(text.len()), 0)
        }
        Some(_) => (2, 0),
        None => (1, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(line: &str) -> (String, usize) {
        let mut clean = Vec::new();
        let up = without_escapes(line.as_bytes(), &mut clean);
        (String::from_utf8(clean).unwrap(), up)
    }

    #[test]
    fn colours_and_titles_are_dropped() {
        assert_eq!(cleaned("\x1b[1m6/8\x1b[0m \x1b[32mx\x1b[37m"), ("6/8 x".into(), 0));
        assert_eq!(cleaned("\x1b]0;title\x07a\x1b]8;;x\x1b\\b\x1b(c"), ("abc".into(), 0));
    }

    #[test]
    fn only_movements_behind_the_text_count() {
        assert_eq!(cleaned("bar\x1b[A"), ("bar".into(), 1));
        assert_eq!(cleaned("bar\x1b[A\x1b[0m\x1b[2A"), ("bar".into(), 3));
        assert_eq!(cleaned("\x1b[Abar"), ("bar".into(), 0));
    }

    #[test]
    fn a_sequence_that_was_cut_off_is_dropped() {
        for cut in ["a\x1b", "a\x1b[", "a\x1b[3", "a\x1b]0;x", "a\x1b]0;x\x1b"] {
            assert_eq!(cleaned(cut).0, "a", "{cut:?}");
        }
    }
}
