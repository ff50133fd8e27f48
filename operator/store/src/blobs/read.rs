//! Bytes on their way out.
//!
//! Comes in: slices of files. Goes out: a stream that holds two pieces at a time, one being sent while the next is read.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use s3s::StdError;
use s3s::stream::{ByteStream, RemainingLength};
use tokio::task::JoinHandle;

use super::Pinned;
use crate::index::records::Slice;

/// Bytes that are read at a time.
const PIECE: u64 = 256 * 1024;

/// The part of `slices` from `start`, `length` bytes long.
#[must_use]
pub fn cut(slices: &[Slice], start: u64, length: u64) -> Vec<Slice> {
    let (mut skip, mut left) = (start, length);
    let mut cut = Vec::new();
    for slice in slices {
        if left == 0 {
            break;
        }
        if skip >= slice.length {
            skip -= slice.length;
            continue;
        }
        let length = (slice.length - skip).min(left);
        cut.push(Slice { file: slice.file, offset: slice.offset + skip, length });
        left -= length;
        skip = 0;
    }
    cut
}

type Reading = JoinHandle<io::Result<(Bytes, Option<(u64, Arc<File>)>)>>;

/// A stream of slices, one after the other.
#[derive(Debug)]
pub struct Outgoing {
    pinned: Arc<Pinned>,
    slices: VecDeque<Slice>,
    /// The file that was read last, still open.
    open: Option<(u64, Arc<File>)>,
    reading: Option<Reading>,
    left: u64,
}

impl Outgoing {
    /// Streams `slices` of files that are pinned.
    #[must_use]
    pub fn new(pinned: Pinned, slices: Vec<Slice>) -> Self {
        let left = slices.iter().map(|slice| slice.length).sum();
        Self { pinned: Arc::new(pinned), slices: slices.into(), open: None, reading: None, left }
    }

    /// Begins to read the next piece.
    fn start(&mut self) -> Option<Reading> {
        let slice = self.slices.front_mut()?;
        let (file, offset, length) = (slice.file, slice.offset, slice.length.min(PIECE));
        slice.offset += length;
        slice.length -= length;
        if slice.length == 0 {
            self.slices.pop_front();
        }
        let pinned = self.pinned.clone();
        let open = self.open.take();
        Some(tokio::task::spawn_blocking(move || {
            let open = match open {
                Some((number, open)) if number == file => open,
                _ => Arc::new(pinned.open(file)?),
            };
            let mut piece = vec![0; usize::try_from(length).unwrap_or(0)];
            open.read_exact_at(&mut piece, offset)?;
            Ok((Bytes::from(piece), Some((file, open))))
        }))
    }
}

impl Stream for Outgoing {
    type Item = Result<Bytes, StdError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.reading.is_none() {
            this.reading = this.start();
        }
        let Some(reading) = &mut this.reading else { return Poll::Ready(None) };
        let read = ready!(Pin::new(reading).poll(context));
        this.reading = None;
        match read.map_err(io::Error::other).and_then(|read| read) {
            Ok((piece, open)) => {
                this.open = open;
                this.left -= piece.len() as u64;
                this.reading = this.start();
                Poll::Ready(Some(Ok(piece)))
            }
            Err(error) => {
                tracing::error!(%error, "cannot read a file of the store");
                this.slices.clear();
                Poll::Ready(Some(Err(error.into())))
            }
        }
    }
}

impl ByteStream for Outgoing {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize::try_from(self.left).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_cut_where_bytes_are() {
        let slice = |file, offset, length| Slice { file, offset, length };
        let all = [slice(1, 0, 10), slice(2, 5, 10), slice(3, 0, 10)];
        assert_eq!(cut(&all, 0, 30), all);
        assert_eq!(cut(&all, 9, 2), [slice(1, 9, 1), slice(2, 5, 1)]);
        assert_eq!(cut(&all, 10, 10), [slice(2, 5, 10)]);
        assert_eq!(cut(&all, 12, 100), [slice(2, 7, 8), slice(3, 0, 10)]);
        assert_eq!(cut(&all, 30, 1), []);
        assert_eq!(cut(&all, 3, 0), []);
    }
}
