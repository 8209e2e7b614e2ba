//! The tokens of a TOML text, as much as is needed to see what is never closed.
//!
//! Knows quotes and brackets; which of them belong together is decided elsewhere.

use toml_parser::lexer::TokenKind;

/// A bracket's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bracket {
    Square,
    Curly,
}

impl Bracket {
    pub(super) fn closing(self) -> &'static str {
        match self {
            Self::Square => "]",
            Self::Curly => "}",
        }
    }
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Open(Bracket),
    Close(Bracket),
    /// Text in these quotes.
    Quoted(&'static str),
    Word,
    Dot,
    Equals,
    Comma,
    Space,
    Comment,
    Newline,
    End,
}

impl From<TokenKind> for Kind {
    fn from(kind: TokenKind) -> Self {
        match kind {
            TokenKind::LeftSquareBracket => Self::Open(Bracket::Square),
            TokenKind::LeftCurlyBracket => Self::Open(Bracket::Curly),
            TokenKind::RightSquareBracket => Self::Close(Bracket::Square),
            TokenKind::RightCurlyBracket => Self::Close(Bracket::Curly),
            TokenKind::LiteralString => Self::Quoted("'"),
            TokenKind::BasicString => Self::Quoted("\""),
            TokenKind::MlLiteralString => Self::Quoted("'''"),
            TokenKind::MlBasicString => Self::Quoted("\"\"\""),
            TokenKind::Atom => Self::Word,
            TokenKind::Dot => Self::Dot,
            TokenKind::Equals => Self::Equals,
            TokenKind::Comma => Self::Comma,
            TokenKind::Whitespace => Self::Space,
            TokenKind::Comment => Self::Comment,
            TokenKind::Newline => Self::Newline,
            TokenKind::Eof => Self::End,
        }
    }
}

/// A token and its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    /// Returns the quotes of a string that lacks its end.
    pub(super) fn open_quotes(self, text: &str) -> Option<&'static str> {
        let Kind::Quoted(quotes) = self.kind else { return None };
        let mut rest = text[self.start..self.end].strip_prefix(quotes)?;
        if quotes.starts_with('\'') {
            return (!rest.ends_with(quotes)).then_some(quotes);
        }
        while let Some(at) = rest.find(['\\', '"']) {
            if rest[at..].starts_with(quotes) {
                return None;
            }
            let escapes = rest[at..].starts_with('\\');
            let mut behind = rest[at..].chars();
            behind.nth(usize::from(escapes));
            rest = behind.as_str();
        }
        Some(quotes)
    }
}

/// Whether a string in these quotes may have several lines.
pub(super) fn is_long(quotes: &str) -> bool {
    quotes.len() > 1
}

/// Returns the tokens of a text. The last `"""` of an odd number is rarely the one that lacks its end: a string whose
/// last line is `key = """` has swallowed the beginning of the next one, and is taken to end before that line, or
/// before the header above it.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens: Vec<_> = lex(text, 0).collect();
    let long = tokens.iter().rev().find(|token| matches!(token.kind, Kind::Quoted(quotes) if is_long(quotes)));
    let Some(quotes) = long.and_then(|last| last.open_quotes(text)) else { return tokens };
    let swallowing = tokens.iter().enumerate().find_map(|(i, token)| {
        let line = key_line(&text[token.start..token.end], quotes).filter(|_| token.kind == Kind::Quoted(quotes))?;
        Some((i, token.start + line))
    });
    if let Some((i, line)) = swallowing {
        tokens.truncate(i + 1);
        tokens[i].end = line;
        tokens.extend(lex(text, line));
    }
    tokens
}

fn lex(text: &str, from: usize) -> impl Iterator<Item = Token> {
    toml_parser::Source::new(&text[from..]).lex().map(move |token| {
        let span = token.span();
        Token { kind: token.kind().into(), start: from + span.start(), end: from + span.end() }
    })
}

/// Returns from where on a string is none, if its last line is `key =` before the closing quotes: from that line, or
/// from the last header above it.
fn key_line(string: &str, quotes: &str) -> Option<usize> {
    let is_key = |key: &str| {
        let mut chars = key.chars();
        chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
            && chars.all(|c| c.is_alphanumeric() || "_-. \"'".contains(c))
    };
    let written = string.strip_suffix(quotes)?;
    let line = written.rfind('\n')? + 1;
    if !is_key(written[line..].trim().strip_suffix('=')?) {
        return None;
    }
    let mut newlines = written[..line].rmatch_indices('\n').map(|(newline, _)| newline + 1);
    let header = newlines.find(|start| {
        let line = written[*start..].lines().next().unwrap_or_default().trim();
        line.strip_prefix('[').and_then(|line| line.strip_suffix(']')).is_some_and(is_key)
    });
    Some(header.unwrap_or(line))
}
