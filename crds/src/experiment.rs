//! Kind Experiment: one recorded run; after it has completed, a template with an id.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Phase;
use crate::cache::{Cache, CacheStatus, ReusedFrom};
use crate::data::{Checkpoint, Input, Output};
use crate::schema::{self, cancel_is_final, frozen, object_name};
use crate::source::Source;
use crate::template::{Admission, ArtifactPolicy, ExperimentTemplate, From, Retries, Timeouts};
use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, ResourceRequirements};

/// One recorded run of a container. Once it has completed, its name is an id: a template that
/// `from.experiment` clones with overrides, and a valid stage of a Pipeline.
#[derive(CustomResource, Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "cultivar.dev",
    version = "v1alpha1",
    kind = "Experiment",
    plural = "experiments",
    shortname = "cvexp",
    category = "cultivar",
    namespaced,
    status = "ExperimentStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "One recorded run of a container. Once it has completed, its name is an id: a template that from.experiment clones with overrides, and a valid stage of a Pipeline.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "From", type_ = "string", json_path = ".status.clonedFrom.name"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Attempt", type_ = "integer", json_path = ".status.attempt", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1"),
    printcolumn(name = "Pipeline", type_ = "string", json_path = r".metadata.labels.cultivar\.dev/pipeline", priority = "1"),
    printcolumn(name = "Stage", type_ = "string", json_path = r".metadata.labels.cultivar\.dev/stage", priority = "1"),
    printcolumn(name = "Reused", type_ = "string", json_path = ".status.reusedFrom.name", priority = "1"),
    printcolumn(name = "Params", type_ = "string", json_path = ".status.template.params", priority = "1"),
    printcolumn(name = "Metrics", type_ = "string", json_path = ".status.metrics", priority = "1"),
    printcolumn(name = "Created", type_ = "string", json_path = ".metadata.creationTimestamp", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = object_name(52),
    validation = cancel_is_final(),
    validation = frozen("image"),
    validation = frozen("from"),
    validation = frozen("unset"),
    validation = frozen("command"),
    validation = frozen("args"),
    validation = frozen("params"),
    validation = frozen("env"),
    validation = frozen("envFrom"),
    validation = frozen("source"),
    validation = frozen("inputs"),
    validation = frozen("outputs"),
    validation = frozen("checkpoint"),
    validation = frozen("tensorboard"),
    validation = frozen("store"),
    validation = frozen("keepOnFailure"),
    validation = frozen("artifacts"),
    validation = frozen("record"),
    validation = frozen("resources"),
    validation = frozen("workers"),
    validation = frozen("queue"),
    validation = frozen("admission"),
    validation = frozen("retries"),
    validation = frozen("timeouts"),
    validation = frozen("cache"),
    validation = frozen("podTemplate"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.image) || has(self.from) || has(self.record)").message("say what to run: set image (a root) or from (a clone of an experiment); or record (a run that is over)"))]
#[x_kube(validation = Rule::new("!has(self.record) || (!has(self.image) && !has(self.from))").message("a record says itself what was run: image and from do not go with it"))]
pub struct ExperimentSpec {
    /// What to run.
    #[serde(flatten)]
    pub template: ExperimentTemplate,

    /// Which of the runs of a queue comes first: higher does, 0 by default. It may change at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,

    /// True stops the run, with the pod's grace period, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,

    /// The record of a run that is over, here or elsewhere. The Experiment becomes what it says, Completed, and never
    /// runs; the artifacts in the record's store are checked by their digests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordSource>,

    /// How long the Experiment is kept after it has ended, e.g. `30d`; for good by default. One that
    /// is named in a `from` stays until it no longer is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub ttl_after_finished: Option<String>,
}

/// A record, as `status.record` of the Experiment names it that it was written for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RecordSource {
    /// Where it lies: in a store of this namespace.
    #[schemars(length(min = 1, max = 2048))]
    pub uri: String,
    /// `sha256:` and 64 hex digits of it.
    #[schemars(schema_with = "schema::digest")]
    pub digest: String,
}

/// What happened, as the operator saw it.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentStatus {
    /// Where the run stands.
    #[serde(default)]
    pub phase: Phase,
    /// Why it stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<crate::Reason>,
    /// The particulars, for a person; at most 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, Complete, Failed, Reconciling, Stalled, InUse, ResultAccepted, InputsPinned, ImagePinned, Published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// The effective spec this run executes, frozen when it started; clones are made from it. Own
    /// references (`${params.lr}`) stay in it. The image is pinned to a digest where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_object")]
    pub template: Option<Arc<Value>>,
    /// Digest of what is run: of the canonical template, without what changes nothing about the result, and of the
    /// inputs' digests. Equal digests mean the same work, where everything in it is pinned. `sha256:` and 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The experiment whose template this one's was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned_from: Option<ClonedFrom>,
    /// The run whose result this one has taken over; it has no attempts then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused_from: Option<ReusedFrom>,
    /// What came of looking for the result of an identical run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheStatus>,
    /// Image id that the node ran, as the container runtime reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// Number of the newest attempt, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The last ten attempts, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["number".into()]))]
    pub attempts: Vec<Attempt>,
    /// Where it stands in its queue, or what it holds of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueStanding>,
    /// Attempts that have spent a retry budget so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<SpentRetries>,
    /// What the program reported, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub artifacts: Vec<Artifact>,
    /// Metrics that the program reported, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, Metric>,
    /// What the run was given: each input as it was fetched, and who made it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub inputs: Vec<InputUsed>,
    /// What the program logged as its parameters, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::free_object")]
    pub logged_params: BTreeMap<String, Value>,
    /// What the run was like: CPU seconds, peak memory, packages, GPU.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::free_object")]
    pub environment: BTreeMap<String, Value>,
    /// Where the log of the newest attempt lies: a prefix with numbered gzip chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<String>,
    /// The record that outlives this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordAt>,
    /// When each phase was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<PhaseTimes>,
}

/// The experiment whose template a clone's was made from; exact even after that one is gone.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClonedFrom {
    /// Its name.
    pub name: String,
    /// Its uid: tells it from a later namesake.
    #[serde(default)]
    pub uid: String,
    /// Digest of its template.
    #[serde(default)]
    pub digest: String,
}

/// One try at running the program; a Job of its own.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// Name of the Job.
    pub job: String,
    /// Queue that admitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Flavor of the queue that it was admitted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    /// Node that ran the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When the Job was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub created_at: Option<String>,
    /// When the program started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub started_at: Option<String>,
    /// When the attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub finished_at: Option<String>,
    /// Exit code of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How a failed attempt ended; absent for a good end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<crate::Reason>,
    /// The particulars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The last 2 KiB of a failed program's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<String>,
}

/// Where an experiment stands in its queue.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct QueueStanding {
    /// Name of the Queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The flavor that the newest attempt was admitted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    /// Since when it waits; absent when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub since: Option<String>,
    /// How many come before it, and one; counted from time to time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// How often it was stopped for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preempted: Option<u32>,
}

/// Retry budgets spent.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SpentRetries {
    /// Of `retries.limit`.
    #[serde(default)]
    pub user: u32,
    /// Of `retries.infrastructure`.
    #[serde(default)]
    pub infrastructure: u32,
}

/// Something the program made.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Its name, unique within the experiment.
    pub name: String,
    /// Its kind, such as Model or Dataset.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// Where it is.
    pub uri: String,
    /// Digest of its content, such as `sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Its size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
}

/// Something that the run was given.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct InputUsed {
    /// Its name.
    pub name: String,
    /// Where it was fetched from.
    pub uri: String,
    /// Digest of what was fetched: of the file, or of the directory's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Its size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// The ETag or version that every byte was read under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The Experiment of this namespace that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// Which of its artifacts it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
}

/// The record in the store: one JSON document with everything that is known of an attempt.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RecordAt {
    /// Where it lies.
    pub uri: String,
    /// Digest of its bytes.
    pub digest: String,
}

/// What is known of a metric.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// The last value.
    pub last: f64,
    /// The smallest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The largest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Step of the last value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<i64>,
}

/// When each phase was reached, in RFC 3339.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PhaseTimes {
    /// It asked its queue for the first time: the age that counts there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub queued: Option<String>,
    /// The first attempt's Job was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub starting: Option<String>,
    /// The program ran for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub running: Option<String>,
    /// The run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub finished: Option<String>,
}

/// Names the field types of the frozen template once, so that a field added to
/// [`ExperimentTemplate`] without a freezing rule above fails to compile here.
#[allow(clippy::type_complexity, dead_code)]
fn every_template_field_is_frozen(template: ExperimentTemplate) {
    let ExperimentTemplate {
        image,
        from,
        unset,
        command,
        args,
        params,
        env,
        env_from,
        source,
        inputs,
        outputs,
        checkpoint,
        tensorboard,
        store,
        keep_on_failure,
        artifacts,
        resources,
        workers,
        queue,
        admission,
        retries,
        timeouts,
        cache,
        pod_template,
    } = template;
    let _: (Option<String>, Option<From>, Vec<String>, Vec<String>, Vec<String>) = (image, from, unset, command, args);
    let _: (Map<String, Value>, Vec<EnvVar>, Vec<EnvFromSource>, Option<Source>) = (params, env, env_from, source);
    let _: (Vec<Input>, Vec<Output>, Option<ResourceRequirements>) = (inputs, outputs, resources);
    let _: (Option<Checkpoint>, Vec<String>, Option<String>, Option<String>, Option<ArtifactPolicy>) =
        (checkpoint, tensorboard, store, keep_on_failure, artifacts);
    let _: (Option<Retries>, Option<Timeouts>, Option<Value>, Option<String>, Option<u32>) =
        (retries, timeouts, pod_template, queue, workers);
    let _: (Option<Admission>, Option<Cache>) = (admission, cache);
}
