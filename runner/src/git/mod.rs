//! One commit of a repository, fetched over HTTP or ssh and written into a folder; without a `git` in the image.
//!
//! Comes in: an address, what is wanted of it, credentials. Goes out: the files of one commit, and which one it was.
//! [`wire`] is the conversation, [`http`] or [`ssh`] carries it ([`transport`]), [`packets`] frames it, [`checkout`] writes
//! the files. All of it blocks, and belongs on a thread of its own.

mod address;
mod checkout;
mod credentials;
mod error;
mod http;
mod pack;
mod packets;
mod ssh;
mod transport;
mod wire;

pub use credentials::Credentials;
pub use error::GitError;

use cultivar_data::Backoff;
use gix_hash::ObjectId;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;

/// What is fetched.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The repository's address.
    pub url: String,
    /// A branch, a tag, or a commit in full; nothing: its HEAD.
    pub revision: Option<String>,
    /// The commit in full; it comes before the revision.
    pub commit: Option<String>,
    /// For a private one.
    pub credentials: Option<Credentials>,
}

/// How much is fetched at most, and how long a server may be away.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the pack, and of all files together.
    pub bytes: u64,
    /// Bytes of one object: it is held in memory while it is written.
    pub object: usize,
    /// Files, folders and links.
    pub entries: u64,
    /// How long the server may be away.
    pub patience: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 4 << 30, object: 512 << 20, entries: 1_000_000, patience: cultivar_data::PATIENCE }
    }
}

/// What has been fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedOut {
    /// The commit in full.
    pub commit: String,
    /// What of it is not there, and why, in words.
    pub problems: Vec<String>,
}

/// Fetches what is wanted into the new folder `to`, with `scratch`, an empty folder, for what is only needed meanwhile.
/// A server that is away is asked again. Ends early, with whatever error, once `stop` is set.
///
/// # Errors
/// See [`GitError`].
pub fn fetch(
    wanted: &Wanted,
    to: &Path,
    scratch: &Path,
    bounds: Bounds,
    handle: &Handle,
    stop: &AtomicBool,
) -> Result<CheckedOut, GitError> {
    let _entered = handle.enter();
    let mut backoff = Backoff::new(bounds.patience);
    let pack = loop {
        match fetch_pack(wanted, scratch, bounds, handle, stop) {
            Err(GitError::Unavailable(_)) if !stop.load(Ordering::Relaxed) && handle.block_on(backoff.again()) => {}
            done => break done?,
        }
    };
    checkout::write(&pack, to, bounds)
}

fn fetch_pack(
    wanted: &Wanted,
    scratch: &Path,
    bounds: Bounds,
    handle: &Handle,
    stop: &AtomicBool,
) -> Result<pack::Pack, GitError> {
    let mut server = transport::Server::new(wanted, handle.clone())?;
    let names = wire::Names::of(wanted);
    let advertised = wire::advertised(&mut server, &names)?;
    let tip = match names.commit() {
        Some(commit) => commit,
        None => wire::resolve(&mut server, &advertised, &names)?,
    };
    let tip = ObjectId::from_hex(tip.as_bytes())
        .map_err(|_| GitError::Protocol(format!("it names {tip:?}, which is no object of a SHA-1 repository")))?;
    let stream = wire::fetch(&mut server, &advertised, &tip)?;
    pack::Pack::receive(stream, tip, scratch, bounds, stop)
}
