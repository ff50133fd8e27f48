//! The status of Queues, and the finalizer that keeps one until nothing is held of it.

use cultivar_core::domain::Record;
use cultivar_crds::{QueueStatus, labels};
use jiff::Timestamp;
use std::sync::Arc;

use super::{Queues, locked};
use crate::act::Calls;
use crate::telemetry::metrics::Outcome;

/// Most writes at a time: in a busy cluster the status of every queue changes all the time.
const AT_A_TIME: usize = 5;

/// Writes what has changed, of those first that were written longest ago.
pub async fn write(queues: &Queues, calls: &Calls) {
    let objects: Vec<Arc<Record<QueueStatus>>> = locked(&queues.objects).values().cloned().collect();
    let mut news = Vec::new();
    for object in objects {
        if let Err(error) = hold(queues, calls, &object).await {
            tracing::warn!(queue = object.meta.name, %error, "the finalizer of this Queue could not be written; it is tried again");
        }
        let engine = locked(&queues.engine);
        let status = engine.report(&object.meta.name, object.meta.generation, &object.status, Timestamp::now());
        drop(engine);
        news.extend(status.filter(|status| *status != *object.status).map(|status| (object, status)));
    }
    // Versions grow with time, though they are compared as what they are: text of numbers.
    news.sort_by_key(|(object, _)| object.meta.resource_version.parse::<u64>().unwrap_or(0));
    for (object, status) in news.into_iter().take(AT_A_TIME) {
        match calls.replace_queue_status(&object.meta, &status).await {
            Ok(answer) => take_in(queues, answer),
            Err(error) if error.is_gone() || error.outcome() == Outcome::Conflict => {}
            Err(error) => {
                tracing::warn!(queue = object.meta.name, %error, "the status of this Queue could not be written; it is tried again");
            }
        }
    }
}

async fn hold(queues: &Queues, calls: &Calls, object: &Record<QueueStatus>) -> Result<(), crate::act::ActError> {
    let held = object.meta.finalizers.iter().any(|name| name == labels::QUEUE_FINALIZER);
    let wanted = match object.meta.deleting {
        false => true,
        true => held && !locked(&queues.engine).is_empty(&object.meta.name),
    };
    if held != wanted
        && let Some(answer) = calls.set_queue_finalizer(&object.meta, wanted).await?
    {
        take_in(queues, answer);
    }
    Ok(())
}

fn take_in(queues: &Queues, object: crate::observe::raw::Raw) {
    if object.metadata.deletion_timestamp.is_some() && object.metadata.finalizers.as_ref().is_none_or(Vec::is_empty) {
        // It went with its last finalizer; the watch says so.
        return;
    }
    if let Err(error) = queues.apply(object) {
        tracing::error!(%error, "the API server's answer about a Queue cannot be read");
    }
}
