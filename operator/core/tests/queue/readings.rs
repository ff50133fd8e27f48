//! What the metrics are made from: who waits why and since when, and what a pass has done.

use cultivar_core::decide::queue::{Ask, Bearer, Class, Engine, Id, Outcome};
use cultivar_core::domain::Claim;
use cultivar_core::domain::node::{Node, Outsider, Taint};
use cultivar_core::domain::queue::{Hold, config};
use cultivar_crds::{QueueSpec, Reason};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

use super::support::at;

const GPU: &str = "nvidia.com/gpu";

fn engine() -> Engine {
    let mut engine = Engine::default();
    for name in ["one", "two"] {
        let spec = json!({"cohort": "all", "resources": {"gpu": {"quota": 4}}});
        let spec: QueueSpec = serde_json::from_value(spec).unwrap();
        engine.set_queue(name, Some(config(name, "uid", false, &spec)), at(0));
    }
    engine
}

/// All are of the same age; attempts wait since `asked`.
fn ask(engine: &mut Engine, name: &str, queue: &str, gpus: i64, asked: i64) -> Id {
    let id = Id::new("vision", name);
    let ask = Ask {
        attempt: 1,
        queue: Some(queue.into()),
        priority: 0,
        since: at(0),
        asked: at(asked),
        placed: false,
        class: Arc::new(Class { amounts: [("gpu".into(), gpus)].into_iter().collect(), ..Class::default() }),
    };
    engine.ask(&id, ask, at(asked));
    id
}

/// Passes, and whoever is admitted holds it.
fn pass(engine: &mut Engine, now: i64) -> Outcome {
    let outcome = engine.pass(at(now));
    for id in &outcome.changed {
        let Some(grant) = engine.admission(id).cloned() else { continue };
        let hold = Hold { claim: grant.claim, attempt: grant.attempt, since: at(now), leaving: false };
        engine.set_holds(id, Bearer::default(), vec![hold], at(now));
    }
    outcome
}

#[test]
fn a_wait_is_that_of_the_attempt_whatever_the_age_of_its_experiment() {
    let mut engine = engine();
    ask(&mut engine, "wide", "one", 8, 5);
    assert_eq!(pass(&mut engine, 35).admitted, [("one".into(), Duration::from_secs(30))]);
    ask(&mut engine, "later", "one", 1, 50);
    let first = ask(&mut engine, "first", "one", 1, 40);
    pass(&mut engine, 60);
    let oldest = |engine: &Engine, queue: &str| engine.readings(at(100))[queue].oldest_wait.as_secs();
    assert_eq!(engine.readings(at(100))["one"].waiting, [(Reason::WaitingForCohort, 2)].into());
    assert_eq!(oldest(&engine, "one"), 60);
    let status = engine.report("one", 1, &Default::default(), at(100)).unwrap();
    assert_eq!(status.oldest_wait, Some(cultivar_core::domain::time::stamp(at(40))));
    engine.withdraw(&first, at(61));
    assert_eq!(oldest(&engine, "one"), 50);
    engine.withdraw(&Id::new("vision", "later"), at(62));
    assert_eq!(oldest(&engine, "one"), 0);
}

#[test]
fn who_was_promised_a_place_waits_until_those_have_ended_that_were_stopped_for_it() {
    let mut engine = engine();
    let wide = ask(&mut engine, "wide", "one", 8, 5);
    pass(&mut engine, 35);
    ask(&mut engine, "owner", "two", 2, 40);
    assert_eq!(pass(&mut engine, 41).evicted, ["one".into()]);
    assert_eq!(engine.readings(at(100))["two"].oldest_wait.as_secs(), 60);
    assert_eq!(engine.pass(at(42)).evicted, [], "each is counted once");
    engine.set_holds(&wide, Bearer::default(), Vec::new(), at(44));
    assert_eq!(pass(&mut engine, 50).admitted, [("two".into(), Duration::from_secs(10))]);
}

#[test]
fn places_are_told_a_few_at_a_time_over_all_queues_and_the_most_outdated_first() {
    let mut engine = engine();
    let holders = ["one", "two"].map(|queue| ask(&mut engine, &format!("{queue}-holder"), queue, 4, 1));
    pass(&mut engine, 1);
    let mut waiting: Vec<Id> = Vec::new();
    for number in 0..60 {
        waiting.extend(["one", "two"].map(|queue| ask(&mut engine, &format!("{queue}-{number:02}"), queue, 4, 2)));
    }
    pass(&mut engine, 2);
    let told = |engine: &Engine, id: &Id| engine.wait(id).and_then(|wait| wait.position);
    assert_eq!(engine.count_places(at(10)).changed.len(), 50);
    let known = waiting.iter().filter_map(|id| told(&engine, id));
    assert_eq!(known.collect::<Vec<_>>(), (1..=25).flat_map(|place| [place, place]).collect::<Vec<_>>());
    let counts = [20, 30, 40].map(|seconds| engine.count_places(at(seconds)).changed.len());
    assert_eq!(counts, [50, 20, 0], "everybody is told in the end, and nobody twice");
    assert_eq!(told(&engine, &waiting[119]), Some(60));

    engine.set_holds(&holders[0], Bearer::default(), Vec::new(), at(50));
    assert_eq!(pass(&mut engine, 50).admitted.len(), 1);
    engine.count_places(at(60));
    let places = |engine: &Engine, numbers: [usize; 3]| numbers.map(|number| told(engine, &waiting[2 * number]));
    // Who was second thinks himself twice as far back as he is; the last of sixty is not far wrong yet.
    assert_eq!(places(&engine, [1, 50, 59]), [Some(1), Some(50), Some(60)]);
    engine.count_places(at(70));
    assert_eq!(places(&engine, [1, 50, 59]), [Some(1), Some(50), Some(59)]);
}

#[test]
fn the_largest_free_block_is_that_of_one_node_of_the_flavor_and_runs_of_queues_are_not_looked_at() {
    let mut engine = Engine::default();
    let flavors = json!([
        {"name": "a100", "nodeSelector": {"gpu": "a100"}, "resources": {GPU: {"quota": 8}, "cpu": {"quota": 64}}},
        {"name": "h100", "nodeSelector": {"gpu": "h100"}, "resources": {GPU: {"quota": 8}}},
        {"name": "grows", "nodeFit": "Ignore", "resources": {GPU: {"quota": 8}}},
    ]);
    let spec: QueueSpec = serde_json::from_value(json!({"flavors": flavors})).unwrap();
    engine.set_queue("q", Some(config("q", "uid", false, &spec)), at(0));
    assert_eq!(engine.readings(at(0))["q"].largest_free, [].into(), "nobody has told of nodes");
    let amounts = |amount: i64| [(GPU.into(), amount)].into_iter().collect();
    let taint = Taint { key: "gpu".into(), value: String::new(), effect: "NoSchedule".into() };
    for (name, sort, gpus) in [("one", "a100", 8), ("two", "a100", 6), ("other", "t4", 16)] {
        let labels = [("gpu".to_owned(), sort.to_owned())].into();
        let node = Node { labels, taints: vec![taint.clone()], allocatable: amounts(gpus) };
        engine.set_node(name, Some(node));
    }
    let largest = |engine: &Engine, a100: i64| {
        let place = |flavor: &str| (flavor.into(), GPU.into());
        assert_eq!(engine.readings(at(1))["q"].largest_free, [(place("a100"), a100), (place("h100"), 0)].into());
    };
    largest(&engine, 8);
    let claim = Claim { queue: "q".into(), flavor: "a100".into(), amounts: amounts(8) };
    let hold = Hold { claim, attempt: 1, since: at(1), leaving: false };
    engine.set_holds(&Id::new("vision", "run"), Bearer::default(), vec![hold], at(1));
    largest(&engine, 8);
    engine.set_outsider("theirs/a", Some(Outsider { node: "one".into(), amounts: amounts(5) }));
    largest(&engine, 6);
    engine.set_outsider("theirs/a", None);
    largest(&engine, 8);
}
