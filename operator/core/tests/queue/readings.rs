//! What the metrics are made from: who waits why and since when, and what a pass has done.

use cultivar_core::decide::queue::{Ask, Bearer, Engine, Id, Outcome};
use cultivar_core::domain::queue::{Hold, config};
use cultivar_crds::{QueueSpec, Reason};
use serde_json::json;
use std::time::Duration;

use super::support::at;

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
        amounts: [("gpu".into(), gpus)].into_iter().collect(),
        placed: false,
        pod: Default::default(),
        limit: None,
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
