//! Checkpoints: what a program keeps for its next attempt.
//!
//! Comes in: a file or folder that the program writes. Goes out: copies under `<prefix>/checkpoints/`, and the object
//! `<prefix>/checkpoint.json`, which names the newest whole one; it is replaced at once, and only then is the older copy
//! removed. A copy during which the program wrote is no checkpoint; it is thrown away and made again.

use crate::collect;
use cultivar_data::{DataError, Fetched, Kind, Mover, Place, Store, WalkedFile, look, walk};
use cultivar_protocol::{CHECKPOINT_POINTER as POINTER, Checkpoint, Input, RunSpec};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

/// Copies that are tried while the program keeps writing.
const TRIES: usize = 3;
/// The largest pointer.
const MAX_POINTER: u64 = 64 * 1024;

/// Which copy is the newest whole one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pointer {
    version: u32,
    /// Where the copy is.
    pub uri: String,
    /// Of the file, or of the directory's manifest.
    pub digest: String,
    size: u64,
    attempt: u32,
    saved_at: String,
}

/// Gives the program what an earlier attempt, or another experiment, saved. Comes back with where it was from.
///
/// # Errors
/// When there is one and it cannot be had.
pub async fn restore(
    spec: &RunSpec,
    checkpoint: &Checkpoint,
    store: &Store,
    mover: &Mover,
) -> Result<Option<String>, DataError> {
    let own = store.uri(&collect::key(spec, POINTER));
    let (uri, digest) = match pointer(store, &collect::key(spec, POINTER)).await? {
        Some(pointer) => (pointer.uri, Some(pointer.digest)),
        None => match &checkpoint.restore {
            None => return Ok(None),
            // Another experiment's pointer in this store, or a checkpoint itself.
            Some(uri) if uri.ends_with(POINTER) && *uri != own => {
                let key = store.key_of(uri).ok_or_else(|| {
                    DataError::Invalid(format!(
                        "the checkpoint {uri} to start from lies in another store than this run's"
                    ))
                })?;
                let pointer = pointer(store, key).await?.ok_or_else(|| DataError::NotFound(uri.clone()))?;
                (pointer.uri, Some(pointer.digest))
            }
            Some(uri) => (uri.clone(), None),
        },
    };
    let place = Place::of(Path::new(&checkpoint.path))?;
    let input = Input { name: "checkpoint".to_owned(), uri: uri.clone(), digest, ..Input::default() };
    let _: Fetched = crate::run::inputs::bytes(spec, &input, mover, place.part()).await?;
    place.done()?;
    Ok(Some(uri))
}

async fn pointer(store: &Store, key: &str) -> Result<Option<Pointer>, DataError> {
    let bytes = match store.get(key, MAX_POINTER).await {
        Ok(bytes) => bytes,
        Err(DataError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|error| DataError::Corrupt { what: store.uri(key), why: error.to_string() })
}

/// Saves from time to time while it lives, and once more at the end.
#[derive(Debug)]
pub struct Saving {
    saver: Arc<Mutex<Saver>>,
    ticking: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Saver {
    spec: RunSpec,
    path: PathBuf,
    store: Store,
    mover: Mover,
    number: u64,
    /// What the last copy was of, and where it is.
    last: Option<(Signature, String)>,
    problem: Option<String>,
}

type Signature = Vec<(String, u64, Option<SystemTime>)>;

impl Saving {
    /// Starts to save every `every`, give or take a tenth.
    #[must_use]
    pub fn start(spec: &RunSpec, checkpoint: &Checkpoint, store: &Store, mover: &Mover) -> Self {
        let saver = Arc::new(Mutex::new(Saver {
            spec: spec.clone(),
            path: PathBuf::from(&checkpoint.path),
            store: store.clone(),
            mover: mover.clone(),
            number: 0,
            last: None,
            problem: None,
        }));
        let (every, ticker) = (checkpoint.every.0.max(Duration::from_secs(1)), Arc::clone(&saver));
        let ticking = tokio::spawn(async move {
            loop {
                let nanos =
                    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
                tokio::time::sleep(every.mul_f64(0.9 + f64::from(nanos % 1000) / 5000.0)).await;
                ticker.lock().await.save().await;
            }
        });
        Self { saver, ticking: AbortOnDropHandle::new(ticking) }
    }

    /// Saves once, now.
    pub async fn now(&self) {
        self.saver.lock().await.save().await;
    }

    /// Saves the last state. Comes back with what went wrong with it, in words.
    pub async fn finish(self) -> Option<String> {
        // A copy on its way is of no use any more: the program has ended, and may have written since.
        drop(self.ticking);
        let mut saver = self.saver.lock().await;
        saver.save().await;
        saver.problem.take()
    }
}

impl Saver {
    async fn save(&mut self) {
        for _ in 0..TRIES {
            match self.copy().await {
                Ok(true) => {
                    self.problem = None;
                    return;
                }
                Ok(false) => tokio::time::sleep(Duration::from_millis(500)).await,
                Err(error) => {
                    self.problem = Some(format!("the checkpoint {} was not saved: {error}", self.path.display()));
                    return;
                }
            }
        }
        self.problem =
            Some(format!("the checkpoint {} was written to all the time and could not be saved", self.path.display()));
    }

    // False when the program wrote meanwhile.
    async fn copy(&mut self) -> Result<bool, DataError> {
        let Some((files, folder)) = files(&self.path)? else { return Ok(true) };
        let before = signature(&files);
        if self.last.as_ref().is_some_and(|(last, _)| *last == before) {
            return Ok(true);
        }
        self.number += 1;
        let key = collect::key(&self.spec, &format!("checkpoints/{}-{}", self.spec.attempt, self.number));
        let uploaded = match files.first() {
            Some(file) if !folder => self.mover.upload(&self.store, &key, &file.from).await,
            _ => self.mover.upload_tree(&self.store, &key, files).await,
        };
        // A file that is gone meanwhile is a change too.
        let after = self::files(&self.path)?.map(|(files, _)| signature(&files));
        if after.as_ref() != Some(&before) || matches!(uploaded, Err(DataError::Local { .. })) {
            self.remove(&key).await;
            return Ok(false);
        }
        let uploaded = uploaded?;
        let pointer = Pointer {
            version: cultivar_protocol::VERSION,
            uri: uploaded.uri,
            digest: uploaded.digest,
            size: uploaded.size,
            attempt: self.spec.attempt,
            saved_at: jiff::Timestamp::now().to_string(),
        };
        let pointer_key = collect::key(&self.spec, POINTER);
        let older = self::pointer(&self.store, &pointer_key).await.ok().flatten();
        let bytes = serde_json::to_vec(&pointer).map_err(|error| DataError::Invalid(error.to_string()))?;
        self.store.put(&pointer_key, bytes).await?;
        self.last = Some((before, key));
        if let Some(older) = older.as_ref().and_then(|older| self.store.key_of(&older.uri)) {
            self.remove(older.trim_end_matches('/')).await;
        }
        Ok(true)
    }

    // What stays is rubbish, not damage.
    async fn remove(&self, key: &str) {
        let _ = self.store.delete(key).await;
        let _ = self.store.delete_tree(key).await;
    }
}

// The files and whether they are a folder's; nothing when there is nothing to save yet.
fn files(path: &Path) -> Result<Option<(Vec<WalkedFile>, bool)>, DataError> {
    let parent = path.parent().and_then(|parent| std::fs::canonicalize(parent).ok());
    let found = parent.and_then(|parent| look(path, &parent).ok());
    Ok(match found {
        None => None,
        Some((from, Kind::File(size))) => Some((vec![WalkedFile { path: String::new(), from, size }], false)),
        Some((from, Kind::Folder)) => Some((walk(&from)?.files, true)).filter(|(files, _)| !files.is_empty()),
    })
}

fn signature(files: &[WalkedFile]) -> Signature {
    let time = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    files.iter().map(|file| (file.path.clone(), file.size, time(&file.from))).collect()
}
