//! Where the lines of a message are broken: at blanks, and never within what one may want to copy, an id or a command.

use miette::MietteHandlerOpts;
use textwrap::core::Word;
use textwrap::{WordSeparator, WordSplitter};

/// Has all errors broken into lines so from here on.
pub(super) fn begin() {
    // Refused where it was done before.
    let _ = miette::set_hook(Box::new(|_| {
        let opts = MietteHandlerOpts::new().word_separator(WordSeparator::Custom(words));
        Box::new(opts.word_splitter(WordSplitter::NoHyphenation).break_words(false).build())
    }));
}

/// Returns a line's words, each with the blanks behind it. What stands between backticks is one of them.
fn words(line: &str) -> Box<dyn Iterator<Item = Word<'_>> + '_> {
    let (mut words, mut start) = (Vec::new(), 0);
    let (mut is_quoted, mut may_break) = (false, false);
    for (at, c) in line.char_indices() {
        if may_break && c != ' ' {
            words.push(Word::from(&line[start..at]));
            start = at;
        }
        is_quoted ^= c == '`';
        may_break = c == ' ' && !is_quoted;
    }
    words.push(Word::from(&line[start..]));
    Box::new(words.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_at_blanks_but_not_within_what_is_quoted() {
        let split = |line| words(line).map(|word| word.word.to_owned()).collect::<Vec<_>>();
        assert_eq!(split("call  `run 'a b.toml'`; or `x y"), ["call", "`run 'a b.toml'`;", "or", "`x y"]);
        assert_eq!(split("run 20261121-093015-digits-4f2a"), ["run", "20261121-093015-digits-4f2a"]);
        assert_eq!(split(""), [""]);
    }
}
