//! The cases of `e2e/cases/conformance` in the in-memory cluster: as they are, with crashes, in other orders of events.
//!
//! Comes in: the files. What is asserted: what each says has to come of it, and that no disturbance changes it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use cultivar_conformance::{Act, Case, PIPELINE, Play as Plays, RUN, Seen};
use cultivar_core::domain::Record;
use serde::Serialize;
use serde_json::{Value, json};

use super::cluster::{Kind, NAMESPACE};
use super::kubelet::Play;
use super::world::{Chance, Deed, Scenario, World};

/// Orders of events that are tried for each case.
const SEEDS: u64 = 4;

static CASES: LazyLock<Result<Vec<Case>, String>> = LazyLock::new(cultivar_conformance::all);

fn cases() -> &'static [Case] {
    CASES.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

// Nobody runs programs here: those that read and write files run on a real node.
fn played() -> impl Iterator<Item = &'static Case> {
    cases().iter().filter(|case| !case.files)
}

fn play(play: &Plays) -> Play {
    Play {
        seconds: play.seconds.unwrap_or(1),
        code: play.exit,
        output: play.message(),
        evicted: play.evicted,
        oom: play.oom,
        unscheduled: play.unscheduled,
    }
}

fn deed(act: &'static Act) -> Deed {
    match act {
        Act::CancelRun => Deed::Cancel(Kind::Run, RUN),
        Act::CancelStage(stage) => Deed::CancelStage(stage),
        Act::DeletePod(stage) => Deed::DeletePod(stage),
        Act::Apply(object) => Deed::Apply(object.manifest(NAMESPACE)),
    }
}

fn scenario(case: &'static Case) -> Scenario {
    let applied = case.objects.iter().map(|object| object.manifest(NAMESPACE));
    let applied = applied.chain([case.applied().manifest(NAMESPACE)]);
    let script = case.plays.iter().map(|(name, plays)| (name.clone(), plays.iter().map(play).collect()));
    Scenario {
        name: &case.name,
        deeds: applied.map(|object| (0, Deed::Apply(object))).collect(),
        script: script.collect(),
    }
}

fn world(case: &'static Case, scenario: &Scenario) -> World {
    let mut world = World::new(scenario);
    let awaited = case.deeds.iter().map(|one| (one.when.stage.as_deref(), one.when.phase.as_str(), deed(&one.act)));
    world.awaited = awaited.collect();
    world
}

fn object<S: Serialize>(record: &Record<S>) -> Value {
    let meta = &record.meta;
    json!({
        "metadata": {"name": meta.name, "labels": meta.labels, "creationTimestamp": meta.created},
        "spec": *record.spec,
        "status": *record.status,
    })
}

fn seen(world: &World) -> Seen {
    let cluster = &world.cluster;
    let conditions = cluster.pipelines.get(PIPELINE).map_or(&[][..], |pipeline| &pipeline.status.conditions);
    let refused = conditions.iter().find(|condition| condition.type_ == "Accepted" && condition.status == "False");
    Seen {
        run: cluster.runs.get(RUN).map_or(Value::Null, object),
        experiments: cluster.experiments.values().map(object).collect(),
        refusal: refused.map(|condition| condition.message.clone()),
        jobs: cluster.jobs_made(),
        writes: Some(cluster.writes),
    }
}

fn conforms(case: &'static Case) -> (Value, usize) {
    let scenario = scenario(case);
    let mut world = world(case, &scenario);
    world.run(None);
    let lines = case.differs(&seen(&world));
    assert!(lines.is_empty(), "{}\n{}", lines.join("\n"), world.story());
    assert!(world.awaited.is_empty(), "what a deed waits for never comes\n{}", world.story());
    world.rests();
    (world.outcome(), world.cluster.writes)
}

fn stands_crashes(case: &'static Case) {
    let (expected, writes) = conforms(case);
    let scenario = scenario(case);
    for write in 1..=writes {
        let mut world = world(case, &scenario);
        world.cluster.crash_after = Some(write);
        world.run(None);
        world.rests();
        compare(case, &scenario, &world, &expected, &format!("with a crash after write {write}"));
    }
}

fn stands_disorder(case: &'static Case) {
    let (expected, _) = conforms(case);
    let scenario = scenario(case);
    for seed in 0..SEEDS {
        let mut world = world(case, &scenario);
        world.run(Some(Chance(seed)));
        world.rests();
        compare(case, &scenario, &world, &expected, &format!("seed {seed}"));
    }
}

// Where the end depends on who is faster the invariants hold, and the run ends as the case says.
fn compare(case: &Case, scenario: &Scenario, world: &World, expected: &Value, how: &str) {
    if !case.timing {
        return super::same(scenario, world, expected, how);
    }
    let phase = |outcome: &Value| outcome["runs"][RUN]["phase"].clone();
    assert_eq!(phase(&world.outcome()), phase(expected), "{how}\n{}", world.story());
}

// All cases are played before any failure is told, each by its name.
fn each(play: fn(&'static Case)) {
    let fails = |case: &&'static Case| match catch_unwind(AssertUnwindSafe(|| play(case))) {
        Ok(()) => {
            println!("{}: ok", case.name);
            false
        }
        Err(_) => {
            println!("{}: FAILED, see above", case.name);
            true
        }
    };
    let failed: Vec<&str> = played().filter(fails).map(|case| case.name.as_str()).collect();
    assert!(failed.is_empty(), "{} of {} cases: {}", failed.len(), played().count(), failed.join(", "));
}

#[test]
fn every_case_conforms() {
    each(|case| drop(conforms(case)));
}

#[test]
fn and_with_a_crash_after_any_write() {
    each(stands_crashes);
}

#[test]
fn and_whatever_becomes_of_events() {
    each(stands_disorder);
}
