//! Errors for whoever typed the command: what, why, what to do; and the exit codes that scripts read.

use std::fmt;
use std::process::ExitCode;

/// What exit codes mean; clap ends with 2 where the arguments are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It could not be done.
    Failed = 1,
    /// The object does not exist.
    NotFound = 3,
    /// The API server or a check refused it.
    Refused = 4,
}

/// A command failed.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    why: Option<String>,
    hint: Option<String>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(what: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, what: what.into(), why: None, hint: None }
    }

    pub fn not_found(what: impl Into<String>) -> Self {
        Self { kind: Kind::NotFound, ..Self::new(what) }
    }

    pub fn refused(what: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, ..Self::new(what) }
    }

    pub fn why(self, why: impl ToString) -> Self {
        Self { why: Some(why.to_string()), ..self }
    }

    /// What to do about it.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// What the API server answered.
    pub fn of_server(what: impl Into<String>, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 404 => Self::not_found(what).why(status.message),
            kube::Error::Api(status) if status.code == 401 || status.code == 403 => {
                let hint = "ask for the right: the ClusterRoles cultivar-view and cultivar-edit have what users need";
                Self::refused(what).why(status.message).hint(hint)
            }
            kube::Error::Api(status) => Self::refused(what).why(status.message),
            other => Self::new(what).why(other).hint("does kubectl get experiments work, with the same --context?"),
        }
    }

    pub fn code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(why) = &self.why {
            write!(f, ": {why}")?;
        }
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n{hint}"))
    }
}
