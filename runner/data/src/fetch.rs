//! Fetching one object to a file: in parallel ranges, resumed where it broke, hashed while it is written.

use crate::digest::{Sha256Sum, same};
use crate::error::DataError;
use crate::mover::{Backoff, Mover, PART, PARTS, Piece};
use crate::remote::{Pin, Remote};
use bytes::Bytes;
use futures::StreamExt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use tokio_util::task::AbortOnDropHandle;

/// What was fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// In bytes.
    pub size: u64,
    /// Of the file, or of the directory's manifest.
    pub digest: String,
    /// The version or ETag that it was read under.
    pub version: Option<String>,
    /// How many files.
    pub files: u64,
}

impl Mover {
    /// Fetches an object into a new file at `to`, and checks it against `expect`. When it fails the file is of no use;
    /// the caller has it in a [`crate::Place`] that is thrown away.
    ///
    /// # Errors
    /// What is wrong with the object, its server or the disk.
    pub async fn fetch(&self, remote: &Remote, to: &Path, expect: Option<&str>) -> Result<Fetched, DataError> {
        let pin = self.pin(remote).await?;
        let sink = Sink::create(to)?;
        let sink = match pin.size {
            Some(0) => sink,
            Some(size) if pin.ranged => self.parts(remote, &pin, size, sink).await?,
            _ => self.whole(remote, &pin, sink).await?,
        };
        let (size, digest) = sink.finish();
        if pin.size.is_some_and(|expected| expected != size) {
            return Err(DataError::Changed(remote.uri()));
        }
        check(&remote.uri(), &digest, expect)?;
        Ok(Fetched { size, digest, version: pin.text(), files: 1 })
    }

    async fn pin(&self, remote: &Remote) -> Result<Pin, DataError> {
        let mut backoff = Backoff::new(remote.patience());
        loop {
            match remote.head().await {
                Err(error) if error.is_temporary() && backoff.again().await => {}
                done => return done,
            }
        }
    }

    // Parts are fetched side by side, each in a task of its own, and written in order.
    async fn parts(&self, remote: &Remote, pin: &Pin, size: u64, mut sink: Sink) -> Result<Sink, DataError> {
        let starts = (0..size.div_ceil(PART)).map(|number| number * PART);
        let mut parts = futures::stream::iter(starts)
            .map(|start| {
                let (mover, remote, pin) = (self.clone(), remote.clone(), pin.clone());
                async move {
                    // Room first, then the task: what waits holds nothing.
                    let end = (start + PART).min(size);
                    let room = mover.room(end - start).await;
                    let task = async move {
                        let chunks = mover.part(&remote, &pin, start, end).await?;
                        Ok(Piece { chunks, room })
                    };
                    AbortOnDropHandle::new(tokio::spawn(task)).await.map_err(|error| broken(&error))?
                }
            })
            .buffered(PARTS);
        while let Some(piece) = parts.next().await {
            sink = sink.write(piece?).await?;
        }
        Ok(sink)
    }

    // One part; what came before a break is kept.
    async fn part(&self, remote: &Remote, pin: &Pin, start: u64, end: u64) -> Result<Vec<Bytes>, DataError> {
        let (mut chunks, mut at, mut backoff) = (Vec::new(), start, Backoff::new(remote.patience()));
        loop {
            let failed = match remote.get(pin, Some(at..end)).await {
                Ok(mut body) => loop {
                    match body.next().await {
                        Some(Ok(chunk)) => {
                            at += chunk.len() as u64;
                            self.count_in(chunk.len() as u64);
                            backoff.progress();
                            if at > end {
                                return Err(DataError::Changed(remote.uri()));
                            }
                            chunks.push(chunk);
                        }
                        Some(Err(error)) => break error,
                        None if at == end => return Ok(chunks),
                        None => {
                            break DataError::Unavailable {
                                uri: remote.uri(),
                                why: format!("the answer ends at byte {at} of {end}"),
                            };
                        }
                    }
                },
                Err(error) => error,
            };
            if !(failed.is_temporary() && backoff.again().await) {
                return Err(failed);
            }
        }
    }

    // For servers without ranges: from the beginning, again and again.
    async fn whole(&self, remote: &Remote, pin: &Pin, mut sink: Sink) -> Result<Sink, DataError> {
        let mut backoff = Backoff::new(remote.patience());
        loop {
            match self.stream(remote, pin, sink).await {
                Ok(sink) => return Ok(sink),
                Err((path, error)) => {
                    if !(error.is_temporary() && backoff.again().await) {
                        return Err(error);
                    }
                    sink = Sink::create(&path)?;
                }
            }
        }
    }

    async fn stream(&self, remote: &Remote, pin: &Pin, mut sink: Sink) -> Result<Sink, (PathBuf, DataError)> {
        let path = sink.path.clone();
        let fail = |error| (path.clone(), error);
        let mut body = remote.get(pin, None).await.map_err(fail)?;
        let (mut chunks, mut held, mut total) = (Vec::new(), 0, 0);
        let mut room = self.room(PART).await;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(fail)?;
            held += chunk.len() as u64;
            total += chunk.len() as u64;
            self.count_in(chunk.len() as u64);
            chunks.push(chunk);
            if held >= PART / 2 {
                sink = sink.write(Piece { chunks: std::mem::take(&mut chunks), room }).await.map_err(fail)?;
                room = self.room(PART).await;
                held = 0;
            }
        }
        if pin.size.is_some_and(|size| total != size) {
            let why = format!("the answer ends at byte {total} of {}", pin.size.unwrap_or_default());
            return Err(fail(DataError::Unavailable { uri: remote.uri(), why }));
        }
        sink.write(Piece { chunks, room }).await.map_err(fail)
    }
}

/// Compares digests.
pub(crate) fn check(what: &str, digest: &str, expect: Option<&str>) -> Result<(), DataError> {
    match expect {
        Some(expected) if !same(expected, digest) => Err(DataError::Corrupt {
            what: what.to_owned(),
            why: format!(
                "its digest is {digest}, and {expected} is expected; it was changed or damaged since it was recorded"
            ),
        }),
        _ => Ok(()),
    }
}

pub(crate) fn broken(error: &tokio::task::JoinError) -> DataError {
    DataError::Invalid(format!("a transfer broke off inside the runner: {error}; this is a bug, please report it"))
}

// A file that is hashed while it is written, off the threads that wait for the network.
struct Sink {
    path: PathBuf,
    file: File,
    sum: Sha256Sum,
    size: u64,
}

impl Sink {
    fn create(path: &Path) -> Result<Self, DataError> {
        let file = File::create(path).map_err(DataError::local("create", path))?;
        Ok(Self { path: path.to_owned(), file, sum: Sha256Sum::default(), size: 0 })
    }

    async fn write(mut self, piece: Piece) -> Result<Self, DataError> {
        let write = move || {
            for chunk in piece.chunks {
                self.sum.update(&chunk);
                self.size += chunk.len() as u64;
                self.file.write_all(&chunk).map_err(DataError::local("write", &self.path))?;
            }
            drop(piece.room);
            Ok(self)
        };
        tokio::task::spawn_blocking(write).await.map_err(|error| broken(&error))?
    }

    fn finish(self) -> (u64, String) {
        (self.size, self.sum.finish())
    }
}
