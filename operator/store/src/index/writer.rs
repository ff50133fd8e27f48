//! The thread that writes.
//!
//! Comes in: jobs. Goes out: each job's answer, after the transaction that holds it is on the disk. Jobs that arrive
//! while a transaction is being flushed share the next one. When the disk fails, nothing of the transaction is believed,
//! and the file is opened again, which brings back its last good state.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redb::Database;
use tokio::sync::mpsc;

use super::{IndexError, Shared, Tables, Totals, open_file};

/// Jobs in one transaction.
const BATCH: usize = 512;
/// Between two tries to open the file again.
const RETRY: Duration = Duration::from_millis(500);

/// What is left of a job when it has run: it gives the answer, told whether the transaction failed.
type Deliver = Box<dyn FnOnce(Option<IndexError>) + Send>;

/// A change that waits. It says whether the tables themselves failed under it.
pub(crate) type Job = Box<dyn FnOnce(&mut Tables<'_>) -> (Deliver, Option<IndexError>) + Send>;

/// A job of a change and what takes its answer.
pub(crate) fn job<T, F, A>(change: F, answer: A) -> Job
where
    T: Send + 'static,
    F: FnOnce(&mut Tables<'_>) -> Result<T, IndexError> + Send + 'static,
    A: FnOnce(Result<T, IndexError>) + Send + 'static,
{
    Box::new(move |tables| {
        let result = change(tables);
        let broken = match &result {
            Err(error @ (IndexError::Storage(_) | IndexError::Damaged(_) | IndexError::Full)) => Some(error.clone()),
            _ => None,
        };
        let deliver: Deliver = Box::new(move |failed| answer(failed.map_or(result, Err)));
        (deliver, broken)
    })
}

/// What the thread writes with.
pub(crate) struct Pen {
    pub database: Shared,
    pub path: PathBuf,
    pub gone: std::sync::mpsc::Sender<Vec<u64>>,
    pub totals: Arc<Totals>,
}

impl Pen {
    /// Works until nobody can send any more.
    pub fn run(self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH
                && let Ok(next) = jobs.try_recv()
            {
                batch.push(next);
            }
            if let Err(error) = self.commit(batch) {
                tracing::error!(%error, "the index was not written");
                if !matches!(error, IndexError::Damaged(_)) {
                    self.reopen();
                }
            }
        }
    }

    fn commit(&self, batch: Vec<Job>) -> Result<(), IndexError> {
        let mut delivers = Vec::with_capacity(batch.len());
        match self.transact(batch, &mut delivers) {
            Ok(gone) => {
                delivers.into_iter().for_each(|deliver| deliver(None));
                if !gone.is_empty() {
                    // When nobody removes files any more, the next start does.
                    let _ = self.gone.send(gone);
                }
                Ok(())
            }
            Err(error) => {
                delivers.into_iter().for_each(|deliver| deliver(Some(error.clone())));
                Err(error)
            }
        }
    }

    /// Runs the batch in one transaction and returns the files that nothing uses any more.
    fn transact(&self, batch: Vec<Job>, delivers: &mut Vec<Deliver>) -> Result<Vec<u64>, IndexError> {
        let guard = self.database.read().map_err(|_| IndexError::Storage("a thread panicked over it".to_owned()))?;
        let database: &Database =
            guard.as_ref().ok_or_else(|| IndexError::Storage("it could not be opened again".to_owned()))?;
        let mut transaction = database.begin_write()?;
        // Opening after a crash then needs no walk through the whole file.
        transaction.set_quick_repair(true);
        let mut tables = Tables::open(&transaction)?;
        let mut failed = None;
        for job in batch {
            if failed.is_some() {
                // Not run, and dropped with its answer's channel: whoever waits hears that it was not done.
                continue;
            }
            let (deliver, broken) = job(&mut tables);
            delivers.push(deliver);
            failed = broken;
        }
        if let Some(error) = failed {
            drop(tables);
            transaction.abort()?;
            return Err(error);
        }
        let done = tables.finish()?;
        transaction.commit()?;
        self.totals.objects.store(done.objects, Ordering::Relaxed);
        self.totals.bytes.store(done.bytes, Ordering::Relaxed);
        Ok(done.gone)
    }

    /// Closes the file and opens it again, until that works.
    fn reopen(&self) {
        loop {
            let opened = self.database.write().map_err(|error| error.to_string()).and_then(|mut place| {
                drop(place.take());
                *place = Some(open_file(&self.path).map_err(|error| error.to_string())?);
                Ok(())
            });
            match opened {
                Ok(()) => return tracing::info!("the index is open again"),
                Err(error) => tracing::error!(error, "the index cannot be opened again; trying on"),
            }
            std::thread::sleep(RETRY);
        }
    }
}
