//! A dry run: what a pipeline would do now, decided by what decides when it runs.
//!
//! Comes in: a pipeline, and the experiments of its namespace. Goes out: per stage whether it would be reused, would run
//! and why, or waits for one that runs. A run of its own goes through [`decide`](crate::decide) in memory; what would
//! start a Job stays as it is, so that whatever needs its result is known to follow. No registry is asked: a tag is taken to
//! stand for what it stood for when it ran here last, and that is said.

use cultivar_crds::{CacheMode, Phase, PipelineRunStatus, StageStatus, labels};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::decide::experiment::{self, reuse};
use crate::decide::freeze::{Query, Sources};
use crate::decide::pipeline_run::{self, Child, queries};
use crate::decide::{Action, NewStage};
use crate::domain::{
    Errand, Errands, ExperimentRecord, Member, Meta, PipelineRecord, Producer, Record, RunRecord, Stores, errand, names,
};
use crate::render;
use crate::validate;

/// Passes after which a run that still changes is given up; each brings it at least one stage further.
const PASSES: usize = 1000;

/// What would become of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Name of the stage.
    pub stage: String,
    /// What would become of it.
    pub outcome: Outcome,
    /// Why, for a person.
    pub why: String,
    /// Of a fan-out or loop, as far as it is known: members that are reused, of how many.
    pub members: Option<(usize, usize)>,
}

/// What would become of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A result is there already.
    Reused,
    /// It runs.
    Runs,
    /// It is decided when others have run.
    Follows,
    /// It is skipped.
    Skipped,
    /// It waits for somebody or something.
    Waits,
    /// It fails.
    Fails,
}

/// What a run of `pipeline` with the spec `run` would do.
///
/// # Errors
/// The pipeline is not valid, or what it is made of is not there; in words.
pub fn dry_run(
    pipeline: &PipelineRecord,
    run: &Value,
    known: &[Arc<ExperimentRecord>],
    now: Timestamp,
) -> Result<Vec<Planned>, String> {
    if let Some(faults) = validate::pipeline(&pipeline.spec).refusal() {
        return Err(faults);
    }
    let mut world = World::new(pipeline, run, known, now);
    for _ in 0..PASSES {
        if !world.pass() {
            break;
        }
    }
    world.told()
}

/// What a query finds among `known`.
#[must_use]
pub fn sources(wanted: Vec<Query>, known: &[Arc<ExperimentRecord>]) -> Sources {
    let is = |query: &Query, record: &ExperimentRecord| match query {
        Query::Name(name) => record.meta.name == *name,
        Query::Labels(labels) => labels.iter().all(|(key, value)| record.meta.label(key) == Some(value)),
    };
    let answer = |query: Query| {
        let found = known.iter().filter(|record| !record.meta.deleting && is(&query, record)).cloned().collect();
        (query, found)
    };
    wanted.into_iter().map(answer).collect()
}

/// Who made what, among `known`.
#[must_use]
pub fn producers(known: &[Arc<ExperimentRecord>]) -> BTreeMap<String, Producer> {
    let mut producers = BTreeMap::new();
    // Those that took a result over come last: whoever made it is told.
    let (made, reused): (Vec<_>, Vec<_>) = known.iter().partition(|record| record.status.reused_from.is_none());
    for record in made.into_iter().chain(reused) {
        for artifact in &record.status.artifacts {
            producers.entry(artifact.uri.clone()).or_insert_with(|| Producer::of(record, artifact));
        }
    }
    producers
}

struct World<'k> {
    known: &'k [Arc<ExperimentRecord>],
    producers: BTreeMap<String, Producer>,
    sources: Sources,
    pipeline: Arc<PipelineRecord>,
    run: RunRecord,
    children: BTreeMap<Member, Child>,
    // Those that would start a Job now.
    starting: BTreeSet<Member>,
    // What tags are taken to stand for.
    errands: Errands,
    now: Timestamp,
}

impl<'k> World<'k> {
    fn new(pipeline: &PipelineRecord, run: &Value, known: &'k [Arc<ExperimentRecord>], now: Timestamp) -> Self {
        let mut spec = run.clone();
        spec["pipeline"] = pipeline.meta.name.clone().into();
        let meta = Meta {
            namespace: pipeline.meta.namespace.clone(),
            name: names::run(&pipeline.meta.name, pipeline.status.revision.unwrap_or(0) + 1),
            uid: "dry-run".to_owned(),
            generation: 1,
            created: Some(now),
            ..Meta::default()
        };
        Self {
            known,
            producers: producers(known),
            sources: sources(queries(&pipeline.spec), known),
            pipeline: Arc::new(pipeline.clone()),
            run: Record { meta, spec: Arc::new(spec), status: Arc::new(PipelineRunStatus::default()) },
            children: BTreeMap::new(),
            starting: BTreeSet::new(),
            errands: Errands::new(),
            now,
        }
    }

    // One pass over the run and its experiments; false when nothing changed.
    fn pass(&mut self) -> bool {
        let snapshot = pipeline_run::Snapshot {
            run: self.run.clone(),
            pipeline: Some(Arc::clone(&self.pipeline)),
            sources: self.sources.clone(),
            children: self.children.clone(),
            errands: self.errands.clone(),
            resolve_images: true,
            now: self.now,
            ..pipeline_run::Snapshot::default()
        };
        let plan = pipeline_run::decide(&snapshot);
        let mut changed = *self.run.status != plan.status;
        self.run.status = Arc::new(plan.status);
        for action in plan.actions {
            match action {
                Action::CreateStage(new) => {
                    changed = true;
                    let record = stage(&self.run.meta, &new);
                    let settled = self.settled(record, &new.member);
                    self.children.insert(new.member, Child::Experiment(Arc::new(settled)));
                }
                Action::Run(Errand::ResolveImage(tag)) => {
                    changed = true;
                    let result = self.ran_last(&tag.image).ok_or_else(|| NEVER_RAN.to_owned());
                    let outcome = errand::Outcome { result, at: self.now, since: self.now, tries: 1 };
                    self.errands.insert(Errand::ResolveImage(tag), outcome);
                }
                _ => {}
            }
        }
        changed
    }

    // The digest with which the image of this name ran last, and its tag beside it.
    fn ran_last(&self, image: &str) -> Option<String> {
        let digest = |record: &Arc<ExperimentRecord>| {
            let ran =
                record.status.template.as_ref()?.get("image")?.as_str()?.strip_prefix(image)?.strip_prefix('@')?;
            Some((record.status.times.as_ref()?.finished.clone()?, ran.to_owned()))
        };
        self.known.iter().filter_map(digest).max().map(|(_, digest)| digest)
    }

    // An experiment that was just made, as far as it gets by itself.
    fn settled(&mut self, mut record: ExperimentRecord, member: &Member) -> ExperimentRecord {
        // To be frozen, and to look for a result.
        for _ in 0..4 {
            let wanted = reuse::wanted(&record, &self.producers);
            let identical = self.known.iter().filter(|other| wanted.is_some() && other.status.digest == wanted);
            let snapshot = experiment::Snapshot {
                identical: identical.cloned().collect(),
                nearest: self.nearest(&record, member),
                experiment: record.clone(),
                // Whatever the operator has: whether a pod can be equipped is found when it runs.
                runner_image: Some("runner".to_owned()),
                stores: Stores::default(),
                producers: self.producers.clone(),
                now: self.now,
                ..experiment::Snapshot::default()
            };
            let plan = experiment::decide(&snapshot);
            let begins =
                plan.actions.iter().any(|action| matches!(action, Action::StartAttempt { .. } | Action::Ask(_)));
            record.status = Arc::new(plan.status);
            if begins {
                self.starting.insert(member.clone());
            }
            if begins || record.status.phase.is_terminal() {
                break;
            }
        }
        record
    }

    // The latest of the same stage that has ended, or what it is a copy of.
    fn nearest(&self, record: &ExperimentRecord, member: &Member) -> Option<Arc<ExperimentRecord>> {
        let pipeline = &self.pipeline.meta.name;
        let same = self.known.iter().filter(|record| {
            record.meta.label(labels::PIPELINE) == Some(pipeline)
                && record.status.phase.is_terminal()
                && names::member_of(&record.meta).as_ref() == Some(member)
        });
        let latest = same.max_by_key(|record| record.status.times.as_ref().and_then(|times| times.finished.clone()));
        let source = || {
            let name = reuse::source_of(record)?;
            self.known.iter().find(|other| other.meta.name == name)
        };
        latest.or_else(source).cloned()
    }

    // Whether a stage is reused hangs on what its tags stand for when the run begins.
    fn with_its_tags(&self, stage: &str, outcome: Outcome, why: String) -> String {
        if !matches!(outcome, Outcome::Reused | Outcome::Runs) {
            return why;
        }
        let frozen = self.run.status.pipeline_spec.as_ref();
        let lists = ["stages", "finally"].into_iter().filter_map(|list| frozen?.get(list)?.as_array());
        let template = lists.flatten().find(|frozen| frozen["name"] == stage).map(|frozen| &frozen["template"]);
        let image = template.and_then(|template| template.get("image")?.as_str()).unwrap_or_default();
        let name = image.split_once('@').map_or(image, |(name, _)| name);
        let asked = self.errands.iter().find_map(|(errand, outcome)| match errand {
            Errand::ResolveImage(tag) if tag.image == name => Some(outcome),
            _ => None,
        });
        match asked.map(|outcome| &outcome.result) {
            None => why,
            Some(Err(_)) if outcome == Outcome::Runs => format!("{name} is looked up when the run begins; {NEVER_RAN}"),
            Some(Err(_)) => why,
            Some(Ok(_)) => format!("{why}; if {name} is still the image that ran last"),
        }
    }

    fn told(&self) -> Result<Vec<Planned>, String> {
        let status = &self.run.status;
        if status.pipeline_spec.is_none() {
            return Err(status.message.clone().unwrap_or_else(|| "the pipeline could not be frozen".to_owned()));
        }
        Ok(status.stages.iter().map(|stage| self.stage_told(stage)).collect())
    }

    fn stage_told(&self, stage: &StageStatus) -> Planned {
        let of_stage = |member: &&Member| member.stage == stage.name;
        let members: Vec<&Member> = self.children.keys().filter(of_stage).collect();
        let experiments = members.iter().filter_map(|member| match &self.children[*member] {
            Child::Experiment(experiment) => Some(experiment),
            Child::Run(_) => None,
        });
        let reused: Vec<&Arc<ExperimentRecord>> =
            experiments.clone().filter(|experiment| experiment.status.reused_from.is_some()).collect();
        let runs: Vec<&Member> = members.iter().copied().filter(|member| self.starting.contains(*member)).collect();
        let why_not = runs.first().and_then(|member| match &self.children[*member] {
            Child::Experiment(experiment) => Some(miss(experiment)),
            Child::Run(_) => None,
        });
        let many = members.iter().any(|member| member.index.is_some());
        let total = stage.members.as_ref().map_or(members.len(), |members| members.total as usize);
        let message = stage.message.clone().unwrap_or_default();
        let (outcome, why) = match stage.phase {
            _ if !runs.is_empty() => (Outcome::Runs, why_not.unwrap_or_default()),
            Phase::Completed => {
                let from = reused.first().and_then(|experiment| experiment.status.reused_from.as_ref());
                (Outcome::Reused, from.map_or(message, |from| format!("from {}", from.name)))
            }
            Phase::Skipped => (Outcome::Skipped, message),
            Phase::Failed | Phase::Cancelled => (Outcome::Fails, message),
            Phase::Pending if stage.experiment.is_none() && stage.gate.is_none() => (Outcome::Follows, message),
            _ => (Outcome::Waits, message),
        };
        let why = self.with_its_tags(&stage.name, outcome, why);
        Planned { stage: stage.name.clone(), outcome, why, members: many.then_some((reused.len(), total)) }
    }
}

// What is known of a tag that no experiment here ran with.
const NEVER_RAN: &str = "nothing here ran with it yet";

// Why an experiment would run.
fn miss(experiment: &ExperimentRecord) -> String {
    let template = experiment.status.template.as_deref().unwrap_or(&Value::Null);
    match (&experiment.status.cache, reuse::mode(experiment, template)) {
        (Some(cache), _) => cache.message.clone().unwrap_or_default(),
        (None, CacheMode::Refresh) => "it is to run anew (cache.mode: Refresh)".to_owned(),
        (None, _) => "it runs each time (cache.mode: Never)".to_owned(),
    }
}

// As the API server would store it.
fn stage(run: &Meta, new: &NewStage) -> ExperimentRecord {
    let manifest = render::stage(run, new);
    let meta: ObjectMeta = serde_json::from_value(manifest["metadata"].clone()).unwrap_or_default();
    let uid = format!("dry-run-{}", new.name);
    let meta = Meta { uid, generation: 1, created: run.created, ..Meta::from(meta) };
    let spec = manifest.get("spec").cloned().unwrap_or_else(|| json!({}));
    Record { meta, spec: Arc::new(spec), ..Record::default() }
}
