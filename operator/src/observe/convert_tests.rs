//! From API objects to records: what an end looks like when it arrives.

use super::*;
use cultivar_crds::ExperimentStatus;
use serde_json::json;

fn pod_with(status: Value) -> SlimPod {
    let manifest = json!({
        "metadata": {
            "name": "p", "namespace": "n", "uid": "u",
            "labels": {"cultivar.dev/experiment": "e", "cultivar.dev/attempt": "2"},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "job-uid", "controller": true}],
        },
        "spec": {"containers": [], "nodeName": "node-1"},
        "status": status,
    });
    serde_json::from_value(manifest).unwrap()
}

#[test]
fn a_pod_keeps_what_its_program_left() {
    let terminated = json!({"exitCode": 3, "reason": "Error", "message": "{}", "finishedAt": "2026-01-01T00:00:05Z", "startedAt": null});
    let status = json!({
        "phase": "Failed",
        "containerStatuses": [
            {"name": "sidecar", "image": "s", "imageID": "s@1", "ready": false, "restartCount": 0, "state": {"running": {}}},
            {"name": "main", "image": "i", "imageID": "i@sha256:a", "ready": false, "restartCount": 0, "state": {"terminated": terminated}},
        ],
    });
    let record = pod(pod_with(status), false);
    assert_eq!((record.experiment.as_str(), record.attempt, record.job_uid.as_str()), ("e", 2, "job-uid"));
    assert_eq!(record.image_id.as_deref(), Some("i@sha256:a"));
    assert_eq!(record.node.as_deref(), Some("node-1"));
    let ContainerState::Terminated(end) = record.main else { panic!("{:?}", record.main) };
    assert_eq!((end.exit_code, end.message.as_str(), end.started), (3, "{}", None));
    assert!(end.finished.is_some());
}

#[test]
fn a_pod_that_was_taken_away_says_by_whom() {
    let status = json!({
        "phase": "Pending",
        "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"},
            {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drain"},
        ],
    });
    let record = pod(pod_with(status), true);
    assert!(record.gone && record.is_over());
    assert_eq!(record.unschedulable.as_deref(), Some("0/3 nodes are available"));
    assert_eq!(record.disruption.unwrap().reason, "EvictionByEvictionAPI");
}

#[test]
fn an_init_container_says_why_the_program_waits_or_never_ran() {
    let init = |state: Value| {
        json!({
            "phase": "Pending",
            "initContainerStatuses": [{"name": "cultivar-runner", "state": state}],
            "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "PodInitializing"}}}],
        })
    };
    let waits =
        pod(pod_with(init(json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}))), false);
    assert!(matches!(waits.main, ContainerState::Waiting { reason, .. } if reason == "ImagePullBackOff"));
    let failed = pod(pod_with(init(json!({"terminated": {"exitCode": 1, "message": "disk full"}}))), false);
    let (name, words) = failed.init_failure.unwrap();
    assert_eq!((name.as_str(), words.contains("exit code 1: disk full")), ("cultivar-runner", true));
}

#[test]
fn a_job_ends_by_its_condition() {
    let with = |conditions: Value| {
        let manifest = json!({"metadata": {"name": "j", "namespace": "n"}, "status": {"conditions": conditions}});
        job(serde_json::from_value(manifest).unwrap()).state
    };
    assert_eq!(with(json!([])), JobState::Active);
    assert_eq!(with(json!([{"type": "Complete", "status": "False"}])), JobState::Active);
    assert_eq!(with(json!([{"type": "Complete", "status": "True"}])), JobState::Complete);
    let failed =
        with(json!([{"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "exit code 3"}]));
    assert_eq!(failed, JobState::Failed { reason: "PodFailurePolicy".into(), message: "exit code 3".into() });
}

#[test]
fn a_status_of_a_newer_operator_is_not_taken_for_an_empty_one() {
    let object = |status: Value| -> Raw {
        let json = json!({"metadata": {"name": "e"}, "spec": {"image": "i"}, "status": status});
        serde_json::from_str(&json.to_string()).unwrap()
    };
    assert!(record::<ExperimentStatus>(object(json!({"phase": "Hibernating"})), None).is_err());
    let known: Record<ExperimentStatus> =
        record(object(json!({"phase": "Completed", "somethingNew": 1})), None).unwrap();
    assert_eq!(known.status.phase, cultivar_crds::Phase::Completed);
    let fresh: Record<ExperimentStatus> = record(object(Value::Null), None).unwrap();
    assert_eq!(*fresh.status, ExperimentStatus::default());
}

#[test]
fn of_other_pods_only_what_they_hold_of_a_listed_resource_is_kept() {
    let listed = ["nvidia.com/gpu".into()].into_iter().collect();
    let gpu = |amount: u32| json!({"resources": {"limits": {"nvidia.com/gpu": amount, "cpu": "1", "rdma/hca": 1}}});
    let spec =
        |node: Option<&str>, containers: Value| json!({"nodeName": node, "containers": containers, "volumes": []});
    for (name, spec, wanted) in [
        ("two containers", spec(Some("n1"), json!([gpu(1), gpu(2)])), Some(3)),
        ("an init container", json!({"nodeName": "n1", "initContainers": [gpu(4)], "containers": [gpu(1)]}), Some(4)),
        ("on no node yet", spec(None, json!([gpu(1)])), None),
        ("only of what nobody lists", spec(Some("n1"), json!([{"resources": {"limits": {"rdma/hca": 1}}}])), None),
        ("none of it", spec(Some("n1"), json!([gpu(0)])), None),
        ("no resources", spec(Some("n1"), json!([{"name": "main"}])), None),
    ] {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})).unwrap();
        let found = outsider(pod, &listed);
        let amounts = wanted.map(|amount| [("nvidia.com/gpu".into(), amount)].into_iter().collect());
        assert_eq!(found.as_ref().map(|found| &found.amounts), amounts.as_ref(), "{name}");
        assert!(found.is_none_or(|found| found.node == "n1"), "{name}");
    }
}
