//! How a value is put into text, so that nobody downstream reads it as anything but text.
//!
//! In: the value of a reference and the user's text before it. Out: the text to write.
//!
//! Two readers come after us. The render pass reads `${`, and the kubelet turns `$$` into `$` and expands `$(VAR)`.
//! - **Between the passes** every run of `$` in data becomes `${="$"}`: an expression whose value is those dollars. What is
//!   left has no `$`, so no neighbour can complete it to a reference, and the render pass still knows that the dollars are
//!   data. The user's text can leave something open that data would complete (`${pa`, or `$(` for the kubelet): there an
//!   empty expression `${=""}` goes in between. A `$` directly before a reference cannot be: it reads `$${`.
//! - **For the kubelet** every `$` in data is doubled. It does not look for `$$` between `$(` and `)`, so a `$(` of the user's that
//!   closes behind the insertion is doubled too: it stays what it is, text.

use serde_json::{Map, Value};

/// What becomes of the text that references insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insert {
    /// The result is a template again: references of the other scope and `$${` stay, data is escaped.
    Escaped,
    /// The result is final: data as it is, `$${` becomes `${`.
    Plain,
    /// As [`Insert::Plain`], and every `$` in data is doubled: for command, args and env, which the kubelet expands.
    Doubled,
}

impl Insert {
    /// A value as it stands in the result, if it is the whole of a string.
    pub(super) fn value(self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(map) => {
                Value::Object(map.iter().map(|(key, value)| (key.clone(), self.value(value))).collect::<Map<_, _>>())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    /// Data as it stands inside text.
    pub(super) fn text(self, data: &str) -> String {
        match self {
            Insert::Escaped => escape(data),
            Insert::Plain => data.to_owned(),
            Insert::Doubled => data.replace('$', "$$"),
        }
    }

    /// The user's text before an insertion.
    pub(super) fn before(self, text: &str) -> String {
        match self {
            Insert::Escaped if opens_reference(text) || !kubelet_openers(text).is_empty() => {
                format!("{text}${{=\"\"}}")
            }
            Insert::Plain | Insert::Escaped => text.to_owned(),
            Insert::Doubled => {
                let mut out = String::with_capacity(text.len() + 1);
                let mut from = 0;
                for at in kubelet_openers(text) {
                    out.push_str(&text[from..=at]);
                    out.push('$');
                    from = at + 1;
                }
                out + &text[from..]
            }
        }
    }
}

/// Writes data so that a template that holds it yields exactly that data, and never a reference.
///
/// What comes out of a run, or out of another object, goes through here before it is put into a template.
#[must_use]
pub fn escape(data: &str) -> String {
    let mut out = String::with_capacity(data.len());
    let mut rest = data;
    while let Some(at) = rest.find('$') {
        let run = rest[at..].bytes().take_while(|b| *b == b'$').count();
        out.push_str(&rest[..at]);
        out.push_str("${=\"");
        out.push_str(&rest[at..at + run]);
        out.push_str("\"}");
        rest = &rest[at + run..];
    }
    out.push_str(rest);
    out
}

/// Whether text ends in `${` or `${name`, which a following `params.x}` or `= x}` would complete.
fn opens_reference(text: &str) -> bool {
    let word = text.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    word.ends_with("${")
}

/// Where the kubelet would start to read something in `text` that does not end in it: a `$(` without `)`, or a last `$`.
fn kubelet_openers(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let mut openers = Vec::new();
    let last_close = text.rfind(')').unwrap_or(0);
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'$' {
            at += 1;
            continue;
        }
        match bytes.get(at + 1) {
            Some(b'(') if at < last_close => at += text[at..].find(')').unwrap_or(0) + 1,
            Some(b'(') => {
                openers.push(at);
                at += 2;
            }
            Some(_) => at += 2,
            None => {
                openers.push(at);
                at += 1;
            }
        }
    }
    openers
}
