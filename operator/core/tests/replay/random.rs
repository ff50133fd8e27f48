//! Random pipelines, programs and users: the invariants hold for all of them, and everything ends.
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

#[derive(Clone, Debug)]
struct Stage {
    /// Of the stages before this one.
    needs: Vec<usize>,
    condition: bool,
    retries: u32,
    plays: Vec<Play>,
    /// Members of its fan-out, how many at once, whether the first failure ends them.
    fan_out: Option<(u32, u32, bool)>,
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

fn stages() -> impl Strategy<Value = Vec<Stage>> {
    let stage = (
        prop::collection::vec(0..6_usize, 0..3),
        prop::bool::weighted(0.2),
        0..3_u32,
        prop::collection::vec(play(), 1..4),
        prop::option::weighted(0.4, (0..4_u32, 1..4_u32, prop::bool::weighted(0.3))),
    );
    prop::collection::vec(stage, 1..6).prop_map(|stages| {
        let one = |(index, (needs, condition, retries, plays, fan_out))| {
            let needs: Vec<usize> = needs;
            let mut needs: Vec<usize> = needs.into_iter().filter(|need| *need < index).collect();
            needs.sort_unstable();
            needs.dedup();
            Stage { needs, condition, retries, plays, fan_out }
        };
        stages.into_iter().enumerate().map(one).collect()
    })
}

fn deeds() -> impl Strategy<Value = Vec<(u64, Deed)>> {
    let of = prop::sample::select(&STAGES[..3]);
    let deed = prop_oneof![
        Just(Deed::Cancel(Kind::Run, "p-1")),
        of.clone().prop_map(Deed::CancelStage),
        of.clone().prop_map(Deed::DeleteStage),
        of.clone().prop_map(Deed::DeletePod),
        of.prop_map(Deed::DeleteJob),
    ];
    prop::collection::vec((1..20_u64, deed), 1..4)
}

fn pipeline(stages: &[Stage], stop: bool, image: &str) -> Deed {
    let one = |(index, stage): (usize, &Stage)| {
        let after: Vec<Value> = stage.needs.iter().map(|need| json!({"stage": STAGES[*need]})).collect();
        let mut spec = json!({"name": STAGES[index], "image": image, "after": after, "retries": {"limit": stage.retries, "infrastructure": 2}});
        if let Some((count, at_once, fail_fast)) = stage.fan_out {
            spec["count"] = count.into();
            spec["maxParallel"] = at_once.into();
            spec["failFast"] = fail_fast.into();
        }
        let joins = stage.needs.first().filter(|need| stages[**need].fan_out.is_some());
        if let Some(need) = joins {
            spec["args"] = json!([format!("${{= size(stages.{}.members)}}", STAGES[*need])]);
        } else if let Some(need) = stage.needs.first().filter(|_| stage.condition) {
            spec["when"] = format!("stages.{}.metrics.acc.last > 0.5", STAGES[*need]).into();
        } else if let Some(need) = stage.needs.first() {
            spec["args"] = json!([format!("${{stages.{}.experiment}}", STAGES[*need])]);
        }
        spec
    };
    let stages: Vec<Value> = stages.iter().enumerate().map(one).collect();
    let on_failure = if stop { "Stop" } else { "Continue" };
    Deed::Apply(
        json!({"kind": "Pipeline", "metadata": {"name": "p"}, "spec": {"onFailure": on_failure, "stages": stages}}),
    )
}

fn scenario(stages: &[Stage], stop: bool, mut deeds: Vec<(u64, Deed)>) -> Scenario {
    deeds.push((0, pipeline(stages, stop, "x")));
    deeds.sort_by_key(|(moment, _)| *moment);
    let script =
        stages.iter().enumerate().map(|(index, stage)| (STAGES[index].to_owned(), stage.plays.clone())).collect();
    Scenario { name: "made up", deeds, script }
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
    fn whatever_happens_the_invariants_hold(stages in stages(), stop: bool, deeds in deeds(), change: bool, seed: u64) {
        let mut scenario = scenario(&stages, stop, deeds);
        if change {
            scenario.deeds.push((20, pipeline(&stages, stop, "y")));
        }
        let mut world = World::new(&scenario);
        world.run(Some(Chance(seed)));
        world.rests();
        everything_has_ended(&world);
    }

    #[test]
    fn a_disturbed_run_ends_like_an_undisturbed_one(mut stages in stages(), stop: bool, seed: u64) {
        // Whom the first failure ends depends on who was faster.
        stages.iter_mut().filter_map(|stage| stage.fan_out.as_mut()).for_each(|fan_out| fan_out.2 = false);
        let calm_world = |scenario: &Scenario| {
            let mut world = World::new(scenario);
            world.run(None);
            everything_has_ended(&world);
            world
        };
        let (mut scenario, stopping) = (scenario(&stages, false, Vec::new()), scenario(&stages, true, Vec::new()));
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
