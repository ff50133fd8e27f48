//! Opens stores by URL and moves bytes.
//!
//! Comes in: a URL, options and a folder of secrets; keys; local paths. Goes out: files and directories, verified by
//! digest while they are written and put into place only when whole; and objects, hashed while they are read and visible
//! only when whole. Memory is bounded by [`Mover`] whatever the sizes. What is temporary is tried again, with growing
//! pauses, for as long as the store's patience lasts.
#![warn(missing_docs)]

mod digest;
mod error;
mod fetch;
mod local;
mod mover;
mod options;
mod pack;
mod remote;
mod store;
mod tree;
mod unpack;
mod upload;
mod verify;

pub use digest::{Sha256Sum, digest_of};
pub use error::DataError;
pub use fetch::Fetched;
pub use local::{Kind, Place, Walk, WalkedFile, is_part, look, walk};
pub use mover::{Backoff, Mover, PATIENCE};
pub use options::PATIENCE_OPTION;
pub use pack::{pack, pack_files};
pub use remote::{Pin, Remote, client, client_builder, reason};
pub use store::{Listed, Store};
pub use unpack::{Limits, leaves, unpack};
pub use upload::Uploaded;

/// A URL as it may be shown and recorded: without user, password, query and fragment, where credentials stand.
#[must_use]
pub fn public(uri: &str) -> String {
    match url::Url::parse(uri) {
        Ok(mut url)
            if url.query().is_some()
                || url.fragment().is_some()
                || !url.username().is_empty()
                || url.password().is_some() =>
        {
            url.set_query(None);
            url.set_fragment(None);
            // Refused only where a URL has no host, and then it has no user either.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.to_string()
        }
        _ => uri.to_owned(),
    }
}
