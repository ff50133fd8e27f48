//! Deciding about pipelines: the tables in `cases/pipeline`.
//!
//! Comes in: a pipeline and its runs in short. Goes out: the plan, compared with what the case expects.

mod support;

use cultivar_core::decide::pipeline::{Snapshot, decide, digest};
use cultivar_core::decide::{Action, NewRun};
use cultivar_core::domain::{Owner, RunRecord};
use cultivar_crds::{Phase, PipelineRunStatus, PipelineStatus, Reason, labels};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use support::{Expect, at, cases, differences, from, in_words, record, sources, stamp, uid};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    given: Given,
    expect: Expect,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Given {
    now: i64,
    spec: Option<Value>,
    generation: Option<i64>,
    deleting: bool,
    created: Option<i64>,
    status: Value,
    /// Spec whose digest the status remembers.
    remembers: Option<Value>,
    runs: Vec<RunInShort>,
    /// By the name of a run.
    in_use: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunInShort {
    /// Made by the pipeline; absent for a run made by hand, which has a name.
    revision: Option<i64>,
    name: Option<String>,
    #[serde(default)]
    created: i64,
    /// Generation of the pipeline that it was made for.
    generation: Option<i64>,
    /// Spec of the pipeline that it was made for; the present one when absent.
    of: Option<Value>,
    /// Whether its status says so too.
    #[serde(default)]
    frozen: bool,
    #[serde(default)]
    phase: Phase,
    reason: Option<Reason>,
    message: Option<String>,
    finished: Option<i64>,
    #[serde(default)]
    deleting: bool,
    /// Made by a pipeline of this name that was deleted, or restored with another uid.
    #[serde(default)]
    of_a_namesake: bool,
    /// It does not go with its pipeline.
    #[serde(default)]
    kept: bool,
}

fn present() -> Value {
    json!({"stages": [{"name": "train", "image": "busybox"}]})
}

impl RunInShort {
    fn record(&self, present: &Value) -> RunRecord {
        let name = self.name.clone().or_else(|| self.revision.map(|revision| format!("digits-{revision}")));
        let digest = digest(self.of.as_ref().unwrap_or(present));
        let status = PipelineRunStatus {
            phase: self.phase,
            reason: self.reason,
            message: self.message.clone(),
            finished_at: self.finished.map(stamp),
            pipeline_generation: self.generation.filter(|_| self.frozen),
            pipeline_digest: self.frozen.then(|| digest.clone()),
            ..PipelineRunStatus::default()
        };
        let mut run = record(&name.expect("a revision or a name"), json!({"pipeline": "digits"}), status);
        run.meta.created = Some(at(self.created));
        run.meta.deleting = self.deleting;
        if let Some(revision) = self.revision {
            let owner = if self.of_a_namesake { "an earlier life".to_owned() } else { uid("digits") };
            if self.kept {
                run.meta.annotations.insert(labels::PIPELINE_UID.to_owned(), owner);
            } else {
                run.meta.owner = Some(Owner { kind: "Pipeline".into(), name: "digits".into(), uid: owner });
            }
            run.meta.labels.insert(labels::REVISION.to_owned(), revision.to_string());
            run.meta.annotations.insert(labels::PIPELINE_DIGEST.to_owned(), digest);
            let generation = self.generation.unwrap_or(1).to_string();
            run.meta.annotations.insert(labels::PIPELINE_GENERATION.to_owned(), generation);
        }
        run
    }
}

impl Given {
    fn snapshot(&self) -> Snapshot {
        let spec = self.spec.clone().unwrap_or_else(present);
        let mut status: PipelineStatus = from(&self.status);
        status.digest = self.remembers.as_ref().map(digest).or(status.digest);
        let mut pipeline = record("digits", spec.clone(), status);
        pipeline.meta.generation = self.generation.unwrap_or(1);
        pipeline.meta.deleting = self.deleting;
        pipeline.meta.created = self.created.map(at).or(pipeline.meta.created);
        Snapshot {
            pipeline,
            runs: self.runs.iter().map(|run| Arc::new(run.record(&spec))).collect(),
            in_use: self.in_use.iter().map(|(run, names)| (uid(run), names.clone())).collect(),
            now: at(self.now),
        }
    }
}

#[test]
fn every_case_of_the_tables() {
    let cases: Vec<(String, Case)> = cases("pipeline");
    let (mut wrong, mut standing) = (Vec::new(), Vec::new());
    for (file, case) in &cases {
        let snapshot = case.given.snapshot();
        let plan = decide(&snapshot);
        let words = in_words(&plan.actions, &snapshot.pipeline.meta);
        if !snapshot.pipeline.meta.deleting {
            let object = support::standing::object("Pipeline", &snapshot.pipeline, &plan.status);
            standing.push((format!("{file}: {}", case.name), object));
        }
        let mut found = differences(&plan, &words, &case.expect);
        let shuffled = Snapshot { runs: snapshot.runs.iter().rev().cloned().collect(), ..snapshot.clone() };
        if plan != decide(&shuffled) {
            found.push("the order in which runs are known makes a difference".to_owned());
        }
        let mut again = snapshot.clone();
        again.pipeline.status = Arc::new(plan.status.clone());
        if plan.actions.is_empty() && decide(&again).status != plan.status {
            found.push(format!("the second pass gives another status: {:?}", decide(&again).status));
        }
        found.extend(plan.actions.iter().filter_map(|action| wrong_run(action, &snapshot)));
        wrong.extend(found.into_iter().map(|difference| format!("{file}: {}:\n    {difference}", case.name)));
    }
    assert!(cases.len() > 25, "only {} cases were found", cases.len());
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
    support::standing::agreed("Pipeline", standing);
}

// A new run is made for what the pipeline says now.
fn wrong_run(action: &Action, snapshot: &Snapshot) -> Option<String> {
    let Action::CreateRun(NewRun { digest: made_for, generation, .. }) = action else { return None };
    let right = *made_for == digest(&snapshot.pipeline.spec) && *generation == snapshot.pipeline.meta.generation;
    (!right).then(|| format!("the run is made for {made_for} of generation {generation}"))
}

#[test]
fn the_digest_sees_what_runs_and_nothing_else() {
    let base = present();
    let with = |key: &str, value: Value| {
        let mut spec = base.clone();
        spec[key] = value;
        digest(&spec)
    };
    for key in ["params", "paramSchema", "outputs"] {
        assert_ne!(with(key, json!({"a": 1})), digest(&base), "{key}");
        assert_ne!(with(key, json!({})), digest(&base), "absent stays absent: {key}");
    }
    assert_ne!(with("rerun", json!("2")), digest(&base));
    for (key, value) in
        [("queue", json!("gpus")), ("historyLimit", json!(3)), ("runOn", json!("Demand")), ("onFailure", json!("Stop"))]
    {
        assert_eq!(with(key, value), digest(&base), "{key}");
    }
    assert_eq!(with("params", json!({"n": 10})), with("params", json!({"n": 10.0})), "YAML turns one into the other");
    assert!(digest(&base).starts_with("v1:sha256:"));
    assert!(sources(&[], [&base]).is_empty());
}
