//! Properties of deciding: whatever is observed, and whatever is written into an object.
//!
//! Comes in: made-up snapshots, and valid objects with random changes. What is asserted: at most one
//! live Job, records that stay, waits that end, bounded messages, equal plans, and never a panic.

mod support;

use cultivar_core::decide::freeze::overrides;
use cultivar_core::decide::{Action, Plan, experiment, pipeline, pipeline_run};
use cultivar_core::domain::{ContainerState, Disruption, JobRecord, JobState, PodPhase, PodRecord, Terminated, names};
use cultivar_core::{render, validate};
use cultivar_crds::schema::MAX_MESSAGE;
use cultivar_crds::{ExperimentStatus, Phase, PipelineRunStatus, PipelineStatus, Reason};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use support::{NAMESPACE, at, record, sources, stage_of, stamp, uid};

// ---- What may be observed of an experiment's attempts.

fn job_state() -> impl Strategy<Value = JobState> {
    prop_oneof![
        2 => Just(JobState::Active),
        1 => Just(JobState::Complete),
        1 => Just(JobState::Failed { reason: "PodFailurePolicy".into(), message: "Container main failed with exit code 3 matching".into() }),
        1 => Just(JobState::Failed { reason: "PodFailurePolicy".into(), message: "Pod has condition DisruptionTarget".into() }),
    ]
}

fn job() -> impl Strategy<Value = JobRecord> {
    (1..4_u32, job_state(), prop::bool::weighted(0.2)).prop_map(|(attempt, state, deleting)| JobRecord {
        holding: None,
        suspended: false,
        started: None,
        namespace: NAMESPACE.into(),
        name: names::job("train", &uid("train"), attempt),
        uid: format!("job-{attempt}"),
        owner_uid: uid("train"),
        experiment: "train".into(),
        attempt,
        created: Some(at(1)),
        deleting,
        state,
    })
}

fn container() -> impl Strategy<Value = ContainerState> {
    let ends = (
        prop::sample::select(vec![0, 1, 137, 143]),
        prop::sample::select(vec!["", "OOMKilled", "ContainerStatusUnknown"]),
    );
    let output = prop::sample::select(vec![
        "",
        "log",
        r#"{"metrics": {"acc": 1}}"#,
        r#"{"artifacts": [{"name": "m", "uri": "s3://m"}]}"#,
        "{",
    ]);
    prop_oneof![
        Just(ContainerState::Unknown),
        prop::sample::select(vec!["ImagePullBackOff", "ContainerCreating"])
            .prop_map(|reason| ContainerState::Waiting { reason: reason.into(), message: "words".into() }),
        prop::option::of(1..50_i64).prop_map(|since| ContainerState::Running(since.map(at))),
        (ends, output).prop_map(|((exit_code, reason), message)| ContainerState::Terminated(Terminated {
            exit_code,
            reason: reason.into(),
            message: message.into(),
            started: None,
            finished: Some(at(40)),
        })),
    ]
}

fn pod() -> impl Strategy<Value = PodRecord> {
    let phase = prop::sample::select(vec![PodPhase::Pending, PodPhase::Running, PodPhase::Succeeded, PodPhase::Failed]);
    let flags = (prop::bool::weighted(0.3), prop::bool::weighted(0.3), prop::bool::weighted(0.2));
    let reason = prop::sample::select(vec!["", "Evicted", "NodeLost", "DeadlineExceeded"]);
    (1..4_u32, container(), phase, flags, reason).prop_map(
        |(attempt, main, phase, (deleting, gone, disrupted), reason)| PodRecord {
            namespace: NAMESPACE.into(),
            name: format!("pod-{attempt}"),
            uid: format!("pod-{attempt}"),
            job_uid: format!("job-{attempt}"),
            experiment: "train".into(),
            attempt,
            created: Some(at(2)),
            deleting,
            gone,
            phase,
            reason: reason.into(),
            disruption: disrupted
                .then(|| Disruption { reason: "EvictionByEvictionAPI".into(), message: "drained".into() }),
            main,
            ..PodRecord::default()
        },
    )
}

fn spec() -> impl Strategy<Value = Value> {
    (0..3_u32, 0..3_u32, prop::bool::weighted(0.2), prop::bool::ANY, prop::bool::ANY).prop_map(
        |(limit, infrastructure, cancel, limited, output)| {
            let mut spec =
                json!({"image": "x", "retries": {"limit": limit, "infrastructure": infrastructure}, "cancel": cancel});
            if limited {
                spec["timeouts"] = json!({"run": "30s", "start": "20s"});
            }
            if output {
                spec["outputs"] = json!([{"name": "m"}]);
            }
            spec
        },
    )
}

/// A snapshot in which everything may be true at once, consistent or not.
fn snapshot() -> impl Strategy<Value = experiment::Snapshot> {
    let observed = (prop::collection::vec(job(), 0..3), prop::collection::vec(pod(), 0..3), prop::option::of(1..4_u32));
    (spec(), 0..4_usize, prop::bool::ANY, observed, 0..5000_i64, prop::bool::weighted(0.3)).prop_map(
        |(spec, attempts, open, (jobs, pods, confirmed), now, stage)| {
            let mut record = record("train", spec.clone(), status(&spec, attempts, open));
            if stage {
                record.meta = stage_of("run", "train", Value::Null, ExperimentStatus::default()).meta;
            }
            let jobs: BTreeMap<u32, JobRecord> = jobs.into_iter().map(|job| (job.attempt, job)).collect();
            let pods: BTreeMap<u32, PodRecord> = pods.into_iter().map(|pod| (pod.attempt, pod)).collect();
            experiment::Snapshot {
                experiment: record,
                jobs: jobs.into_values().map(Arc::new).collect(),
                pods: pods.into_values().map(Arc::new).collect(),
                confirmed,
                now: at(now),
                ..experiment::Snapshot::default()
            }
        },
    )
}

fn status(spec: &Value, attempts: usize, open: bool) -> ExperimentStatus {
    let mut status = json!({"phase": if attempts == 0 { "Pending" } else { "Starting" }});
    if attempts > 0 {
        let end = |number: usize| if number == attempts && open { Value::Null } else { json!(stamp(30)) };
        let attempt = |number: usize| json!({"number": number, "job": names::job("train", &uid("train"), u32::try_from(number).unwrap()), "createdAt": stamp(1), "finishedAt": end(number)});
        status["template"] = overrides(spec);
        status["attempt"] = json!(attempts);
        status["attempts"] = (1..=attempts).map(attempt).collect();
    }
    serde_json::from_value(status).expect("a status")
}

fn recorded(status: &ExperimentStatus, number: u32) -> bool {
    status.attempts.iter().any(|attempt| attempt.number == number)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn an_attempt_starts_alone_and_once(snapshot in snapshot()) {
        let plan = experiment::decide(&snapshot);
        prop_assert_eq!(&plan, &experiment::decide(&snapshot));
        let before = &snapshot.experiment.status;
        let started: Vec<u32> = plan.actions.iter().filter_map(|action| if let Action::StartAttempt { number, .. } = action { Some(*number) } else { None }).collect();
        prop_assert!(started.len() <= 1);
        for number in started {
            prop_assert!(!recorded(before, number), "attempt {} was recorded", number);
            prop_assert!(recorded(&plan.status, number), "attempt {} is not recorded", number);
            prop_assert!(snapshot.jobs.iter().all(|job| job.state != JobState::Active), "a Job is alive");
            prop_assert!(snapshot.pods.iter().all(|pod| pod.is_over()), "a pod can still run");
            prop_assert!(snapshot.experiment.spec["cancel"] != true, "it was cancelled");
        }
    }

    #[test]
    fn a_wait_has_a_reason_and_an_end(snapshot in snapshot()) {
        let plan = experiment::decide(&snapshot);
        if plan.status.phase.is_terminal() {
            prop_assert!(plan.status.times.as_ref().is_some_and(|times| times.finished.is_some()));
            prop_assert!(plan.status.phase == Phase::Completed || plan.status.reason.is_some());
            return Ok(());
        }
        // What ends it: something to do, a moment, or a change of what is watched: a pod that ends, a Job.
        let watched = snapshot.pods.iter().any(|pod| !pod.is_over()) || snapshot.jobs.iter().any(|job| job.state == JobState::Active);
        prop_assert!(!plan.actions.is_empty() || plan.wake_at.is_some() || watched, "nothing ends {:?}", plan.status.phase);
        // Where the phase does not explain itself there is a reason, unless it is being found out.
        let told = plan.status.reason.is_some() || plan.status.phase == Phase::Running || !plan.actions.is_empty() || plan.wake_at.is_some();
        prop_assert!(told, "{:?} without a reason", plan.status.phase);
    }

    #[test]
    fn what_has_ended_is_final(snapshot in snapshot(), again in snapshot()) {
        let plan = experiment::decide(&snapshot);
        if !plan.status.phase.is_terminal() {
            return Ok(()); // about five of six: too many to be rejected
        }
        let mut later = again;
        later.experiment.status = Arc::new(plan.status.clone());
        let after = experiment::decide(&later);
        let record = |status: &ExperimentStatus| (status.phase, status.reason, status.message.clone(), status.template.clone(), status.attempts.clone(), status.artifacts.clone(), status.metrics.clone());
        prop_assert_eq!(record(&after.status), record(&plan.status));
        let harmless = |action: &Action| matches!(action, Action::StopAttempt { .. } | Action::DeleteJob { .. });
        prop_assert!(after.actions.iter().all(harmless), "{:?}", after.actions);
    }

    #[test]
    fn attempts_are_recorded_forward(snapshot in snapshot()) {
        let before = &snapshot.experiment.status;
        let plan = experiment::decide(&snapshot);
        prop_assert!(plan.status.attempt >= before.attempt);
        for attempt in before.attempts.iter().filter(|attempt| attempt.finished_at.is_some()) {
            prop_assert!(plan.status.attempts.contains(attempt), "the end of attempt {} changed", attempt.number);
        }
        if before.template.is_some() && !plan.status.phase.is_terminal() {
            prop_assert_eq!(&plan.status.template, &before.template);
        }
    }
}

// ---- Whatever is written into an object.

fn leaf() -> impl Strategy<Value = Value> {
    let texts = vec![
        "",
        "x",
        "${",
        "${params.lr}",
        "${stages.a.metrics.acc.last}",
        "${= 1 + }",
        "$(HOME)",
        "9999999d",
        "-1s",
        "Completed",
        "Stop",
        "a\u{0}b",
        "🦀",
        "v1:x",
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(vec![0_i64, -1, 1, 101, i64::MAX, i64::MIN]).prop_map(Value::from),
        prop::sample::select(vec![0.5, -0.0, 1e308]).prop_map(Value::from),
        prop::sample::select(texts).prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([{"name": "a"}, {"name": "a", "value": 1}])),
        Just(json!({"a": {"b": [null, "${params}"]}})),
        Just(Value::from("long ".repeat(1000))),
    ]
}

/// Changes to make: which node, counted in order, and what becomes of it; nothing removes it.
fn changes() -> impl Strategy<Value = Vec<(usize, Option<Value>)>> {
    prop::collection::vec((0..200_usize, prop::option::weighted(0.8, leaf())), 1..4)
}

fn nodes(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                found.push(path.clone());
                nodes(value, &path, found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                let path = format!("{path}/{index}");
                found.push(path.clone());
                nodes(value, &path, found);
            }
        }
        _ => {}
    }
}

fn change(mut value: Value, changes: &[(usize, Option<Value>)]) -> Value {
    for (which, new) in changes {
        let mut found = Vec::new();
        nodes(&value, "", &mut found);
        let Some(path) = found.get(which % found.len().max(1)) else { continue };
        let (parent, key) = path.rsplit_once('/').expect("a path");
        match (new, value.pointer_mut(path), key) {
            (Some(new), Some(node), _) => *node = new.clone(),
            (None, _, key) => {
                if let Some(map) = value.pointer_mut(parent).and_then(Value::as_object_mut) {
                    map.remove(&key.replace("~1", "/").replace("~0", "~"));
                }
            }
            (Some(_), None, _) => {}
        }
    }
    value
}

fn an_experiment() -> Value {
    json!({
        "image": "x:${params.tag}", "command": ["a"], "args": ["--lr=${params.lr}", "${inputs.d.uri}", "${= params.n + 1}"],
        "params": {"lr": 0.1, "tag": "1", "n": 2, "copy": "${params.lr}"}, "env": [{"name": "A", "value": "${run.name}"}],
        "source": {"git": {"url": "https://x/${params.tag}", "revision": "main", "secret": "s"}, "subdirectory": "a/b", "python": {"requirements": "r.txt"}},
        "inputs": [{"name": "d", "uri": "s3://${params.tag}"}], "outputs": [{"name": "m", "optional": true}],
        "resources": {"limits": {"nvidia.com/gpu": 1}}, "retries": {"limit": 1, "backoff": {"initial": "1s", "factor": 2, "max": "9s"}},
        "timeouts": {"run": "1h", "start": "1m", "template": "1m"}, "podTemplate": {"metadata": {"annotations": {"a": "${params.lr}"}}, "spec": {"containers": [{"name": "main", "env": [{"name": "B", "value": "b"}]}]}},
        "ttlAfterFinished": "1d", "cancel": false,
    })
}

fn a_clone() -> Value {
    json!({"from": {"selector": {"matchLabels": {"team": "a"}, "pick": "Best", "best": {"metric": "acc", "goal": "Minimize", "use": "Max"}}, "require": "Ended"}, "unset": ["params.lr"], "params": {"x": 1}, "source": {"git": {"revision": "dev"}}})
}

fn a_pipeline() -> Value {
    json!({
        "params": {"lr": 0.1, "n": 3}, "paramSchema": {"lr": {"type": "number", "minimum": 0}, "n": {"enum": [1, 3]}}, "runOn": "Change", "rerun": "1", "historyLimit": 2, "onFailure": "Stop",
        "outputs": {"m": "${stages.b.artifacts.m.uri}"},
        "stages": [
            {"name": "a", "image": "x", "params": {"lr": "${pipeline.params.lr}"}, "args": ["${params.lr}"]},
            {"name": "b", "from": {"experiment": "root"}, "after": [{"stage": "a"}], "inputs": [{"name": "d", "uri": "${stages.a.artifacts.d.uri}"}]},
        ],
    })
}

fn sound<S: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(
    plan: &Plan<S>,
) -> Result<(), TestCaseError> {
    let status = serde_json::to_value(&plan.status).expect("JSON");
    let mut found = vec![status.clone()];
    found.extend(status["conditions"].as_array().cloned().unwrap_or_default());
    found.extend(status["stages"].as_array().cloned().unwrap_or_default());
    for part in found {
        let message = part["message"].as_str().unwrap_or_default();
        prop_assert!(message.len() <= MAX_MESSAGE, "a message of {} bytes", message.len());
    }
    prop_assert!(plan.events.iter().all(|event| event.message.len() <= MAX_MESSAGE));
    let read: S = serde_json::from_value(status).expect("what is written can be read");
    prop_assert_eq!(&read, &plan.status);
    Ok(())
}

fn known() -> Vec<support::Source> {
    let source = json!([
        {"name": "root", "labels": {"team": "a"}, "finished": 3, "status": {"phase": "Completed", "template": an_experiment(), "metrics": {"acc": {"last": 1}}}},
        {"name": "other", "labels": {"team": "a"}, "finished": 4, "status": {"phase": "Failed", "template": {"image": "y", "params": {"lr": 1}}, "metrics": {"acc": {"last": 0}}}},
    ]);
    serde_json::from_value(source).expect("sources")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn any_experiment_is_decided(clone: bool, stage: bool, changes in changes(), now in 0..10_000_i64) {
        let spec = change(if clone { a_clone() } else { an_experiment() }, &changes);
        let _ = validate::experiment(&spec);
        let mut experiment = record("train", spec.clone(), ExperimentStatus::default());
        if stage {
            experiment.meta = stage_of("run", "train", Value::Null, ExperimentStatus::default()).meta;
        }
        let mut snapshot = experiment::Snapshot { sources: sources(&known(), [&spec]), experiment, now: at(now), ..experiment::Snapshot::default() };
        let first = experiment::decide(&snapshot);
        sound(&first)?;
        snapshot.experiment.status = Arc::new(first.status.clone());
        sound(&experiment::decide(&snapshot))?;
        let job = first.status.template.as_ref().map(|template| render::job(&snapshot.experiment.meta, 1, template, None, None));
        if let Some(Err(error)) = job {
            prop_assert!([Reason::InvalidTemplate, Reason::ReferenceUnresolved].contains(&error.reason));
        }
    }

    #[test]
    fn any_experiment_status_is_decided(changes in changes(), deadline in 0..10_000_i64) {
        let spec = an_experiment();
        let full = json!({"phase": "Running", "reason": "BackingOff", "message": "m", "template": spec, "digest": "d", "attempt": 2, "retries": {"user": 1, "infrastructure": 0},
            "attempts": [{"number": 1, "job": "j", "createdAt": stamp(1), "finishedAt": stamp(2)}, {"number": 2, "job": "k", "createdAt": stamp(3)}],
            "times": {"starting": stamp(0), "finished": stamp(9)}, "metrics": {"a": {"last": 1.5}}, "imageId": "repo@sha256:1",
            "conditions": [{"type": "InUse", "status": "True", "reason": "Referenced", "message": "", "lastTransitionTime": "2026-11-23T10:00:00Z"}]});
        if let Ok(status) = serde_json::from_value::<ExperimentStatus>(change(full, &changes)) {
            let snapshot = experiment::Snapshot { experiment: record("train", spec, status), now: at(deadline), ..experiment::Snapshot::default() };
            let plan = experiment::decide(&snapshot);
            prop_assert_eq!(&plan, &experiment::decide(&snapshot));
            let text = serde_json::to_string(&plan.status).expect("JSON");
            prop_assert_eq!(&serde_json::from_str::<ExperimentStatus>(&text).expect("what is written can be read"), &plan.status);
        }
    }

    #[test]
    fn any_pipeline_is_decided(changes in changes(), generation in 0..3_i64) {
        let spec = change(a_pipeline(), &changes);
        let mut record = record("digits", spec, PipelineStatus::default());
        record.meta.generation = generation;
        let mut snapshot = pipeline::Snapshot { pipeline: record, now: at(1), ..pipeline::Snapshot::default() };
        let plan = pipeline::decide(&snapshot);
        sound(&plan)?;
        snapshot.pipeline.status = Arc::new(plan.status);
        let again = pipeline::decide(&snapshot);
        prop_assert!(again.actions.is_empty(), "{:?}", again.actions);
        prop_assert_eq!(&again.status, &*snapshot.pipeline.status);
    }

    #[test]
    fn any_pipeline_status_is_decided(changes in changes(), revision in prop::sample::select(vec!["1", "-7", "x", "9223372036854775807"])) {
        let full = json!({"observedGeneration": 1, "revision": 3, "digest": "v1:d", "runGeneration": 1, "latestRun": {"name": "digits-3", "phase": "Failed"}, "reason": "StageFailed", "message": "m",
            "conditions": [{"type": "Accepted", "status": "False", "reason": "Invalid", "message": "", "lastTransitionTime": "2026-11-23T10:00:00Z"}]});
        if let Ok(status) = serde_json::from_value::<PipelineStatus>(change(full, &changes)) {
            let mut run = record("digits-3", json!({"pipeline": "digits"}), PipelineRunStatus::default());
            run.meta.labels.insert(cultivar_crds::labels::REVISION.to_owned(), revision.to_owned());
            let mut record = record("digits", a_pipeline(), status);
            record.meta.generation = 2;
            let mut snapshot = pipeline::Snapshot { pipeline: record, runs: vec![Arc::new(run)], now: at(1), ..pipeline::Snapshot::default() };
            let plan = pipeline::decide(&snapshot);
            prop_assert!(plan.actions.len() <= 1, "{:?}", plan.actions);
            // The run that is made now is remembered: the next pass makes no other.
            snapshot.pipeline.status = Arc::new(plan.status);
            prop_assert!(pipeline::decide(&snapshot).actions.is_empty());
        }
    }

    #[test]
    fn any_run_is_decided(changes in changes(), of_spec: bool, frozen in changes(), with_stages: bool, now in 0..5000_i64) {
        let spec = if of_spec { change(a_pipeline(), &changes) } else { a_pipeline() };
        let run_spec = if of_spec { json!({"pipeline": "digits"}) } else { change(json!({"pipeline": "digits", "params": {"lr": 0.5}, "cancel": false}), &changes) };
        let stages = spec["stages"].as_array().cloned().unwrap_or_default();
        let mut snapshot = pipeline_run::Snapshot {
            approvals: Vec::new(),
            run: record("digits-1", run_spec, PipelineRunStatus::default()),
            pipeline: Some(Arc::new(record("digits", spec, PipelineStatus::default()))),
            sources: sources(&known(), &stages),
            now: at(now),
            ..pipeline_run::Snapshot::default()
        };
        let plan = pipeline_run::decide(&snapshot);
        sound(&plan)?;
        let mut status = plan.status;
        status.pipeline_spec = status.pipeline_spec.map(|spec| change(spec, &frozen));
        snapshot.run.status = Arc::new(status);
        if with_stages {
            let status = ExperimentStatus { phase: Phase::Completed, ..ExperimentStatus::default() };
            let stage = stage_of("digits-1", "a", json!({"image": "x"}), status);
            snapshot.children.insert(support::member("a"), pipeline_run::Child::Experiment(Arc::new(stage)));
        }
        let plan = pipeline_run::decide(&snapshot);
        sound(&plan)?;
        for action in &plan.actions {
            if let Action::CreateStage(new) = action {
                let manifest = render::stage(&snapshot.run.meta, new);
                prop_assert!(manifest["metadata"]["name"].as_str().is_some_and(|name| name.len() <= names::MAX_EXPERIMENT));
            }
        }
    }
}
