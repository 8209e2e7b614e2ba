//! Numbers as programs print them, at a place in a line.

/// A number and where it ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number {
    pub(super) value: f64,
    pub(super) end: usize,
}

/// Reads a number at `from`: `12`, `-0.5`, `.5`, `5e-05`. It may end anywhere.
pub(super) fn at(line: &[u8], from: usize) -> Option<Number> {
    let digits = |from: usize| from + line[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole_from = from + usize::from(matches!(line.get(from), Some(b'-' | b'+')));
    if whole_from >= line.len() {
        return None;
    }
    let whole = digits(whole_from);
    let mut end = whole;
    let mut any = whole > whole_from;
    if line.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        any |= fraction > end + 1;
        // A point without digits ends a sentence.
        if fraction > end + 1 {
            end = fraction;
        }
    }
    if !any {
        return None;
    }
    if let Some(b'e' | b'E') = line.get(end) {
        let sign = end + 1 + usize::from(matches!(line.get(end + 1), Some(b'-' | b'+')));
        let exponent = if sign < line.len() { digits(sign) } else { sign };
        if exponent > sign {
            end = exponent;
        }
    }
    // Most numbers are short and whole.
    let value = if end == whole && whole - whole_from <= 15 && whole_from == from {
        line[from..end].iter().fold(0_u64, |value, digit| 10 * value + u64::from(digit - b'0')) as f64
    } else {
        std::str::from_utf8(&line[from..end]).ok()?.parse().ok()?
    };
    Some(Number { value, end })
}

/// Reads a word for what is no number at `from`: `nan`, `-inf`, `Infinity`.
pub(super) fn none(line: &[u8], from: usize) -> Option<Number> {
    let sign = usize::from(matches!(line.get(from), Some(b'-' | b'+')));
    let letters = line.get(from + sign..)?.iter().take_while(|byte| byte.is_ascii_alphabetic()).take(9).count();
    let end = from + sign + letters;
    let value = std::str::from_utf8(&line[from..end]).ok()?.parse().ok()?;
    Some(Number { value, end })
}

/// Returns where the digits and points that end before `end` begin.
pub(super) fn start_before(line: &[u8], end: usize) -> usize {
    end - line[..end].iter().rev().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count()
}

/// Reads a count that may be shortened: `12`, `1.20k`, `3.4M`.
pub(super) fn scaled(line: &[u8], from: usize) -> Option<Number> {
    let Number { value, end } = at(line, from)?;
    let zeros = match line.get(end) {
        Some(b'k' | b'K') => 3,
        Some(b'M') => 6,
        Some(b'G') => 9,
        Some(b'T') => 12,
        _ => return Some(Number { value, end }),
    };
    // Times a thousand, 2.14 would be a little more than 2,140.
    let written = std::str::from_utf8(&line[from..end]).ok()?;
    let exact = format!("{written}e{zeros}").parse().ok();
    Some(Number { value: exact.unwrap_or(value * 10_f64.powi(zeros)), end: end + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_where_they_end() {
        let read = |text: &str| at(text.as_bytes(), 0).map(|number| (number.value, number.end));
        assert_eq!(read("12/300"), Some((12.0, 2)));
        assert_eq!(read("-0.5,"), Some((-0.5, 4)));
        assert_eq!(read("5e-05}"), Some((5e-5, 5)));
        assert_eq!(read("3epochs"), Some((3.0, 1)));
        assert_eq!(read("3. Then"), Some((3.0, 1)));
        assert_eq!(read(".5"), Some((0.5, 2)));
        for none in ["", "-", ".", "e5", "x", "-.e"] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_no_number_has_words() {
        let read = |text: &str| none(text.as_bytes(), 0).map(|number| (number.value.to_string(), number.end));
        assert_eq!(read("nan,"), Some(("NaN".to_owned(), 3)));
        assert_eq!(read("-inf"), Some(("-inf".to_owned(), 4)));
        assert_eq!(read("Infinity}"), Some(("inf".to_owned(), 8)));
        for none in ["", "-", "info", "none", "nano"] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn a_count_may_be_shortened() {
        assert_eq!(scaled(b"1.20k/", 0), Some(Number { value: 1_200.0, end: 5 }));
        assert_eq!(scaled(b"2.14G/", 0).map(|number| number.value), Some(2_140_000_000.0));
        assert_eq!(scaled(b"1e2k/", 0).map(|number| number.value), Some(100_000.0));
        assert_eq!(scaled(b"3/", 0), Some(Number { value: 3.0, end: 1 }));
    }
}
