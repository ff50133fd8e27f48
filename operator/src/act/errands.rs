//! Errands: what takes its time outside the API server. Each runs in a task of its own, beside the passes; its outcome
//! goes into the index, which wakes the object.

use cultivar_core::domain::Errand;
use cultivar_core::domain::errand::{ImageTag, Publication};
use cultivar_crds::labels;
use k8s_openapi::api::core::v1::ConfigMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Act;
use super::ours::{is_ours, metadata};
use crate::images::{self, Credentials};
use crate::observe::Key;

/// Errands that run side by side.
const SIDE_BY_SIDE: usize = 8;
/// How long one may take; the artifacts of a record are read from one end to the other.
const LIMIT: Duration = Duration::from_secs(1800);

fn limit_of(errand: &Errand) -> Duration {
    match errand {
        Errand::ResolveImage(_) => images::LIMIT,
        _ => LIMIT,
    }
}

/// The errands under way.
pub(super) struct Running {
    tasks: Mutex<JoinSet<()>>,
    room: Semaphore,
}

impl Default for Running {
    fn default() -> Self {
        Self { tasks: Mutex::default(), room: Semaphore::new(SIDE_BY_SIDE) }
    }
}

impl Act {
    /// Runs an errand beside the passes, unless it is under way.
    pub(super) fn run(self: &Arc<Self>, key: &Key, errand: Errand) {
        if !self.index.begin_errand(key, &errand) {
            return;
        }
        let (act, key) = (Arc::clone(self), key.clone());
        let mut tasks = self.running.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            // A run waits for its images, and they for nothing else.
            let _room = match &errand {
                Errand::ResolveImage(_) => None,
                // Closed never: it lives as long as this task.
                _ => Some(act.running.room.acquire().await),
            };
            let limit = limit_of(&errand);
            let in_time = tokio::time::timeout(limit, act.do_errand(&key, &errand)).await;
            let result = in_time.unwrap_or_else(|_| Err(format!("it was not done within {limit:?}")));
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
            Errand::FindArtifacts(presence) => self.stores.missing(&self.calls, namespace, presence).await,
            Errand::ResolveImage(tag) => self.resolve(namespace, tag).await,
            Errand::Publish(entry) => self.publish(namespace, entry).await,
            Errand::FindLocalQueue(name) => match self.calls.has_local_queue(namespace, name).await {
                Ok(true) => Ok(String::new()),
                Ok(false) => Err("it does not exist in this namespace, or Kueue is not installed".to_owned()),
                Err(error) => Err(error.words()),
            },
        }
    }

    // What the operator may not read it does without: registries show most images to anyone.
    async fn resolve(&self, namespace: &str, tag: &ImageTag) -> Result<String, String> {
        let (mut credentials, mut missing) = (Credentials::default(), Vec::new());
        let mut given = Vec::new();
        if let Some(account) = &tag.service_account {
            match self.calls.pull_secrets_of(namespace, account).await {
                Ok(names) => given = names,
                Err(error) => missing.push(format!("service account {account}: {}", error.words())),
            }
        }
        for name in tag.pull_secrets.iter().chain(&given) {
            match self.calls.pull_secret(namespace, name).await {
                Ok(Some(secret)) => credentials.add(&secret),
                Ok(None) => missing.push(format!("there is no Secret {name}")),
                Err(error) => missing.push(format!("Secret {name}: {}", error.words())),
            }
        }
        let digest = self.images.digest(namespace, &tag.image, &credentials).await;
        digest.map_err(|why| match missing.first() {
            Some(missing) => format!("{why}; {missing}"),
            None => why,
        })
    }

    // Whoever may write Experiments is not to write just any ConfigMap through the operator: it writes into its own, and
    // into those that were given to it.
    async fn publish(&self, namespace: &str, entry: &Publication) -> Result<String, String> {
        let name = &entry.config_map;
        let there = self.calls.config_map(namespace, name).await.map_err(|error| error.words())?;
        let written = match there {
            None => {
                let data = Some(entry.data.clone());
                let config_map = ConfigMap { metadata: metadata(name), data, ..ConfigMap::default() };
                self.calls.create_config_map(namespace, &config_map).await
            }
            Some(there) if is_ours(&there.metadata) => self.calls.write_config_map(namespace, name, &entry.data).await,
            Some(_) => {
                let (label, value) = (labels::MANAGED_BY, labels::MANAGER);
                return Err(format!("it has another owner; label it {label}={value} to let Experiments write into it"));
            }
        };
        written.map(|()| String::new()).map_err(|error| error.words())
    }
}
