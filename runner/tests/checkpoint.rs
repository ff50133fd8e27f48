//! Checkpoints: saved while the program runs and when it ends, given back to the next attempt.

mod support;

use serde_json::{Value, json};
use std::fs;
use support::{Run, signal, until};

fn pointer(run: &Run) -> Option<Value> {
    serde_json::from_slice(&run.object("ns/exp/checkpoint.json")?).ok()
}

fn copies(run: &Run) -> usize {
    run.keys().iter().filter(|key| key.contains("/checkpoints/") && key.ends_with("/state")).count()
}

#[test]
fn the_next_attempt_goes_on_where_the_last_one_was_stopped() {
    let mut run = Run::stored();
    run.spec["checkpoint"] = json!({"path": run.text("ckpt"), "every": "1s"});
    let script = "mkdir -p ckpt; n=$(cat ckpt/state 2>/dev/null || echo 0); echo from $n; trap 'echo stopped > ckpt/state; exit 0' TERM; echo running > ckpt/state; while :; do sleep 0.05; done";
    let child = run.spawn(&["sh", "-c", script]);
    until("one is saved while it runs", || pointer(&run).is_some());
    signal("TERM", &child);
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.stdout, b"from 0\n");
    assert_eq!(copies(&run), 1, "the older copy is removed: {:?}", run.keys());

    fs::remove_dir_all(run.path("ckpt")).unwrap();
    run.spec["attempt"] = json!(2);
    let out = run.sh("cat ckpt/state; echo done > ckpt/state");
    assert_eq!(out.stdout, b"stopped\n", "{}", run.result());
    assert_eq!(pointer(&run).unwrap()["attempt"], 2);

    // Another experiment starts from it, and keeps its own from then on.
    fs::remove_dir_all(run.path("ckpt")).unwrap();
    run.spec["prefix"] = json!("ns/clone");
    run.spec["checkpoint"]["restore"] = json!(format!("file://{}/ns/exp/checkpoint.json", run.text("store")));
    assert_eq!(run.sh("cat ckpt/state").stdout, b"done\n", "{}", run.result());
    assert!(run.object("ns/clone/checkpoint.json").is_some() && run.object("ns/exp/checkpoint.json").is_some());
}

#[test]
fn one_that_is_damaged_is_not_given_back() {
    let mut run = Run::stored();
    run.spec["checkpoint"] = json!({"path": run.text("ckpt"), "every": "1h"});
    assert!(run.sh("printf one > ckpt").status.success());
    let key = run.keys().into_iter().find(|key| key.contains("/checkpoints/")).unwrap();
    fs::write(run.path("store").join(key), "two").unwrap();
    fs::remove_file(run.path("ckpt")).unwrap();
    assert_eq!(run.sh("true").status.code(), Some(125));
    assert_eq!(run.result()["reason"], "InputCorrupt");
}
