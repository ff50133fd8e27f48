//! The store as a whole: index, files, room, and the threads that keep them in order.
//!
//! Comes in: a data folder. Goes out: a [`Store`] for the operations, opened in a state that a crash cannot spoil.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::blobs::Blobs;
use crate::blobs::space::Space;
use crate::index::{Index, IndexError, Writer, path_in, uploads};

/// Uploads that are ended in one transaction.
const BATCH: usize = 64;

/// Why the store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made or used.
    #[error("cannot use the data folder {}: {source}; give the volume's mount point, writable for this user", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The index cannot be opened.
    #[error("cannot open the index in {}: {source}", folder.display())]
    Index {
        /// Where.
        folder: PathBuf,
        /// Why not.
        source: IndexError,
    },
}

/// What the operations work with.
#[derive(Clone, Debug)]
pub struct Store {
    /// Every key.
    pub index: Index,
    /// The bytes of large objects.
    pub blobs: Arc<Blobs>,
    /// The volume.
    pub space: Space,
}

/// The threads of an open store. They end when the last [`Store`] is gone.
#[derive(Debug)]
pub struct Threads {
    writer: Writer,
    remover: JoinHandle<()>,
}

impl Threads {
    /// Waits until everything that was accepted is on the disk and the index is closed.
    pub fn join(self) {
        for thread in [self.writer, self.remover] {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked; this is a bug");
            }
        }
    }
}

impl Store {
    /// Opens the store in `folder`, or makes one there. `reserve` bytes of the volume are never written.
    ///
    /// # Errors
    /// When the folder or the index cannot be used.
    pub fn open(folder: &Path, reserve: u64) -> Result<(Self, Threads), OpenError> {
        let unusable = |source| OpenError::Folder { folder: folder.to_owned(), source };
        let broken = |source| OpenError::Index { folder: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(unusable)?;
        let (gone, removals) = mpsc::channel::<Vec<u64>>();
        let (index, writer) = Index::open(&path_in(folder), gone).map_err(broken)?;
        let blobs = Arc::new(Blobs::open(folder.join("blobs"), index.epoch()).map_err(unusable)?);
        // The index's file and the folder of files must themselves survive.
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(unusable)?;
        let files = blobs.clone();
        let remover = std::thread::Builder::new()
            .name("remover".to_owned())
            .spawn(move || removals.iter().for_each(|numbers| files.remove(&numbers)))
            .map_err(unusable)?;
        Ok((Self { index, blobs, space: Space::new(folder, reserve) }, Threads { writer, remover }))
    }

    /// Removes the files that a crash has left. Slow on a large store, so call it beside everything else.
    pub fn sweep(&self) {
        match self.blobs.sweep(&self.index) {
            Ok(0) => tracing::debug!("no file was left behind"),
            Ok(count) => tracing::info!(count, "removed files that a crash or a failure left behind"),
            Err(error) => tracing::warn!(%error, "cannot sweep; the next start tries again"),
        }
    }

    /// Ends uploads that began longer ago than `age`.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub async fn abort_old_uploads(&self, age: Duration) -> Result<usize, IndexError> {
        let before = now() - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let mut all = 0;
        loop {
            let ended = self.index.write(move |tables| uploads::abort_old(tables, before, BATCH)).await?;
            all += ended;
            if ended < BATCH {
                return Ok(all);
            }
        }
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
