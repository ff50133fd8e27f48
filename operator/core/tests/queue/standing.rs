//! What a queue's status and its metrics say: use, what is borrowed and lent, who waits why and since when, what a pass did.

use cultivar_core::decide::queue::{Ask, Bearer, Engine, Id, Tallied};
use cultivar_core::domain::queue::{Hold, config};
use cultivar_crds::{QueueSpec, Reason};
use serde_json::json;
use std::time::Duration;

use super::support::at;

fn set(engine: &mut Engine, name: &str, gpus: u32, stop: &str) {
    let spec: QueueSpec =
        serde_json::from_value(json!({"cohort": "all", "stop": stop, "resources": {"gpu": {"quota": gpus}}})).unwrap();
    engine.set_queue(name, Some(config(name, "uid", false, &spec)), at(0));
}

fn ask(engine: &mut Engine, name: &str, queue: &str, gpus: i64, asked: i64) -> Id {
    let id = Id::new("vision", name);
    let ask = Ask {
        attempt: 1,
        queue: Some(queue.into()),
        priority: 0,
        since: at(0),
        asked: at(asked),
        amounts: [("gpu".into(), gpus)].into_iter().collect(),
        limit: None,
    };
    engine.ask(&id, ask, at(asked));
    id
}

/// Passes, and whoever is admitted holds it.
fn pass(engine: &mut Engine, now: i64) -> Tallied {
    let outcome = engine.pass(at(now));
    let tallied = engine.tally(&outcome, at(now));
    for id in outcome.changed {
        let Some(grant) = engine.admission(&id).cloned() else { continue };
        let hold = Hold { claim: grant.claim, attempt: grant.attempt, since: at(now), leaving: false };
        engine.set_holds(&id, Bearer::default(), vec![hold], at(now));
    }
    tallied
}

fn engine() -> Engine {
    let mut engine = Engine::default();
    set(&mut engine, "one", 4, "None");
    set(&mut engine, "two", 4, "None");
    engine
}

fn numbers(engine: &Engine, queue: &str) -> [i64; 4] {
    let usage = engine.standing(queue).unwrap().usage;
    [usage[0].quota, usage[0].used, usage[0].borrowed, usage[0].lent]
}

#[test]
fn what_one_borrows_the_other_lends_and_status_says_the_same() {
    let mut engine = engine();
    ask(&mut engine, "wide", "one", 6, 0);
    pass(&mut engine, 0);
    assert_eq!((numbers(&engine, "one"), numbers(&engine, "two")), ([4, 6, 2, 0], [4, 0, 0, 2]));
    let standing = engine.standing("one").unwrap();
    assert_eq!((standing.admitted, standing.waiting), (1, 0));
    assert_eq!(standing.namespaces, [("vision".into(), [("gpu".into(), 6)].into_iter().collect())]);
    let status = engine.report("two", 1, &Default::default(), at(0)).unwrap();
    assert_eq!((status.usage[0].lent.as_str(), status.usage[0].used.as_str()), ("2", "0"));
}

#[test]
fn who_waits_is_counted_by_reason_and_since_when_its_attempt_waits() {
    let mut engine = engine();
    ask(&mut engine, "wide", "one", 8, 0);
    pass(&mut engine, 0);
    ask(&mut engine, "later", "one", 1, 50);
    ask(&mut engine, "first", "one", 1, 40);
    ask(&mut engine, "lost", "none", 1, 10);
    ask(&mut engine, "huge", "two", 9, 20);
    pass(&mut engine, 60);
    let counted = |queue: Option<&str>, reason| engine.waiting().get(&(queue.map(Into::into), reason)).copied();
    assert_eq!(counted(Some("one"), Reason::WaitingForCohort), Some(2));
    assert_eq!(counted(Some("two"), Reason::ExceedsCap), Some(1));
    assert_eq!(counted(None, Reason::QueueNotFound), Some(1), "its name is the user's: no queue");
    assert_eq!(engine.waiting().values().sum::<usize>(), 4);
    // All are of the same age.
    assert_eq!(engine.standing("one").unwrap().oldest, Some(at(40)));
    engine.withdraw(&Id::new("vision", "first"), at(61));
    assert_eq!(engine.standing("one").unwrap().oldest, Some(at(50)));
    engine.withdraw(&Id::new("vision", "later"), at(62));
    assert_eq!(engine.standing("one").unwrap().oldest, None);
}

#[test]
fn each_admission_and_each_eviction_is_counted_once() {
    let mut engine = engine();
    let wide = ask(&mut engine, "wide", "one", 8, 5);
    let waited = |seconds| vec![("one".into(), Duration::from_secs(seconds))];
    assert_eq!(pass(&mut engine, 35), Tallied { admitted: waited(30), evicted: Vec::new() });
    // The owner wants its own: who borrows is stopped, and the preemptor waits for it.
    ask(&mut engine, "owner", "two", 2, 40);
    assert_eq!(pass(&mut engine, 41), Tallied { admitted: Vec::new(), evicted: vec!["one".into()] });
    assert_eq!(engine.standing("two").unwrap().oldest, Some(at(40)), "who was promised a place waits as well");
    let outcome = engine.pass(at(42));
    assert_eq!(engine.tally(&outcome, at(42)), Tallied::default());
    set(&mut engine, "one", 4, "Drain");
    assert_eq!(pass(&mut engine, 43), Tallied::default(), "it was told to end already");
    engine.set_holds(&wide, Bearer::default(), Vec::new(), at(44));
    let admitted = vec![("two".into(), Duration::from_secs(10))];
    assert_eq!(pass(&mut engine, 50), Tallied { admitted, evicted: Vec::new() });
}
