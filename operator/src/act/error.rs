//! Errors of acting, each with one category.

use crate::telemetry::metrics::Outcome;
use std::time::Duration;

/// Why a call or a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The API server answered with an error.
    #[error("{doing}: {source}")]
    Api {
        /// What was being done.
        doing: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("{doing}: the API server did not answer within {limit:?}")]
    Slow {
        /// What was being done.
        doing: String,
        /// The limit.
        limit: Duration,
    },
    /// Another replica leads, or may soon.
    #[error("{doing}: this replica no longer leads")]
    NotLeading {
        /// What was being done.
        doing: String,
    },
    /// The name is taken by an object that is not ours.
    #[error("{doing}: {name} exists and belongs to somebody else; delete or rename it")]
    NameTaken {
        /// What was being done.
        doing: String,
        /// The name.
        name: String,
    },
    /// It cannot be done, and the object's next pass says so in its status.
    #[error("{doing}")]
    Refused {
        /// What was being done, and why not.
        doing: String,
    },
    /// The answer is not what the API promises.
    #[error("{doing}: the API server's answer cannot be read: {source}")]
    Unreadable {
        /// What was being done.
        doing: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl ActError {
    fn code(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }

    /// The API server's words.
    pub fn words(&self) -> String {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            },
            other => other.to_string(),
        }
    }

    /// Whether the object is not there.
    pub fn is_gone(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the object is there already.
    pub fn already_exists(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(source.as_ref(), kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists"))
    }

    /// Which action it happened in.
    #[must_use]
    pub fn during(mut self, what: &str) -> Self {
        match &mut self {
            Self::Api { doing, .. }
            | Self::Slow { doing, .. }
            | Self::NotLeading { doing }
            | Self::Refused { doing }
            | Self::NameTaken { doing, .. }
            | Self::Unreadable { doing, .. } => *doing = format!("{what}: {doing}"),
        }
        self
    }

    /// The one category of the error.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Slow { .. } | Self::NotLeading { .. } => Outcome::Transient,
            Self::NameTaken { .. } | Self::Refused { .. } => Outcome::Invalid,
            Self::Unreadable { .. } => Outcome::Fatal,
            Self::Api { .. } => match self.code() {
                Some(409) => Outcome::Conflict,
                Some(400 | 413 | 422) => Outcome::Invalid,
                Some(403) if self.words().contains("exceeded quota") => Outcome::Quota,
                Some(401 | 403 | 404 | 405) => Outcome::Fatal,
                // A request that never arrives whole: too large for the API server or its store.
                _ if self.words().contains("request is too large") => Outcome::Invalid,
                _ => Outcome::Transient,
            },
        }
    }
}
