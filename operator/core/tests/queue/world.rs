//! A cluster of Jobs that do as they are told: what is admitted starts at once, what is stopped ends when the test says so.

use cultivar_core::decide::queue::{Ask, Bearer, Class, Engine, Id};
use cultivar_core::domain::Claim;
use cultivar_core::domain::node::{Node, Outsider, PodShape};
use cultivar_core::domain::queue::{Amounts, Hold, config};
use cultivar_crds::QueueSpec;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// An experiment: what it asks for, and what its Job holds while there is one.
#[derive(Clone, Debug)]
pub struct Run {
    pub queue: Option<String>,
    pub amounts: Amounts,
    pub pod: PodShape,
    pub priority: i32,
    pub limit: Option<Duration>,
    pub since: Timestamp,
    pub asked: Timestamp,
    pub placed: bool,
    pub attempt: u32,
    pub preempted: u32,
    pub hold: Option<(Claim, Timestamp)>,
}

#[derive(Clone, Debug, Default)]
pub struct World {
    pub engine: Engine,
    pub runs: BTreeMap<Id, Run>,
    pub queues: BTreeMap<String, QueueSpec>,
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pub nodes: BTreeMap<String, Node>,
    pub outsiders: BTreeMap<String, Outsider>,
    pub passes: usize,
    // Whether any node was ever told of: else none is looked at.
    pub nodes_told: bool,
}

impl World {
    pub fn set_queue(&mut self, name: &str, spec: Option<QueueSpec>, now: Timestamp) {
        self.engine.set_queue(name, spec.as_ref().map(|spec| config(name, "uid", false, spec)), now);
        match spec {
            Some(spec) => self.queues.insert(name.to_owned(), spec),
            None => self.queues.remove(name),
        };
    }

    pub fn set_namespace(&mut self, name: &str, labels: &BTreeMap<String, String>, now: Timestamp) {
        self.engine.set_namespace(name, Some(labels.clone()), now);
        self.namespaces.insert(name.to_owned(), labels.clone());
    }

    pub fn set_node(&mut self, name: &str, node: Option<Node>) {
        self.engine.set_node(name, node.clone());
        self.nodes_told = true;
        match node {
            Some(node) => self.nodes.insert(name.to_owned(), node),
            None => self.nodes.remove(name),
        };
    }

    pub fn set_outsider(&mut self, name: &str, outsider: Option<Outsider>) {
        self.engine.set_outsider(name, outsider.clone());
        match outsider {
            Some(outsider) => self.outsiders.insert(name.to_owned(), outsider),
            None => self.outsiders.remove(name),
        };
    }

    pub fn ask(&mut self, id: &Id, run: Run, now: Timestamp) {
        let ask = ask_of(&run);
        self.runs.insert(id.clone(), run);
        self.engine.ask(id, ask, now);
    }

    fn tell_holds(&mut self, id: &Id, now: Timestamp) {
        let Some(run) = self.runs.get(id) else { return };
        let leaving = self.is_leaving(id);
        let holds = run.hold.iter().map(|(claim, since)| Hold {
            claim: claim.clone(),
            attempt: run.attempt,
            since: *since,
            leaving,
        });
        let bearer = Bearer { since: run.since, priority: run.priority, preempted: run.preempted, limit: run.limit };
        let holds = holds.collect();
        self.engine.set_holds(id, bearer, holds, now);
    }

    pub fn is_leaving(&self, id: &Id) -> bool {
        let attempt = self.runs.get(id).map(|run| run.attempt);
        self.engine.eviction(id).is_some_and(|eviction| Some(eviction.attempt) == attempt)
    }

    /// The run's Job and pods are gone: it asks again if it was stopped, and has ended if not.
    pub fn end(&mut self, id: &Id, now: Timestamp) {
        let stopped = self.is_leaving(id);
        let Some(run) = self.runs.get_mut(id) else { return };
        if run.hold.take().is_none() {
            self.runs.remove(id);
            return self.engine.withdraw(id, now);
        }
        self.tell_holds(id, now);
        let Some(mut run) = self.runs.remove(id).filter(|_| stopped) else { return };
        run.attempt += 1;
        run.preempted += 1;
        run.asked = now;
        self.ask(id, run, now);
    }

    /// Passes until nothing changes any more; what is admitted starts.
    pub fn settle(&mut self, now: Timestamp) {
        for _ in 0..1000 {
            self.passes += 1;
            let outcome = self.engine.pass(now);
            let mut started = false;
            for id in &outcome.changed {
                let Some(admission) = self.engine.admission(id).cloned() else { continue };
                let run = self.runs.get_mut(id).expect("only who asked is admitted");
                assert_eq!(run.attempt, admission.attempt, "{id}");
                run.hold = Some((admission.claim, now));
                run.placed = false;
                self.tell_holds(id, now);
                started = true;
            }
            // What has a place in line says so from now on, as its phase does.
            for id in self.engine.asking().cloned().collect::<Vec<_>>() {
                let placed = self
                    .engine
                    .wait(&id)
                    .is_some_and(|wait| wait.reason != cultivar_crds::Reason::QueueFull && wait.queue.is_some());
                if let Some(run) = self.runs.get_mut(&id) {
                    run.placed |= placed;
                }
            }
            if !started && outcome.changed.is_empty() {
                return;
            }
        }
        panic!("passes go on without news");
    }

    /// A new operator: everything is told to a new engine.
    pub fn restart(&mut self, now: Timestamp) {
        let leaving: BTreeSet<Id> = self.runs.keys().filter(|id| self.is_leaving(id)).cloned().collect();
        self.engine = Engine::default();
        for (name, spec) in self.queues.clone() {
            self.engine.set_queue(&name, Some(config(&name, "uid", false, &spec)), now);
        }
        for (name, labels) in self.namespaces.clone() {
            self.engine.set_namespace(&name, Some(labels), now);
        }
        for (name, node) in self.nodes.clone() {
            self.engine.set_node(&name, Some(node));
        }
        self.nodes_told = !self.nodes.is_empty();
        for (name, outsider) in self.outsiders.clone() {
            self.engine.set_outsider(&name, Some(outsider));
        }
        for (id, run) in self.runs.clone() {
            match &run.hold {
                Some((claim, since)) => {
                    let hold = Hold {
                        claim: claim.clone(),
                        attempt: run.attempt,
                        since: *since,
                        leaving: leaving.contains(&id),
                    };
                    let bearer =
                        Bearer { since: run.since, priority: run.priority, preempted: run.preempted, limit: run.limit };
                    self.engine.set_holds(&id, bearer, vec![hold], now);
                }
                None => self.engine.ask(&id, ask_of(&run), now),
            }
        }
    }

    pub fn running(&self) -> BTreeSet<String> {
        let holding = self.runs.iter().filter(|(id, run)| run.hold.is_some() && !self.is_leaving(id));
        holding.map(|(id, _)| short(id)).collect()
    }

    pub fn leaving(&self) -> BTreeSet<String> {
        self.runs
            .iter()
            .filter(|(id, run)| run.hold.is_some() && self.is_leaving(id))
            .map(|(id, _)| short(id))
            .collect()
    }

    pub fn waiting(&self) -> BTreeMap<String, String> {
        let asking = self.runs.iter().filter(|(_, run)| run.hold.is_none());
        let told = |id: &Id| self.engine.wait(id).map_or("nothing".to_owned(), |wait| wait.reason.to_string());
        asking.map(|(id, _)| (short(id), told(id))).collect()
    }
}

fn ask_of(run: &Run) -> Ask {
    Ask {
        attempt: run.attempt,
        queue: run.queue.as_deref().map(Into::into),
        priority: run.priority,
        since: run.since,
        asked: run.asked,
        placed: run.attempt > 1 || run.placed,
        class: Arc::new(Class { amounts: run.amounts.clone(), pod: run.pod.clone(), limit: run.limit }),
    }
}

pub fn id(text: &str) -> Id {
    let (namespace, name) = text.split_once('/').unwrap_or(("vision", text));
    Id::new(namespace, name)
}

fn short(id: &Id) -> String {
    if &*id.namespace == "vision" { id.name.to_string() } else { id.to_string() }
}
