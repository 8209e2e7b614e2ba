//! Text made safe for XML and HTML.

use std::borrow::Cow;

/// Returns `text` so that it is text wherever it stands in XML or HTML: between tags and in quoted attributes. What may
/// not stand in XML at all is replaced.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    let special = |c: char| matches!(c, '<' | '>' | '&' | '"' | '\'' | '`') || is_illegal(c);
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '`' => safe.push_str("&#96;"),
            c if is_illegal(c) => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// Whether a character may not stand in XML, or turns the direction of what follows.
fn is_illegal(c: char) -> bool {
    (c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
        || matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_text_is_left_as_it_is() {
        assert!(matches!(escaped("train[lr=0.1] größe"), Cow::Borrowed(_)));
        assert_eq!(escaped("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
    }

    proptest! {
        #[test]
        fn nothing_opens_a_tag_or_ends_an_attribute(text in any::<String>()) {
            let safe = escaped(&text);
            let acts = ['<', '>', '"', '\'', '`', '\u{0}', '\u{202e}'];
            prop_assert!(!safe.contains(acts));
        }
    }
}
