//! `${a.b ?? c.d ?? 0}`: the first of several paths that leads anywhere, else a literal.
//!
//! In: what follows the first path. Out: [`Choice`]. What a skipped or failed stage did not leave is absent, which is not
//! the same as null or empty: a null is a value.

use serde_json::Value;

use super::error::{RefError, quote};
use super::path::{Head, PathRef, Scope, identifier_length, parse_segments, parse_string};
use super::resolve::Names;

/// Several places to look for a value, and what it is when it is in none of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// In the order in which they are tried; never empty.
    pub paths: Vec<PathRef>,
    /// The value when none of them leads anywhere; nothing: that is an error.
    pub default: Option<Value>,
}

impl Choice {
    /// Reads what follows the `first` path, `?? …}`. Returns how many bytes it takes, the brace included.
    pub(super) fn parse(first: PathRef, text: &str) -> Result<(Self, usize), String> {
        let mut choice = Self { paths: vec![first], default: None };
        let mut at = spaces(text);
        loop {
            let Some(rest) = text[at..].strip_prefix("??") else {
                return match text[at..].starts_with('}') {
                    true => Ok((choice, at + 1)),
                    false => Err("?? or the closing } is expected".to_owned()),
                };
            };
            at += 2 + spaces(rest);
            if choice.default.is_some() {
                return Err("a literal is always there: nothing can follow it".to_owned());
            }
            at += choice.alternative(&text[at..])?;
            at += spaces(&text[at..]);
        }
    }

    fn alternative(&mut self, text: &str) -> Result<usize, String> {
        let name = identifier_length(text);
        if name > 0 && text[name..].starts_with(['.', '[']) {
            let head = Head::parse(&text[..name]).ok_or_else(|| {
                format!("{} is not a name to refer to; a text goes into quotes", quote(&text[..name]))
            })?;
            let (segments, length) = parse_segments(&text[name..])?;
            let path = PathRef { head, segments };
            if head.scope() != self.scope() {
                return Err(format!(
                    "{path} is known at another time than {}: put one of them into a param",
                    self.paths[0]
                ));
            }
            self.paths.push(path);
            return Ok(name + length);
        }
        if text.starts_with('\'') {
            let (string, length) = parse_string(text)?;
            self.default = Some(Value::String(string));
            return Ok(length);
        }
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => {
                self.default = Some(value);
                Ok(values.byte_offset())
            }
            _ => {
                Err("after ?? another path is expected, or a value as JSON: 0, true, null, \"text\" or 'text'"
                    .to_owned())
            }
        }
    }

    /// When it is resolved.
    pub(super) fn scope(&self) -> Scope {
        self.paths[0].head.scope()
    }

    /// The first value that there is.
    ///
    /// # Errors
    /// There is none, and no default: what is wrong with the last path.
    pub(super) fn value(&self, names: &Names<'_>) -> Result<Value, RefError> {
        let mut error = None;
        for path in &self.paths {
            let root = names.get(path.head).unwrap_or(&Value::Null);
            match path.lookup(root) {
                Ok(value) => return Ok(value.clone()),
                Err(missing) => error = Some(missing),
            }
        }
        match (&self.default, error) {
            (Some(value), _) => Ok(value.clone()),
            (None, error) => Err(error.unwrap_or_else(|| RefError::Missing("nothing is referred to".to_owned()))),
        }
    }
}

fn spaces(text: &str) -> usize {
    text.len() - text.trim_start_matches(' ').len()
}
