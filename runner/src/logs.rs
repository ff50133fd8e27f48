//! The program's output on its way to the store, while the run goes.
//!
//! Comes in: pieces of output, from [`crate::supervise::Tee`]. Goes out: numbered gzip chunks under
//! `<prefix>/logs/<attempt>/`; joined in order they are one gzip file. Between the two lies a spool on disk, so that a
//! store that is slow or away holds up nobody: a thread compresses into the spool, a task uploads from it. When the spool
//! is full, whole chunks are dropped, and counted.

use crate::collect;
use cultivar_data::{Mover, Store};
use cultivar_protocol::{LogsAt, RunSpec};
use flate2::{Compression, write::GzEncoder};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Output that is handed on as one piece.
const PIECE: usize = 256 * 1024;
/// Pieces that wait for compression. Beyond them the program waits, for a processor and never for the store.
const PIECES: usize = 8;
/// A chunk ends at this many bytes of output ...
const CHUNK: u64 = 16 * 1024 * 1024;
/// ... or at this age. What a killed pod loses.
const AGE: Duration = Duration::from_secs(5);
/// Compressed bytes that may wait for the store.
const SPOOL: u64 = 128 * 1024 * 1024;

/// Where output goes in.
#[derive(Debug)]
pub struct LogInlet {
    piece: Arc<Mutex<Vec<u8>>>,
    pieces: SyncSender<Vec<u8>>,
}

impl LogInlet {
    /// Takes a piece of output.
    pub fn push(&self, bytes: &[u8]) {
        let mut piece = self.piece.lock().unwrap_or_else(PoisonError::into_inner);
        piece.extend_from_slice(bytes);
        if piece.len() >= PIECE {
            // Within the lock, so that pieces stay in order. The other side takes the lock only with `try_lock`. An
            // error says that nobody compresses any more; then the log ends here.
            let _ = self.pieces.send(std::mem::replace(&mut *piece, Vec::with_capacity(PIECE + 64 * 1024)));
        }
    }
}

/// A log that is being written.
#[derive(Debug)]
pub struct Logs {
    uri: String,
    compressing: JoinHandle<()>,
    uploading: tokio::task::JoinHandle<()>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    chunks: AtomicU64,
    uploaded: AtomicU64,
    spooled: AtomicU64,
    dropped: AtomicU64,
    broken: AtomicBool,
}

impl Logs {
    /// Starts the log of a run.
    ///
    /// # Errors
    /// When the spool cannot be made.
    pub fn start(spec: &RunSpec, store: &Store, mover: &Mover) -> io::Result<(Self, LogInlet)> {
        let spool = Path::new(&spec.run_dir).join("logs");
        fs::create_dir_all(&spool)?;
        let folder = match spec.worker {
            0 => format!("logs/{}", spec.attempt),
            worker => format!("logs/{}-worker-{worker}", spec.attempt),
        };
        let prefix = collect::key(spec, &folder);
        let counts = Arc::new(Counts::default());
        let (pieces, received) = sync_channel(PIECES);
        let (chunks, waiting) = unbounded_channel();
        let piece = Arc::new(Mutex::new(Vec::with_capacity(PIECE + 64 * 1024)));
        let compressor = Compressor {
            spool,
            pieces: received,
            piece: Arc::clone(&piece),
            chunks,
            counts: Arc::clone(&counts),
            number: 0,
        };
        let compressing =
            std::thread::Builder::new().name("log".to_owned()).stack_size(256 * 1024).spawn(|| compressor.run())?;
        let uploading =
            tokio::spawn(upload(waiting, store.clone(), mover.clone(), prefix.clone(), Arc::clone(&counts)));
        let uri = format!("{}/", store.uri(&prefix));
        Ok((Self { uri, compressing, uploading, counts }, LogInlet { piece, pieces }))
    }

    /// Waits until everything is in the store, or the store has been away for too long. The inlet is gone by now.
    pub async fn finish(self) -> (Option<LogsAt>, Vec<String>) {
        let compressing = self.compressing;
        let compressed = tokio::task::spawn_blocking(move || compressing.join()).await;
        let uploaded = self.uploading.await;
        let mut problems = Vec::new();
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        if !matches!(compressed, Ok(Ok(()))) || uploaded.is_err() || self.counts.broken.load(Ordering::Relaxed) {
            problems.push(
                "the log in the store ends early: it could not be written to the run's folder; is the disk full?"
                    .to_owned(),
            );
        }
        let (dropped, chunks, done) =
            (count(&self.counts.dropped), count(&self.counts.chunks), count(&self.counts.uploaded));
        if dropped > 0 {
            problems.push(format!("{dropped} bytes of output are not in the store's log: it did not take them in time, and the spool was full"));
        }
        if done < chunks {
            problems.push(format!(
                "{} of {chunks} chunk(s) of the log were not uploaded: the store did not take them",
                chunks - done
            ));
        }
        ((done > 0).then_some(LogsAt { uri: self.uri }), problems)
    }
}

struct Compressor {
    spool: PathBuf,
    pieces: Receiver<Vec<u8>>,
    piece: Arc<Mutex<Vec<u8>>>,
    chunks: UnboundedSender<(u64, PathBuf)>,
    counts: Arc<Counts>,
    number: u64,
}

struct Chunk {
    path: PathBuf,
    since: Instant,
    bytes: u64,
    out: GzEncoder<BufWriter<File>>,
}

impl Compressor {
    fn run(mut self) {
        if self.all().is_err() {
            // Nobody receives from here on, so the program is not held up; the log ends.
            self.counts.broken.store(true, Ordering::Relaxed);
        }
    }

    fn all(&mut self) -> io::Result<()> {
        let mut chunk: Option<Chunk> = None;
        loop {
            let received = self.pieces.recv_timeout(Duration::from_millis(500));
            match &received {
                Ok(piece) => self.write(&mut chunk, piece)?,
                Err(_) => {
                    // Quiet, or over: what has gathered is taken as it is. A busy lock means that a piece is coming.
                    let lock = Arc::clone(&self.piece);
                    if let Ok(mut rest) = lock.try_lock() {
                        // What was sent since then comes before it.
                        while let Ok(piece) = self.pieces.try_recv() {
                            self.write(&mut chunk, &piece)?;
                        }
                        self.write(&mut chunk, &rest)?;
                        rest.clear();
                    }
                }
            }
            let ended = received == Err(RecvTimeoutError::Disconnected);
            if let Some(full) = chunk.take_if(|chunk| ended || chunk.bytes >= CHUNK || chunk.since.elapsed() >= AGE) {
                self.close(full)?;
            }
            if ended {
                return Ok(());
            }
        }
    }

    fn write(&mut self, chunk: &mut Option<Chunk>, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if chunk.is_none() {
            self.number += 1;
            let path = self.spool.join(format!("{:06}.log.gz", self.number));
            let out = GzEncoder::new(BufWriter::new(File::create(&path)?), Compression::fast());
            *chunk = Some(Chunk { path, since: Instant::now(), bytes: 0, out });
        }
        if let Some(chunk) = chunk {
            chunk.bytes += bytes.len() as u64;
            chunk.out.write_all(bytes)?;
        }
        Ok(())
    }

    fn close(&mut self, chunk: Chunk) -> io::Result<()> {
        chunk.out.finish()?.flush()?;
        let size = fs::metadata(&chunk.path)?.len();
        if self.counts.spooled.load(Ordering::Relaxed) + size > SPOOL {
            self.counts.dropped.fetch_add(chunk.bytes, Ordering::Relaxed);
            return fs::remove_file(&chunk.path);
        }
        self.counts.spooled.fetch_add(size, Ordering::Relaxed);
        self.counts.chunks.fetch_add(1, Ordering::Relaxed);
        // An error says that the uploading task is gone, which `finish` tells of.
        let _ = self.chunks.send((size, chunk.path));
        Ok(())
    }
}

// One after the other, so that no later chunk is there without an earlier one. A chunk that the store's patience did not
// suffice for is tried once more; at the end of the run nobody waits longer than that.
async fn upload(
    mut waiting: UnboundedReceiver<(u64, PathBuf)>,
    store: Store,
    mover: Mover,
    prefix: String,
    counts: Arc<Counts>,
) {
    while let Some((size, path)) = waiting.recv().await {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let key = format!("{prefix}/{name}");
        let mut done = mover.upload(&store, &key, &path).await;
        if done.is_err() && !waiting.is_closed() {
            done = mover.upload(&store, &key, &path).await;
        }
        counts.uploaded.fetch_add(u64::from(done.is_ok()), Ordering::Relaxed);
        counts.spooled.fetch_sub(size, Ordering::Relaxed);
        let away = done.is_err_and(|error| error.is_temporary());
        let _ = tokio::fs::remove_file(&path).await;
        if away && waiting.is_closed() {
            return;
        }
    }
}
