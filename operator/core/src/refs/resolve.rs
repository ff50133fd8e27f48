//! Replaces the references of one scope in a JSON value.
//!
//! In: a value whose strings hold references, and [`Names`], one JSON value per head. Out: the value with the references of
//! that scope replaced, or every error with its field.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::error::{Located, RefError};
use super::field::FieldPath;
use super::insert::Insert;
use super::path::{Head, Scope};
use super::template::{Part, Template};

/// What the heads of references stand for.
#[derive(Debug, Clone, Default)]
pub struct Names<'a> {
    values: BTreeMap<Head, &'a Value>,
}

impl<'a> Names<'a> {
    /// No names: every reference is an error.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what `head` stands for, an object as a rule.
    #[must_use]
    pub fn with(mut self, head: Head, value: &'a Value) -> Self {
        self.values.insert(head, value);
        self
    }

    /// What `head` stands for.
    #[must_use]
    pub fn get(&self, head: Head) -> Option<&'a Value> {
        self.values.get(&head).copied()
    }
}

/// Replaces the references of `scope` in every string of `value`, keys excluded.
///
/// A string that is one whole reference takes the type of what it refers to; inside longer text, strings go in as they
/// are and everything else as JSON. `at` is where `value` stands, for the errors.
///
/// # Errors
/// All references that are malformed or lead nowhere and, unless the result is a template again ([`Insert::Escaped`]),
/// those of the other scope.
pub fn resolve(
    value: &Value,
    at: &FieldPath,
    scope: Scope,
    names: &Names<'_>,
    insert: Insert,
) -> Result<Value, Vec<Located<RefError>>> {
    let mut errors = Vec::new();
    let resolved = Pass { scope, names, insert }.value(value, at, &mut errors);
    if errors.is_empty() { Ok(resolved) } else { Err(errors) }
}

/// [`resolve`] for one string.
///
/// # Errors
/// The first reference that is malformed, leads nowhere or does not belong here.
pub fn resolve_text(text: &str, scope: Scope, names: &Names<'_>, insert: Insert) -> Result<Value, RefError> {
    Pass { scope, names, insert }.text(text)
}

struct Pass<'a> {
    scope: Scope,
    names: &'a Names<'a>,
    insert: Insert,
}

impl Pass<'_> {
    fn value(&self, value: &Value, at: &FieldPath, errors: &mut Vec<Located<RefError>>) -> Value {
        match value {
            Value::String(text) => self.text(text).unwrap_or_else(|error| {
                errors.push(Located::new(at.clone(), error));
                Value::Null
            }),
            Value::Array(items) => {
                items.iter().enumerate().map(|(i, item)| self.value(item, &at.index(i), errors)).collect()
            }
            Value::Object(map) => Value::Object(
                map.iter().map(|(k, v)| (k.clone(), self.value(v, &at.key(k), errors))).collect::<Map<_, _>>(),
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn text(&self, text: &str) -> Result<Value, RefError> {
        if !text.contains("${") {
            return Ok(Value::String(text.to_owned()));
        }
        let template = Template::parse(text)?;
        if let [part] = template.parts.as_slice()
            && let Some(found) = self.lookup(part)?
        {
            return Ok(self.insert.value(&found));
        }
        let mut out = String::with_capacity(text.len());
        // The user's text since the last reference; how it is written depends on what follows.
        let mut before = String::new();
        for part in &template.parts {
            match self.lookup(part)? {
                Some(found) => {
                    out.push_str(&self.insert.before(&before));
                    out.push_str(&self.insert.text(&as_text(&found)));
                    before.clear();
                }
                None if part.scope().is_some() => {
                    out.push_str(&before);
                    out.push_str(part.source());
                    before.clear();
                }
                None if *part == Part::Escape && self.insert != Insert::Escaped => {
                    before.push_str("${");
                }
                None => before.push_str(part.source()),
            }
        }
        out.push_str(&before);
        Ok(Value::String(out))
    }

    /// The value of a part of this scope; `None` for a part that stays as it is.
    fn lookup(&self, part: &Part) -> Result<Option<Value>, RefError> {
        let Some(scope) = part.scope() else {
            return Ok(None);
        };
        if scope != self.scope {
            return if self.insert == Insert::Escaped { Ok(None) } else { Err(unavailable(part)) };
        }
        match part {
            Part::Path { path, .. } => {
                let root = self.names.get(path.head).ok_or_else(|| unavailable(part))?;
                path.lookup(root).cloned().map(Some)
            }
            Part::Choice { choice, .. } => choice.value(self.names).map(Some),
            Part::Cel { expression, .. } => expression.eval(self.names).map(Some),
            Part::Text(_) | Part::Escape => Ok(None),
        }
    }
}

/// The error for a reference whose head means nothing in this place.
fn unavailable(part: &Part) -> RefError {
    let head = match part {
        Part::Path { path, .. } => path.head,
        Part::Choice { choice, .. } => choice.paths[0].head,
        Part::Cel { expression, .. } => expression.uses().first().map_or(Head::Params, |path| path.head),
        Part::Text(_) | Part::Escape => Head::Params,
    };
    RefError::Unavailable { reference: super::error::quote(part.source()), head }
}

/// A value inside text: strings as they are, everything else as compact JSON.
pub(super) fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
