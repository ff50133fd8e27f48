//! The index: every key in order, with what is known about it, in one transactional file.
//!
//! Comes in: changes, as functions on the tables, and questions. Goes out: answers. It is the only truth: a file that
//! no row names does not exist for anybody. Changes are gathered by one thread and committed together, so that many
//! small writes share one flush of the disk; an answer is given when the flush is done.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use tokio::sync::{mpsc, oneshot};

pub mod listing;
pub mod objects;
pub mod records;
mod tables;
pub mod uploads;
mod writer;

pub use tables::Tables;

use records::{Data, Object, Part, Upload, from_row};

pub(crate) const OBJECTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("objects");
pub(crate) const DATA: TableDefinition<u64, &[u8]> = TableDefinition::new("data");
pub(crate) const UPLOADS: TableDefinition<(&[u8], u64), &[u8]> = TableDefinition::new("uploads");
pub(crate) const PARTS: TableDefinition<(u64, u16), &[u8]> = TableDefinition::new("parts");
pub(crate) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Layout of the tables; a file with another is refused.
const VERSION: u64 = 1;
/// Memory for pages of the index.
const CACHE: usize = 32 * 1024 * 1024;
/// Changes that wait for the writing thread; more have to wait themselves.
const QUEUE: usize = 1024;

/// Why the index did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IndexError {
    /// The condition of a write does not hold.
    #[error("the object does not meet the request's condition")]
    Precondition,
    /// There is no such object.
    #[error("there is no such object")]
    NoObject,
    /// There is no such upload.
    #[error("there is no such upload; it was completed or aborted, or it never was")]
    NoUpload,
    /// A part that was named is not there, or is another.
    #[error("part {0} is not there, or its ETag is another")]
    Part(i32),
    /// Parts are not named in order.
    #[error("parts are not named in ascending order, each once")]
    PartOrder,
    /// A part is too small.
    #[error("part {0} has less than 5 MiB and is not the last")]
    PartSize(i32),
    /// The object would not be what the client says it is.
    #[error("{0}")]
    Promise(String),
    /// What is there cannot be read.
    #[error("the index is damaged: {0}")]
    Damaged(String),
    /// The volume has no room left.
    #[error("the volume is full")]
    Full,
    /// The file cannot be read or written at the moment.
    #[error("the index cannot be used: {0}")]
    Storage(String),
}

impl From<redb::Error> for IndexError {
    fn from(error: redb::Error) -> Self {
        match &error {
            redb::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => Self::Full,
            _ => Self::Storage(error.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($kind:ty),*) => {$(
        impl From<$kind> for IndexError {
            fn from(error: $kind) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}
from_redb!(redb::StorageError, redb::TableError, redb::TransactionError, redb::CommitError, redb::DatabaseError);

/// The open file; none while it is opened again after a failure.
pub(crate) type Shared = Arc<RwLock<Option<Database>>>;

/// How much there is.
#[derive(Debug, Default)]
pub struct Totals {
    /// Number of objects.
    pub objects: AtomicU64,
    /// Sum of their sizes.
    pub bytes: AtomicU64,
}

/// The index. Clones are the same index; its file is closed when the last one and its thread are gone.
#[derive(Clone, Debug)]
pub struct Index {
    database: Shared,
    writer: mpsc::Sender<writer::Job>,
    totals: Arc<Totals>,
    epoch: u64,
}

/// The thread that writes; join it after the last [`Index`] is gone.
pub type Writer = std::thread::JoinHandle<()>;

/// An object and where its bytes are.
#[derive(Clone, Debug)]
pub struct Found {
    /// What is known about it.
    pub object: Object,
    /// Its bytes; none of an empty object.
    pub data: Option<Data>,
}

impl Index {
    /// Opens the file, or makes it, and begins a new epoch: a number that grows with every start.
    /// `gone` is told of the files that no row names any more, once that is certain.
    ///
    /// # Errors
    /// When the file cannot be opened: another process has it, it is damaged or of a later version.
    pub fn open(path: &Path, gone: std::sync::mpsc::Sender<Vec<u64>>) -> Result<(Self, Writer), IndexError> {
        let database = open_file(path)?;
        let totals = Arc::new(Totals::default());
        let epoch = begin_epoch(&database, &totals)?;
        let shared: Shared = Arc::new(RwLock::new(Some(database)));
        let (sender, jobs) = mpsc::channel(QUEUE);
        let pen = writer::Pen { database: shared.clone(), path: path.to_owned(), gone, totals: totals.clone() };
        let thread = std::thread::Builder::new()
            .name("index".to_owned())
            .spawn(move || pen.run(jobs))
            .map_err(|error| IndexError::Storage(format!("no thread to write with: {error}")))?;
        Ok((Self { database: shared, writer: sender, totals, epoch }, thread))
    }

    /// The number of this start.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How much there is.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Whether the index can be read, and written as far as one can tell without doing so.
    ///
    /// # Errors
    /// When not.
    pub fn healthy(&self) -> Result<(), IndexError> {
        if self.writer.is_closed() {
            return Err(stopped());
        }
        self.read(|transaction| {
            transaction.open_table(META)?;
            Ok(())
        })
    }

    /// Changes the tables by `change`, all of it or nothing. When this returns, it is on the disk. A change that
    /// returns an error must not have touched the tables before, unless the error is one of the tables themselves.
    ///
    /// # Errors
    /// What `change` returns, or that it could not be stored.
    pub async fn write<T, F>(&self, change: F) -> Result<T, IndexError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables<'_>) -> Result<T, IndexError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = writer::job(change, move |result| {
            // Nobody waits any more when the client has gone; the change stands all the same.
            let _ = answer.send(result);
        });
        self.writer.send(job).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| not_done())?
    }

    /// [`Index::write`] for callers that are threads.
    ///
    /// # Errors
    /// As there.
    pub fn write_blocking<T, F>(&self, change: F) -> Result<T, IndexError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables<'_>) -> Result<T, IndexError> + Send + 'static,
    {
        let (answer, answered) = std::sync::mpsc::channel();
        let job = writer::job(change, move |result| {
            let _ = answer.send(result);
        });
        self.writer.blocking_send(job).map_err(|_| stopped())?;
        answered.recv().map_err(|_| not_done())?
    }

    /// Reads at one point in time.
    ///
    /// # Errors
    /// What `question` returns, or that the file cannot be read.
    pub fn read<T>(&self, question: impl FnOnce(&ReadTransaction) -> Result<T, IndexError>) -> Result<T, IndexError> {
        let guard = self.database.read().map_err(|_| IndexError::Storage("a thread panicked over it".to_owned()))?;
        let database = guard.as_ref().ok_or_else(|| IndexError::Storage("it is being opened again".to_owned()))?;
        question(&database.begin_read()?)
    }

    /// What is known about an object.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn head(&self, key: &str) -> Result<Option<Object>, IndexError> {
        self.read(|transaction| {
            let row = transaction.open_table(OBJECTS)?.get(key.as_bytes())?;
            row.map(|row| from_row(row.value())).transpose()
        })
    }

    /// An object and where its bytes are.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn find(&self, key: &str) -> Result<Option<Found>, IndexError> {
        self.read(|transaction| {
            let Some(row) = transaction.open_table(OBJECTS)?.get(key.as_bytes())? else { return Ok(None) };
            let object: Object = from_row(row.value())?;
            if object.data == 0 {
                return Ok(Some(Found { object, data: None }));
            }
            let data = transaction.open_table(DATA)?.get(object.data)?;
            let Some(data) = data else { return Err(IndexError::Damaged(format!("{key:?} has lost its data"))) };
            let (_, data) = Data::unpack(data.value())?;
            Ok(Some(Found { object, data: Some(data) }))
        })
    }

    /// An upload under way.
    ///
    /// # Errors
    /// When there is none, or the index cannot be read.
    pub fn upload(&self, key: &str, id: u64) -> Result<Upload, IndexError> {
        self.read(|transaction| {
            let row = transaction.open_table(UPLOADS)?.get((key.as_bytes(), id))?;
            row.map(|row| from_row(row.value())).transpose()?.ok_or(IndexError::NoUpload)
        })
    }

    /// Up to `limit` parts of an upload with numbers above `after`.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn parts(&self, id: u64, after: u16, limit: usize) -> Result<Vec<(u16, Part)>, IndexError> {
        self.read(|transaction| {
            let table = transaction.open_table(PARTS)?;
            let Some(from) = after.checked_add(1) else { return Ok(Vec::new()) };
            let rows = table.range((id, from)..=(id, u16::MAX))?.take(limit);
            rows.map(|row| {
                row.map_err(IndexError::from).and_then(|(key, row)| Ok((key.value().1, from_row(row.value())?)))
            })
            .collect()
        })
    }

    /// Whether a row of data has this number.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn has_data(&self, numbers: &[u64]) -> Result<Vec<bool>, IndexError> {
        self.read(|transaction| {
            let table = transaction.open_table(DATA)?;
            numbers.iter().map(|number| Ok(table.get(*number)?.is_some())).collect()
        })
    }
}

fn stopped() -> IndexError {
    IndexError::Storage("it has been closed".to_owned())
}

fn not_done() -> IndexError {
    IndexError::Storage("writing failed before this change; try again".to_owned())
}

fn open_file(path: &Path) -> Result<Database, IndexError> {
    Ok(Database::builder().set_cache_size(CACHE).create(path)?)
}

fn begin_epoch(database: &Database, totals: &Totals) -> Result<u64, IndexError> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let epoch = {
        let mut meta = transaction.open_table(META)?;
        let version = meta.get("version")?.map_or(VERSION, |version| version.value());
        if version != VERSION {
            let why = format!("it has version {version}, this program knows {VERSION}; run the version that wrote it");
            return Err(IndexError::Damaged(why));
        }
        meta.insert("version", VERSION)?;
        let epoch = meta.get("epoch")?.map_or(0, |epoch| epoch.value()) + 1;
        meta.insert("epoch", epoch)?;
        totals.bytes.store(meta.get("bytes")?.map_or(0, |bytes| bytes.value()), Ordering::Relaxed);
        totals.objects.store(transaction.open_table(OBJECTS)?.len()?, Ordering::Relaxed);
        // Readers need every table to be there.
        transaction.open_table(DATA)?;
        transaction.open_table(UPLOADS)?;
        transaction.open_table(PARTS)?;
        epoch
    };
    transaction.commit()?;
    Ok(epoch)
}

/// Where the index lies in a data folder.
#[must_use]
pub fn path_in(folder: &Path) -> PathBuf {
    folder.join("index.redb")
}
