//! From API objects to slim records. Whole objects are dropped at once: most of them is bookkeeping.

use cultivar_core::decide::restore;
use cultivar_core::domain::node::{Node, Outsider, Taint};
use cultivar_core::domain::quantity::amount;
use cultivar_core::domain::queue::Word;
use cultivar_core::domain::{
    ApprovalRecord, ContainerState, Disruption, Holding, JobRecord, JobState, Meta, Owner, PodPhase, PodRecord, Record,
    StoreAccess, Terminated,
};
use cultivar_core::render::of_pod;
use cultivar_crds::{ArtifactStoreSpec, labels};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::index::{Key, Kind};
use super::raw::{AskingContainer, ContainerStatus, NodeTaint, Raw, SlimJob, SlimNode, SlimOutsider, SlimPod};

/// An object of ours as a record; `spec` is its spec where that is known already.
///
/// # Errors
/// A spec that is nested deeper than this program reads, or a status that this version cannot read: it was written by
/// a newer one, and must not be taken for an empty one, which would start everything again.
pub fn record<S: DeserializeOwned + Default>(
    object: Raw,
    spec: Option<Arc<Value>>,
) -> Result<Record<S>, serde_json::Error> {
    let spec = match (spec, object.spec) {
        (Some(spec), _) => spec,
        (None, Some(text)) => Arc::new(serde_json::from_str(text.get())?),
        (None, None) => Arc::default(),
    };
    let status: Option<S> = object.status.map(|text| serde_json::from_str(text.get())).transpose()?;
    Ok(Record { meta: object.metadata.into(), spec, status: Arc::new(status.unwrap_or_default()) })
}

/// The same, of a kind that has an end: beside a status no verdict is kept, which is as long.
///
/// # Errors
/// As of [`record`].
pub fn done<S: DeserializeOwned + Default>(
    object: Raw,
    spec: Option<Arc<Value>>,
) -> Result<Record<S>, serde_json::Error> {
    let has_status = object.status.is_some();
    let mut record = record(object, spec)?;
    if has_status {
        restore::shorten(&mut record.meta, &record.spec);
    }
    Ok(record)
}

/// The key of an object of a kind of ours.
#[must_use]
pub fn key(kind: Kind, meta: &ObjectMeta) -> Key {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Key { kind, namespace: text(&meta.namespace), name: text(&meta.name) }
}

/// An ArtifactStore as pods are told of it.
#[must_use]
pub fn store(spec: ArtifactStoreSpec) -> StoreAccess {
    StoreAccess { url: spec.url, options: spec.options, secret: spec.secret, own: false }
}

/// An Approval as a record.
///
/// # Errors
/// It has no spec that this version can read.
pub fn approval(object: Raw) -> Result<ApprovalRecord, serde_json::Error> {
    let spec = object.spec.as_ref().map_or("null", |text| text.get());
    let meta = Meta::from(object.metadata);
    let spec = serde_json::from_str(spec)?;
    Ok(ApprovalRecord { namespace: meta.namespace, name: meta.name, created: meta.created, spec })
}

/// A Node as queues look at it; nothing for one that takes no pods.
#[must_use]
pub fn node(node: SlimNode) -> Option<Node> {
    let spec = node.spec.unwrap_or_default();
    if spec.unschedulable == Some(true) {
        return None;
    }
    let keeps_away = |taint: &NodeTaint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    let taints = spec.taints.into_iter().flatten().filter(keeps_away);
    let allocatable = node.status.and_then(|status| status.allocatable).unwrap_or_default();
    let amounts = allocatable.iter().filter_map(|(name, text)| Some((name.as_str().into(), amount(name, text)?)));
    Some(Node {
        labels: node.metadata.labels.unwrap_or_default(),
        taints: taints
            .map(|taint| Taint { key: taint.key, value: taint.value.unwrap_or_default(), effect: taint.effect })
            .collect(),
        allocatable: amounts.collect(),
    })
}

/// A Pod that no queue admitted, as far as it holds some of these resources of a node.
#[must_use]
pub fn outsider(pod: SlimOutsider, listed: &BTreeSet<Word>) -> Option<Outsider> {
    let mut spec = pod.spec?;
    let node = spec.node_name.take().filter(|node| !node.is_empty())?;
    let asks = |container: &AskingContainer| names(&container.resources).any(|name| listed.contains(name));
    let mut containers = spec.containers.iter().chain(&spec.init_containers);
    // Most pods ask for none of them.
    if !containers.any(asks) && !names(&spec.resources).any(|name| listed.contains(name)) {
        return None;
    }
    let mut amounts = of_pod(&serde_json::json!({ "spec": spec }));
    amounts.retain(|resource, _| listed.contains(resource));
    (!amounts.is_empty()).then_some(Outsider { node, amounts })
}

fn names(resources: &Value) -> impl Iterator<Item = &str> {
    let maps = ["limits", "requests"].into_iter().filter_map(|key| resources.get(key)?.as_object());
    maps.flat_map(|map| map.keys().map(String::as_str))
}

fn worker(meta: &ObjectMeta) -> u32 {
    let index = meta.annotations.as_ref().and_then(|notes| notes.get("batch.kubernetes.io/job-completion-index"));
    index.and_then(|index| index.parse().ok()).unwrap_or(0)
}

fn holding(meta: &ObjectMeta) -> Option<Arc<Holding>> {
    Holding::read(meta.labels.as_ref()?, meta.annotations.as_ref()?).map(Arc::new)
}

fn attempt(meta: &ObjectMeta) -> u32 {
    label(meta, labels::ATTEMPT).parse().unwrap_or(0)
}

fn label(meta: &ObjectMeta, key: &str) -> String {
    meta.labels.as_ref().and_then(|labels| labels.get(key)).cloned().unwrap_or_default()
}

/// A Job as a record.
#[must_use]
pub fn job(job: SlimJob) -> JobRecord {
    let status = job.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let mut state = JobState::Active;
    for condition in conditions.into_iter().filter(|condition| condition.status == "True") {
        state = match condition.type_.as_str() {
            "Complete" | "SuccessCriteriaMet" => JobState::Complete,
            "Failed" | "FailureTarget" => JobState::Failed {
                reason: condition.reason.unwrap_or_default(),
                message: condition.message.unwrap_or_default(),
            },
            _ => continue,
        };
    }
    let meta = job.metadata;
    JobRecord {
        holding: holding(&meta),
        suspended: job.spec.and_then(|spec| spec.suspend).unwrap_or(false),
        started: status.start_time.map(|time| time.0),
        owner_uid: Owner::of(&meta).map(|owner| owner.uid).unwrap_or_default(),
        experiment: label(&meta, labels::EXPERIMENT),
        attempt: attempt(&meta),
        created: meta.creation_timestamp.as_ref().map(|time| time.0),
        deleting: meta.deletion_timestamp.is_some(),
        namespace: meta.namespace.unwrap_or_default(),
        name: meta.name.unwrap_or_default(),
        uid: meta.uid.unwrap_or_default(),
        state,
    }
}

/// A Pod as a record; `gone` says that this is its last state.
#[must_use]
pub fn pod(pod: SlimPod, gone: bool) -> PodRecord {
    let status = pod.status.unwrap_or_default();
    let meta = pod.metadata;
    let conditions = status.conditions.unwrap_or_default();
    let condition = |kind: &str, value: &str| conditions.iter().find(|c| c.type_ == kind && c.status == value);
    let containers = status.container_statuses.unwrap_or_default();
    let main = containers.into_iter().find(|container| container.name == "main");
    let inits = status.init_container_statuses.unwrap_or_default();
    let init_failure = inits.iter().find_map(init_failure);
    // What the first init container waits for is what the program waits for.
    let init_waits = inits.into_iter().map(container).find(|state| match state {
        ContainerState::Waiting { reason, .. } => reason != "PodInitializing",
        _ => false,
    });
    let mut record = PodRecord {
        job_uid: Owner::of(&meta).map(|owner| owner.uid).unwrap_or_default(),
        experiment: label(&meta, labels::EXPERIMENT),
        attempt: attempt(&meta),
        node: pod.spec.and_then(|spec| spec.node_name),
        created: meta.creation_timestamp.as_ref().map(|time| time.0),
        deleting: meta.deletion_timestamp.is_some(),
        gone,
        phase: match status.phase.as_deref() {
            Some("Running") => PodPhase::Running,
            Some("Succeeded") => PodPhase::Succeeded,
            Some("Failed") => PodPhase::Failed,
            _ => PodPhase::Pending,
        },
        reason: status.reason.unwrap_or_default(),
        message: status.message.unwrap_or_default(),
        unschedulable: condition("PodScheduled", "False").and_then(|condition| condition.message.clone()),
        disruption: condition("DisruptionTarget", "True").map(|condition| Disruption {
            reason: condition.reason.clone().unwrap_or_default(),
            message: condition.message.clone().unwrap_or_default(),
        }),
        image_id: main.as_ref().map(|main| main.image_id.clone()).filter(|id| !id.is_empty()),
        main: match (main.map_or(ContainerState::Unknown, container), init_waits) {
            (ContainerState::Waiting { reason, .. }, Some(waits)) if reason == "PodInitializing" => waits,
            (main, _) => main,
        },
        init_failure,
        worker: worker(&meta),
        holding: holding(&meta),
        namespace: meta.namespace.unwrap_or_default(),
        name: meta.name.unwrap_or_default(),
        uid: meta.uid.unwrap_or_default(),
    };
    // One that has ended holds nothing.
    if record.is_over() {
        record.holding = None;
    }
    record
}

fn init_failure(status: &ContainerStatus) -> Option<(String, String)> {
    let end = status.state.as_ref()?.terminated.as_ref().filter(|end| end.exit_code != 0)?;
    let said = end.message.as_deref().unwrap_or_default().trim();
    let words = format!("init container {} ended with exit code {}: {said}", status.name, end.exit_code);
    Some((status.name.clone(), words))
}

fn container(status: ContainerStatus) -> ContainerState {
    let state = status.state.unwrap_or_default();
    if let Some(end) = state.terminated {
        return ContainerState::Terminated(Terminated {
            exit_code: end.exit_code,
            reason: end.reason.unwrap_or_default(),
            message: end.message.unwrap_or_default(),
            started: end.started_at.map(|time| time.0).filter(|moment| *moment > Timestamp::UNIX_EPOCH),
            finished: end.finished_at.map(|time| time.0).filter(|moment| *moment > Timestamp::UNIX_EPOCH),
        });
    }
    if let Some(running) = state.running {
        return ContainerState::Running(running.started_at.map(|time| time.0));
    }
    match state.waiting {
        Some(waiting) => ContainerState::Waiting {
            reason: waiting.reason.unwrap_or_default(),
            message: waiting.message.unwrap_or_default(),
        },
        None => ContainerState::Unknown,
    }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
