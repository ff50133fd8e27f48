//! The tables: one story a case, told step by step.

use cultivar_core::domain::node::{Node, Outsider, PodShape, Taint, Toleration};
use cultivar_core::domain::queue::{Amounts, times};
use cultivar_core::domain::{quantity, time};
use cultivar_crds::{QueueSpec, QueueStatus};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

use super::support::{self, at, cases};
use super::world::{Run, World, id};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    queues: BTreeMap<String, QueueSpec>,
    #[serde(default)]
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    steps: Vec<Step>,
}

/// First what happens, then what is to be seen; what is not written is not looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(default)]
    at: i64,
    #[serde(default)]
    ask: Vec<Asks>,
    #[serde(default)]
    end: Vec<String>,
    /// A queue's new spec; null: it is deleted.
    #[serde(default)]
    queues: BTreeMap<String, Option<QueueSpec>>,
    #[serde(default)]
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// By name; null: it is gone.
    #[serde(default)]
    nodes: BTreeMap<String, Option<NodeInShort>>,
    /// Pods that no queue admitted, by name; null: it is gone.
    #[serde(default)]
    outsiders: BTreeMap<String, Option<OutsiderInShort>>,
    #[serde(default)]
    restart: bool,
    running: Option<BTreeSet<String>>,
    leaving: Option<BTreeSet<String>>,
    waiting: Option<BTreeMap<String, String>>,
    /// Who waits, and words of the message.
    #[serde(default)]
    says: BTreeMap<String, String>,
    /// Who is stopped, and words of the message.
    #[serde(default)]
    told: BTreeMap<String, String>,
    /// Who stands where.
    places: Option<BTreeMap<String, u32>>,
    /// By run: the flavor it got.
    #[serde(default)]
    flavors: BTreeMap<String, String>,
    wakes_at: Option<i64>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeInShort {
    gpu: i64,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// `key=value:effect`.
    taint: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutsiderInShort {
    node: String,
    gpu: i64,
}

impl OutsiderInShort {
    fn outsider(&self) -> Outsider {
        Outsider { node: self.node.clone(), amounts: [("nvidia.com/gpu".into(), self.gpu)].into_iter().collect() }
    }
}

impl NodeInShort {
    fn node(&self) -> Node {
        let taint = self.taint.as_ref().map(|text| {
            let (key, rest) = text.split_once('=').expect("key=value:effect");
            let (value, effect) = rest.split_once(':').expect("key=value:effect");
            Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() }
        });
        let allocatable = [("nvidia.com/gpu".into(), self.gpu), ("cpu".into(), 8000)].into_iter().collect();
        Node { labels: self.labels.clone(), taints: taint.into_iter().collect(), allocatable }
    }
}

#[derive(Deserialize)]
struct Asks {
    run: String,
    queue: Option<String>,
    #[serde(default)]
    priority: i32,
    limit: Option<String>,
    #[serde(default = "one")]
    workers: u32,
    #[serde(default)]
    selector: BTreeMap<String, String>,
    #[serde(default)]
    tolerations: Vec<serde_json::Value>,
    /// Of each worker, by resource, as quantities.
    #[serde(flatten)]
    resources: BTreeMap<String, serde_json::Value>,
}

fn one() -> u32 {
    1
}

impl Asks {
    fn amounts(&self) -> Amounts {
        let amount = |(name, value): (&String, &serde_json::Value)| {
            let name = if name == "gpu" { "nvidia.com/gpu" } else { name };
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (name.into(), quantity::amount(name, &text).expect("a quantity"))
        };
        self.resources.iter().map(amount).collect()
    }
}

#[test]
fn every_story_goes_as_it_is_told() {
    let (mut failures, mut standing) = (Vec::new(), Vec::new());
    let all: Vec<(String, Case)> = cases("queue");
    assert!(all.len() > 20, "{} cases", all.len());
    for (file, case) in all {
        let mut world = World::default();
        for (name, labels) in &case.namespaces {
            world.set_namespace(name, labels, at(0));
        }
        for (name, spec) in &case.queues {
            world.set_queue(name, Some(spec.clone()), at(0));
        }
        for (number, step) in case.steps.iter().enumerate() {
            let found = play(&mut world, step);
            failures
                .extend(found.into_iter().map(|words| format!("{file}: {}: step {}: {words}", case.name, number + 1)));
            let queues = world.queues.iter().filter_map(|(name, spec)| how_it_stands(&world, name, spec, step.at));
            standing.extend(queues.map(|queue| (format!("{file}: {}: step {}", case.name, number + 1), queue)));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    support::standing::agreed("Queue", standing);
}

fn how_it_stands(world: &World, name: &str, spec: &QueueSpec, seconds: i64) -> Option<Value> {
    let status = world.engine.report(name, 1, &QueueStatus::default(), at(seconds))?;
    let spec = serde_json::to_value(spec).expect("a spec is JSON");
    let mut queue = support::record(name, spec, QueueStatus::default());
    queue.meta.namespace = String::new();
    Some(support::standing::object("Queue", &queue, &status))
}

fn play(world: &mut World, step: &Step) -> Vec<String> {
    let now = at(step.at);
    for (name, labels) in &step.namespaces {
        world.set_namespace(name, labels, now);
    }
    for (name, spec) in &step.queues {
        world.set_queue(name, spec.clone(), now);
    }
    for (name, node) in &step.nodes {
        world.set_node(name, node.as_ref().map(NodeInShort::node));
    }
    for (name, outsider) in &step.outsiders {
        world.set_outsider(name, outsider.as_ref().map(OutsiderInShort::outsider));
    }
    step.end.iter().for_each(|run| world.end(&id(run), now));
    for (index, asks) in step.ask.iter().enumerate() {
        // In the order in which they are written, and before anybody starts.
        let early = i64::try_from(index).expect("few") - 900;
        let since = now.checked_add(jiff::SignedDuration::from_millis(early)).expect("a moment");
        let limit = asks.limit.as_ref().map(|text| time::parse_duration(text).expect("a duration"));
        let (queue, one, priority) = (asks.queue.clone(), asks.amounts(), asks.priority);
        let amounts = times(&one, asks.workers);
        let tolerations = asks.tolerations.iter().map(Toleration::read).collect();
        let pod = PodShape { amounts: one, node_selector: asks.selector.clone(), tolerations };
        let run = Run {
            queue,
            pod,
            amounts,
            priority,
            limit,
            since,
            asked: since,
            placed: false,
            attempt: 1,
            preempted: 0,
            hold: None,
        };
        world.ask(&id(&asks.run), run, now);
    }
    if step.restart {
        world.restart(now);
    }
    world.settle(now);
    differences(world, step)
}

fn differences(world: &mut World, step: &Step) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, seen: String, wanted: String| {
        if seen != wanted {
            found.push(format!("{what}: {seen}, not {wanted}"));
        }
    };
    if let Some(wanted) = &step.running {
        compare("running", format!("{:?}", world.running()), format!("{wanted:?}"));
    }
    if let Some(wanted) = &step.leaving {
        compare("leaving", format!("{:?}", world.leaving()), format!("{wanted:?}"));
    }
    if let Some(wanted) = &step.waiting {
        compare("waiting", format!("{:?}", world.waiting()), format!("{wanted:?}"));
    }
    for (run, wanted) in &step.flavors {
        let flavor =
            world.runs.get(&id(run)).and_then(|run| run.hold.as_ref()).map(|(claim, _)| claim.flavor.to_string());
        compare("flavor", format!("{run} {flavor:?}"), format!("{run} {:?}", Some(wanted)));
    }
    if let Some(wanted) = &step.places {
        world.engine.count_places(at(step.at));
        let place =
            |run: &String| (run.clone(), world.engine.wait(&id(run)).and_then(|wait| wait.position).unwrap_or(0));
        let seen: BTreeMap<String, u32> = wanted.keys().map(place).collect();
        compare("places", format!("{seen:?}"), format!("{wanted:?}"));
    }
    if let Some(wanted) = step.wakes_at {
        let wakes = world.engine.pass(at(step.at)).wake_at;
        compare("wakes at", format!("{wakes:?}"), format!("{:?}", Some(at(wanted))));
    }
    for (run, words) in &step.says {
        let said = world.engine.wait(&id(run)).map_or(String::new(), |wait| wait.message.to_string());
        if !said.contains(words) {
            found.push(format!("{run} is told {said:?}, without {words:?}"));
        }
    }
    for (run, words) in &step.told {
        let said = world.engine.eviction(&id(run)).map_or(String::new(), |eviction| eviction.message.clone());
        if !said.contains(words) {
            found.push(format!("{run} is stopped with {said:?}, without {words:?}"));
        }
    }
    found
}
