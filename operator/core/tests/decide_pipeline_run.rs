//! Deciding about runs: the tables in `cases/pipeline_run`.
//!
//! Comes in: a run, its pipeline and its stages in short. Goes out: the plan, compared with what the
//! case expects.

mod support;

use cultivar_core::decide::pipeline::digest;
use cultivar_core::decide::pipeline_run::{Child, GroupRun, Snapshot, decide, queries};
use cultivar_core::decide::{Action, NewStage, Urgency};
use cultivar_core::domain::errand::{Document, Errand, ImageTag, Outcome};
use cultivar_core::domain::{ApprovalRecord, RunRecord, StoreAccess, Stores, names};
use cultivar_crds::{Answer, ApprovalSpec, ExperimentStatus, Phase, PipelineRunStatus, PipelineStatus, Reason, labels};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use support::{
    Expect, Source, at, cases, differences, from, in_words, member, record, sources, stage_of, stamp, subset, uid,
};

const RUN: &str = "digits-2";
/// Of every artifact in these tables.
const DIGEST: &str = "sha256:0";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    given: Given,
    expect: Expect,
    /// Specs of the stages that are created, as far as they are written here.
    #[serde(default)]
    specs: BTreeMap<String, Value>,
    /// Stages as the status lists them: `Phase` or `Phase Reason`, and words of the message.
    #[serde(default)]
    stages: BTreeMap<String, (String, String)>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Given {
    now: i64,
    /// The pipeline's spec; nothing: there is none.
    pipeline: Option<Value>,
    spec: Value,
    /// Revision, for a run that the pipeline made; nothing for one made by hand.
    revision: Option<i64>,
    /// The pipeline's spec that the run was made for; the present one when absent.
    made_for: Option<Value>,
    /// An earlier pass froze the pipeline, as it is here.
    frozen: bool,
    /// When an earlier pass started the run.
    started: Option<i64>,
    deleting: bool,
    status: Value,
    sources: Vec<Source>,
    siblings: Vec<Sibling>,
    /// Other unfinished runs of its concurrency group.
    group: Vec<InGroup>,
    /// Experiments of the run, by stage: status, and whether they were asked to end.
    stages: BTreeMap<String, StageInShort>,
    confirmed_gone: BTreeSet<String>,
    /// Whether registries are asked what tags stand for.
    resolve: bool,
    /// What they said, by image: a digest, or `! why not`.
    registry: BTreeMap<String, String>,
    /// What was read from the store, by uri.
    contents: BTreeMap<String, String>,
    refusals: BTreeMap<String, String>,
    /// The schedule that made it, and lets its runs go side by side.
    side_by_side: Option<String>,
    /// The time that whoever made it says it is for.
    scheduled: Option<String>,
    /// What was said about gates.
    approvals: Vec<Said>,
    /// Its pipeline does not know without it what it was made for.
    forgotten: bool,
    /// Its experiments that something names in `from`.
    in_use: Vec<String>,
    /// Status of the run that this one resumes.
    resumed: Option<PipelineRunStatus>,
}

/// An Approval in short.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    name: String,
    stage: String,
    verdict: Answer,
    by: String,
    comment: Option<String>,
    created: i64,
    #[serde(default)]
    values: Map<String, Value>,
}

impl Said {
    fn record(&self) -> ApprovalRecord {
        let spec = ApprovalSpec {
            run: RUN.to_owned(),
            stage: self.stage.clone(),
            verdict: self.verdict,
            by: self.by.clone(),
            comment: self.comment.clone(),
            values: self.values.clone(),
        };
        ApprovalRecord { namespace: String::new(), name: self.name.clone(), created: Some(at(self.created)), spec }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sibling {
    side_by_side: Option<String>,
    revision: Option<i64>,
    name: Option<String>,
    #[serde(default)]
    created: i64,
    #[serde(default)]
    phase: Phase,
    started: Option<i64>,
    resume_of: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InGroup {
    name: String,
    #[serde(default)]
    begun: bool,
    #[serde(default)]
    created: i64,
    #[serde(default)]
    priority: i64,
    reason: Option<Reason>,
}

impl InGroup {
    fn run(&self) -> GroupRun {
        let status = PipelineRunStatus {
            reason: self.reason,
            pipeline_spec: Some(json!({"priority": self.priority, "stages": []})),
            ..PipelineRunStatus::default()
        };
        let mut run = run(&self.name, None, status);
        run.meta.created = Some(at(self.created));
        GroupRun { run: Arc::new(run), has_begun: self.begun }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StageInShort {
    #[serde(default)]
    phase: Phase,
    reason: Option<Reason>,
    message: Option<String>,
    #[serde(default)]
    metrics: BTreeMap<String, f64>,
    /// Name to uri.
    #[serde(default)]
    artifacts: BTreeMap<String, String>,
    #[serde(default)]
    cancel: bool,
}

impl StageInShort {
    fn status(&self) -> ExperimentStatus {
        let metrics: Value =
            self.metrics.iter().map(|(name, last)| (name.clone(), json!({"last": last, "max": last}))).collect();
        let artifacts: Vec<Value> =
            self.artifacts.iter().map(|(name, uri)| json!({"name": name, "uri": uri, "digest": DIGEST})).collect();
        let mut status: ExperimentStatus = from(&json!({"metrics": metrics, "artifacts": artifacts}));
        status.phase = self.phase;
        status.reason = self.reason;
        status.message = self.message.clone();
        status
    }
}

fn run(name: &str, revision: Option<i64>, status: PipelineRunStatus) -> RunRecord {
    let mut run = record(name, json!({"pipeline": "digits"}), status);
    if let Some(revision) = revision {
        run.meta.labels.insert(labels::REVISION.to_owned(), revision.to_string());
    }
    run
}

fn let_go_side_by_side(run: &mut RunRecord, schedule: Option<&String>) {
    if let Some(schedule) = schedule {
        run.meta.labels.insert(labels::SCHEDULE.to_owned(), schedule.clone());
        run.meta.annotations.insert(labels::CONCURRENCY.to_owned(), "Allow".to_owned());
    }
}

impl Sibling {
    fn record(&self) -> RunRecord {
        let name = self.name.clone().or_else(|| self.revision.map(|revision| names::run("digits", revision)));
        let status = PipelineRunStatus {
            phase: self.phase,
            started_at: self.started.map(stamp),
            ..PipelineRunStatus::default()
        };
        let mut run = run(&name.expect("a revision or a name"), self.revision, status);
        run.meta.created = Some(at(self.created));
        if let Some(resumed) = &self.resume_of {
            run.spec = Arc::new(json!({"pipeline": "digits", "resumeOf": resumed}));
        }
        let_go_side_by_side(&mut run, self.side_by_side.as_ref());
        run
    }
}

fn store() -> StoreAccess {
    StoreAccess { url: "s3://store".to_owned(), own: true, ..StoreAccess::default() }
}

fn read(uri: &str, text: &str) -> (Errand, Outcome) {
    let document = Document { uri: uri.to_owned(), digest: DIGEST.to_owned(), store: Some(store()) };
    let outcome = Outcome { result: Ok(text.to_owned()), at: at(0), since: at(0), tries: 1 };
    (Errand::ReadResult(document), outcome)
}

impl Given {
    fn snapshot(&self) -> Snapshot {
        let mut run = run(RUN, self.revision, PipelineRunStatus::default());
        let mut spec = json!({"pipeline": "digits"});
        spec.as_object_mut().expect("an object").extend(self.spec.as_object().cloned().unwrap_or_default());
        run.spec = Arc::new(spec);
        run.meta.deleting = self.deleting;
        let_go_side_by_side(&mut run, self.side_by_side.as_ref());
        let scheduled = self.scheduled.iter().map(|time| (labels::SCHEDULED_TIME.to_owned(), time.clone()));
        run.meta.annotations.extend(scheduled);
        let made_for = self.made_for.as_ref().or(self.pipeline.as_ref());
        if let (Some(_), Some(made_for)) = (self.revision, made_for) {
            run.meta.annotations.insert(labels::PIPELINE_DIGEST.to_owned(), digest(made_for));
        }
        let pipeline =
            self.pipeline.as_ref().map(|spec| Arc::new(record("digits", spec.clone(), PipelineStatus::default())));
        let stages = self.stages.iter().map(|(stage, short)| {
            let spec = if short.cancel { json!({"image": "x", "cancel": true}) } else { json!({"image": "x"}) };
            (member(stage), Child::Experiment(Arc::new(stage_of(RUN, stage, spec, short.status()))))
        });
        let mut snapshot = Snapshot {
            sources: sources_of(self.pipeline.as_ref(), &self.sources),
            run,
            pipeline,
            siblings: Vec::new(),
            resumed: None,
            approvals: self.approvals.iter().map(|said| Arc::new(said.record())).collect(),
            group: self.group.iter().map(InGroup::run).collect(),
            stores: Stores { named: None, own: Some(store()) },
            errands: self.contents.iter().map(|(uri, text)| read(uri, text)).chain(self.registry()).collect(),
            resolve_images: self.resolve,
            children: BTreeMap::new(),
            confirmed_gone: self.confirmed_gone.iter().map(|gone| member(gone)).collect(),
            in_use: self.in_use.clone(),
            remembered: !self.forgotten,
            refusals: self.refusals.iter().map(|(refused, words)| (member(refused), words.clone())).collect(),
            now: at(0),
        };
        snapshot.run.status = Arc::new(self.run_status(&snapshot));
        snapshot.siblings = self.siblings.iter().map(|sibling| Arc::new(sibling.record())).collect();
        snapshot.children = stages.collect();
        snapshot.resumed =
            self.resumed.clone().map(|status| Arc::new(record("digits-1", json!({"pipeline": "digits"}), status)));
        snapshot.now = at(self.now);
        snapshot
    }

    fn registry(&self) -> impl Iterator<Item = (Errand, Outcome)> {
        self.registry.iter().map(|(image, said)| {
            let result = said.strip_prefix("! ").map_or_else(|| Ok(said.clone()), |why| Err(why.to_owned()));
            let (image, at) = (image.clone(), at(0));
            let outcome = Outcome { result, at, since: at, tries: 1 };
            (
                Errand::ResolveImage(ImageTag {
                    image,
                    pull_secrets: Vec::new(),
                    service_account: Some("default".to_owned()),
                }),
                outcome,
            )
        })
    }

    fn run_status(&self, unfrozen: &Snapshot) -> PipelineRunStatus {
        let mut all = if self.frozen || self.started.is_some() {
            let mut snapshot = unfrozen.clone();
            snapshot.run.meta.deleting = false;
            let mut spec = (*snapshot.run.spec).clone();
            for set_later in ["cancel", "resumeOf"] {
                spec.as_object_mut().expect("an object").remove(set_later);
            }
            snapshot.run.spec = Arc::new(spec);
            let plan = decide(&snapshot);
            assert!(plan.status.pipeline_spec.is_some(), "cannot be frozen: {:?}", plan.status.message);
            // Frozen is not begun: a case says so by `started`.
            let frozen = PipelineRunStatus { phase: Phase::Pending, started_at: None, ..plan.status };
            serde_json::to_value(frozen).expect("JSON")
        } else {
            json!({})
        };
        let all_fields = all.as_object_mut().expect("an object");
        all_fields.extend(self.status.as_object().cloned().unwrap_or_default());
        let mut status: PipelineRunStatus = from(&all);
        if let Some(started) = self.started {
            status.started_at = Some(stamp(started));
            status.phase = Phase::Running;
        }
        status
    }
}

fn sources_of(pipeline: Option<&Value>, known: &[Source]) -> cultivar_core::decide::freeze::Sources {
    let Some(pipeline) = pipeline else { return BTreeMap::new() };
    let stages = pipeline["stages"].as_array().map_or(&[][..], Vec::as_slice);
    let answered = sources(known, stages);
    assert_eq!(
        answered.keys().cloned().collect::<BTreeSet<_>>(),
        queries(pipeline).into_iter().collect(),
        "what the run asks for"
    );
    answered
}

fn wrong_stages(case: &Case, status: &PipelineRunStatus, found: &mut Vec<String>) {
    for (name, (wanted, words)) in &case.stages {
        let Some(stage) = status.stages.iter().find(|stage| stage.name == *name) else {
            found.push(format!("stage {name} is not listed"));
            continue;
        };
        let is = format!("{} {}", stage.phase, stage.reason.map_or("", Reason::as_str));
        let message = stage.message.as_deref().unwrap_or_default();
        if is.trim_end() != wanted || !message.contains(words) {
            found.push(format!("stage {name} is {is} ({message}), not {wanted} ({words})"));
        }
    }
}

fn wrong_specs(case: &Case, created: &[&NewStage], found: &mut Vec<String>) {
    for (stage, wanted) in &case.specs {
        match created.iter().find(|new| new.member == member(stage)) {
            Some(new) => subset(wanted, &new.spec, &format!("spec of {stage}"), found),
            None => found.push(format!("stage {stage} is not created")),
        }
    }
    for new in created {
        if new.name != names::stage_experiment(RUN, &uid(RUN), &new.member) || new.pipeline != "digits" {
            found.push(format!("stage {} is called {} of {}", new.member, new.name, new.pipeline));
        }
    }
}

#[test]
fn every_case_of_the_tables() {
    let cases: Vec<(String, Case)> = cases("pipeline_run");
    let (mut wrong, mut standing) = (Vec::new(), Vec::new());
    for (file, case) in &cases {
        let snapshot = case.given.snapshot();
        let plan = decide(&snapshot);
        let mut found = differences(&plan, &in_words(&plan.actions, &snapshot.run.meta), &case.expect);
        if !snapshot.run.meta.deleting {
            let object = support::standing::object("PipelineRun", &snapshot.run, &plan.status);
            standing.push((format!("{file}: {}", case.name), object));
        }
        let created: Vec<&NewStage> = plan
            .actions
            .iter()
            .filter_map(|action| if let Action::CreateStage(new) = action { Some(&**new) } else { None })
            .collect();
        wrong_specs(case, &created, &mut found);
        wrong_stages(case, &plan.status, &mut found);
        let shuffled = Snapshot {
            siblings: snapshot.siblings.iter().rev().cloned().collect(),
            approvals: snapshot.approvals.iter().rev().cloned().collect(),
            ..snapshot.clone()
        };
        if plan != decide(&shuffled) {
            found.push("the order in which siblings or Approvals are known makes a difference".to_owned());
        }
        if plan.urgency == Urgency::First && !plan.actions.is_empty() {
            found.push("something is done before the frozen pipeline is stored".to_owned());
        }
        let mut again = snapshot.clone();
        again.run.status = Arc::new(plan.status.clone());
        if plan.actions.is_empty() && plan.urgency != Urgency::First && decide(&again).status != plan.status {
            found.push(format!("the second pass gives another status: {:?}", decide(&again).status));
        }
        wrong.extend(found.into_iter().map(|difference| format!("{file}: {}:\n    {difference}", case.name)));
    }
    assert!(cases.len() > 40, "only {} cases were found", cases.len());
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
    support::standing::agreed("PipelineRun", standing);
}

#[test]
fn a_nested_run_is_for_the_time_of_the_run_around_it() {
    let given = json!({"pipeline": {"stages": [{"name": "sub", "pipeline": "module"}]}, "frozen": true, "started": 0,
        "scheduled": "2026-11-25T02:00:00+01:00[Europe/Berlin]"});
    let snapshot = Given::deserialize(given).unwrap().snapshot();
    let plan = decide(&snapshot);
    let [Action::CreateNested(new)] = &plan.actions[..] else { panic!("{:?}", plan.actions) };
    let manifest = cultivar_core::render::nested(&snapshot.run.meta, new);
    let time = &manifest["metadata"]["annotations"][labels::SCHEDULED_TIME];
    assert_eq!(time, "2026-11-25T02:00:00+01:00[Europe/Berlin]");
}
