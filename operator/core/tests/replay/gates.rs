//! Scenarios with gates: somebody answers, the answer goes away or is taken back, nobody answers.

use serde_json::{Value, json};

use super::cluster::Kind;
use super::scenarios::{ends, pipeline, run_by_hand, script};
use super::world::{Deed, Scenario};

fn says(name: &str, run: &str, stage: &str, verdict: &str, values: &Value) -> Deed {
    let spec = json!({"run": run, "stage": stage, "verdict": verdict, "by": "ada", "values": values});
    Deed::Apply(json!({"kind": "Approval", "metadata": {"name": name}, "spec": spec}))
}

// What was recorded stays when the Approval goes and another one says no; the run that goes on from it is not asked again.
pub fn answered() -> Scenario {
    let spec = json!({"stages": [
        {"name": "prepare", "image": "x"},
        {"name": "ask", "gate": {"message": "Ship ${stages.prepare.experiment}?", "timeout": "300s", "values": {"share": {"type": "number"}}}},
        {"name": "ship", "image": "x", "args": ["${stages.ask.values.share}", "${stages.ask.approvedBy}"]},
        {"name": "pause", "gate": {"timeout": "20s", "onTimeout": "Approve"}, "after": [{"stage": "prepare"}]},
        {"name": "later", "image": "x", "after": [{"stage": "pause"}]},
    ], "finally": [{"name": "clean", "gate": {"message": "${pipeline.phase}", "timeout": "60s"}}]});
    let values = json!({"share": 0.5});
    Scenario {
        name: "gates that are answered, and a timer",
        deeds: vec![
            (0, pipeline(&spec)),
            (2, says("before", "digits-1", "ask", "Approve", &json!({"share": "all"}))),
            (40, says("yes", "digits-1", "ask", "Approve", &values)),
            (42, Deed::DeleteApproval("yes")),
            (44, says("no", "digits-1", "ask", "Reject", &json!({}))),
            (60, says("clean", "digits-1", "clean", "Approve", &json!({}))),
            (200, run_by_hand("again", &json!({"pipeline": "digits", "resumeOf": "digits-1"}))),
        ],
        script: script(&[("digits-1-ship-*", &[ends(1)])]),
    }
}

// One is rejected, which a stage deals with; one is given up with the run, or nobody answers it.
pub fn unanswered(cancel: Option<u64>) -> Scenario {
    let spec = json!({"stages": [
        {"name": "ask", "gate": {}},
        {"name": "mend", "image": "x", "after": [{"stage": "ask", "until": "Failed"}]},
        {"name": "never", "image": "x", "after": [{"stage": "ask"}]},
        {"name": "wait", "gate": {"timeout": "100s"}},
        {"name": "after", "image": "x", "after": [{"stage": "wait"}]},
    ]});
    let mut deeds = vec![(0, pipeline(&spec)), (20, says("no", "digits-1", "ask", "Reject", &json!({})))];
    deeds.extend(cancel.map(|second| (second, Deed::Cancel(Kind::Run, "digits-1"))));
    Scenario {
        name: if cancel.is_some() { "a gate that is given up with its run" } else { "gates that do not let through" },
        deeds,
        script: script(&[]),
    }
}
