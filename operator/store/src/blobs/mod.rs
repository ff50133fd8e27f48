//! Files for what is too large for the index.
//!
//! Comes in: bytes. Goes out: files named by numbers that are never used twice, spread over 4096 folders. No key ever
//! becomes a path. A file is there for nobody until a row of the index names it, so it is written in place and needs no
//! renaming: file flushed, folder flushed, then the row. A number holds the epoch in which it was given; what an earlier
//! epoch left without a row is garbage for certain, and is swept.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::index::{Index, IndexError};

pub mod read;
pub mod space;
pub mod write;

/// Bits of a number that count within an epoch: a million million writes between two starts.
const COUNT_BITS: u32 = 40;
/// How many numbers the sweep asks the index about at once.
const SWEEP_BATCH: usize = 512;

/// The files of one data folder.
#[derive(Debug)]
pub struct Blobs {
    folder: PathBuf,
    epoch: u64,
    next: AtomicU64,
    pins: Mutex<Pins>,
}

#[derive(Debug, Default)]
struct Pins {
    /// How many read a file.
    readers: HashMap<u64, u32>,
    /// Files to remove when their last reader has gone.
    doomed: HashSet<u64>,
}

impl Blobs {
    /// The files under `folder`, in an epoch that no number was given in before.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: PathBuf, epoch: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, epoch, next: AtomicU64::new(1), pins: Mutex::default() })
    }

    /// A number that was never given before.
    pub fn number(&self) -> u64 {
        self.epoch << COUNT_BITS | self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn shard(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{:03x}", number & 0xfff))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.shard(number).join(format!("{number:016x}"))
    }

    fn create(&self, number: u64) -> io::Result<File> {
        let open = || OpenOptions::new().write(true).create_new(true).open(self.path(number));
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(self.shard(number))?;
                sync_folder(&self.folder)?;
                open()
            }
            other => other,
        }
    }

    fn pins(&self) -> std::sync::MutexGuard<'_, Pins> {
        // Nothing in here can panic half way, so what a panicking thread left is whole.
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps files readable until the guard is dropped. Look up what names them once more afterwards: if that has not
    /// changed, they were there when the guard was made.
    #[must_use]
    pub fn pin(self: &Arc<Self>, numbers: Vec<u64>) -> Pinned {
        let mut pins = self.pins();
        for number in &numbers {
            *pins.readers.entry(*number).or_default() += 1;
        }
        drop(pins);
        Pinned { blobs: self.clone(), numbers }
    }

    /// Removes files that no row names any more: now, or when their readers have gone.
    pub fn remove(&self, numbers: &[u64]) {
        for number in numbers {
            let mut pins = self.pins();
            if pins.readers.contains_key(number) {
                pins.doomed.insert(*number);
                continue;
            }
            drop(pins);
            self.unlink(*number);
        }
    }

    fn unlink(&self, number: u64) {
        match fs::remove_file(self.path(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, file = %self.path(number).display(), "cannot remove; the next start tries again");
            }
            _ => {}
        }
    }

    /// Removes what earlier epochs left without a row, and says how many files that were.
    ///
    /// # Errors
    /// When the folders or the index cannot be read.
    pub fn sweep(&self, index: &Index) -> Result<usize, IndexError> {
        let failed = |error: io::Error| IndexError::Storage(format!("{}: {error}", self.folder.display()));
        let mut swept = 0;
        for shard in fs::read_dir(&self.folder).map_err(failed)? {
            let mut old = Vec::new();
            for file in fs::read_dir(shard.map_err(failed)?.path()).map_err(failed)? {
                let name = file.map_err(failed)?.file_name();
                let number = name.to_str().and_then(|name| u64::from_str_radix(name, 16).ok());
                old.extend(number.filter(|number| number >> COUNT_BITS < self.epoch));
            }
            for numbers in old.chunks(SWEEP_BATCH) {
                let known = index.has_data(numbers)?;
                for (number, _) in numbers.iter().zip(known).filter(|(_, known)| !known) {
                    // Somebody may still be reading what was deleted a moment ago.
                    self.remove(&[*number]);
                    swept += 1;
                }
            }
        }
        Ok(swept)
    }
}

/// Files that stay as long as this does.
#[derive(Debug)]
pub struct Pinned {
    blobs: Arc<Blobs>,
    numbers: Vec<u64>,
}

impl Pinned {
    /// Opens one of the files.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self, number: u64) -> io::Result<File> {
        File::open(self.blobs.path(number))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut gone = Vec::new();
        let mut pins = self.blobs.pins();
        for number in &self.numbers {
            let Some(readers) = pins.readers.get_mut(number) else { continue };
            *readers -= 1;
            if *readers == 0 {
                pins.readers.remove(number);
                if pins.doomed.remove(number) {
                    gone.push(*number);
                }
            }
        }
        drop(pins);
        gone.iter().for_each(|number| self.blobs.unlink(*number));
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
