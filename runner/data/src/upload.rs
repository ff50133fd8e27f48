//! Uploading files and directories: hashed while they are read, visible only when whole.

use crate::digest::{Sha256Sum, digest_of};
use crate::error::DataError;
use crate::fetch::broken;
use crate::local::WalkedFile;
use crate::mover::{Backoff, FILES, Mover, PART, PARTS};
use crate::store::Store;
use crate::tree::manifest_key;
use bytes::Bytes;
use cultivar_protocol::{DirectoryManifest, ManifestFile};
use futures::{StreamExt, TryStreamExt};
use object_store::{MultipartUpload, ObjectStoreExt};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::JoinSet;

/// What was uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// Where it is; a directory's ends in `/`.
    pub uri: String,
    /// In bytes.
    pub size: u64,
    /// Of the file, or of the directory's manifest.
    pub digest: String,
}

impl Mover {
    /// Uploads a file as one object.
    ///
    /// # Errors
    /// When it cannot be read, or the store does not take it within its patience.
    pub async fn upload(&self, store: &Store, key: &str, from: &Path) -> Result<Uploaded, DataError> {
        // The client waits for a store that is away, and then the patience is used up. But where a connection breaks at a
        // moment at which it cannot tell how far a request has come it gives up at once.
        let mut backoff = Backoff::new(store.patience);
        loop {
            match self.upload_once(store, key, from).await {
                Err(error) if error.is_temporary() && backoff.again().await => {}
                done => return done,
            }
        }
    }

    async fn upload_once(&self, store: &Store, key: &str, from: &Path) -> Result<Uploaded, DataError> {
        let file = File::open(from).map_err(DataError::local("open", from))?;
        let size = file.metadata().map_err(DataError::local("open", from))?.len();
        let source = Source { file, path: from.to_owned(), sum: Sha256Sum::default(), size: 0 };
        let source = if size <= PART {
            self.single(store, key, source, size).await?
        } else {
            self.multi(store, key, source, size).await?
        };
        Ok(Uploaded { uri: store.uri(key), size: source.size, digest: source.sum.finish() })
    }

    async fn single(&self, store: &Store, key: &str, source: Source, size: u64) -> Result<Source, DataError> {
        let _room = self.room(size).await;
        // One byte more than expected would show that it grew; then it is cut here, as it was when it was found.
        let (source, bytes) = source.read(size, &Buffers::default()).await?;
        let put = store.client.put(&store.key(key)?, bytes.into()).await;
        put.map_err(|error| DataError::of_store(&store.uri(key), &error))?;
        self.count_out(source.size);
        Ok(source)
    }

    async fn multi(&self, store: &Store, key: &str, source: Source, size: u64) -> Result<Source, DataError> {
        let uri = store.uri(key);
        let upload = store.client.put_multipart(&store.key(key)?).await;
        let mut upload = upload.map_err(|error| DataError::of_store(&uri, &error))?;
        let done = self.parts_out(&mut *upload, source, size, &uri).await;
        let completed = match done {
            Ok(source) => upload.complete().await.map(|_| source).map_err(|error| DataError::of_store(&uri, &error)),
            Err(error) => Err(error),
        };
        if completed.is_err() {
            // The first error is the one to tell; what stays of the parts is for the store to sweep.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(5), upload.abort()).await;
        }
        completed
    }

    async fn parts_out(
        &self,
        upload: &mut dyn MultipartUpload,
        mut source: Source,
        size: u64,
        uri: &str,
    ) -> Result<Source, DataError> {
        // At most 10,000 parts; only above 60 GB do they grow.
        let part = PART.max(size.div_ceil(9_999));
        let (mut running, buffers) = (JoinSet::new(), Buffers::default());
        while source.size < size {
            let want = part.min(size - source.size);
            while running.len() >= PARTS {
                finished(running.join_next().await, uri)?;
            }
            let room = self.room(want).await;
            let bytes;
            (source, bytes) = source.read(want, &buffers).await?;
            if bytes.is_empty() {
                break;
            }
            let (put, length) = (upload.put_part(bytes.into()), want);
            let mover = self.clone();
            running.spawn(async move {
                put.await?;
                mover.count_out(length);
                drop(room);
                Ok(())
            });
        }
        while let Some(done) = running.join_next().await {
            finished(Some(done), uri)?;
        }
        Ok(source)
    }

    /// Uploads files as a directory below `key`, and its manifest beside it, which is what makes it one.
    ///
    /// # Errors
    /// As [`Mover::upload`].
    pub async fn upload_tree(&self, store: &Store, key: &str, files: Vec<WalkedFile>) -> Result<Uploaded, DataError> {
        let uploaded: Vec<ManifestFile> = futures::stream::iter(files)
            .map(|file| {
                let (mover, store, key) = (self.clone(), store.clone(), format!("{key}/{}", file.path));
                let task = tokio::spawn(async move {
                    let done = mover.upload(&store, &key, &file.from).await?;
                    Ok(ManifestFile { path: file.path, size: done.size, digest: done.digest })
                });
                async { tokio_util::task::AbortOnDropHandle::new(task).await.map_err(|error| broken(&error))? }
            })
            .buffer_unordered(FILES)
            .try_collect()
            .await?;
        let manifest = DirectoryManifest::new(uploaded);
        let bytes = manifest.canonical();
        let digest = digest_of(&bytes);
        store.put(&manifest_key(key), bytes).await?;
        Ok(Uploaded { uri: format!("{}/", store.uri(key)), size: manifest.size(), digest })
    }
}

fn finished(
    done: Option<Result<Result<(), object_store::Error>, tokio::task::JoinError>>,
    uri: &str,
) -> Result<(), DataError> {
    match done {
        None | Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(DataError::of_store(uri, &error)),
        Some(Err(error)) => Err(broken(&error)),
    }
}

// A file that is hashed while it is read, off the threads that wait for the network.
struct Source {
    file: File,
    path: std::path::PathBuf,
    sum: Sha256Sum,
    size: u64,
}

impl Source {
    async fn read(mut self, most: u64, buffers: &Buffers) -> Result<(Self, Bytes), DataError> {
        let mut buffer = buffers.lend();
        let read = move || {
            buffer.bytes.clear();
            buffer.bytes.reserve_exact(usize::try_from(most).unwrap_or_default());
            let read = (&mut self.file).take(most).read_to_end(&mut buffer.bytes);
            read.map_err(DataError::local("read", &self.path))?;
            self.sum.update(&buffer.bytes);
            self.size += buffer.bytes.len() as u64;
            Ok((self, Bytes::from_owner(buffer)))
        };
        tokio::task::spawn_blocking(read).await.map_err(|error| broken(&error))?
    }
}

// Buffers of one upload. What has gone out leaves its own to the next part: memory that is asked for anew has to be cleared
// by the kernel every time, and what the allocator keeps of it adds up.
#[derive(Clone, Default)]
struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    fn lend(&self) -> Buffer {
        Buffer { bytes: self.free().pop().unwrap_or_default(), of: self.clone() }
    }

    // A list is whole after every statement.
    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Buffer {
    bytes: Vec<u8>,
    of: Buffers,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.of.free().push(std::mem::take(&mut self.bytes));
    }
}
