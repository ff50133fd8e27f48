//! Bytes on their way in.
//!
//! Comes in: a stream. Goes out: its MD5, its checksums, and where the bytes are: in memory while they are few, else in
//! a flushed file. Memory is two buffers, whatever the size: one fills from the network while the other is hashed and
//! written by a thread.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use s3s::StdError;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::Checksum;

use super::space::{Full, Space};
use super::{Blobs, sync_folder};

/// Bytes that are hashed and written at a time.
const BUFFER: usize = 256 * 1024;
/// Bytes between two looks at the room that is left.
const LOOK: u64 = 8 * 1024 * 1024;
/// A client that sends nothing for this long has gone.
const SILENCE: Duration = Duration::from_secs(60);

/// Why bytes did not come in.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// There is no room.
    #[error(transparent)]
    Full(#[from] Full),
    /// The client sent something else than it said, or less, or went away.
    #[error("the body broke off: {0}")]
    Body(String),
    /// The client went silent.
    #[error("nothing came for {} s", SILENCE.as_secs())]
    Silence,
    /// The disk failed.
    #[error("cannot write: {0}")]
    Disk(#[from] io::Error),
}

/// A file that nothing names yet. It goes when this is dropped, unless it was kept.
#[derive(Debug)]
pub struct Staged {
    blobs: Arc<Blobs>,
    number: u64,
    kept: bool,
}

impl Staged {
    /// The number that a row may name.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The file stays. Call it where a row is being written that names it: from then on only the index decides.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.kept {
            self.blobs.unlink(self.number);
        }
    }
}

/// Where received bytes are.
#[derive(Debug)]
pub enum Content {
    /// There were none.
    Empty,
    /// Here.
    Memory(Vec<u8>),
    /// In a file, flushed.
    File(Staged),
}

/// What came in.
#[derive(Debug)]
pub struct Received {
    /// How many bytes.
    pub length: u64,
    /// Their MD5.
    pub md5: [u8; 16],
    /// The checksums that were asked for.
    pub checksum: Checksum,
    /// The bytes.
    pub content: Content,
}

/// What is hashed and written so far.
struct Sink {
    blobs: Arc<Blobs>,
    file: Option<(Staged, File)>,
    md5: Md5,
    hasher: ChecksumHasher,
    length: u64,
    /// Bytes to write before the room is looked at again.
    looked: u64,
}

impl Sink {
    fn hash(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
    }

    fn write(&mut self, bytes: &[u8], space: &Space) -> Result<(), ReceiveError> {
        self.hash(bytes);
        if self.looked < bytes.len() as u64 {
            space.check(bytes.len() as u64)?;
            self.looked = LOOK;
        }
        self.looked = self.looked.saturating_sub(bytes.len() as u64);
        let written = self.file().and_then(|file| file.write_all(bytes));
        written.map_err(|error| full_or(error, space, bytes.len() as u64))
    }

    fn file(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let number = self.blobs.number();
            let file = self.blobs.create(number)?;
            self.file = Some((Staged { blobs: self.blobs.clone(), number, kept: false }, file));
        }
        self.file.as_mut().map(|(_, file)| file).ok_or_else(|| io::Error::other("no file"))
    }

    /// Flushes the file and the folder that it is in.
    fn flush(&mut self, space: &Space) -> Result<(), ReceiveError> {
        let Some((staged, file)) = &self.file else { return Ok(()) };
        let flushed = file.sync_all().and_then(|()| sync_folder(&self.blobs.shard(staged.number)));
        flushed.map_err(|error| full_or(error, space, 0))
    }

    fn finish(self, memory: Vec<u8>) -> Received {
        let content = match self.file {
            Some((staged, _)) => Content::File(staged),
            None if memory.is_empty() => Content::Empty,
            None => Content::Memory(memory),
        };
        Received { length: self.length, md5: self.md5.finalize(), checksum: self.hasher.finalize(), content }
    }
}

fn full_or(error: io::Error, space: &Space, wanted: u64) -> ReceiveError {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    if full { space.full(wanted).into() } else { error.into() }
}

type Writing = tokio::task::JoinHandle<Result<Sink, ReceiveError>>;

async fn joined(writing: Writing) -> Result<Sink, ReceiveError> {
    writing.await.map_err(|error| io::Error::other(error.to_string()))?
}

/// What is read of a body that is refused, so that the client gets to the answer: one that is still sending when the
/// connection closes sees a broken pipe and no reason.
const DRAIN: u64 = 64 * 1024 * 1024;
/// The time for that.
const DRAINING: Duration = Duration::from_secs(5);

/// Reads the rest of a refused body, within limits, and forgets it.
pub async fn drain<S>(body: &mut S)
where
    S: Stream<Item = Result<Bytes, StdError>> + Unpin + Send,
{
    let reading = async {
        let mut read = 0;
        while read < DRAIN
            && let Some(Ok(chunk)) = body.next().await
        {
            read += chunk.len() as u64;
        }
    };
    let _ = tokio::time::timeout(DRAINING, reading).await;
}

/// Receives `body`. Up to `inline` bytes stay in memory; `expected` is what the client says there will be.
///
/// # Errors
/// When the body breaks off, the volume is full or the disk fails. Nothing stays then.
pub async fn receive<S>(
    mut body: S,
    hasher: ChecksumHasher,
    (inline, expected): (usize, u64),
    blobs: &Arc<Blobs>,
    space: &Space,
) -> Result<Received, ReceiveError>
where
    S: Stream<Item = Result<Bytes, StdError>> + Unpin + Send,
{
    let received = receive_from(&mut body, hasher, (inline, expected), blobs, space).await;
    if matches!(received, Err(ReceiveError::Full(_) | ReceiveError::Disk(_))) {
        drain(&mut body).await;
    }
    received
}

async fn receive_from<S>(
    body: &mut S,
    hasher: ChecksumHasher,
    (inline, expected): (usize, u64),
    blobs: &Arc<Blobs>,
    space: &Space,
) -> Result<Received, ReceiveError>
where
    S: Stream<Item = Result<Bytes, StdError>> + Unpin + Send,
{
    space.check(expected)?;
    let mut idle = Some(Sink { blobs: blobs.clone(), file: None, md5: Md5::new(), hasher, length: 0, looked: 0 });
    let mut writing: Option<Writing> = None;
    let mut buffer: Vec<u8> = Vec::new();
    let mut hand_over = async |bytes: Vec<u8>, writing: &mut Option<Writing>| -> Result<(), ReceiveError> {
        let mut sink = match (writing.take(), idle.take()) {
            (Some(writing), _) => joined(writing).await?,
            (None, Some(sink)) => sink,
            (None, None) => return Err(io::Error::other("nothing to write with").into()),
        };
        let space = space.clone();
        *writing = Some(tokio::task::spawn_blocking(move || sink.write(&bytes, &space).map(|()| sink)));
        Ok(())
    };
    loop {
        let next = tokio::time::timeout(SILENCE, body.next()).await.map_err(|_| ReceiveError::Silence)?;
        let Some(chunk) = next else { break };
        let mut chunk = chunk.map_err(|error| ReceiveError::Body(error.to_string()))?;
        while !chunk.is_empty() {
            let taken = chunk.split_to(chunk.len().min(BUFFER - buffer.len()));
            buffer.extend_from_slice(&taken);
            if buffer.len() == BUFFER {
                hand_over(std::mem::take(&mut buffer), &mut writing).await?;
                buffer.reserve(BUFFER);
            }
        }
    }
    if writing.is_some() || buffer.len() > inline {
        hand_over(std::mem::take(&mut buffer), &mut writing).await?;
    }
    let Some(writing) = writing else {
        let Some(mut sink) = idle.take() else { return Err(io::Error::other("nothing to hash with").into()) };
        sink.hash(&buffer);
        return Ok(sink.finish(buffer));
    };
    let mut sink = joined(writing).await?;
    let space = space.clone();
    let flushing = tokio::task::spawn_blocking(move || sink.flush(&space).map(|()| sink));
    Ok(joined(flushing).await?.finish(Vec::new()))
}
