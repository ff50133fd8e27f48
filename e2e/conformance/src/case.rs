//! How a case is written.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Name of the pipeline of every case.
pub const PIPELINE: &str = "case";
/// Name of its run.
pub const RUN: &str = "case-1";

/// One behaviour: what is applied, how programs play, what the user does, and what has to come of it.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// The file's name without its ending.
    #[serde(skip)]
    pub name: String,
    /// What is applied before the pipeline.
    #[serde(default)]
    pub objects: Vec<Object>,
    /// Spec of the pipeline, which is called `case`; its run is `case-1`.
    pub pipeline: Value,
    /// How each attempt plays, the last one again and again; by stage, `<stage>-<index>` for one member of a fan-out
    /// or one turn of a loop, or name of an experiment. Whoever is not named ends well.
    #[serde(default)]
    pub plays: BTreeMap<String, Vec<Play>>,
    /// What the user does, in this order.
    #[serde(default)]
    pub deeds: Vec<Deed>,
    /// Whether the end depends on who is faster: then it is not compared with what comes of other orders of events.
    #[serde(default)]
    pub timing: bool,
    /// Whether its programs read and write files: it is played on a real node alone, with images that are there, and without
    /// `plays` and `deeds`.
    #[serde(default)]
    pub files: bool,
    /// What has to come of it.
    pub expect: Expect,
}

/// An object of ours.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Object {
    /// Experiment, Pipeline or PipelineRun.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its spec.
    pub spec: Value,
}

impl Object {
    /// The object as a manifest in a namespace.
    #[must_use]
    pub fn manifest(&self, namespace: &str) -> Value {
        json!({
            "apiVersion": "cultivar.dev/v1alpha1",
            "kind": self.kind,
            "metadata": {"name": self.name, "namespace": namespace, "labels": self.labels},
            "spec": self.spec,
        })
    }
}

/// How one attempt goes.
#[derive(Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Play {
    /// How long the program runs; as short as may be without it.
    pub seconds: Option<u64>,
    /// Its exit code.
    #[serde(default)]
    pub exit: i32,
    /// What it reports, also when it fails.
    #[serde(default)]
    pub metrics: Map<String, Value>,
    /// Its artifacts' uris, by name.
    #[serde(default)]
    pub artifacts: BTreeMap<String, String>,
    /// The cluster takes its pod away.
    #[serde(default)]
    pub evicted: bool,
    /// The kernel kills it for its memory.
    #[serde(default)]
    pub oom: bool,
    /// No node takes its pod.
    #[serde(default)]
    pub unscheduled: bool,
}

impl Play {
    /// What the program leaves to be read: its termination message.
    #[must_use]
    pub fn message(&self) -> String {
        if self.metrics.is_empty() && self.artifacts.is_empty() {
            return String::new();
        }
        let artifacts: Vec<Value> =
            self.artifacts.iter().map(|(name, uri)| json!({"name": name, "uri": uri})).collect();
        json!({"metrics": self.metrics, "artifacts": artifacts}).to_string()
    }
}

/// Something that the user does.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Deed {
    /// As soon as this holds.
    pub when: Awaited,
    /// What is done.
    #[serde(rename = "do")]
    pub act: Act,
}

/// What a deed waits for.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Awaited {
    /// A stage, or a member of one; without it the run is meant.
    pub stage: Option<String>,
    /// The phase of its experiment, or of the run. That a program runs is recorded a moment late, since writes are shared:
    /// who waits for Running lets it play for five seconds or more.
    pub phase: String,
}

/// What is done.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Act {
    /// The run is cancelled.
    CancelRun,
    /// The experiment of a stage is cancelled.
    CancelStage(String),
    /// The pod of a stage is deleted.
    DeletePod(String),
    /// An object is applied.
    Apply(Object),
}

/// What has to come of a case: how its run ends, or that its pipeline is refused.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expect {
    /// How the run ends.
    pub verdict: Option<Verdict>,
    /// Words of the refusal: the field and what is wrong with it.
    #[serde(default)]
    pub refused: Vec<String>,
    /// How each stage stands: `Phase` or `Phase Reason`, and words of its message.
    #[serde(default)]
    pub stages: BTreeMap<String, Vec<String>>,
    /// How many members of a fan-out came to which end: a part of the stage's `members`.
    #[serde(default)]
    pub members: BTreeMap<String, Value>,
    /// Parts of the specs of experiments, by stage, member or name.
    #[serde(default)]
    pub specs: BTreeMap<String, Value>,
    /// The outputs of the run, all of them.
    pub outputs: Option<Value>,
    /// Why each attempt ended, by stage, member or name; nothing for one that ended well.
    #[serde(default)]
    pub attempts: BTreeMap<String, Vec<Option<String>>>,
    /// Seconds between the end of each attempt and the beginning of the next one. In real time it may become more.
    #[serde(default)]
    pub waits: BTreeMap<String, Vec<i64>>,
    /// Of each two, the first has ended before the second begins.
    #[serde(default)]
    pub order: Vec<(String, String)>,
    /// Of each two, one has ended before the other begins.
    #[serde(default)]
    pub apart: Vec<(String, String)>,
    /// Each two run at the same time.
    #[serde(default)]
    pub together: Vec<(String, String)>,
    /// How many experiments took over the result of another one, by stage, member or name; they had no attempt.
    #[serde(default)]
    pub reused: BTreeMap<String, usize>,
    /// Names of experiments that are not there any more, soon after everything has ended.
    #[serde(default)]
    pub gone: Vec<String>,
    /// Experiments, by stage, member or name, that are deleted when everything has ended, and which of their artifacts are
    /// there after that.
    #[serde(default)]
    pub left: BTreeMap<String, BTreeMap<String, bool>>,
    /// How many Jobs are made in all.
    pub jobs: Option<usize>,
    /// How many writes the operator may need at most. Only where nobody else's are counted: in the replay.
    pub writes: Option<usize>,
}

/// How a run ends.
#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verdict {
    /// Its phase.
    pub phase: String,
    /// Its reason; nothing when it completed.
    pub reason: Option<String>,
    /// Words of its message.
    #[serde(default)]
    pub message: Vec<String>,
}

impl Case {
    /// Names of the stages of the pipeline and of those that are applied beside it, and whether each makes several experiments.
    pub fn stages(&self) -> impl Iterator<Item = (&str, bool)> {
        let others = self.others().filter(|object| object.kind == "Pipeline").map(|object| &object.spec);
        [&self.pipeline].into_iter().chain(others).flat_map(stages_of).map(|stage| {
            let several = ["matrix", "count", "repeat"].into_iter().any(|field| stage.get(field).is_some());
            (stage["name"].as_str().unwrap_or_default(), several)
        })
    }

    /// What is applied beside the pipeline, before it or by a deed.
    pub fn others(&self) -> impl Iterator<Item = &Object> {
        let later =
            self.deeds.iter().filter_map(|deed| if let Act::Apply(object) = &deed.act { Some(object) } else { None });
        self.objects.iter().chain(later)
    }

    /// The pipeline as an object.
    #[must_use]
    pub fn applied(&self) -> Object {
        let (kind, name) = ("Pipeline".to_owned(), PIPELINE.to_owned());
        Object { kind, name, labels: BTreeMap::new(), spec: self.pipeline.clone() }
    }
}

/// The stages of a pipeline's spec, those of the end last.
fn stages_of(spec: &Value) -> impl Iterator<Item = &Value> {
    ["stages", "finally"].into_iter().filter_map(|list| spec[list].as_array()).flatten()
}
