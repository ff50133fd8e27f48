//! One string taken apart: text, references and expressions.
//!
//! In: a string as the user wrote it. Out: [`Template`], its parts in order, each with its source text.

use super::choice::Choice;
use super::error::RefError;
use super::expression::Expression;
use super::lex;
use super::path::{Head, PathRef, Scope, identifier_length, parse_segments};

/// A parsed string.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// The parts in order; text parts are never empty and may follow each other.
    pub parts: Vec<Part>,
}

/// A piece of a parsed string.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text that stands for itself.
    Text(String),
    /// `$${`, which stands for `${`.
    Escape,
    /// `${head.path}`.
    Path {
        /// What it refers to.
        path: PathRef,
        /// How it was written.
        source: String,
    },
    /// `${head.path ?? other.path ?? 0}`.
    Choice {
        /// Where it is looked for.
        choice: Choice,
        /// How it was written.
        source: String,
    },
    /// `${= expression}`.
    Cel {
        /// The expression, parsed.
        expression: Box<Expression>,
        /// How it was written, `${=` and `}` included.
        source: String,
    },
}

impl Template {
    /// Takes a string apart. Costs one search if there is no `${` in it.
    ///
    /// # Errors
    /// The first reference that has an unknown head, is not closed or is otherwise malformed.
    pub fn parse(text: &str) -> Result<Template, RefError> {
        let mut parts = Vec::new();
        let mut start = 0;
        let mut from = 0;
        while let Some(found) = text[from..].find("${") {
            let at = from + found;
            // `$${` is the escape wherever it stands: of a run of dollars the last two before the brace count.
            if at > start && text[..at].ends_with('$') {
                push_text(&mut parts, &text[start..at - 1]);
                parts.push(Part::Escape);
                start = at + 2;
                from = start;
                continue;
            }
            match reference(&text[at..])? {
                Some((part, length)) => {
                    push_text(&mut parts, &text[start..at]);
                    parts.push(part);
                    start = at + length;
                    from = start;
                }
                None => from = at + 2,
            }
        }
        push_text(&mut parts, &text[start..]);
        Ok(Template { parts })
    }

    /// Whether the string stands for itself.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }
}

impl Part {
    /// The scope of a reference or expression; text has none.
    #[must_use]
    pub fn scope(&self) -> Option<Scope> {
        match self {
            Part::Text(_) | Part::Escape => None,
            Part::Path { path, .. } => Some(path.head.scope()),
            Part::Choice { choice, .. } => Some(choice.scope()),
            Part::Cel { expression, .. } => Some(expression.scope()),
        }
    }

    /// How the part was written.
    #[must_use]
    pub fn source(&self) -> &str {
        match self {
            Part::Escape => "$${",
            Part::Text(source) | Part::Path { source, .. } | Part::Choice { source, .. } | Part::Cel { source, .. } => {
                source
            }
        }
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

/// Reads the reference at the start of `text`, which begins with `${`; `None` if it is plain text.
fn reference(text: &str) -> Result<Option<(Part, usize)>, RefError> {
    let inner = &text[2..];
    if let Some(expression) = inner.strip_prefix('=') {
        let length = lex::closing_brace(expression)
            .ok_or_else(|| RefError::malformed(text, "the } that closes the expression is missing"))?;
        let expression = Box::new(Expression::parse(&expression[..length])?);
        let length = length + 4;
        return Ok(Some((Part::Cel { expression, source: text[..length].to_owned() }, length)));
    }
    let name = identifier_length(inner);
    if name == 0 || !inner[name..].starts_with(['.', '[']) {
        return Ok(None);
    }
    let shown = || inner.find('}').map_or(text, |end| &text[..end + 3]);
    let Some(head) = Head::parse(&inner[..name]) else {
        return Err(RefError::UnknownHead { reference: super::error::quote(shown()), head: inner[..name].to_owned() });
    };
    let malformed = |problem| RefError::malformed(shown(), problem);
    let (segments, tail) = parse_segments(&inner[name..]).map_err(malformed)?;
    let path = PathRef { head, segments };
    let length = 2 + name + tail;
    if text[length..].starts_with('}') {
        let length = length + 1;
        return Ok(Some((Part::Path { path, source: text[..length].to_owned() }, length)));
    }
    let (choice, tail) = Choice::parse(path, &text[length..]).map_err(malformed)?;
    let length = length + tail;
    Ok(Some((Part::Choice { choice, source: text[..length].to_owned() }, length)))
}
