//! Just enough of CEL's lexer to find where an expression ends and to bound it before it is parsed.
//!
//! In: text that starts with an expression. Out: where its `}` stands, how deep its brackets go, how many tokens it has.
//! A string literal may hold braces and quotes, raw (`r"\"`) and triple-quoted ones too; a comment runs to the line's end.

/// How deep brackets may nest, and how many tokens an expression may have: CEL's parser and any walk over its tree
/// recurse, so both bound the stack; real expressions have a tenth of it.
const MAX_DEPTH: usize = 16;
const MAX_TOKENS: usize = 200;

/// The length of the expression at the start of `text`, if a `}` of its own follows.
pub(super) fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let length = token(&text[at..])?;
        match &text[at..at + length] {
            "{" => depth += 1,
            "}" if depth == 0 => return Some(at),
            "}" => depth -= 1,
            _ => {}
        }
        at += length;
    }
    None
}

/// Refuses an expression that would make the parser recurse too deep.
pub(super) fn check_bounds(text: &str) -> Result<(), String> {
    let (mut at, mut depth, mut tokens) = (0, 0_usize, 0_usize);
    while at < text.len() {
        let length = token(&text[at..]).ok_or("a string literal is not closed")?;
        let found = &text[at..at + length];
        tokens += usize::from(!found.trim().is_empty());
        match found {
            "{" | "[" | "(" => depth += 1,
            "}" | "]" | ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(format!("brackets nest deeper than {MAX_DEPTH}"));
        }
        if tokens > MAX_TOKENS {
            return Err(format!("it has more than {MAX_TOKENS} names, literals and operators"));
        }
        at += length;
    }
    Ok(())
}

/// The length in bytes of the first token: a word, a string, a comment, a space or one other character.
/// `None` if it is a string that is not closed.
fn token(text: &str) -> Option<usize> {
    let word = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let prefix = text[..word].to_ascii_lowercase();
    let may_prefix = matches!(prefix.as_str(), "" | "r" | "b" | "br");
    if may_prefix && text[word..].starts_with(['"', '\'']) {
        return string(&text[word..], prefix.contains('r')).map(|length| word + length);
    }
    if word > 0 {
        return Some(word);
    }
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    text.chars().next().map(char::len_utf8)
}

/// The length of the string literal at the start of `text`, quotes included.
fn string(text: &str, raw: bool) -> Option<usize> {
    let triple = ["\"\"\"", "'''"].into_iter().find(|quotes| text.starts_with(quotes));
    let quotes = triple.unwrap_or(&text[..1]);
    let mut at = quotes.len();
    while let Some(c) = text[at..].chars().next() {
        if text[at..].starts_with(quotes) {
            return Some(at + quotes.len());
        }
        at += c.len_utf8();
        if c == '\\' && !raw {
            at += text[at..].chars().next()?.len_utf8();
        } else if triple.is_none() && matches!(c, '\n' | '\r') {
            return None;
        }
    }
    None
}
