//! The key of a run: what counts for it and what does not; and that of runs that wait for each other one goes on.

use cultivar_core::decide::Action;
use cultivar_core::decide::experiment::{Snapshot, decide, reuse};
use cultivar_core::domain::{ExperimentRecord, Meta, Record};
use cultivar_core::reuse::{digest_of_template, first_difference, key};
use cultivar_crds::{Artifact, CacheResult, ExperimentStatus, Phase, PhaseTimes, Reason, ReusedFrom};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn template() -> Value {
    json!({
        "image": format!("ghcr.io/acme/train@sha256:{}", "7f".repeat(32)),
        "command": ["python", "train.py"],
        "args": ["--lr", "${params.lr}"],
        "params": {"lr": 0.1, "epochs": 10},
        "env": [{"name": "SEED", "value": "1"}, {"name": "USER", "value": "ada"}],
        "source": {"git": {"url": "https://git.example/a", "revision": "main", "commit": "c0".repeat(20)}, "subdirectory": "src"},
        "inputs": [
            {"name": "a", "uri": "s3://b/a", "digest": format!("sha256:{}", "aa".repeat(32))},
            {"name": "b", "uri": "s3://b/b", "digest": format!("sha256:{}", "bb".repeat(32))},
        ],
        "outputs": [{"name": "model", "path": "/out/model.pkl", "type": "Model"}],
        "cache": {"ignoreEnv": ["USER"]},
        "podTemplate": {"spec": {"containers": [{"name": "main", "securityContext": {"runAsUser": 7}}]}},
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut changed = template();
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    let parent = changed.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(items) => items[last.parse::<usize>().unwrap()] = value,
        parent => parent[last] = value,
    }
    changed
}

#[test]
fn what_decides_about_the_result_counts() {
    let changes = [
        with("/image", json!(format!("ghcr.io/acme/train@sha256:{}", "80".repeat(32)))),
        with("/command", json!(["python", "other.py"])),
        with("/args/1", json!("0.1")),
        with("/params/lr", json!(0.2)),
        with("/params/new", Value::Null),
        with("/env/0/value", json!("2")),
        with("/envFrom", json!([{"configMapRef": {"name": "x"}}])),
        with("/source/git/commit", json!("c1".repeat(20))),
        with("/source/subdirectory", json!("lib")),
        with("/inputs/1/digest", json!(format!("sha256:{}", "bc".repeat(32)))),
        with("/inputs/1/path", json!("/data")),
        with("/outputs/0/path", json!("/out/other.pkl")),
        with("/workers", json!(2)),
        with("/podTemplate/spec/containers/0/securityContext/runAsUser", json!(8)),
        with("/tensorboard", json!(["/tb"])),
    ];
    let mut digests: Vec<String> = changes.iter().chain([&template()]).map(digest_of_template).collect();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), changes.len() + 1, "two of them look the same");
}

#[test]
fn of_a_folder_everything_in_it_counts_and_its_order() {
    let digest = |uris: &[&str]| digest_of_template(&with("/inputs/0", json!({"name": "a", "uris": uris})));
    let all =
        [digest(&["s3://b/x", "s3://b/y"]), digest(&["s3://b/y", "s3://b/x"]), digest(&["s3://b/x"]), digest(&[])];
    assert_eq!(BTreeSet::from(all).len(), 4);
}

#[test]
fn what_changes_nothing_about_the_result_does_not_count() {
    let swapped = {
        let mut template = template();
        template["inputs"].as_array_mut().unwrap().reverse();
        template
    };
    let changes = [
        with("/image", json!(format!("mirror.example/train:1.4@sha256:{}", "7f".repeat(32)))),
        with("/env/1/value", json!("grace")),
        with("/source/git/url", json!("ssh://git@git.example/a")),
        with("/source/git/revision", json!("v1")),
        with("/inputs/0/uri", json!("s3://elsewhere/a")),
        swapped,
        with("/outputs/0/publish", json!({"configMap": "models", "key": "a"})),
        with("/params/epochs", json!(10.0)),
        with("/queue", json!("research")),
        with("/admission", json!({"kueue": {"localQueue": "a"}})),
        with("/retries", json!({"limit": 3})),
        with("/timeouts", json!({"run": "1h"})),
        with("/store", json!("other")),
        with("/artifacts", json!("Delete")),
        with("/keepOnFailure", json!("1h")),
        with("/resources", json!({"limits": {"cpu": 1}})),
        with("/workers", json!(1)),
        with("/command", json!(["python", "train.py"])),
        with("/podTemplate/metadata", json!({"annotations": {"a": "b"}})),
        with("/podTemplate/spec/nodeSelector", json!({"gpu": "a100"})),
        with("/podTemplate/spec/tolerations", json!([{"operator": "Exists"}])),
        with("/cache/mode", json!("Refresh")),
        with("/tensorboard", json!([])),
    ];
    for (index, changed) in changes.iter().enumerate() {
        assert_eq!(digest_of_template(changed), digest_of_template(&template()), "change {index}");
    }
    let considered = |cpu: i32| {
        let mut template = with("/resources", json!({"limits": {"cpu": cpu}}));
        template["cache"]["considerResources"] = true.into();
        digest_of_template(&template)
    };
    assert_ne!(considered(1), considered(2));
}

#[test]
fn what_may_be_another_thing_tomorrow_is_named() {
    let loose = [
        (with("/image", json!("ghcr.io/acme/train:1.4")), "image: ghcr.io/acme/train:1.4"),
        (with("/image", json!("x@${params.digest}")), "image: x@${params.digest}"),
        (with("/source/git/commit", Value::Null), "source.git.revision: \"main\""),
        (with("/inputs/0/digest", Value::Null), "inputs[a]: nothing is known of the content of s3://b/a"),
        (
            with("/podTemplate/spec/initContainers", json!([{"name": "fetch", "image": "curl:8"}])),
            "podTemplate: the image curl:8",
        ),
        (with("/checkpoint", json!({"restore": {"uri": "s3://x"}})), "checkpoint.restore"),
    ];
    assert_eq!(key(&template(), |_| None).unpinned, Vec::<String>::new());
    for (template, words) in loose {
        let unpinned = key(&template, |_| None).unpinned;
        assert!(unpinned.len() == 1 && unpinned[0].starts_with(words), "{unpinned:?}");
    }
    let made = key(&with("/inputs/0/digest", Value::Null), |_| Some(format!("sha256:{}", "aa".repeat(32))));
    assert_eq!((made.digest(), made.unpinned.len()), (digest_of_template(&template()), 0), "its maker is known");
}

#[test]
fn the_first_difference_has_a_place_and_both_values() {
    let of = |template: &Value| key(template, |_| None).document;
    let difference = |changed: Value| first_difference(&of(&changed), &of(&template()), "digits-1-train");
    assert_eq!(difference(template()), None);
    assert_eq!(difference(with("/params/lr", json!(0.2))).unwrap(), "params.lr: 0.2 here, 0.1 in digits-1-train");
    let path = difference(with("/inputs/1/path", json!("/data"))).unwrap();
    assert_eq!(path, "inputs.b.path: \"/data\" here, nothing in digits-1-train");
    let both = with("/params/lr", json!(0.2));
    let first = first_difference(&of(&with("/args/1", json!("x"))), &of(&both), "t").unwrap();
    assert!(first.starts_with("params.lr:"), "{first}");
}

fn experiment(name: &str, created: i64, started: bool) -> ExperimentRecord {
    let mut spec = template();
    spec["cache"]["mode"] = "Use".into();
    let meta = Meta {
        namespace: "n".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        generation: 1,
        created: Timestamp::from_second(created).ok(),
        ..Meta::default()
    };
    let status = ExperimentStatus {
        phase: Phase::Starting,
        template: Some(Arc::new(spec.clone())),
        attempt: started.then_some(1),
        ..ExperimentStatus::default()
    };
    Record { meta, spec: Arc::new(spec), status: Arc::new(status) }
}

fn completed(name: &str, finished: &str) -> ExperimentRecord {
    let mut record = experiment(name, 0, true);
    let status = Arc::make_mut(&mut record.status);
    status.phase = Phase::Completed;
    status.times = Some(PhaseTimes { finished: Some(finished.into()), ..PhaseTimes::default() });
    status.artifacts = vec![Artifact { name: "model".into(), uri: format!("s3://{name}"), ..Artifact::default() }];
    record
}

fn decided(
    experiment: &ExperimentRecord,
    others: &[ExperimentRecord],
) -> cultivar_core::decide::Plan<ExperimentStatus> {
    let identical = others.iter().filter(|other| other.meta.name != experiment.meta.name).cloned().map(Arc::new);
    let snapshot = Snapshot {
        experiment: experiment.clone(),
        identical: identical.collect(),
        runner_image: Some("runner:1".into()),
        now: Timestamp::from_second(1_700_000_000).unwrap(),
        ..Snapshot::default()
    };
    decide(&snapshot)
}

#[test]
fn the_latest_result_is_taken_over_without_a_job() {
    let all = [completed("old", "2023-01-01T00:00:00Z"), completed("new", "2023-06-01T00:00:00Z")];
    let plan = decided(&experiment("mine", 5, false), &all);
    assert!(plan.actions.is_empty(), "{:?}", plan.actions);
    assert_eq!((plan.status.phase, &*plan.status.artifacts[0].uri), (Phase::Completed, "s3://new"));
    assert_eq!(plan.status.reused_from.unwrap().name, "new");
    assert_eq!(plan.status.cache.unwrap().result, CacheResult::Hit);
    // What was reused names who ran.
    let mut again = completed("again", "2023-07-01T00:00:00Z");
    Arc::make_mut(&mut again.status).reused_from = Some(ReusedFrom { name: "first".into(), ..Default::default() });
    assert_eq!(decided(&experiment("mine", 5, false), &[again]).status.reused_from.unwrap().name, "first");
}

#[test]
fn a_result_is_as_old_as_the_run_that_made_it() {
    // It is now half past ten on the 14th of November.
    let mut mine = experiment("mine", 5, false);
    let mut spec = (*mine.spec).clone();
    spec["cache"]["maxAge"] = "1d".into();
    Arc::make_mut(&mut mine.status).template = Some(Arc::new(spec.clone()));
    mine.spec = Arc::new(spec);
    let takes = |others: &[ExperimentRecord]| decided(&mine, others).status.reused_from;
    let young = completed("young", "2023-11-14T00:00:00Z");
    let taken = takes(std::slice::from_ref(&young)).unwrap();
    assert_eq!(taken.finished.as_deref(), Some("2023-11-14T00:00:00Z"));
    assert_eq!(takes(&[completed("old", "2023-11-13T00:00:00Z")]), None);
    // Taken over again and again it grows no younger.
    let mut heir = completed("heir", "2023-11-14T20:00:00Z");
    let made =
        |finished: &str| ReusedFrom { name: "old".into(), finished: Some(finished.into()), ..Default::default() };
    Arc::make_mut(&mut heir.status).reused_from = Some(made("2023-11-13T00:00:00Z"));
    assert_eq!(takes(std::slice::from_ref(&heir)), None);
    Arc::make_mut(&mut heir.status).reused_from = Some(made("2023-11-14T01:00:00Z"));
    assert_eq!(takes(&[heir]), Some(made("2023-11-14T01:00:00Z")));
}

#[test]
fn a_result_that_goes_or_whose_inputs_are_loose_is_none() {
    let mut going = completed("going", "2023-01-01T00:00:00Z");
    going.meta.deleting = true;
    let mut loose = completed("loose", "2023-01-01T00:00:00Z");
    let condition = json!({"type": "InputsPinned", "status": "False", "reason": "InputUnpinned", "message": "",
        "lastTransitionTime": "2023-01-01T00:00:00Z"});
    Arc::make_mut(&mut loose.status).conditions = vec![serde_json::from_value(condition).unwrap()];
    let mut failed = completed("failed", "2023-01-01T00:00:00Z");
    Arc::make_mut(&mut failed.status).phase = Phase::Failed;
    let plan = decided(&experiment("mine", 5, false), &[going, loose, failed]);
    assert!(matches!(&plan.actions[..], [Action::StartAttempt { .. }]), "{:?}", plan.actions);
    assert_eq!(plan.status.cache.unwrap().result, CacheResult::Miss);
}

#[test]
fn one_that_has_not_begun_is_waited_for_in_the_same_queue_only() {
    let mut mine = experiment("mine", 5, false);
    let mut other = experiment("other", 1, false);
    let is_waited_for = |mine: &ExperimentRecord, other: &ExperimentRecord| {
        let reason = decided(mine, std::slice::from_ref(other)).status.reason;
        reason == Some(Reason::WaitingForIdentical)
    };
    assert!(is_waited_for(&mine, &other));
    let with_queue = |record: &mut ExperimentRecord, queue: &str| {
        let mut spec = (*record.spec).clone();
        spec["queue"] = queue.into();
        Arc::make_mut(&mut record.status).template = Some(Arc::new(spec.clone()));
        record.spec = Arc::new(spec);
    };
    with_queue(&mut other, "held");
    assert!(!is_waited_for(&mine, &other));
    with_queue(&mut mine, "held");
    assert!(is_waited_for(&mine, &other));
    with_queue(&mut mine, "free");
    assert!(!is_waited_for(&mine, &other));
    Arc::make_mut(&mut other.status).attempt = Some(1);
    assert!(is_waited_for(&mine, &other), "it has begun");
}

proptest! {
    // Each is decided on what the others look like now, in any order, until nothing changes: one runs, the others wait
    // for it, and never for each other.
    #[test]
    fn of_identical_runs_one_goes_on(
        created in prop::collection::vec(0_i64..3, 1..7),
        order in prop::collection::vec(0_usize..7, 0..40),
    ) {
        let mut all: Vec<ExperimentRecord> =
            created.iter().enumerate().map(|(index, created)| experiment(&format!("e{index}"), *created, false)).collect();
        let every = 0..all.len();
        for index in order.into_iter().chain(every.clone()).chain(every) {
            let index = index % all.len();
            if all[index].status.attempt.is_none() {
                let plan = decided(&all[index], &all);
                all[index].status = Arc::new(plan.status);
            }
        }
        let running = all.iter().filter(|one| one.status.attempt.is_some()).count();
        let waiting = all.iter().filter(|one| reuse::waits(&one.status)).count();
        prop_assert_eq!((running, waiting), (1, all.len() - 1));
        let wanted = all.iter().filter_map(|one| reuse::wanted(one, &BTreeMap::new()));
        prop_assert!(wanted.collect::<std::collections::BTreeSet<_>>().len() <= 1);
    }

    // Names and numbers as YAML and the API server write them make no difference.
    #[test]
    fn a_written_and_read_template_has_the_same_digest(lr in any::<f64>().prop_filter("JSON", |lr| lr.is_finite()), n in any::<i32>()) {
        let template = with("/params/lr", json!({"a": lr, "b": n, "c": f64::from(n)}));
        let read: Value = serde_yaml::from_str(&serde_yaml::to_string(&template).unwrap()).unwrap();
        prop_assert_eq!(digest_of_template(&read), digest_of_template(&template));
    }
}
