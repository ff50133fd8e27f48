//! Verdicts of what is done, written beside the passes and few at a time: nothing waits for them, and after an upgrade there
//! may be as many to write as there is history.
//!
//! In: a verdict. Out: an annotation.

use cultivar_core::domain::Meta;
use cultivar_crds::labels;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Semaphore;

use super::{Act, RETRY};
use crate::leader::random;
use crate::observe::Key;
use crate::telemetry::metrics::Outcome;

/// Verdicts that are written side by side.
const SIDE_BY_SIDE: usize = 4;

/// Leave to write.
pub struct Notes(Semaphore);

impl Default for Notes {
    fn default() -> Self {
        Self(Semaphore::new(SIDE_BY_SIDE))
    }
}

impl Act {
    /// Writes an object's verdict; one that cannot be written is decided on again.
    pub(super) fn note_verdict(self: &Arc<Self>, key: &Key, meta: &Meta, verdict: String) {
        let (act, key, uid) = (Arc::clone(self), key.clone(), meta.uid.clone());
        self.beside.spawn(async move {
            // Closed never: it lives as long as this task.
            let _leave = act.notes.0.acquire().await;
            // With the uid a namesake that has taken its place is left alone.
            let patch = json!({"metadata": {"uid": uid, "annotations": {labels::VERDICT: verdict}}});
            match act.calls.patch(key.kind, &key.namespace, &key.name, patch).await {
                Ok(Some(object)) => act.take_in(key.kind, object),
                Ok(None) => {}
                Err(error) if error.outcome() == Outcome::Conflict => {}
                Err(error) => {
                    let (kind, namespace, name) = (key.kind.as_str(), &key.namespace, &key.name);
                    tracing::warn!(kind, %namespace, %name, %error, "the verdict could not be noted: restored from a backup, it would run again");
                    tokio::time::sleep(random::jitter(RETRY)).await;
                    if error.outcome() == Outcome::Transient {
                        act.index.look_at(&key);
                    }
                }
            }
        });
    }
}
