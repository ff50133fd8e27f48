//! What the tables share: moments, records from compact YAML, plans in words, partial comparison.
//!
//! Comes in: YAML. Goes out: snapshots for `decide`, and what a plan says as strings.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod standing;

use cultivar_core::decide::freeze::{Query, Sources, queries};
use cultivar_core::decide::{Action, Plan};
use cultivar_core::domain::{Errand, ExperimentRecord, Member, Meta, Owner, Record, names, time};
use cultivar_crds::{ExperimentStatus, PhaseTimes, labels};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub const NAMESPACE: &str = "vision";

/// `seconds` after ten o'clock, when everything in these tables begins.
pub fn at(seconds: i64) -> Timestamp {
    let ten: Timestamp = "2026-11-23T10:00:00Z".parse().expect("a moment");
    Timestamp::from_millisecond(ten.as_millisecond() + seconds * 1000).expect("a moment")
}

pub fn stamp(seconds: i64) -> String {
    time::stamp(at(seconds))
}

/// The cases of every file in `cases/<folder>`, each with its file's name.
pub fn cases<T: DeserializeOwned>(folder: &str) -> Vec<(String, T)> {
    let folder = format!("{}/tests/cases/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a readable file");
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let cases: Vec<T> = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        all.extend(cases.into_iter().map(|case| (name.clone(), case)));
    }
    all
}

/// An experiment that others clone, in short.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub name: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub status: Value,
    pub finished: Option<i64>,
}

impl Source {
    pub fn record(&self) -> ExperimentRecord {
        let mut status: ExperimentStatus = from(&self.status);
        if let Some(finished) = self.finished {
            status.times = Some(PhaseTimes { finished: Some(stamp(finished)), ..PhaseTimes::default() });
        }
        let mut record = record(&self.name, json!({"image": "busybox"}), status);
        record.meta.labels.extend(self.labels.clone());
        record
    }
}

/// A value from YAML; nothing is the default.
pub fn from<T: DeserializeOwned + Default>(value: &Value) -> T {
    if value.is_null() {
        T::default()
    } else {
        T::deserialize(value).unwrap_or_else(|error| panic!("{value}: {error}"))
    }
}

/// An object of whose life a verdict is noted already.
pub fn record<S>(name: &str, spec: Value, status: S) -> Record<S> {
    let meta = Meta {
        annotations: BTreeMap::from([(labels::VERDICT.to_owned(), uid(name))]),
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        uid: uid(name),
        resource_version: "7".to_owned(),
        generation: 1,
        created: Some(at(0)),
        ..Meta::default()
    };
    Record { meta, spec: Arc::new(spec), status: Arc::new(status) }
}

pub fn uid(name: &str) -> String {
    format!("uid-of-{name}")
}

pub fn owner(kind: &str, name: &str) -> Owner {
    Owner { kind: kind.to_owned(), name: name.to_owned(), uid: uid(name) }
}

/// What the index answers to the queries of `specs`.
pub fn sources<'a>(known: &[Source], specs: impl IntoIterator<Item = &'a Value>) -> Sources {
    let matches = |query: &Query, source: &Source| match query {
        Query::Name(name) => source.name == *name,
        Query::Labels(labels) => labels.iter().all(|(key, value)| source.labels.get(key) == Some(value)),
    };
    let answer = |query: Query| {
        let found =
            known.iter().filter(|source| matches(&query, source)).map(|source| Arc::new(source.record())).collect();
        (query, found)
    };
    specs.into_iter().flat_map(queries).map(answer).collect()
}

/// What a plan must say; what is not written here must not be there, except in `status`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    #[serde(default)]
    pub actions: Vec<String>,
    /// Seconds, or `from..to` where there is jitter.
    pub wake_at: Option<Value>,
    /// By type: `True Succeeded`.
    pub conditions: Option<BTreeMap<String, String>>,
    pub urgency: Option<String>,
    /// `Error: words in it`.
    pub events: Option<Vec<String>>,
    /// Part of the message.
    pub message: Option<String>,
    /// Compared as far as it is written; null means absent.
    #[serde(default)]
    pub status: Value,
}

/// Everything in which the plan differs from what is expected.
pub fn differences<S: serde::Serialize>(plan: &Plan<S>, actions: &[String], expect: &Expect) -> Vec<String> {
    let mut found = Vec::new();
    let status = serde_json::to_value(&plan.status).expect("a status is JSON");
    if actions != expect.actions {
        found.push(format!("actions are {actions:?}, not {:?}", expect.actions));
    }
    if !wakes(plan.wake_at, expect.wake_at.as_ref()) {
        found.push(format!("wakes at {:?}, not {:?}", plan.wake_at.map(seconds), expect.wake_at));
    }
    if let Some(urgency) = expect.urgency.as_ref().filter(|urgency| **urgency != format!("{:?}", plan.urgency)) {
        found.push(format!("urgency is {:?}, not {urgency}", plan.urgency));
    }
    let message = status["message"].as_str().unwrap_or_default();
    if let Some(words) = expect.message.as_ref().filter(|words| !message.contains(words.as_str())) {
        found.push(format!("the message is {message:?}, without {words:?}"));
    }
    let conditions = conditions(&status);
    for (kind, wanted) in expect.conditions.iter().flatten() {
        if conditions.get(kind).map_or("", String::as_str) != wanted {
            found.push(format!("condition {kind} is {:?}, not {wanted:?}", conditions.get(kind)));
        }
    }
    let events: Vec<String> = plan.events.iter().map(|event| format!("{}: {}", event.reason, event.message)).collect();
    if let Some(wanted) = &expect.events {
        let fits = |(event, wanted): (&String, &String)| {
            let (reason, words) = wanted.split_once(": ").expect("Reason: words");
            event.starts_with(&format!("{reason}: ")) && event.contains(words)
        };
        if events.len() != wanted.len() || !events.iter().zip(wanted).all(fits) {
            found.push(format!("events are {events:?}, not {wanted:?}"));
        }
    }
    subset(&expect.status, &status, "status", &mut found);
    found
}

fn conditions(status: &Value) -> BTreeMap<String, String> {
    let list = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |condition: &Value, key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    list.iter().map(|c| (text(c, "type"), format!("{} {}", text(c, "status"), text(c, "reason")))).collect()
}

pub fn seconds(moment: Timestamp) -> f64 {
    Duration::try_from(moment.duration_since(at(0))).unwrap_or_default().as_secs_f64()
}

fn wakes(actual: Option<Timestamp>, wanted: Option<&Value>) -> bool {
    match (actual.map(seconds), wanted) {
        (None, None) => true,
        (Some(actual), Some(Value::String(range))) => {
            let (from, to) = range.split_once("..").expect("from..to");
            (from.parse::<f64>().expect("a number")..=to.parse().expect("a number")).contains(&actual)
        }
        (Some(actual), Some(wanted)) => wanted.as_f64().is_some_and(|wanted| (wanted - actual).abs() < 0.001),
        _ => false,
    }
}

/// Whether everything in `wanted` is in `actual`; lists must have the same length.
pub fn subset(wanted: &Value, actual: &Value, at: &str, found: &mut Vec<String>) {
    match (wanted, actual) {
        (Value::Null, Value::Null) => {}
        (Value::Null, _) if at == "status" => {}
        (Value::Object(wanted), Value::Object(actual)) => {
            for (key, value) in wanted {
                subset(value, actual.get(key).unwrap_or(&Value::Null), &format!("{at}.{key}"), found);
            }
        }
        (Value::Array(wanted), Value::Array(actual)) if wanted.len() == actual.len() => {
            for (index, (wanted, actual)) in wanted.iter().zip(actual).enumerate() {
                subset(wanted, actual, &format!("{at}[{index}]"), found);
            }
        }
        (Value::Number(one), Value::Number(other)) if one.as_f64() == other.as_f64() => {}
        _ if wanted == actual => {}
        _ => found.push(format!("{at} is {actual}, not {wanted}")),
    }
}

/// Actions about an experiment in words; Jobs by the number of their attempt.
pub fn in_words(actions: &[Action], about: &Meta) -> Vec<String> {
    let number = |job: &str| {
        let number = job.rsplit('-').next().unwrap_or_default();
        let expected = number.parse().map(|number| names::job(&about.name, &about.uid, number));
        if expected.as_deref() == Ok(job) { number.to_owned() } else { format!("the stranger {job}") }
    };
    let words = |action: &Action| match action {
        Action::Ask(ask) => {
            let queue = ask.queue.as_deref().unwrap_or("the default queue");
            let amounts: Vec<String> =
                ask.class.amounts.iter().map(|(name, amount)| format!("{amount} {name}")).collect();
            format!("ask {queue} for {} for attempt {} with priority {}", amounts.join(", "), ask.attempt, ask.priority)
        }
        Action::StartAttempt { number, placement: Some(placement), .. } => {
            format!("start attempt {number} in {}/{}", placement.queue, placement.flavor)
        }
        Action::StartAttempt { number, equipment: None, .. } => format!("start attempt {number}"),
        Action::StartAttempt { number, equipment: Some(equipment), .. } => {
            let store = equipment.store.as_ref().map_or("no store", |store| store.url.as_str());
            let digests: Vec<String> =
                equipment.digests.iter().map(|(uri, digest)| format!(", {uri} is {digest}")).collect();
            format!("start attempt {number} with the runner and {store}{}", digests.join(""))
        }
        Action::OfferService { number, .. } => format!("offer the service of attempt {number}"),
        Action::StopAttempt { job } => format!("stop attempt {}", number(job)),
        Action::DeleteJob { job } => format!("delete the job of attempt {}", number(job)),
        Action::Confirm { number } => format!("confirm attempt {number}"),
        Action::Run(Errand::ReadResult(at)) => format!("read the result at {}", at.uri),
        Action::Run(Errand::ReadRecord(at)) => format!("read the record at {}", at.uri),
        Action::NoteVerdict { .. } => "note the verdict".to_owned(),
        Action::HoldForArtifacts => "hold for artifacts".to_owned(),
        Action::ReleaseDeleted => "release".to_owned(),
        Action::Run(Errand::DeleteArtifacts(left)) => match left.keep.as_slice() {
            [] => format!("delete {}", left.delete.join(", ")),
            keep => format!("delete {} but {}", left.delete.join(", "), keep.join(", ")),
        },
        Action::Run(Errand::Publish(entry)) => format!("publish {:?} in {}", entry.data, entry.config_map),
        Action::Run(Errand::FindArtifacts(presence)) => format!("look for {}", presence.uris.join(", ")),
        Action::Run(Errand::FindLocalQueue(name)) => format!("look for LocalQueue {name}"),
        Action::Run(Errand::ResolveImage(tag)) => format!("ask for the digest of {}", tag.image),
        Action::ConfirmStage { member, .. } => format!("confirm stage {member}"),
        Action::DeleteExperiment { name, .. } => format!("delete experiment {name}"),
        Action::CreateStage(new) => format!("create stage {}", new.member),
        Action::EnterGroup { group, limit } => format!("enter group {group} of {limit}"),
        Action::CreateNested(new) => format!("create run of {} for stage {}", new.pipeline, new.member),
        Action::CancelRun { name, mode: None } => format!("cancel run {name}"),
        Action::CancelRun { name, mode: Some(mode) } => format!("cancel run {name} with {mode:?}"),
        Action::CancelExperiment { name } => format!("cancel experiment {name}"),
        Action::CreateRun(new) => format!("create run {} of generation {}", new.name, new.generation),
        Action::CreateScheduled(new) => match &new.backfill {
            None => format!("create run {} for {}", new.name, new.time),
            Some(range) => format!("create run {} for {} of {range}", new.name, new.time),
        },
        Action::DeleteRun { name, .. } => format!("delete run {name}"),
        Action::ReleaseExperiment { name } => format!("release experiment {name}"),
    };
    actions.iter().map(words).collect()
}

/// What `train`, or `train/3` for a member of its fan-out, means.
pub fn member(text: &str) -> Member {
    match text.split_once('/') {
        Some((stage, index)) => Member::of(stage, index.parse().expect("an index")),
        None => Member::stage(text),
    }
}

/// The experiment of a stage of run `run`, or of a member of its fan-out.
pub fn stage_of(run: &str, stage: &str, spec: Value, status: ExperimentStatus) -> ExperimentRecord {
    let member = member(stage);
    let mut record = record(&names::stage_experiment(run, &uid(run), &member), spec, status);
    record.meta.owner = Some(owner("PipelineRun", run));
    record.meta.labels.insert(labels::STAGE.to_owned(), member.stage.clone());
    if let Some(index) = member.index {
        record.meta.labels.insert(labels::MEMBER.to_owned(), index.to_string());
    }
    record.meta.labels.insert(labels::PIPELINE_RUN.to_owned(), run.to_owned());
    record
}
