//! The index: what wakes whom, and what is never undone.

use super::*;
use cultivar_core::domain::{ContainerState, Meta, Owner, PodPhase, Record, Terminated};
use cultivar_crds::{Artifact, Attempt, ExperimentStatus, Phase, ReusedFrom, labels};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn meta(name: &str, version: u64) -> Meta {
    Meta {
        namespace: "n".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        resource_version: version.to_string(),
        generation: 1,
        ..Meta::default()
    }
}

fn experiment(name: &str, version: u64, spec: Value, phase: Phase) -> ExperimentRecord {
    let status = ExperimentStatus { phase, ..ExperimentStatus::default() };
    Record { meta: meta(name, version), spec: Arc::new(spec), status: Arc::new(status) }
}

fn key(kind: Kind, name: &str) -> Key {
    Key::new(kind, "n", name)
}

fn index() -> (Index, Arc<Wakeups>) {
    let queue = Arc::new(Wakeups::default());
    queue.open();
    (Index::new(Arc::clone(&queue), Arc::default(), DataPlane::default()), queue)
}

async fn woken(queue: &Wakeups) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    while queue.len() > 0 {
        let key = queue.next().await;
        queue.done(&key);
        keys.insert(key);
    }
    keys
}

#[tokio::test]
async fn an_old_answer_never_undoes_news() {
    let (index, queue) = index();
    index.apply_experiment(experiment("e", 7, json!({}), Phase::Completed));
    woken(&queue).await;
    index.apply_experiment(experiment("e", 6, json!({}), Phase::Running));
    index.apply_experiment(experiment("e", 7, json!({}), Phase::Running));
    assert!(woken(&queue).await.is_empty());
    let view = index.experiment(&key(Kind::Experiment, "e"), jiff::Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(view.stored.status.phase, Phase::Completed);
}

#[tokio::test]
async fn a_template_that_ends_wakes_who_waits_for_it_and_its_run() {
    let (index, queue) = index();
    index.apply_experiment(experiment("clone", 1, json!({"from": {"experiment": "root"}}), Phase::Pending));
    let mut root = experiment("root", 2, json!({"image": "i"}), Phase::Running);
    root.meta.owner = Some(Owner { kind: "PipelineRun".into(), name: "run".into(), uid: "r".into() });
    index.apply_experiment(root.clone());
    woken(&queue).await;
    let ended = ExperimentStatus { phase: Phase::Completed, ..ExperimentStatus::default() };
    index.publish(&key(Kind::Experiment, "root"), "uid-root", &ended, true);
    let woken = woken(&queue).await;
    assert!(woken.contains(&key(Kind::Experiment, "clone")), "{woken:?}");
    assert!(woken.contains(&key(Kind::PipelineRun, "run")), "{woken:?}");
    let view = index.experiment(&key(Kind::Experiment, "root"), jiff::Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(view.snapshot.experiment.status.phase, Phase::Completed, "decided counts");
    assert_eq!(view.stored.status.phase, Phase::Running, "and is told from what is stored");
    assert_eq!(view.snapshot.in_use.as_deref(), Some("an Experiment"));
    index.remove(&key(Kind::Experiment, "clone"));
    let view = index.experiment(&key(Kind::Experiment, "root"), jiff::Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!(view.snapshot.in_use, None);
}

fn pod(name: &str, attempt: u32, gone: bool) -> PodRecord {
    PodRecord {
        namespace: "n".into(),
        name: name.into(),
        experiment: "e".into(),
        attempt,
        gone,
        phase: PodPhase::Succeeded,
        main: ContainerState::Terminated(Terminated::default()),
        ..PodRecord::default()
    }
}

#[tokio::test]
async fn a_pod_that_is_gone_is_remembered_until_its_end_is_recorded() {
    let (index, queue) = index();
    index.apply_experiment(experiment("e", 1, json!({}), Phase::Running));
    index.apply_pod(pod("p", 1, false));
    index.apply_pod(pod("p", 1, true));
    assert!(woken(&queue).await.contains(&key(Kind::Experiment, "e")));
    let pods = |index: &Index| {
        index.experiment(&key(Kind::Experiment, "e"), jiff::Timestamp::UNIX_EPOCH).unwrap().snapshot.pods
    };
    assert_eq!(pods(&index).len(), 1);
    let mut recorded = experiment("e", 2, json!({}), Phase::Completed);
    let attempt = Attempt { number: 1, finished_at: Some("2026-01-01T00:00:00Z".into()), ..Attempt::default() };
    recorded.status = Arc::new(ExperimentStatus { attempts: vec![attempt], ..(*recorded.status).clone() });
    index.apply_experiment(recorded);
    assert!(pods(&index).is_empty());
}

#[tokio::test]
async fn what_a_list_does_not_name_is_gone_but_not_what_was_written_meanwhile() {
    let (index, queue) = index();
    index.apply_experiment(experiment("old", 1, json!({}), Phase::Running));
    index.begin_list(Kind::Experiment, None);
    index.apply_experiment(experiment("listed", 2, json!({}), Phase::Running));
    // The answer to our own POST arrives while the list is being read.
    let mut stage = experiment("written", 3, json!({}), Phase::Pending);
    stage.meta.labels.insert(labels::STAGE.into(), "train".into());
    index.apply_experiment(stage);
    index.finish_list(Kind::Experiment, None);
    woken(&queue).await;
    let known = |name: &str| index.experiment(&key(Kind::Experiment, name), jiff::Timestamp::UNIX_EPOCH).is_some();
    assert!(!known("old") && known("listed") && known("written"));
}

#[tokio::test]
async fn what_is_stored_first_is_what_goes_on_whatever_was_decided_before() {
    let (index, queue) = index();
    let key = key(Kind::Experiment, "e");
    index.apply_experiment(experiment("e", 1, json!({}), Phase::Pending));
    let waits = ExperimentStatus { message: Some("waits".into()), ..ExperimentStatus::default() };
    index.publish(&key, "uid-e", &waits, false);
    // The wait is not stored yet when the status that must be stored first is written.
    assert!(index.begin_write(&key));
    index.forget(&key);
    let written = ExperimentStatus { phase: Phase::Starting, ..ExperimentStatus::default() };
    index.apply_experiment(experiment("e", 2, json!({}), Phase::Starting));
    assert!(!index.end_write(&key, Some(&written)));
    woken(&queue).await;
    let view = index.experiment(&key, jiff::Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!((view.snapshot.experiment.status.phase, view.stored.status.phase), (Phase::Starting, Phase::Starting));
}

#[tokio::test]
async fn what_waited_for_its_turn_is_written_as_it_was_decided_last() {
    let (index, _queue) = index();
    let key = key(Kind::Experiment, "e");
    let status = |message: &str| ExperimentStatus { message: Some(message.into()), ..ExperimentStatus::default() };
    let turn = || match index.take_turn::<ExperimentStatus>(&key) {
        Turn::Write(record) => {
            format!("{} on {}", record.status.message.as_deref().unwrap(), record.meta.resource_version)
        }
        other => format!("{other:?}"),
    };
    index.apply_experiment(experiment("e", 1, json!({}), Phase::Pending));
    index.publish(&key, "uid-e", &status("first"), false);
    assert!(index.ask_turn(&key, "1", false));
    index.publish(&key, "uid-e", &status("second"), false);
    assert!(!index.ask_turn(&key, "1", false), "one turn is enough");
    assert!(index.ask_turn(&key, "1", true), "an urgent one does not stand behind the others");
    assert!(!index.ask_turn(&key, "1", false));
    assert_eq!(turn(), "second on 1");
    // The turn that the first one waited for, while the write is under way, and afterwards.
    assert_eq!(turn(), "Nothing");
    index.publish(&key, "uid-e", &status("third"), false);
    assert!(!index.ask_turn(&key, "1", false), "the write under way brings the next pass");
    assert!(index.end_write(&key, Some(&status("second"))));

    // The object changes between the decision and the turn.
    assert!(index.ask_turn(&key, "1", false));
    index.apply_experiment(experiment("e", 2, json!({"image": "x"}), Phase::Pending));
    assert_eq!(turn(), "DecideAgain");
    index.publish(&key, "uid-e", &status("third"), false);
    assert!(index.ask_turn(&key, "2", false));
    index.forget(&key);
    assert_eq!(turn(), "Nothing");
    assert!(!index.end_write(&key, Some(&status("third"))));
}

#[tokio::test]
async fn a_schedule_is_woken_by_its_runs_and_its_pipeline() {
    let (index, queue) = index();
    let schedule = |name: &str, version, pipeline: &str| Record {
        meta: meta(name, version),
        spec: Arc::new(json!({"pipeline": pipeline})),
        status: Arc::default(),
    };
    index.apply_schedule(schedule("nightly", 1, "digits"));
    index.apply_schedule(schedule("other", 2, "another"));
    woken(&queue).await;
    let nightly = key(Kind::Schedule, "nightly");
    index.apply_pipeline(Record { meta: meta("digits", 3), spec: Arc::new(json!({})), status: Arc::default() });
    assert_eq!(woken(&queue).await, BTreeSet::from([key(Kind::Pipeline, "digits"), nightly.clone()]));
    let run = |version, phase| {
        let mut meta = meta("nightly-202611250200", version);
        meta.labels.insert(labels::SCHEDULE.into(), "nightly".into());
        let status = cultivar_crds::PipelineRunStatus { phase, ..Default::default() };
        Record { meta, spec: Arc::new(json!({"pipeline": "digits"})), status: Arc::new(status) }
    };
    index.apply_run(run(4, Phase::Pending));
    assert!(woken(&queue).await.contains(&nightly));
    let view = index.schedule(&nightly, jiff::Timestamp::UNIX_EPOCH).unwrap();
    assert!(view.snapshot.pipeline.is_some() && view.snapshot.runs.len() == 1);
    index.apply_run(run(5, Phase::Completed));
    assert!(woken(&queue).await.contains(&nightly));
    // What it makes runs of now, it is woken by, and by nothing else.
    index.apply_schedule(schedule("nightly", 6, "another"));
    index.remove(&key(Kind::Pipeline, "digits"));
    assert_eq!(woken(&queue).await, BTreeSet::from([nightly.clone()]));
    index.remove(&nightly);
    assert!(index.schedule(&nightly, jiff::Timestamp::UNIX_EPOCH).is_none());
}

#[tokio::test]
async fn what_another_took_over_stays_when_its_maker_goes() {
    let (index, _queue) = index();
    let with = |name: &str, version: u64, from: Option<&str>, deleting: bool| {
        let mut record = experiment(name, version, json!({"artifacts": "Delete"}), Phase::Completed);
        record.meta.deleting = deleting;
        let status = Arc::make_mut(&mut record.status);
        status.artifacts = vec![Artifact { name: "model".into(), uri: "s3://b/model".into(), ..Artifact::default() }];
        status.reused_from = from.map(|name| ReusedFrom { name: name.into(), ..ReusedFrom::default() });
        record
    };
    let referred = || {
        let view = index.experiment(&key(Kind::Experiment, "maker"), jiff::Timestamp::UNIX_EPOCH);
        view.unwrap().snapshot.referred
    };
    index.apply_experiment(with("maker", 1, None, true));
    assert!(referred().is_empty());
    index.apply_experiment(with("heir", 2, Some("maker"), false));
    assert_eq!(referred(), BTreeSet::from(["s3://b/model".to_owned()]));
    index.apply_experiment(with("heir", 3, Some("maker"), true));
    assert!(referred().is_empty(), "they go together");
}

#[tokio::test]
async fn of_many_that_do_the_same_at_once_one_starts() {
    let (index, _queue) = index();
    let spec = json!({"image": format!("x@sha256:{}", "7f".repeat(32)), "cache": {"mode": "Use"}});
    let digest = cultivar_core::reuse::digest_of_template(&spec);
    let names: Vec<String> = (0..60).map(|number| format!("e-{number:02}")).collect();
    for (number, name) in names.iter().enumerate() {
        let mut record = experiment(name, 1, spec.clone(), Phase::Starting);
        // Thirty a second, which their uids tell apart in another order than their names.
        record.meta.created = jiff::Timestamp::from_second(i64::from(number >= 30)).ok();
        record.meta.uid = format!("uid-{:02}", (number * 7 + 13) % 60);
        let status = Arc::make_mut(&mut record.status);
        (status.template, status.digest) = (Some(Arc::new(spec.clone())), Some(digest.clone()));
        index.apply_experiment(record);
    }
    let starts = |name: &&String| {
        let view = index.experiment(&key(Kind::Experiment, name), jiff::Timestamp::UNIX_EPOCH).unwrap();
        let plan = cultivar_core::decide::experiment::decide(&view.snapshot);
        plan.actions.iter().any(|action| matches!(action, cultivar_core::decide::Action::StartAttempt { .. }))
    };
    assert_eq!(names.iter().filter(starts).collect::<Vec<_>>(), ["e-24"]);
}

#[tokio::test]
async fn of_two_that_decided_at_the_same_time_one_begins() {
    let (index, _queue) = index();
    let spec = json!({"image": format!("x@sha256:{}", "7f".repeat(32)), "cache": {"mode": "Use"}});
    let digest = cultivar_core::reuse::digest_of_template(&spec);
    let record = |name: &str, version: u64, attempt: Option<u32>| {
        let mut record = experiment(name, version, spec.clone(), Phase::Starting);
        let status = Arc::make_mut(&mut record.status);
        (status.template, status.digest, status.attempt) =
            (Some(Arc::new(spec.clone())), Some(digest.clone()), attempt);
        record
    };
    index.apply_experiment(record("a", 1, None));
    index.apply_experiment(record("b", 1, None));
    let begins = |name: &str| index.begin_work(&key(Kind::Experiment, name));
    assert!(begins("b") && !begins("a") && begins("b"), "the first one, and again after a failed call");
    let reason = cultivar_crds::Reason::WaitingForQuota;
    let refusal = Refusal { reason, message: String::new(), at: jiff::Timestamp::UNIX_EPOCH };
    index.refuse_attempt(&key(Kind::Experiment, "b"), refusal);
    assert!(begins("a") && !begins("b"), "what was refused has not begun");
    index.apply_experiment(record("a", 2, Some(1)));
    assert!(!begins("b"), "it has begun, as its status says");
    index.remove(&key(Kind::Experiment, "a"));
    assert!(begins("b"));
}
