//! A backup that drops `status`: what was done is what its verdict says, and is never run again.

mod support;

use cultivar_core::decide::{Action, Plan, experiment, pipeline, pipeline_run};
use cultivar_core::domain::errand::{Errands, Outcome};
use cultivar_core::domain::{Errand, Record, StoreAccess, Stores};
use cultivar_crds::{
    Artifact, Attempt, ExperimentStatus, Metric, Phase, PhaseTimes, PipelineRunStatus, PipelineStatus, Reason,
    StageStatus, labels,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use support::{at, record, stamp};

const RECORD: &str = "s3://store/n/train-1/record.json";

/// Another life: no status, another uid, and what the annotation says.
fn restored<S: Default>(before: &Record<S>, actions: &[Action]) -> Record<S> {
    let [Action::NoteVerdict { verdict }] = actions else { panic!("no verdict but {actions:?}") };
    let mut meta = before.meta.clone();
    meta.annotations.insert(labels::VERDICT.to_owned(), verdict.clone());
    (meta.uid, meta.generation) = ("another".to_owned(), 1);
    Record { meta, spec: Arc::clone(&before.spec), status: Arc::default() }
}

fn unnoted<S>(mut record: Record<S>) -> Record<S> {
    record.meta.annotations.clear();
    record
}

fn ended(phase: Phase, status: ExperimentStatus) -> Record<ExperimentStatus> {
    let times = Some(PhaseTimes { finished: Some(stamp(5)), ..PhaseTimes::default() });
    let template = Some(json!({"image": "busybox@sha256:1", "params": {"lr": 0.1}}));
    let metrics =
        BTreeMap::from([("acc".to_owned(), Metric { last: 0.9, min: Some(0.9), max: Some(0.9), step: None })]);
    let artifacts = vec![Artifact { name: "model".to_owned(), uri: "s3://store/m".to_owned(), ..Artifact::default() }];
    let attempts = vec![Attempt { number: 1, job: "train-1".to_owned(), ..Attempt::default() }];
    let status = ExperimentStatus {
        phase,
        template: template.map(Arc::new),
        times,
        metrics,
        artifacts,
        attempt: Some(1),
        attempts,
        digest: Some("sha256:2".to_owned()),
        observed_generation: Some(1),
        ..status
    };
    unnoted(record("train", json!({"image": "busybox", "params": {"lr": 0.1}}), status))
}

fn stores() -> Stores {
    Stores { own: Some(StoreAccess { url: "s3://store".to_owned(), ..StoreAccess::default() }), ..Stores::default() }
}

fn decide(record: &Record<ExperimentStatus>, stores: Stores, errands: Errands) -> Plan<ExperimentStatus> {
    let snapshot =
        experiment::Snapshot { experiment: record.clone(), stores, errands, now: at(100), ..Default::default() };
    experiment::decide(&snapshot)
}

fn has_condition(status: &ExperimentStatus, kind: &str, value: &str) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == kind && condition.status == value)
}

#[test]
fn an_experiment_without_a_record_is_what_its_verdict_says() {
    for (phase, reason) in [(Phase::Completed, None), (Phase::Failed, Some(Reason::Error))] {
        let before = ended(phase, ExperimentStatus { reason, ..ExperimentStatus::default() });
        let noted = decide(&before, Stores::default(), Errands::new());
        let after = restored(&before, &noted.actions);
        let plan = decide(&after, Stores::default(), Errands::new());
        assert_eq!(plan.actions, [], "nothing is started");
        let now = &plan.status;
        assert_eq!((now.phase, now.reason), (phase, reason));
        assert!(now.message.as_ref().unwrap().contains("restored"), "{now:?}");
        assert!(has_condition(now, if phase == Phase::Completed { "Complete" } else { "Failed" }, "True"));
        let mut same = now.clone();
        (same.message, same.conditions) = (None, Vec::new());
        let mut was = (*before.status).clone();
        was.conditions.clear();
        assert_eq!(same, was);
        // The life that it has now gets a verdict of its own, from which it comes back as well.
        let now = Record { status: Arc::new(plan.status), ..after.clone() };
        let again = decide(&now, Stores::default(), Errands::new());
        assert_eq!(decide(&restored(&now, &again.actions), Stores::default(), Errands::new()).status.phase, phase);
    }
}

#[test]
fn what_the_record_has_is_read_from_there() {
    let at_store =
        || Some(cultivar_crds::experiment::RecordAt { uri: RECORD.to_owned(), digest: "sha256:3".to_owned() });
    let before = ended(Phase::Completed, ExperimentStatus { record: at_store(), ..ExperimentStatus::default() });
    let noted = decide(&before, stores(), Errands::new());
    let after = restored(&before, &noted.actions);
    let verdict = &after.meta.annotations[labels::VERDICT];
    assert!(!verdict.contains("acc") && verdict.len() < 1024, "{verdict}");
    let waits = decide(&after, stores(), Errands::new());
    let [Action::Run(errand @ Errand::ReadRecord(_))] = waits.actions.as_slice() else { panic!("{:?}", waits.actions) };
    assert_eq!((waits.status.phase, waits.status.reason), (Phase::Pending, Some(Reason::ReadingRecord)));
    let document = json!({
        "version": 1, "experiment": {"namespace": "n", "name": "train", "uid": "u"}, "attempt": 1,
        "template": {"image": "busybox@sha256:1", "params": {"lr": 0.1}},
        "command": ["train"], "startedAt": stamp(1), "finishedAt": stamp(5), "exitCode": 0,
        "result": {"version": 1, "metrics": {"acc": {"last": 0.9}}, "artifacts": [{"name": "model", "uri": "s3://store/m"}]},
    });
    let answered = |brought: Result<String, String>| {
        // Long ago: it is given up.
        let outcome = Outcome { since: at(-700), at: at(99), result: brought, tries: 9 };
        Errands::from([(errand.clone(), outcome)])
    };
    let brought = json!({"record": document, "corrupt": [], "unchecked": []}).to_string();
    let back = decide(&Record { status: Arc::new(waits.status), ..after.clone() }, stores(), answered(Ok(brought)));
    assert_eq!(back.actions, []);
    assert_eq!(back.status.template, before.status.template);
    assert_eq!(back.status.metrics, before.status.metrics);
    assert_eq!(back.status.artifacts, before.status.artifacts);
    assert_eq!((back.status.phase, &back.status.digest), (Phase::Completed, &before.status.digest));
    let without = decide(&after, stores(), answered(Err("it is gone".to_owned())));
    assert_eq!((without.status.phase, without.actions.as_slice()), (Phase::Completed, [].as_slice()));
    assert!(without.status.template.is_none() && has_condition(&without.status, "ResultAccepted", "False"));
}

#[test]
fn a_copy_and_another_spec_are_new_work() {
    let before = ended(Phase::Completed, ExperimentStatus::default());
    let after = restored(&before, &decide(&before, Stores::default(), Errands::new()).actions);
    let mut copy = after.clone();
    copy.meta.name = "copy".to_owned();
    let mut other = after.clone();
    other.spec = Arc::new(json!({"image": "busybox", "params": {"lr": 0.2}}));
    for new in [copy, other] {
        let plan = decide(&new, Stores::default(), Errands::new());
        assert_eq!(plan.status.phase, Phase::Starting, "{:?}", plan.status);
    }
}

#[test]
fn a_run_is_what_its_verdict_says_and_makes_no_stage() {
    let stages = vec![StageStatus { name: "a".to_owned(), phase: Phase::Failed, ..StageStatus::default() }];
    let status = PipelineRunStatus {
        phase: Phase::Failed,
        reason: Some(Reason::StageFailed),
        message: Some("stage a".to_owned()),
        pipeline_spec: Some(json!({"stages": [{"name": "a", "template": {"image": "busybox"}}]})),
        started_at: Some(stamp(1)),
        finished_at: Some(stamp(5)),
        stages,
        ..PipelineRunStatus::default()
    };
    let before = unnoted(record("digits-1", json!({"pipeline": "digits", "suspend": true}), status));
    let decide = |run: &Record<PipelineRunStatus>| {
        pipeline_run::decide(&pipeline_run::Snapshot { run: run.clone(), now: at(100), ..Default::default() })
    };
    let after = restored(&before, &decide(&before).actions);
    let plan = decide(&after);
    assert_eq!(plan.actions, []);
    assert_eq!((plan.status.phase, plan.status.reason), (Phase::Failed, Some(Reason::StageFailed)));
    assert_eq!(plan.status.stages, before.status.stages);
    assert_eq!(plan.status.pipeline_spec, before.status.pipeline_spec, "it can be resumed");
}

#[test]
fn a_pipeline_runs_again_when_what_it_runs_is_changed_and_not_before() {
    let spec = json!({"stages": [{"name": "a", "image": "busybox"}], "rerun": "1"});
    let status = PipelineStatus {
        observed_generation: Some(4),
        revision: Some(7),
        digest: Some(pipeline::digest(&spec)),
        run_generation: Some(4),
        rerun: Some("1".to_owned()),
        ..PipelineStatus::default()
    };
    let mut before = unnoted(record("digits", spec, status));
    before.meta.generation = 4;
    let decide = |pipeline: &Record<PipelineStatus>| {
        pipeline::decide(&pipeline::Snapshot { pipeline: pipeline.clone(), now: at(100), ..Default::default() })
    };
    let after = restored(&before, &decide(&before).actions);
    let plan = decide(&after);
    // But for the verdict of its life of now.
    let starts = |plan: &Plan<PipelineStatus>| -> Vec<Value> {
        let made = |action: &Action| match action {
            Action::CreateRun(new) => Some(json!([new.name, new.refresh])),
            _ => None,
        };
        plan.actions.iter().filter_map(made).collect()
    };
    assert_eq!(starts(&plan), [] as [Value; 0]);
    assert_eq!(plan.status.revision, Some(7));
    let changed = |spec: Value| {
        let mut later = Record { status: Arc::new(plan.status.clone()), spec: Arc::new(spec), ..after.clone() };
        later.meta.generation = 2;
        starts(&decide(&later))
    };
    assert_eq!(
        changed(json!({"stages": [{"name": "a", "image": "other"}], "rerun": "1"})),
        [json!(["digits-8", false])]
    );
    assert_eq!(
        changed(json!({"stages": [{"name": "a", "image": "busybox"}], "rerun": "2"})),
        [json!(["digits-8", true])]
    );
    assert_eq!(changed((*before.spec).clone()), [] as [Value; 0]);
    // Changed in the backup itself, or applied from a repository that is ahead of it.
    let mut ahead = after.clone();
    ahead.spec = Arc::new(json!({"stages": [{"name": "a", "image": "other"}]}));
    assert_eq!(starts(&decide(&ahead)), [json!(["digits-8", false])]);
    // From a repository, which has no verdicts.
    assert_eq!(starts(&decide(&unnoted(after))), [json!(["digits-1", false])]);
}
