//! Anything in any order: what is held is what owners ask for, nothing is exceeded, and it always comes to rest.

use cultivar_core::decide::queue::Id;
use cultivar_core::domain::node::{Node, Outsider, PodShape};
use cultivar_core::domain::queue::{Amounts, QueueConfig, config};
use cultivar_crds::QueueSpec;
use cultivar_crds::queue::{Preemption, Quantity, Share, Stop};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::support::at;
use super::world::{Run, World};

const RESOURCES: [&str; 2] = ["nvidia.com/gpu", "cpu"];
const QUEUES: [&str; 3] = ["a", "b", "c"];
const NODES: [&str; 2] = ["one", "two"];

/// What can happen.
#[derive(Clone, Debug)]
enum Happens {
    Ask { run: u8, queue: usize, amounts: (i64, i64), priority: i32, limit: Option<u64> },
    End(prop::sample::Index),
    EndStopped,
    Edit { queue: usize, spec: Box<QueueSpec> },
    Delete(usize),
    Node(usize, Option<i64>),
    Outsider { pod: u8, node: usize, gpus: i64 },
    Restart,
    Passes(i64),
}

fn share() -> impl Strategy<Value = Share> {
    (0..3_i64, 0..8_i64, prop::option::of(0..6_i64)).prop_map(|(reserved, more, cap)| {
        let quota = reserved + more;
        Share {
            reserved: Some(Quantity::Number(reserved)),
            quota: Quantity::Number(quota),
            cap: cap.map(|cap| Quantity::Number(quota + cap)),
        }
    })
}

fn spec() -> impl Strategy<Value = QueueSpec> {
    let stop = prop_oneof![8 => Just(None), 1 => Just(Some(Stop::Hold)), 1 => Just(Some(Stop::Drain))];
    let limits = (
        prop::option::of(0..60_u64),
        prop::option::of(0..3_u32),
        prop::option::of(1..6_i64),
        prop::option::of(1..5_u32),
    );
    (prop::option::weighted(0.8, Just("gpus".to_owned())), 1..4_u32, share(), share(), any::<bool>(), stop, limits)
        .prop_map(|(cohort, weight, gpu, cpu, both, stop, (min_runtime, limit, namespace, max_queued))| QueueSpec {
            cohort,
            weight: Some(weight),
            resources: [("nvidia.com/gpu".to_owned(), gpu), ("cpu".to_owned(), cpu)]
                .into_iter()
                .take(if both { 2 } else { 1 })
                .collect(),
            preemption: Some(Preemption { min_runtime: min_runtime.map(|seconds| format!("{seconds}s")), limit }),
            namespace_limits: namespace
                .map(|most| ("nvidia.com/gpu".to_owned(), Quantity::Number(most)))
                .into_iter()
                .collect(),
            stop,
            max_queued,
            ..QueueSpec::default()
        })
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        8 => (any::<u8>(), 0..QUEUES.len(), (0..6_i64, 0..3000_i64), 0..4_i32, prop::option::of(1..100_u64))
            .prop_map(|(run, queue, amounts, priority, limit)| Happens::Ask { run, queue, amounts, priority, limit }),
        4 => any::<prop::sample::Index>().prop_map(Happens::End),
        3 => Just(Happens::EndStopped),
        1 => (0..QUEUES.len(), spec()).prop_map(|(queue, spec)| Happens::Edit { queue, spec: Box::new(spec) }),
        1 => (0..QUEUES.len()).prop_map(Happens::Delete),
        1 => (0..NODES.len(), prop::option::weighted(0.8, 0..8_i64)).prop_map(|(node, gpus)| Happens::Node(node, gpus)),
        1 => (0..4_u8, 0..NODES.len(), 0..4_i64).prop_map(|(pod, node, gpus)| Happens::Outsider { pod, node, gpus }),
        1 => Just(Happens::Restart),
        2 => (1..120_i64).prop_map(Happens::Passes),
    ]
}

fn of_gpus(gpus: i64) -> Amounts {
    [("nvidia.com/gpu".into(), gpus)].into_iter().collect()
}

struct Play {
    world: World,
    seconds: i64,
    // Edits may leave a queue over its limits: from then on use may only fall until it is within them.
    over: BTreeMap<String, bool>,
}

impl Play {
    fn configs(&self) -> BTreeMap<String, QueueConfig> {
        self.world.queues.iter().map(|(name, spec)| (name.clone(), config(name, "uid", false, spec))).collect()
    }

    fn step(&mut self, what: &Happens) {
        self.seconds += 1;
        let now = at(self.seconds);
        match what {
            Happens::Ask { run, queue, amounts, priority, limit } => {
                let id = Id::new(if run % 2 == 0 { "vision" } else { "nlp" }, &format!("r{}", run / 2));
                if self.world.runs.contains_key(&id) {
                    return;
                }
                let amounts: Amounts = RESOURCES
                    .iter()
                    .zip([amounts.0, amounts.1])
                    .map(|(name, amount)| ((*name).into(), amount))
                    .collect();
                let limit = limit.map(Duration::from_secs);
                let queue = Some(QUEUES[*queue].to_owned());
                let run = Run {
                    queue,
                    pod: PodShape { amounts: of_gpus(amounts["nvidia.com/gpu"]), ..PodShape::default() },
                    amounts,
                    priority: *priority,
                    limit,
                    since: now,
                    asked: now,
                    placed: false,
                    attempt: 1,
                    preempted: 0,
                    hold: None,
                };
                self.world.ask(&id, run, now);
            }
            Happens::End(index) => {
                let ids: Vec<Id> = self.world.runs.keys().cloned().collect();
                if !ids.is_empty() {
                    self.world.end(index.get(&ids), now);
                }
            }
            Happens::EndStopped => {
                let stopped: Vec<Id> = self.world.runs.keys().filter(|id| self.world.is_leaving(id)).cloned().collect();
                stopped.iter().for_each(|id| self.world.end(id, now));
            }
            Happens::Edit { queue, spec } => self.world.set_queue(QUEUES[*queue], Some((**spec).clone()), now),
            Happens::Delete(queue) => self.world.set_queue(QUEUES[*queue], None, now),
            Happens::Node(node, gpus) => {
                let node_of = |gpus: i64| Node { allocatable: of_gpus(gpus), ..Node::default() };
                self.world.set_node(NODES[*node], gpus.map(node_of));
            }
            Happens::Outsider { pod, node, gpus } => {
                let outsider = Outsider { node: NODES[*node].to_owned(), amounts: of_gpus(*gpus) };
                self.world.set_outsider(&format!("o/{pod}"), (*gpus > 0).then_some(outsider));
            }
            Happens::Restart => self.world.restart(now),
            Happens::Passes(seconds) => self.seconds += seconds,
        }
        self.world.settle(at(self.seconds));
    }

    // What is held is never more than the limits, unless an edit made it so.
    fn check(&mut self, edited: bool) {
        let configs = self.configs();
        let mut used: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for run in self.world.runs.values() {
            let Some((claim, _)) = &run.hold else { continue };
            let Some((name, config)) = configs.get_key_value(&*claim.queue) else { continue };
            for (resource, amount) in &claim.amounts {
                if let Some((known, _)) = config.flavors[0].limits.get_key_value(resource) {
                    *used.entry((name, known)).or_default() += amount;
                }
            }
        }
        for (name, config) in &configs {
            for (resource, limit) in &config.flavors[0].limits {
                let used_here = used.get(&(name.as_str(), resource.as_ref())).copied().unwrap_or(0);
                let cohort: Vec<&QueueConfig> = match &config.cohort {
                    Some(_) => configs.values().filter(|other| other.cohort == config.cohort).collect(),
                    None => vec![config],
                };
                let sum = |of: &dyn Fn(&QueueConfig) -> i64| cohort.iter().map(|config| of(config)).sum::<i64>();
                let limit_of =
                    |config: &QueueConfig| config.flavors[0].limits.get(resource).copied().unwrap_or_default();
                let quota = sum(&|config| limit_of(config).quota);
                let occupied = sum(&|config| {
                    let name = (config.name.as_ref(), resource.as_ref());
                    used.get(&name).copied().unwrap_or(0).max(limit_of(config).reserved)
                });
                let over = occupied > quota || limit.cap.is_some_and(|cap| used_here > cap);
                let key = format!("{name}/{resource}");
                let was = self.over.insert(key.clone(), over).unwrap_or(false);
                assert!(
                    !over || was || edited,
                    "{key}: {used_here} used of {limit:?}, {occupied} of {quota} in its cohort"
                );
            }
        }
    }

    // Whoever starts has a node that could take it, and whoever is told that there is none has none.
    fn check_nodes(&self, before: &BTreeSet<(Id, u32)>) {
        let told = self.world.nodes_told;
        let left = |name: &String, node: &Node| {
            let here = self.world.outsiders.values().filter(|outsider| outsider.node == *name);
            node.allocatable["nvidia.com/gpu"] - here.map(|outsider| outsider.amounts["nvidia.com/gpu"]).sum::<i64>()
        };
        let most = self.world.nodes.iter().map(|(name, node)| left(name, node).max(0)).max();
        for (id, run) in &self.world.runs {
            let need = run.pod.amounts["nvidia.com/gpu"];
            let lands = !told || most.is_some_and(|most| need <= most);
            if run.hold.is_some() && !before.contains(&(id.clone(), run.attempt)) {
                assert!(lands, "{id} started, and needs {need} of {most:?}");
            }
            let wait = self.world.engine.wait(id).filter(|wait| wait.reason == cultivar_crds::Reason::NoNodeFits);
            assert!(wait.is_none() || !lands, "{id} waits for a node, and needs {need} of {most:?}");
        }
    }

    fn holding(&self) -> BTreeSet<(Id, u32)> {
        let holding = self.world.runs.iter().filter(|(_, run)| run.hold.is_some());
        holding.map(|(id, run)| (id.clone(), run.attempt)).collect()
    }

    // The engine's sums are those of the holds that there are.
    fn compare_with_a_new_one(&self) {
        let mut other = self.world.clone();
        other.restart(at(self.seconds));
        for name in QUEUES {
            let now = at(self.seconds);
            let report = |world: &World| {
                world
                    .engine
                    .report(name, 1, &Default::default(), now)
                    .map(|status| (status.usage, status.namespaces, status.admitted))
            };
            // Promises are made again by the first pass.
            let promised = self.world.engine.asking().any(|id| {
                self.world
                    .engine
                    .wait(id)
                    .is_some_and(|wait| wait.reason == cultivar_crds::Reason::WaitingForPreemption)
            });
            if !promised {
                assert_eq!(report(&self.world), report(&other), "{name}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_exceeded_and_it_comes_to_rest(
        specs in prop::collection::vec(spec(), QUEUES.len()),
        events in prop::collection::vec(happens(), 1..80),
    ) {
        let mut play = Play { world: World::default(), seconds: 0, over: BTreeMap::new() };
        for (name, spec) in QUEUES.iter().zip(specs) {
            play.world.set_queue(name, Some(spec), at(0));
        }
        for event in &events {
            let before = play.holding();
            play.step(event);
            play.check_nodes(&before);
            play.check(matches!(event, Happens::Edit { .. } | Happens::Delete(_)));
            play.compare_with_a_new_one();
            for (id, run) in &play.world.runs {
                if run.hold.is_none() {
                    let wait = play.world.engine.wait(id);
                    prop_assert!(wait.is_some_and(|wait| !wait.message.is_empty()), "{id} waits and nobody says why: {wait:?}");
                }
            }
        }
    }

    // Everybody gets a turn: when all that runs ends from time to time, all that can ever fit has run.
    #[test]
    fn nobody_starves(
        specs in prop::collection::vec(spec(), QUEUES.len()),
        asks in prop::collection::vec((0..QUEUES.len(), (0..6_i64, 0..3000_i64), 0..4_i32), 1..40),
    ) {
        let mut play = Play { world: World::default(), seconds: 0, over: BTreeMap::new() };
        for (name, spec) in QUEUES.iter().zip(specs) {
            play.world.set_queue(name, Some(QueueSpec { stop: None, ..spec }), at(0));
        }
        for (index, (queue, amounts, priority)) in asks.iter().enumerate() {
            let run = u8::try_from(index).expect("few");
            play.step(&Happens::Ask { run, queue: *queue, amounts: *amounts, priority: *priority, limit: None });
        }
        for _ in 0..=asks.len() {
            play.step(&Happens::EndStopped);
            let running: Vec<Id> = play.world.runs.iter().filter(|(id, run)| run.hold.is_some() && !play.world.is_leaving(id)).map(|(id, _)| id.clone()).collect();
            play.seconds += 100;
            for id in running {
                play.world.end(&id, at(play.seconds));
            }
            play.world.settle(at(play.seconds));
        }
        for (id, reason) in play.world.waiting() {
            prop_assert_eq!(reason, "ExceedsCap", "{}", id);
        }
    }
}
