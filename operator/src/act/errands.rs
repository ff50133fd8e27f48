//! Errands: what takes its time outside the API server. Each runs in a task of its own, beside the passes; its outcome
//! goes into the index, which wakes the object.

use cultivar_core::domain::Errand;
use cultivar_core::domain::errand::Publication;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Act;
use crate::observe::Key;

/// Errands that run side by side.
const SIDE_BY_SIDE: usize = 8;
/// How long one may take; the artifacts of a record are read from one end to the other.
const LIMIT: Duration = Duration::from_secs(1800);

/// The errands under way.
pub(super) struct Running {
    tasks: Mutex<JoinSet<()>>,
    room: Arc<Semaphore>,
}

impl Default for Running {
    fn default() -> Self {
        Self { tasks: Mutex::default(), room: Arc::new(Semaphore::new(SIDE_BY_SIDE)) }
    }
}

impl Act {
    /// Runs an errand beside the passes, unless it is under way.
    pub(super) fn run(self: &Arc<Self>, key: &Key, errand: Errand) {
        if !self.index.begin_errand(key, &errand) {
            return;
        }
        let (act, key, room) = (Arc::clone(self), key.clone(), Arc::clone(&self.running.room));
        let mut tasks = self.running.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            // Closed never: it lives as long as this task.
            let Ok(_room) = room.acquire().await else { return };
            let doing = act.do_errand(&key, &errand);
            let result = tokio::time::timeout(LIMIT, doing).await;
            let result = result.unwrap_or_else(|_| Err(format!("it was not done within {LIMIT:?}")));
            act.index.end_errand(&key, errand, result);
        });
    }

    /// Breaks off what is under way: whoever leads next does it again.
    pub(super) async fn break_off(&self) {
        let mut tasks = std::mem::take(&mut *self.running.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        self.index.errands_broken_off();
    }

    async fn do_errand(&self, key: &Key, errand: &Errand) -> Result<String, String> {
        let namespace = &key.namespace;
        match errand {
            Errand::ReadResult(at) => self.stores.read(&self.calls, namespace, at).await,
            Errand::ReadRecord(at) => self.stores.record(&self.calls, namespace, at).await,
            Errand::DeleteArtifacts(leftovers) => self.stores.clear(&self.calls, namespace, leftovers).await,
            Errand::Publish(entry) => self.publish(namespace, entry).await,
        }
    }

    // The entries alone are written: the ConfigMap may be somebody else's.
    async fn publish(&self, namespace: &str, entry: &Publication) -> Result<String, String> {
        let written = self.calls.write_config_map(namespace, &entry.config_map, &entry.data).await;
        written.map(|()| String::new()).map_err(|error| error.words())
    }
}
