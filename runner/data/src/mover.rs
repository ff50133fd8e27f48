//! What all transfers of a process share: bounded memory, and what has been moved.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a store may be away unless its options say otherwise.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Bytes of one part of a large file. S3 takes no smaller part than 5 MiB, and no more than 10,000.
pub(crate) const PART: u64 = 6 * 1024 * 1024;
/// Bytes that all transfers together may hold.
const MEMORY: u64 = 24 * 1024 * 1024;
/// Small files that move at once.
pub(crate) const FILES: usize = 16;
/// Parts of one file that move at once.
pub(crate) const PARTS: usize = 4;

/// Moves files in both directions within one budget of memory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mover {
    memory: Arc<Semaphore>,
    read: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
}

impl Default for Mover {
    fn default() -> Self {
        let kib = usize::try_from(MEMORY / 1024).unwrap_or(16 * 1024);
        Self { memory: Arc::new(Semaphore::new(kib)), read: Arc::default(), written: Arc::default() }
    }
}

impl Mover {
    /// Bytes that came in from stores so far.
    #[must_use]
    pub fn bytes_in(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes that went out to stores so far.
    #[must_use]
    pub fn bytes_out(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(crate) fn count_in(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_out(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    // Waits for room. The queue is fair, so the earliest part of a file never waits for its later ones.
    pub(crate) async fn room(&self, bytes: u64) -> Room {
        let kib = u32::try_from(bytes.min(MEMORY).div_ceil(1024)).unwrap_or(1).max(1);
        // The semaphore is never closed.
        Room { _permit: Arc::clone(&self.memory).acquire_many_owned(kib).await.ok() }
    }
}

/// A share of the memory; given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    _permit: Option<OwnedSemaphorePermit>,
}

/// Pieces of a part, in order, and the room that they take.
#[derive(Debug)]
pub(crate) struct Piece {
    pub chunks: Vec<Bytes>,
    pub room: Room,
}

/// Counts the time since the last progress, and paces the next tries.
#[derive(Debug)]
pub struct Backoff {
    patience: Duration,
    since: Instant,
    delay: Duration,
}

impl Backoff {
    /// Of something that may be away for so long.
    #[must_use]
    pub fn new(patience: Duration) -> Self {
        Self { patience, since: Instant::now(), delay: Duration::from_millis(100) }
    }

    /// Something has come: the time starts anew.
    pub fn progress(&mut self) {
        *self = Self::new(self.patience);
    }

    /// Waits before the next try; false when the patience is used up.
    pub async fn again(&mut self) -> bool {
        if self.since.elapsed() >= self.patience {
            return false;
        }
        // Between half and all of the delay, so that many runners do not come back at the same moment.
        let nanos =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
        tokio::time::sleep(self.delay / 2 + self.delay.mul_f64(f64::from(nanos % 1000) / 2000.0)).await;
        self.delay = (self.delay * 2).min(Duration::from_secs(5));
        true
    }
}
