//! What can go wrong with a repository, by what can be done about it.

use cultivar_protocol::Reason;
use std::io;
use std::path::PathBuf;

/// Why a commit could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no repository at this address.
    #[error(
        "source.git.url: there is no repository at {url}: {why}; check the address, and, where it is private, source.git.secret"
    )]
    NoRepository {
        /// The address.
        url: String,
        /// The server's words.
        why: String,
    },
    /// The repository does not have it.
    #[error("{0}")]
    NoRevision(String),
    /// The credentials do not allow it, or there are none.
    #[error("source.git.url: {url} refuses access: {why}; {todo}")]
    Denied {
        /// The address.
        url: String,
        /// The server's words.
        why: String,
        /// What to do.
        todo: &'static str,
    },
    /// The server does not answer, or says that it cannot now.
    #[error("source.git.url: {0}")]
    Unavailable(String),
    /// The server says no.
    #[error("source.git: the server says: {0}")]
    Refused(String),
    /// What it sends is not understood.
    #[error("source.git.url: the server's answer cannot be used: {0}")]
    Protocol(String),
    /// What it sends is broken, or would do harm.
    #[error("source.git: what the server sent is not put into place: {0}")]
    Hostile(String),
    /// More than code.
    #[error("source.git: {0}; data belongs into inputs")]
    TooLarge(String),
    /// An address or credentials that cannot work.
    #[error("{0}")]
    Invalid(String),
    /// The local disk.
    #[error("source.git: cannot {what} {}: {error}", path.display())]
    Local {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
}

impl GitError {
    /// For `map_err` on local files.
    pub(super) fn local(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Local { what, path, error }
    }

    /// The reason that stands for it.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unavailable(_) => Reason::StoreUnavailable,
            Self::Hostile(_) => Reason::InputCorrupt,
            Self::Local { .. } => Reason::RunnerError,
            Self::NoRepository { .. }
            | Self::NoRevision(_)
            | Self::Denied { .. }
            | Self::Refused(_)
            | Self::Protocol(_)
            | Self::TooLarge(_)
            | Self::Invalid(_) => Reason::SourceUnavailable,
        }
    }
}
