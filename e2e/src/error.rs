//! The one error type of the harness.
//!
//! In: what was being done, why it failed, what a person can do, and the tail of a log. Out: a message
//! with those four parts. The harness is a program for people, so an error is text, never matched on.

use std::fmt;

/// The result of every call of the harness that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed, why, and what to do about it.
#[derive(Debug, Clone, Default)]
pub struct Error {
    what: String,
    why: String,
    hint: String,
    log: String,
}

impl Error {
    /// An error that says what failed.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), ..Self::default() }
    }

    /// Adds the cause.
    #[must_use]
    pub fn why(mut self, why: impl fmt::Display) -> Self {
        self.why = why.to_string();
        self
    }

    /// Adds what a person can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Adds the last lines of the log of the component that failed.
    #[must_use]
    pub fn log(mut self, log: impl Into<String>) -> Self {
        self.log = log.into();
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        for line in self.log.lines() {
            write!(f, "\n  | {line}")?;
        }
        if !self.hint.is_empty() {
            write!(f, "\n  what to do: {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Says what was being done when a lower call failed.
pub trait Context<T> {
    /// Turns any error into ours, with `what` in front of it.
    ///
    /// # Errors
    /// The error it was called on, if any.
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|why| Error::new(what()).why(why))
    }
}
