//! A dotted path with its head: what stands between `${` and `}`.
//!
//! In: text such as `stages["train-model"].metrics["val/acc"].max`. Out: [`PathRef`], and the value it leads to.

use std::fmt;

use serde_json::Value;

use super::error::{RefError, instead, quote};

/// When a reference is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// When the pod is rendered: `params`, `inputs`, `outputs`, `run`.
    Own,
    /// When the stage's experiment is created: `pipeline`, `stages`, `matrix`, `repeat`.
    Outer,
}

/// The first name of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Head {
    /// The experiment's parameters.
    Params,
    /// Its inputs, by name.
    Inputs,
    /// Its outputs, by name.
    Outputs,
    /// The run itself: its name, attempt and so on.
    Run,
    /// The pipeline, with its parameters.
    Pipeline,
    /// The pipeline's stages, by name.
    Stages,
    /// The coordinates of this member of a fan-out.
    Matrix,
    /// The turn of a loop: its number, and what the one before brought.
    Repeat,
}

impl Head {
    /// All heads, those of the own scope first.
    pub const ALL: [Head; 8] = [
        Head::Params,
        Head::Inputs,
        Head::Outputs,
        Head::Run,
        Head::Pipeline,
        Head::Stages,
        Head::Matrix,
        Head::Repeat,
    ];

    /// The head called `name`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Head> {
        Head::ALL.into_iter().find(|head| head.as_str() == name)
    }

    /// Its name in a reference.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Head::Params => "params",
            Head::Inputs => "inputs",
            Head::Outputs => "outputs",
            Head::Run => "run",
            Head::Pipeline => "pipeline",
            Head::Stages => "stages",
            Head::Matrix => "matrix",
            Head::Repeat => "repeat",
        }
    }

    /// The scope it belongs to.
    #[must_use]
    pub const fn scope(self) -> Scope {
        match self {
            Head::Params | Head::Inputs | Head::Outputs | Head::Run => Scope::Own,
            Head::Pipeline | Head::Stages | Head::Matrix | Head::Repeat => Scope::Outer,
        }
    }

    /// Where it belongs, for whom finds it in another place.
    pub(super) const fn belongs(self) -> &'static str {
        match self {
            Head::Matrix => "; only a stage with matrix or count has it",
            Head::Repeat => "; only a stage with repeat has it",
            Head::Pipeline | Head::Stages => "; only a pipeline's stages have it",
            Head::Params | Head::Inputs | Head::Outputs | Head::Run => "",
        }
    }

    /// "params, inputs, … or matrix".
    pub(super) fn list() -> String {
        let names = Head::ALL.map(Head::as_str);
        let (last, others) = (names[names.len() - 1], &names[..names.len() - 1]);
        format!("{} or {last}", others.join(", "))
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One step of a reference's path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// `.name` or `["any name"]`.
    Key(String),
    /// `[0]`.
    Index(usize),
}

/// A reference's path. `Display` prints the canonical form, without `${` and `}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathRef {
    /// The first name.
    pub head: Head,
    /// What follows it. Empty only among the uses of an expression: `size(params)`.
    pub segments: Vec<Segment>,
}

impl PathRef {
    /// The key at `position`, if there is one and it is not an index.
    #[must_use]
    pub fn key(&self, position: usize) -> Option<&str> {
        match self.segments.get(position) {
            Some(Segment::Key(key)) => Some(key),
            _ => None,
        }
    }

    /// The value that this path leads to, starting from the value of its head.
    ///
    /// # Errors
    /// [`RefError::Missing`], which says how far the path leads and what is there instead.
    pub fn lookup<'a>(&self, root: &'a Value) -> Result<&'a Value, RefError> {
        let mut value = root;
        for (position, segment) in self.segments.iter().enumerate() {
            value = step(value, segment).ok_or_else(|| {
                let so_far = PathRef { head: self.head, segments: self.segments[..position].to_vec() };
                RefError::Missing(missing(&so_far.to_string(), value, segment))
            })?;
        }
        Ok(value)
    }
}

impl fmt::Display for PathRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.head.as_str())?;
        for segment in &self.segments {
            match segment {
                Segment::Key(key) if is_identifier(key) => write!(f, ".{key}")?,
                // A JSON string, which is a CEL string as well.
                Segment::Key(key) => write!(f, "[{}]", Value::from(key.as_str()))?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// One step from `value`, if it leads somewhere.
fn step<'a>(value: &'a Value, segment: &Segment) -> Option<&'a Value> {
    match (value, segment) {
        (Value::Object(map), Segment::Key(key)) => map.get(key),
        (Value::Array(list), Segment::Index(index)) => list.get(*index),
        _ => None,
    }
}

/// Says why `segment` leads nowhere from `value`, which `place` is the name of.
pub(super) fn missing(place: &str, value: &Value, segment: &Segment) -> String {
    let place = quote(place);
    match (value, segment) {
        (Value::Object(map), Segment::Key(key)) => {
            format!("{place} has no {}; it has: {}", Value::from(quote(key)), instead(key, map.keys()))
        }
        (Value::Array(items), Segment::Index(index)) => {
            format!("{place} has no member [{index}]; it has {}", members(items.len()))
        }
        (_, Segment::Key(key)) => format!("{place} is {}, it has no {}", kind(value), Value::from(quote(key))),
        (_, Segment::Index(index)) => format!("{place} is {}, it has no [{index}]", kind(value)),
    }
}

fn members(count: usize) -> String {
    match count {
        0 => "none".to_owned(),
        1 => "one, [0]".to_owned(),
        n => format!("{n}, [0] to [{}]", n - 1),
    }
}

/// "a number", "an object" …: what a message calls a value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Whether `name` can stand after a dot.
pub(crate) fn is_identifier(name: &str) -> bool {
    !name.is_empty() && identifier_length(name) == name.len()
}

/// How many bytes at the start of `text` are an identifier: ASCII letters, digits and `_`, not starting with a digit.
pub(super) fn identifier_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count()
}

/// Reads the segments that follow a head, up to a closing `}` or to `??`.
///
/// Returns the segments and how many bytes of `text` they take.
pub(super) fn parse_segments(text: &str) -> Result<(Vec<Segment>, usize), String> {
    let mut segments = Vec::new();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        match rest.as_bytes().first() {
            Some(b'}') => return Ok((segments, at)),
            _ if rest.trim_start_matches(' ').starts_with("??") => return Ok((segments, at)),
            Some(b'.') => {
                let length = identifier_length(&rest[1..]);
                if length == 0 {
                    return Err("a name is expected after the dot; one that is not an identifier goes into brackets, as in [\"val/acc\"]".to_owned());
                }
                segments.push(Segment::Key(rest[1..=length].to_owned()));
                at += 1 + length;
            }
            Some(b'[') => {
                let (segment, length) = parse_bracket(rest)?;
                segments.push(segment);
                at += length;
            }
            Some(_) => {
                let found = rest.chars().next().unwrap_or_default();
                let hint = if found == '-' {
                    "; a name with a dash goes into brackets, as in stages[\"train-model\"]"
                } else {
                    ""
                };
                return Err(format!("unexpected {found:?}, \".name\", \"[…]\" or \"}}\" is expected{hint}"));
            }
            None => return Err("the closing } is missing".to_owned()),
        }
    }
}

/// Reads `["name"]`, `['name']` or `[0]`.
pub(crate) fn parse_bracket(text: &str) -> Result<(Segment, usize), String> {
    let inner = &text[1..];
    let (segment, length) = match inner.as_bytes().first() {
        Some(b'"' | b'\'') => {
            let (key, length) = parse_string(inner)?;
            (Segment::Key(key), length)
        }
        Some(b'0'..=b'9') => {
            let length = inner.bytes().take_while(u8::is_ascii_digit).count();
            let index =
                inner[..length].parse().map_err(|_| format!("the index {} is too large", quote(&inner[..length])))?;
            (Segment::Index(index), length)
        }
        _ => return Err("a quoted name or a number is expected in the brackets".to_owned()),
    };
    if inner[length..].starts_with(']') {
        Ok((segment, length + 2))
    } else {
        Err("the closing ] is missing".to_owned())
    }
}

/// Reads a quoted string: JSON's escapes, in double or single quotes (so that YAML may use the other ones).
pub(super) fn parse_string(text: &str) -> Result<(String, usize), String> {
    let mut chars = text.char_indices();
    let quote = chars.next().map(|(_, c)| c);
    let mut out = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            _ if Some(c) == quote => return Ok((out, at + 1)),
            '\\' => out.push(parse_escape(&mut chars)?),
            '\n' | '\r' => break,
            _ => out.push(c),
        }
    }
    Err("the closing quote is missing".to_owned())
}

fn parse_escape(chars: &mut std::str::CharIndices<'_>) -> Result<char, String> {
    Ok(match chars.next().map(|(_, c)| c) {
        Some(c @ ('"' | '\'' | '\\' | '/')) => c,
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('u') => return parse_unicode(chars),
        Some(c) => return Err(format!("\\{c} is not an escape")),
        None => return Err("the closing quote is missing".to_owned()),
    })
}

/// Reads what follows `\u`: four hex digits, and their other half if they are half a surrogate pair, as in JSON.
fn parse_unicode(chars: &mut std::str::CharIndices<'_>) -> Result<char, String> {
    let bad = || "\\u wants the four hex digits of a character".to_owned();
    let high = four_digits(chars).ok_or_else(bad)?;
    if !(0xD800..0xDC00).contains(&high) {
        return char::from_u32(high).ok_or_else(bad);
    }
    let escape = (chars.next().map(|(_, c)| c), chars.next().map(|(_, c)| c));
    let low = four_digits(chars).filter(|low| (0xDC00..0xE000).contains(low) && escape == (Some('\\'), Some('u')));
    let low = low.ok_or_else(bad)?;
    char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)).ok_or_else(bad)
}

fn four_digits(chars: &mut std::str::CharIndices<'_>) -> Option<u32> {
    (0..4).try_fold(0, |value, _| Some(value * 16 + chars.next()?.1.to_digit(16)?))
}
