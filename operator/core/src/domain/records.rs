//! Slim records of observed objects: what deciding needs and nothing else.
//!
//! Comes in: objects as the shell reads them. Goes out: snapshots for `decide`. Specs stay stored
//! JSON, since merging typed structs would lose nulls and the difference between absent and default.

use cultivar_crds::{ExperimentStatus, PipelineRunStatus, PipelineStatus, ScheduleStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::queue::Holding;

/// Who controls an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Kind, such as `PipelineRun`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

/// The part of an object's metadata that matters here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Version that a conditional write names.
    pub resource_version: String,
    /// Generation of the spec.
    pub generation: i64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations of ours (`cultivar.dev/…`).
    pub annotations: BTreeMap<String, String>,
    /// When it was created.
    #[serde(with = "moment")]
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Since when.
    #[serde(with = "moment")]
    pub deleted: Option<Timestamp>,
    /// Finalizers of ours: what has to be done before it goes.
    pub finalizers: Vec<String>,
    /// Who controls it.
    pub owner: Option<Owner>,
}

// A moment as text, every digit kept.
mod moment {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[expect(clippy::ref_option, reason = "as serde calls it")]
    pub fn serialize<S: Serializer>(moment: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
        moment.map(|moment| moment.to_string()).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

impl Owner {
    /// What controls an object.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Option<Self> {
        let owner = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
        Some(Self { kind: owner.kind.clone(), name: owner.name.clone(), uid: owner.uid.clone() })
    }
}

impl From<ObjectMeta> for Meta {
    fn from(meta: ObjectMeta) -> Self {
        let is_ours = |key: &str| key.starts_with("cultivar.dev/");
        Self {
            owner: Owner::of(&meta),
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            resource_version: meta.resource_version.unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            labels: meta.labels.unwrap_or_default(),
            annotations: meta.annotations.unwrap_or_default().into_iter().filter(|(key, _)| is_ours(key)).collect(),
            created: meta.creation_timestamp.map(|time| time.0),
            deleting: meta.deletion_timestamp.is_some(),
            deleted: meta.deletion_timestamp.map(|time| time.0),
            finalizers: meta.finalizers.unwrap_or_default().into_iter().filter(|name| is_ours(name)).collect(),
        }
    }
}

impl Meta {
    /// A label's value, or nothing.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// Whether this run is a stage of another one.
    #[must_use]
    pub fn is_nested(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.kind == "PipelineRun")
    }

    /// Whether `kind` `uid` controls this object.
    #[must_use]
    pub fn is_owned_by(&self, uid: &str) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.uid == uid)
    }
}

/// An object of one of our kinds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record<S> {
    /// Metadata.
    pub meta: Meta,
    /// `spec` as stored.
    pub spec: Arc<Value>,
    /// `status`: as stored, or newer where a write is under way.
    pub status: Arc<S>,
}

impl<S: PartialEq> Record<S> {
    /// Whether `newer` says nothing new: another version, with all that this one says.
    #[must_use]
    pub fn is_echoed_by(&self, newer: &Self) -> bool {
        let version = |meta: &Meta| Meta { resource_version: String::new(), ..meta.clone() };
        Arc::ptr_eq(&self.spec, &newer.spec)
            && self.status == newer.status
            && version(&self.meta) == version(&newer.meta)
    }
}

/// An Experiment.
pub type ExperimentRecord = Record<ExperimentStatus>;
impl ExperimentRecord {
    /// What it runs: the frozen template, or as long as there is none its spec.
    #[must_use]
    pub fn template(&self) -> &Value {
        self.status.template.as_ref().unwrap_or(&self.spec)
    }
}

/// A Pipeline.
pub type PipelineRecord = Record<PipelineStatus>;
/// A PipelineRun.
pub type RunRecord = Record<PipelineRunStatus>;

/// A Schedule.
pub type ScheduleRecord = Record<ScheduleStatus>;

/// How a Job stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum JobState {
    /// Neither complete nor failed.
    #[default]
    Active,
    /// Complete.
    Complete,
    /// Failed, with the condition's reason and message.
    Failed {
        /// Such as PodFailurePolicy or BackoffLimitExceeded.
        reason: String,
        /// The controller's words.
        message: String,
    },
}

/// A Job of ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobRecord {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Uid of the Experiment that controls it.
    pub owner_uid: String,
    /// Name of the Experiment.
    pub experiment: String,
    /// Number of the attempt.
    pub attempt: u32,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// How it stands.
    pub state: JobState,
    /// What each of its pods holds of a queue.
    pub holding: Option<Arc<Holding>>,
    /// Whether it may have no pods for now.
    pub suspended: bool,
    /// Since when it may have pods, the last time.
    pub started: Option<Timestamp>,
}

/// A pod's phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodPhase {
    /// Not running yet.
    #[default]
    Pending,
    /// Running.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
}

/// Why the cluster took a pod away (condition DisruptionTarget).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disruption {
    /// Such as EvictionByEvictionAPI.
    pub reason: String,
    /// The cluster's words.
    pub message: String,
}

/// How the program's container ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terminated {
    /// Exit code.
    pub exit_code: i32,
    /// Such as Completed, Error, OOMKilled.
    pub reason: String,
    /// The termination message: the program's result, or the tail of its log.
    pub message: String,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
}

/// State of the program's container.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ContainerState {
    /// Nothing known yet.
    #[default]
    Unknown,
    /// Not started, with reason and message such as ImagePullBackOff.
    Waiting {
        /// Such as ImagePullBackOff.
        reason: String,
        /// The kubelet's words.
        message: String,
    },
    /// Running since.
    Running(Option<Timestamp>),
    /// Ended.
    Terminated(Terminated),
}

/// A Pod of ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodRecord {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Uid of the Job that controls it.
    pub job_uid: String,
    /// Name of the Experiment.
    pub experiment: String,
    /// Number of the attempt.
    pub attempt: u32,
    /// Node it was placed on.
    pub node: Option<String>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it is gone; the record keeps its last state until the attempt's end is recorded.
    pub gone: bool,
    /// Its phase.
    pub phase: PodPhase,
    /// Its reason, such as Evicted.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// Why no node takes it, in the scheduler's words.
    pub unschedulable: Option<String>,
    /// Why the cluster took it away.
    pub disruption: Option<Disruption>,
    /// State of the container `main`; while an init container has not started, that one's.
    pub main: ContainerState,
    /// The init container that ended badly, and how, in words.
    pub init_failure: Option<(String, String)>,
    /// Image id that the node runs.
    pub image_id: Option<String>,
    /// What it holds of a queue.
    pub holding: Option<Arc<Holding>>,
    /// Which of several workers it is, from 0.
    pub worker: u32,
}

impl PodRecord {
    /// Whether no process of it can run any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.gone || matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }
}
