//! What can be wrong with a reference, said so that the reader can put it right.
//!
//! In: nothing. Out: [`RefError`] and [`Located`], the error with the field it was found in.

use std::fmt;

use super::field::FieldPath;
use super::path::Head;

/// How many names an error lists before it says "and N more".
const LISTED: usize = 10;

/// How many characters of the user's text an error repeats.
const QUOTED: usize = 120;

/// An error about one reference or expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefError {
    /// `${foo.bar}` where `foo` is not a name that references know.
    #[error(
        "{reference}: \"{head}\" is not a name to refer to; a reference starts with {}. Write $${{ for a literal ${{",
        Head::list()
    )]
    UnknownHead {
        /// The text of the reference, shortened.
        reference: String,
        /// The unknown name.
        head: String,
    },
    /// A known head, but what follows is not a path.
    #[error("{reference}: {problem}. Write $${{ for a literal ${{")]
    Malformed {
        /// The text of the reference, shortened.
        reference: String,
        /// What is wrong.
        problem: String,
    },
    /// An expression that cannot be read or evaluated.
    #[error("expression `{expression}`: {problem}")]
    Expression {
        /// The expression, shortened.
        expression: String,
        /// What is wrong.
        problem: String,
    },
    /// One expression mentions names of both scopes.
    #[error(
        "expression `{expression}` mentions both {outer}, known when the stage's experiment is created, and {own}, known only when its pod is \
         made; put what comes from {outer} into a param of the stage and let the expression read that param"
    )]
    MixedScopes {
        /// The expression, shortened.
        expression: String,
        /// A name of the outer scope that it mentions.
        outer: Head,
        /// A name of the own scope that it mentions.
        own: Head,
    },
    /// The path does not lead anywhere; the message says how far it leads and what is there.
    #[error("{0}")]
    Missing(String),
    /// The name exists, but not in this place.
    #[error("{reference}: \"{head}\" cannot be used here{}", .head.belongs())]
    Unavailable {
        /// The reference.
        reference: String,
        /// The name.
        head: Head,
    },
    /// Params that read each other in a circle.
    #[error("params read each other in a circle: {}", .0.join(" → "))]
    Cycle(Vec<String>),
}

impl RefError {
    pub(super) fn malformed(reference: &str, problem: impl Into<String>) -> Self {
        RefError::Malformed { reference: quote(reference), problem: problem.into() }
    }

    pub(super) fn expression(expression: &str, problem: impl Into<String>) -> Self {
        RefError::Expression { expression: quote(expression), problem: problem.into() }
    }
}

/// An error (or anything else) and the field it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The field, as in `spec.stages[0].args[2]`.
    pub path: FieldPath,
    /// What was found there.
    pub value: T,
}

impl<T> Located<T> {
    /// Puts `value` at `path`.
    pub fn new(path: FieldPath, value: T) -> Self {
        Located { path, value }
    }
}

impl<T: fmt::Display> fmt::Display for Located<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.value)
    }
}

impl<T: std::error::Error> std::error::Error for Located<T> {}

/// The user's text, cut so that a message stays readable.
pub(crate) fn quote(text: &str) -> String {
    if text.chars().count() <= QUOTED {
        return text.to_owned();
    }
    text.chars().take(QUOTED).chain(['…']).collect()
}

/// How alike two names must be for one to be meant by the other.
const ALIKE: f64 = 0.83;

/// What there is instead of `wrong`: "a, b and c", and which of them was meant, where one is much like it.
pub(crate) fn instead<S: AsRef<str>>(wrong: &str, names: impl IntoIterator<Item = S>) -> String {
    let names: Vec<S> = names.into_iter().collect();
    let alike = |name: &&S| strsim::jaro_winkler(&name.as_ref().to_lowercase(), &wrong.to_lowercase());
    // Of equals the first.
    let best = names.iter().rev().max_by(|one, other| alike(one).total_cmp(&alike(other)));
    match best.filter(|name| alike(name) >= ALIKE) {
        Some(meant) => format!("{}; did you mean {}?", list(&names), quote(meant.as_ref())),
        None => list(&names),
    }
}

/// "a, b, c and 4 more", or "nothing".
pub(crate) fn list<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let names: Vec<S> = names.into_iter().collect();
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let shown: Vec<String> = names.iter().take(LISTED).map(|n| quote(n.as_ref())).collect();
    match names.len().saturating_sub(LISTED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
