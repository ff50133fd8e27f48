//! Replay: an in-memory cluster runs decide and act until nothing more happens, while events are
//! lost, repeated and reordered and the operator dies after any of its writes.
//!
//! Comes in: scenarios. What is asserted: the invariants at each write, and one and the same outcome.

mod checks;
mod cluster;
mod conformance;
mod gates;
mod index;
mod kubelet;
mod operator;
mod random;
mod reuse;
mod scenarios;
mod world;

use serde_json::Value;
use world::{Chance, Scenario, World};

/// Orders of events that are tried for each scenario, unless REPLAY_SEEDS says how many.
const SEEDS: u64 = 12;

fn undisturbed(scenario: &Scenario) -> (Value, usize) {
    let mut world = World::new(scenario);
    world.run(None);
    world.rests();
    (world.outcome(), world.cluster.writes)
}

// Somebody who cancels may come before the news that something could start: then it never did.
fn or_never_begun(mut expected: Value, outcome: &Value) -> Value {
    for (name, one) in expected["experiments"].as_object_mut().into_iter().flatten() {
        let found = &outcome["experiments"][name];
        let never_begun = found["attempts"].as_array().is_some_and(Vec::is_empty) && found["template"].is_null();
        if one["phase"] == "Cancelled" && found["phase"] == "Cancelled" && never_begun {
            (one["attempts"], one["template"]) = (found["attempts"].clone(), Value::Null);
        }
    }
    expected
}

fn same(scenario: &Scenario, world: &World, expected: &Value, how: &str) {
    let outcome = world.outcome();
    let expected = &or_never_begun(expected.clone(), &outcome);
    if outcome != *expected {
        let text = |value: &Value| serde_yaml::to_string(value).expect("YAML");
        panic!(
            "{}, {how}: it ended as\n{}\ninstead of\n{}\n{}",
            scenario.name,
            text(&outcome),
            text(expected),
            world.story()
        );
    }
}

#[test]
fn undisturbed_everything_ends() {
    for scenario in scenarios::all() {
        let (outcome, _) = undisturbed(&scenario);
        for (kind, name, object) in ["experiments", "runs"].iter().flat_map(|kind| {
            outcome[*kind].as_object().into_iter().flatten().map(move |(name, object)| (kind, name, object))
        }) {
            let phase = object["phase"].as_str().unwrap_or_default();
            assert!(
                ["Completed", "Failed", "Cancelled"].contains(&phase),
                "{}: {kind} {name} is {phase}",
                scenario.name
            );
        }
        assert_eq!(outcome["jobs"], serde_json::json!([]), "{}: Jobs stay", scenario.name);
    }
}

#[test]
fn a_crash_after_any_write_changes_nothing() {
    for scenario in scenarios::all() {
        let (expected, writes) = undisturbed(&scenario);
        for write in 1..=writes {
            let mut world = World::new(&scenario);
            world.cluster.crash_after = Some(write);
            world.run(None);
            assert_eq!(world.crashes, 1, "{}: no write {write}", scenario.name);
            world.rests();
            same(&scenario, &world, &expected, &format!("with a crash after write {write}"));
        }
    }
}

#[test]
fn a_crash_after_every_write_changes_nothing() {
    for scenario in scenarios::all() {
        let (expected, _) = undisturbed(&scenario);
        let mut world = World::new(&scenario);
        world.cluster.crash_always = true;
        world.run(None);
        world.rests();
        same(&scenario, &world, &expected, "with a crash after every write");
    }
}

#[test]
fn lost_repeated_and_reordered_events_change_nothing() {
    let seeds = std::env::var("REPLAY_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("a number"));
    for scenario in scenarios::all() {
        let (expected, _) = undisturbed(&scenario);
        for seed in 0..seeds {
            let mut world = World::new(&scenario);
            world.run(Some(Chance(seed)));
            world.rests();
            same(&scenario, &world, &expected, &format!("seed {seed}"));
        }
    }
}

#[test]
fn a_run_keeps_what_its_tags_stood_for() {
    let (outcome, _) = undisturbed(&reuse::tags());
    let image = |run: &str, stage: usize| outcome["runs"][run]["frozen"]["stages"][stage]["template"]["image"].clone();
    for (run, digest) in [("digits-1", "sha256:old"), ("digits-2", "sha256:new"), ("digits-3", "sha256:new")] {
        for stage in [0, 1] {
            assert_eq!(image(run, stage), format!("registry.example/train:1@{digest}"), "{run}");
        }
        assert_eq!(image(run, 2), "mine:1", "{run}: no registry has it");
    }
    let experiments = outcome["experiments"].as_object().expect("experiments");
    let of = |part: &str| {
        let found = experiments.iter().find(|(name, _)| name.contains(part));
        found.unwrap_or_else(|| panic!("no {part}")).1
    };
    let first = of("digits-1-prepare");
    assert_eq!(first["attempts"].as_array().map(Vec::len), Some(2), "it was tried again after the tag had moved");
    assert_eq!(first["template"]["image"], "registry.example/train:1@sha256:old");
    assert!(of("digits-2-prepare")["reusedFrom"].is_null(), "another image is another run");
    for reused in ["digits-3-prepare", "by-hand"] {
        let from = of(reused)["reusedFrom"].as_str().unwrap_or_default();
        assert!(from.starts_with("digits-2-prepare"), "{reused}: {from:?}");
    }
    assert!(of("digits-3-here")["reusedFrom"].is_null(), "what a tag alone names is not reused");
}
