//! What can go wrong, by what can be done about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why bytes did not get where they should.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// There is nothing at this address.
    #[error("there is nothing at {0}; check the address, and whether whoever makes it has ended well")]
    NotFound(String),
    /// The credentials do not allow it, or there are none.
    #[error("access to {uri} is refused: {why}; check the credentials of its store and what they allow")]
    Denied {
        /// The address.
        uri: String,
        /// The other side's words.
        why: String,
    },
    /// The other side does not answer, or answers that it cannot now. Worth another try, later.
    #[error("{uri} did not answer in time: {why}")]
    Unavailable {
        /// The address.
        uri: String,
        /// The last error.
        why: String,
    },
    /// The object was replaced while it was read.
    #[error("{0} was changed while it was read; run it again, or keep what is read apart from what is written")]
    Changed(String),
    /// The bytes are not those that were expected, or an archive is broken or hostile.
    #[error("{what} is corrupt: {why}")]
    Corrupt {
        /// The address or the archive.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// An address or an option that cannot work.
    #[error("{0}")]
    Invalid(String),
    /// The local disk.
    #[error("cannot {what} {}: {error}", path.display())]
    Local {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
}

impl DataError {
    /// For `map_err` on local files.
    pub(crate) fn local(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Local { what, path: path.to_owned(), error }
    }

    /// Whether another try may help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// An error of the store library, about one address.
    pub(crate) fn of_store(uri: &str, error: &object_store::Error) -> Self {
        use object_store::Error;
        let why = || scrub(&error.to_string());
        match error {
            Error::NotFound { .. } => Self::NotFound(uri.to_owned()),
            Error::Precondition { .. } => Self::Changed(uri.to_owned()),
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                Self::Denied { uri: uri.to_owned(), why: why() }
            }
            Error::Generic { .. } => match status(error) {
                Some(401 | 403) => Self::Denied { uri: uri.to_owned(), why: why() },
                Some(404) => Self::NotFound(uri.to_owned()),
                _ => Self::Unavailable { uri: uri.to_owned(), why: why() },
            },
            Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::UnknownConfigurationKey { .. } => {
                Self::Invalid(format!("{uri}: {}", why()))
            }
            _ => Self::Unavailable { uri: uri.to_owned(), why: why() },
        }
    }
}

// The library sorts the answers to a listing and to the begin of a large upload under nothing, and keeps the type of
// their cause to itself: what the server said is in the text only, after an address that has no spaces.
fn status(error: &object_store::Error) -> Option<u16> {
    let text = error.to_string();
    let (_, said) = text.split_once("Server returned non-2xx status code: ")?;
    said.get(..3)?.parse().ok()
}

/// Takes the queries out of the URLs in a text, for signatures stand there; and cuts a text that goes on and on.
pub(crate) fn scrub(text: &str) -> String {
    let words = text.split(' ').map(|word| match (word.contains("://"), word.find('?')) {
        (true, Some(query)) => {
            let end = word[query..].find([')', '"', '\'', ',', ';']).map_or("", |at| &word[query + at..]);
            format!("{}?…{end}", &word[..query])
        }
        _ => word.to_owned(),
    });
    cultivar_protocol::cut(&words.collect::<Vec<_>>().join(" "), 600)
}

#[cfg(test)]
mod tests {
    #[test]
    fn signatures_do_not_stand_in_errors() {
        let text = super::scrub("error for url (https://a.b/c?sig=SECRET&x=1): it broke, see http://d/?k=SECRET");
        assert_eq!(text, "error for url (https://a.b/c?…): it broke, see http://d/?…");
    }
}
