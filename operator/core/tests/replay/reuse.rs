//! Scenarios with reuse: a second run takes over what has not changed, and who would do the same waits.

use serde_json::{Value, json};

use super::kubelet::Play;
use super::scenarios::{ends, pipeline, script};
use super::world::{Deed, Scenario};

fn image() -> String {
    format!("registry.example/train@sha256:{}", "7f".repeat(32))
}

// The first run; another parameter; back again; and everything anew, of which one stage fails.
pub fn revisions() -> Scenario {
    let spec = |lr: i32, rerun: &str| {
        let mut spec = json!({
            "params": {"lr": lr},
            "stages": [
                {"name": "prepare", "image": image(), "args": ["100"]},
                {"name": "train", "image": image(), "params": {"lr": "${pipeline.params.lr}"}, "args": ["${stages.prepare.metrics.rows.last}"]},
                {"name": "many", "image": image(), "count": 3, "after": [{"stage": "prepare"}]},
                {"name": "loop", "image": image(), "repeat": {"max": 2}, "args": ["${repeat.index}"]},
            ],
            "finally": [{"name": "tell", "image": image()}],
        });
        if !rerun.is_empty() {
            spec["rerun"] = rerun.into();
        }
        pipeline(&spec)
    };
    let rows = Play { seconds: 5, output: json!({"metrics": {"rows": 7}}).to_string(), ..Play::default() };
    Scenario {
        name: "revisions that reuse what has not changed",
        deeds: vec![(0, spec(1, "")), (200, spec(2, "")), (400, spec(1, "")), (600, spec(1, "today"))],
        script: script(&[("prepare", &[rows]), ("digits-4-many-2*", &[ends(1)])]),
    }
}

// The second waits for the first, which fails; then it runs itself. The third comes when all is over.
pub fn joined() -> Scenario {
    let deed =
        |name: &str, spec: Value| Deed::Apply(json!({"kind": "Experiment", "metadata": {"name": name}, "spec": spec}));
    let spec = |priority: i32| json!({"image": image(), "cache": {"mode": "Use"}, "priority": priority});
    let slow = Play { seconds: 120, ..ends(1) };
    let good = Play { seconds: 5, output: json!({"metrics": {"acc": 1}}).to_string(), ..Play::default() };
    Scenario {
        name: "identical work that fails, is done, and is reused",
        deeds: vec![(0, deed("first", spec(1))), (60, deed("second", spec(2))), (300, deed("third", spec(3)))],
        script: script(&[("first", &[slow]), ("second", &[good])]),
    }
}

// The tag is moved while the first run's stage is about to be tried again: what is tried again is what the run began with.
// The next run finds all changed, the one after it nothing. Of one image no registry knows anything.
pub fn tags() -> Scenario {
    let spec = |lr: i32| {
        pipeline(&json!({
            "params": {"lr": lr},
            "stages": [
                {"name": "prepare", "image": "registry.example/train:1", "retries": {"limit": 1}},
                {"name": "train", "image": "registry.example/train:1", "params": {"lr": "${pipeline.params.lr}"}, "after": [{"stage": "prepare"}]},
                {"name": "here", "image": "mine:1"},
            ],
            "finally": [{"name": "tell", "image": "registry.example/tell"}],
        }))
    };
    let by_hand = json!({"kind": "Experiment", "metadata": {"name": "by-hand"},
        "spec": {"image": "registry.example/train:1", "cache": {"mode": "Use"}}});
    let slow = Play { seconds: 120, ..ends(1) };
    let good = Play { seconds: 5, ..Play::default() };
    Scenario {
        name: "tags that are moved",
        deeds: vec![
            (0, Deed::MoveTag("registry.example/train:1", "sha256:old")),
            (0, Deed::MoveTag("registry.example/tell", "sha256:tell")),
            (1, spec(1)),
            (60, Deed::MoveTag("registry.example/train:1", "sha256:new")),
            (400, spec(2)),
            (600, spec(3)),
            (800, Deed::Apply(by_hand)),
        ],
        script: script(&[("digits-1-prepare*", &[slow, good.clone()]), ("by-hand", &[good])]),
    }
}
