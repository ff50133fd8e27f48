//! Random pipelines (fan-outs, loops, pipelines within them, gates, `finally`), programs and users: the invariants hold for all of them, and everything ends.
//!
//! Comes in: what proptest makes up. What is asserted: no violation, an end of every experiment and
//! run, rest after it; and, where nobody interferes, the same end as without disturbance.

use cultivar_crds::Phase;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::cluster::Kind;
use super::kubelet::Play;
use super::world::{Chance, Deed, Scenario, World};

const STAGES: [&str; 6] = ["s0", "s1", "s2", "s3", "s4", "s5"];
const LAST: [&str; 2] = ["f0", "f1"];

/// What a stage is.
#[derive(Clone, Debug)]
enum Shape {
    /// One experiment, perhaps on a condition.
    Plain { condition: bool },
    /// Members of its fan-out, how many at once, whether the first failure ends them.
    FanOut(u32, u32, bool),
    /// Turns at most, and whether a condition ends them before.
    Loop(u32, bool),
    /// A run of the pipeline `inner`.
    Nested,
    /// What somebody says, or what comes of it when nobody does.
    Gate(Result<&'static str, &'static str>),
}

#[derive(Clone, Debug)]
struct Stage {
    /// Of the stages before this one.
    needs: Vec<usize>,
    shape: Shape,
    retries: u32,
    plays: Vec<Play>,
}

/// A pipeline, and what its programs do.
#[derive(Clone, Debug)]
struct Graph {
    stages: Vec<Stage>,
    /// How the programs of the stages of `finally` play.
    finally: Vec<Vec<Play>>,
    /// The same of the stages of `inner`, one after the other.
    inner: Vec<Vec<Play>>,
    max_parallel: Option<u32>,
}

fn play() -> impl Strategy<Value = Play> {
    let reports = |acc: u32| json!({"metrics": {"acc": acc}}).to_string();
    prop_oneof![
        5 => (0..8_u64, 0..2_u32).prop_map(move |(seconds, acc)| Play { seconds, output: reports(acc), ..Play::default() }),
        1 => (0..8_u64).prop_map(|seconds| Play { seconds, code: 1, ..Play::default() }),
        1 => (0..8_u64).prop_map(|seconds| Play { seconds, evicted: true, ..Play::default() }),
        1 => (0..8_u64).prop_map(|seconds| Play { seconds, ..Play::default() }),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let gate = prop::sample::select(vec![Ok("Approve"), Ok("Reject"), Err("Approve"), Err("Fail")]);
    prop_oneof![
        4 => prop::bool::weighted(0.2).prop_map(|condition| Shape::Plain { condition }),
        3 => (0..4_u32, 1..4_u32, prop::bool::weighted(0.3)).prop_map(|(count, at_once, fail_fast)| Shape::FanOut(count, at_once, fail_fast)),
        2 => (1..4_u32, any::<bool>()).prop_map(|(max, until)| Shape::Loop(max, until)),
        2 => Just(Shape::Nested),
        1 => gate.prop_map(Shape::Gate),
    ]
}

fn plays() -> impl Strategy<Value = Vec<Play>> {
    prop::collection::vec(play(), 1..4)
}

fn stages() -> impl Strategy<Value = Vec<Stage>> {
    let stage = (prop::collection::vec(0..6_usize, 0..3), shape(), 0..3_u32, plays());
    prop::collection::vec(stage, 1..6).prop_map(|stages| {
        let one = |(index, (needs, shape, retries, plays))| {
            let needs: Vec<usize> = needs;
            let mut needs: Vec<usize> = needs.into_iter().filter(|need| *need < index).collect();
            needs.sort_unstable();
            needs.dedup();
            Stage { needs, shape, retries, plays }
        };
        stages.into_iter().enumerate().map(one).collect()
    })
}

fn graph() -> impl Strategy<Value = Graph> {
    let (finally, inner) = (prop::collection::vec(plays(), 0..3), prop::collection::vec(plays(), 1..3));
    let parts = (stages(), finally, inner, prop::option::weighted(0.2, 1..4_u32));
    parts.prop_map(|(stages, finally, inner, max_parallel)| Graph { stages, finally, inner, max_parallel })
}

fn deeds() -> impl Strategy<Value = Vec<(u64, Deed)>> {
    let of = prop::sample::select(&STAGES[..3]);
    let ends = |mode: &str| {
        let spec = json!({"pipeline": "p", "cancel": true, "cancelMode": mode});
        Just(Deed::Apply(json!({"kind": "PipelineRun", "metadata": {"name": "p-1"}, "spec": spec})))
    };
    let deed = prop_oneof![
        Just(Deed::Cancel(Kind::Run, "p-1")),
        ends("FinishRunning"),
        ends("SkipFinally"),
        of.clone().prop_map(Deed::CancelStage),
        of.clone().prop_map(Deed::DeleteStage),
        of.clone().prop_map(Deed::DeletePod),
        of.prop_map(Deed::DeleteJob),
    ];
    prop::collection::vec((1..20_u64, deed), 1..4)
}

// What a stage reads of one that it needs.
fn reads(need: usize, shape: &Shape) -> String {
    let name = STAGES[need];
    match shape {
        Shape::Plain { .. } => format!("${{stages.{name}.experiment}}"),
        Shape::FanOut(..) => format!("${{= size(stages.{name}.members)}}"),
        Shape::Loop(..) => format!("${{= string(size(stages.{name}.metrics))}}"),
        Shape::Nested => format!("${{stages.{name}.outputs.acc}}"),
        Shape::Gate(_) => format!("${{stages.{name}.phase}}"),
    }
}

fn stage(stages: &[Stage], index: usize, image: &str) -> Value {
    let stage = &stages[index];
    let after: Vec<Value> = stage.needs.iter().map(|need| json!({"stage": STAGES[*need]})).collect();
    let mut spec = json!({"name": STAGES[index], "after": after});
    match &stage.shape {
        Shape::Nested => spec["pipeline"] = "inner".into(),
        Shape::Gate(said) => {
            let on_timeout = said.err().unwrap_or("Fail");
            spec["gate"] = json!({"timeout": if said.is_ok() { "1h" } else { "20s" }, "onTimeout": on_timeout});
        }
        _ => {
            spec["image"] = image.into();
            spec["retries"] = json!({"limit": stage.retries, "infrastructure": 2});
        }
    }
    match &stage.shape {
        Shape::FanOut(count, at_once, fail_fast) => {
            spec["count"] = (*count).into();
            spec["maxParallel"] = (*at_once).into();
            spec["failFast"] = (*fail_fast).into();
        }
        Shape::Loop(max, until) => {
            spec["repeat"] = json!({"max": max});
            if *until {
                spec["repeat"]["until"] = "repeat.last.metrics.acc.last > 0.5".into();
            }
        }
        _ => {}
    }
    let Some(need) = stage.needs.first() else { return spec };
    let read = reads(*need, &stages[*need].shape);
    match (&stage.shape, &stages[*need].shape) {
        (Shape::Plain { condition: true }, Shape::Plain { .. } | Shape::Loop(..)) => {
            spec["when"] = format!("stages.{}.metrics.acc.last > 0.5", STAGES[*need]).into();
        }
        (Shape::Nested, _) => spec["params"] = json!({"given": read}),
        (Shape::Gate(_), _) => spec["gate"]["message"] = read.into(),
        _ => spec["args"] = json!([read]),
    }
    spec
}

// The pipeline that stages run within this one.
fn inner(graph: &Graph) -> Deed {
    let one = |index| {
        let after = if index == 0 { json!([]) } else { json!([{"stage": format!("i{}", index - 1)}]) };
        json!({"name": format!("i{index}"), "image": "x", "after": after, "args": ["${pipeline.params.given}"]})
    };
    let stages: Vec<Value> = (0..graph.inner.len()).map(one).collect();
    let spec = json!({"runOn": "Demand", "params": {"given": ""}, "stages": stages, "outputs": {"acc": "${stages.i0.metrics.acc.last ?? 0}"},
        "finally": [{"name": "inner-end", "image": "x", "args": ["${pipeline.phase}"]}]});
    Deed::Apply(json!({"kind": "Pipeline", "metadata": {"name": "inner"}, "spec": spec}))
}

fn pipeline(graph: &Graph, stop: bool, image: &str) -> Deed {
    let stages: Vec<Value> = (0..graph.stages.len()).map(|index| stage(&graph.stages, index, image)).collect();
    let phases: Vec<String> = (0..stages.len()).map(|index| format!("${{stages.{}.phase}}", STAGES[index])).collect();
    let finally = LAST[..graph.finally.len()].iter();
    let finally: Vec<Value> = finally.map(|name| json!({"name": name, "image": image, "args": phases})).collect();
    let mut spec = json!({"onFailure": if stop { "Stop" } else { "Continue" }, "stages": stages, "finally": finally});
    if let Some(most) = graph.max_parallel {
        spec["maxParallel"] = most.into();
    }
    Deed::Apply(json!({"kind": "Pipeline", "metadata": {"name": "p"}, "spec": spec}))
}

// What is said of its gates, before they open as a rule.
fn said(graph: &Graph) -> impl Iterator<Item = (u64, Deed)> {
    graph.stages.iter().enumerate().filter_map(|(index, stage)| {
        let Shape::Gate(Ok(verdict)) = stage.shape else { return None };
        let spec = json!({"run": "p-1", "stage": STAGES[index], "verdict": verdict, "by": "ada"});
        Some((2, Deed::Apply(json!({"kind": "Approval", "metadata": {"name": STAGES[index]}, "spec": spec}))))
    })
}

fn scenario(graph: &Graph, stop: bool, mut deeds: Vec<(u64, Deed)>) -> Scenario {
    deeds.extend([(0, inner(graph)), (0, pipeline(graph, stop, "x"))]);
    deeds.extend(said(graph));
    deeds.sort_by_key(|(moment, _)| *moment);
    let script = graph.stages.iter().enumerate().map(|(index, stage)| (STAGES[index].to_owned(), stage.plays.clone()));
    let finally = LAST.iter().zip(&graph.finally).map(|(name, plays)| ((*name).to_owned(), plays.clone()));
    let inner = graph.inner.iter().enumerate().map(|(index, plays)| (format!("i{index}"), plays.clone()));
    Scenario { name: "made up", deeds, script: script.chain(finally).chain(inner).collect() }
}

fn everything_has_ended(world: &World) {
    for (name, record) in &world.cluster.experiments {
        assert!(record.status.phase.is_terminal(), "{name} is {}\n{}", record.status.phase, world.story());
    }
    for (name, record) in &world.cluster.runs {
        assert!(record.status.phase.is_terminal(), "{name} is {}\n{}", record.status.phase, world.story());
    }
    assert!(world.cluster.jobs.is_empty(), "Jobs stay\n{}", world.story());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn whatever_happens_the_invariants_hold(graph in graph(), stop: bool, deeds in deeds(), change: bool, seed: u64) {
        let mut scenario = scenario(&graph, stop, deeds);
        if change {
            scenario.deeds.push((20, pipeline(&graph, stop, "y")));
        }
        let mut world = World::new(&scenario);
        world.run(Some(Chance(seed)));
        world.rests();
        everything_has_ended(&world);
    }

    #[test]
    fn a_disturbed_run_ends_like_an_undisturbed_one(mut graph in graph(), stop: bool, seed: u64) {
        // Whom the first failure ends depends on who was faster.
        for stage in &mut graph.stages {
            if let Shape::FanOut(_, _, fail_fast) = &mut stage.shape {
                *fail_fast = false;
            }
        }
        let calm_world = |scenario: &Scenario| {
            let mut world = World::new(scenario);
            world.run(None);
            everything_has_ended(&world);
            world
        };
        let (mut scenario, stopping) = (scenario(&graph, false, Vec::new()), scenario(&graph, true, Vec::new()));
        let mut calm = calm_world(&scenario);
        // Who is stopped by a failure depends on who was faster.
        if stop && calm.cluster.runs.values().all(|run| run.status.phase == Phase::Completed) {
            (calm, scenario) = (calm_world(&stopping), stopping);
        }
        let mut world = World::new(&scenario);
        world.run(Some(Chance(seed)));
        world.rests();
        prop_assert_eq!(world.outcome(), calm.outcome());
    }
}
