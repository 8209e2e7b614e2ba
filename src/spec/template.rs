//! Templates in a text: `{matrix.lr}`, `{inputs}`, `{outputs}`, and nothing else.
//!
//! Any other brace is text, so that `${HOME}` and `awk '{print $1}'` pass as they are; only a word that is one slip of the
//! pen away from a template, `{inptus}`, is seen as one. A template written with doubled braces, `{{inputs}}`, is the text
//! `{inputs}`. Knows no stage: what a name stands for is an argument.

use std::ops::Range;

use memchr::memchr_iter;

use super::Value;

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'t> {
    /// Text as it is.
    Text(&'t str),
    /// `{matrix.axis}`.
    Axis(&'t str),
    /// `{inputs}`.
    Inputs,
    /// `{outputs}`.
    Outputs,
    /// `{matrix.` that never ends.
    Open,
    /// A template that is misspelt, and the word that was probably meant: `inputs`, `outputs` or `matrix`.
    Slip(&'static str),
}

const MATRIX: &str = "{matrix.";

/// Splits a text into its pieces, each with its bytes in the text.
pub fn pieces(text: &str) -> impl Iterator<Item = (Piece<'_>, Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        if start == text.len() {
            return None;
        }
        let (piece, end) = match piece_at(text, start) {
            Some(found) => found,
            None => {
                // Nothing else begins a piece, and a brace stands at no other character's bytes.
                let mut braces = memchr_iter(b'{', &text.as_bytes()[start + 1..]).map(|i| start + 1 + i);
                let end = braces.find(|i| piece_at(text, *i).is_some()).unwrap_or(text.len());
                (Piece::Text(&text[start..end]), end)
            }
        };
        at = end;
        Some((piece, start..end))
    })
}

/// Returns the template, or the text of an escaped one, that starts here, and where it ends.
fn piece_at(text: &str, at: usize) -> Option<(Piece<'_>, usize)> {
    let rest = &text[at..];
    if !rest.starts_with('{') {
        return None;
    }
    if let Some(inner) = rest.strip_prefix('{').filter(|inner| inner.starts_with('{')) {
        let (_, length) = template(inner, false)?;
        return inner[length..].starts_with('}').then(|| (Piece::Text(&inner[..length]), at + length + 2));
    }
    let (piece, length) = template(rest, text[..at].ends_with('$'))?;
    Some((piece, at + length))
}

/// Returns the template at the start of `rest` and its length. `${inputs}` is a variable of the shell.
fn template(rest: &str, behind_dollar: bool) -> Option<(Piece<'_>, usize)> {
    if let Some(name) = rest.strip_prefix(MATRIX) {
        let length = name.find(|c| !is_name(c)).unwrap_or(name.len());
        return match name[length..].starts_with('}') {
            true => Some((Piece::Axis(&name[..length]), MATRIX.len() + length + 1)),
            false => Some((Piece::Open, MATRIX.len())),
        };
    }
    if behind_dollar {
        return None;
    }
    [("{inputs}", Piece::Inputs), ("{outputs}", Piece::Outputs)]
        .into_iter()
        .find(|(word, _)| rest.starts_with(word))
        .map(|(word, piece)| (piece, word.len()))
        .or_else(|| slip(rest))
}

/// Returns the misspelt template at the start of `rest` and its length.
fn slip(rest: &str) -> Option<(Piece<'_>, usize)> {
    let inner = &rest[1..];
    let word = &inner[..inner.find(|c: char| !c.is_ascii_alphabetic())?];
    let behind = &inner[word.len()..];
    let near = |known: &&str| strsim::damerau_levenshtein(&word.to_ascii_lowercase(), known) <= 1;
    if behind.starts_with('}') {
        let meant = ["inputs", "outputs"].into_iter().find(near)?;
        return Some((Piece::Slip(meant), word.len() + 2));
    }
    let axis = behind.strip_prefix('.')?;
    let length = axis.find(|c| !is_name(c))?;
    let is_whole = length > 0 && axis[length..].starts_with('}') && near(&"matrix");
    is_whole.then_some((Piece::Slip("matrix"), word.len() + length + 3))
}

const fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// What the names in templates stand for.
#[derive(Clone, Copy, Debug)]
pub struct Names<'n> {
    /// A point of the matrix: axes and their values.
    pub point: &'n [(String, Value)],
    /// The files of `{inputs}`.
    pub inputs: &'n [String],
    /// The files of `{outputs}`.
    pub outputs: &'n [String],
}

impl Names<'_> {
    fn value(&self, axis: &str) -> Option<&Value> {
        self.point.iter().find(|(name, _)| name == axis).map(|(_, value)| value)
    }

    /// Fills in a text; files are separated by spaces, each passed through `quote`. What stands for nothing is kept.
    #[must_use]
    pub fn fill(&self, text: &str, quote: impl Fn(&str) -> String) -> String {
        let files = |files: &[String]| files.iter().map(|file| quote(file)).collect::<Vec<_>>().join(" ");
        let mut filled = String::with_capacity(text.len());
        for (piece, range) in pieces(text) {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Inputs => filled.push_str(&files(self.inputs)),
                Piece::Outputs => filled.push_str(&files(self.outputs)),
                Piece::Axis(axis) => match self.value(axis) {
                    Some(value) => filled.push_str(&value.to_string()),
                    None => filled.push_str(&text[range]),
                },
                Piece::Open | Piece::Slip(_) => filled.push_str(&text[range]),
            }
        }
        filled
    }

    /// Fills in a parameter. A text that is exactly one template takes the value with its type.
    #[must_use]
    pub fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::Text(text) => match sole_axis(text).and_then(|axis| self.value(axis)) {
                Some(value) => value.clone(),
                None => Value::Text(self.fill(text, str::to_owned)),
            },
            Value::List(values) => Value::List(values.iter().map(|value| self.fill_value(value)).collect()),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) => value.clone(),
        }
    }

    /// Fills in an argument of a program: `{inputs}` and `{outputs}` alone are as many arguments as files.
    #[must_use]
    pub fn fill_argument(&self, text: &str) -> Vec<String> {
        match text {
            "{inputs}" => self.inputs.to_vec(),
            "{outputs}" => self.outputs.to_vec(),
            text => vec![self.fill(text, str::to_owned)],
        }
    }
}

/// Returns the axis of a text that is exactly one template.
#[must_use]
pub fn sole_axis(text: &str) -> Option<&str> {
    match pieces(text).next() {
        Some((Piece::Axis(axis), range)) if range.end == text.len() => Some(axis),
        _ => None,
    }
}

/// Quotes a text so that the shell takes it as one word.
#[must_use]
pub fn shell_quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(text: &str) -> String {
        let point = [("lr".to_owned(), Value::Float(0.1)), ("m".to_owned(), Value::Text("a b".to_owned()))];
        let (inputs, outputs) = (["in one".to_owned(), "in2".to_owned()], ["out".to_owned()]);
        Names { point: &point, inputs: &inputs, outputs: &outputs }.fill(text, shell_quote)
    }

    #[test]
    fn templates_are_filled_in() {
        assert_eq!(fill("t --lr={matrix.lr} {inputs} -o {outputs} {matrix.m}"), "t --lr=0.1 'in one' in2 -o out a b");
    }

    #[test]
    fn shell_text_passes_untouched() {
        let texts = [
            "echo ${HOME} ${inputs} ${input} ${matrx.x}",
            "awk '{print $1}'",
            "awk '{print}' {a,b} {out} {metric.x} {input_dir} {input1} {i.x} {input",
            "{{ jinja }}",
            "{}",
            "{a,b}",
            "{",
            "}}",
            "{é}",
        ];
        for text in texts {
            assert_eq!(fill(text), text);
            let is_text = |piece: &Piece<'_>| matches!(piece, Piece::Text(_));
            assert!(pieces(text).all(|(piece, _)| is_text(&piece)), "{text}");
        }
    }

    #[test]
    fn a_template_that_is_one_slip_away_is_seen() {
        let cases = [
            ("{inptus}", "inputs"),
            ("{input}", "inputs"),
            ("{INPUTS}", "inputs"),
            ("{ouputs}", "outputs"),
            ("{matix.x}", "matrix"),
            ("{Matrix.a.b-c_1}", "matrix"),
        ];
        for (text, meant) in cases {
            let found: Vec<_> = pieces(text).collect();
            assert_eq!(found, [(Piece::Slip(meant), 0..text.len())]);
            assert_eq!(fill(text), text);
            assert_eq!(fill(&format!("{{{text}}}")), text, "doubled braces");
        }
    }

    #[test]
    fn doubled_braces_stand_for_the_template_itself() {
        assert_eq!(fill("{{matrix.lr}} {{inputs}} {{outputs}}"), "{matrix.lr} {inputs} {outputs}");
        assert_eq!(fill("{{inputs}"), "{'in one' in2");
    }

    #[test]
    fn a_template_that_never_ends_is_seen() {
        assert_eq!(pieces("a {matrix.lr").nth(1), Some((Piece::Open, 2..10)));
    }

    #[test]
    fn a_sole_template_keeps_the_type() {
        let point = [("n".to_owned(), Value::Int(3))];
        let names = Names { point: &point, inputs: &[], outputs: &[] };
        assert_eq!(names.fill_value(&Value::Text("{matrix.n}".to_owned())), Value::Int(3));
        assert_eq!(names.fill_value(&Value::Text("n{matrix.n}".to_owned())), Value::Text("n3".to_owned()));
    }

    #[test]
    fn an_argument_that_is_all_files_is_one_argument_a_file() {
        let files = ["a b".to_owned(), "c".to_owned()];
        let names = Names { point: &[], inputs: &files, outputs: &[] };
        assert_eq!(names.fill_argument("{inputs}"), files);
        assert_eq!(names.fill_argument("--in={inputs}"), ["--in=a b c"]);
    }

    proptest! {
        #[test]
        fn pieces_cover_the_text_without_gap(text in r"([{}$a]|\{matrix\.|\{inputs?\}|\{matix\.|é){0,12}") {
            let mut end = 0;
            for (_, range) in pieces(&text) {
                prop_assert_eq!(range.start, end);
                prop_assert!(range.end > range.start && text.is_char_boundary(range.end));
                end = range.end;
            }
            prop_assert_eq!(end, text.len());
        }
    }
}
