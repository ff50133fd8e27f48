//! The engine's state, and what is told to it.

use cultivar_crds::Reason;
use cultivar_crds::labels::DEFAULT_QUEUE;
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ledger::{Group, Ledger};
use super::model::{Admission, Ask, Bearer, Eviction, Id, Wait};
use super::nodes::Nodes;
use crate::domain::Claim;
use crate::domain::node::{Node, Outsider};
use crate::domain::queue::{Hold, QueueConfig, Word, is_extended, selects};

/// Decides for every queue; see the module.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    pub(super) ledger: Ledger,
    pub(super) namespaces: BTreeMap<Word, BTreeMap<String, String>>,
    pub(super) asks: BTreeMap<Id, Asked>,
    pub(super) holds: BTreeMap<(Id, u32), Held>,
    pub(super) grants: BTreeMap<Id, Admission>,
    pub(super) evictions: BTreeMap<Id, Eviction>,
    pub(super) waits: BTreeMap<Id, Wait>,
    // Whom no queue takes, and who is to hear of it.
    pub(super) fresh: BTreeSet<Id>,
    pub(super) dirty: BTreeSet<Group>,
    pub(super) nodes: Nodes,
    // When a group is looked at again though nothing happens in it.
    pub(super) timers: BTreeSet<(Timestamp, Group)>,
}

/// An ask, and where it waits; no queue: its wait says why none takes it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub ask: Ask,
    pub queue: Option<Word>,
    // As it counts in that queue.
    pub priority: i32,
}

/// What an attempt holds, and whose it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    pub hold: Hold,
    pub bearer: Bearer,
}

impl Engine {
    /// Whether there is any queue.
    #[must_use]
    pub fn has_queues(&self) -> bool {
        !self.ledger.lines.is_empty()
    }

    /// A queue's settings.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<&Arc<QueueConfig>> {
        self.ledger.lines.get(name).map(|line| &line.config)
    }

    /// The queue of an experiment that names this one, or none.
    #[must_use]
    pub fn queue_of(&self, namespace: &str, named: Option<&str>) -> Option<&Arc<QueueConfig>> {
        self.queue(self.name_of_queue(namespace, named)?)
    }

    // The one that is named, else its namespace's default one.
    fn name_of_queue<'a>(&'a self, namespace: &str, named: Option<&'a str>) -> Option<&'a str> {
        let default = || Some(self.namespaces.get(namespace)?.get(DEFAULT_QUEUE)?.as_str());
        named.or_else(default)
    }

    /// The leave to start that an experiment has and has not used yet.
    #[must_use]
    pub fn admission(&self, id: &Id) -> Option<&Admission> {
        self.grants.get(id)
    }

    /// The attempt of an experiment that must end.
    #[must_use]
    pub fn eviction(&self, id: &Id) -> Option<&Eviction> {
        self.evictions.get(id)
    }

    /// Why an experiment waits.
    #[must_use]
    pub fn wait(&self, id: &Id) -> Option<&Wait> {
        self.waits.get(id)
    }

    /// Whether an experiment asks.
    #[must_use]
    pub fn is_asking(&self, id: &Id) -> bool {
        self.asks.contains_key(id)
    }

    /// Everybody who asks, has leave to start or holds something.
    pub fn known(&self) -> impl Iterator<Item = &Id> {
        self.asks.keys().chain(self.grants.keys()).chain(self.holds.keys().map(|(id, _)| id))
    }

    /// Everybody who asks.
    pub fn asking(&self) -> impl Iterator<Item = &Id> {
        self.asks.keys()
    }

    /// A queue is there, or is there no more. What is held of it is counted anew.
    pub fn set_queue(&mut self, name: &str, config: Option<QueueConfig>, now: Timestamp) {
        let name: Word = name.into();
        match config {
            Some(config) => {
                if self.ledger.lines.get(&name).is_some_and(|line| *line.config == config) {
                    return;
                }
                let line = self.ledger.lines.entry(Arc::clone(&name)).or_default();
                let other_pods = line.config.pod != config.pod;
                line.config = Arc::new(config);
                if other_pods {
                    // What they ask for may be something else now: they are to ask again.
                    let asking = self.asks.iter().filter(|(_, asked)| asked.queue.as_ref() == Some(&name));
                    self.fresh.extend(asking.map(|(id, _)| id.clone()));
                }
            }
            None => {
                if self.ledger.lines.remove(&name).is_none() {
                    return;
                }
            }
        }
        self.recount(now);
        // Whoever names it, and whoever named none while there was none at all.
        let ids: Vec<Id> = self.asks.keys().cloned().collect();
        self.place_again(ids, now);
    }

    /// A namespace has these labels, or is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<BTreeMap<String, String>>, now: Timestamp) {
        let name: Word = name.into();
        if self.namespaces.get(&name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => self.namespaces.insert(Arc::clone(&name), labels),
            None => self.namespaces.remove(&name),
        };
        let ids: Vec<Id> = self.asks.keys().filter(|id| id.namespace == name).cloned().collect();
        self.place_again(ids, now);
    }

    /// A node is as it says, or gone. Until the first one is told of, none is looked at.
    pub fn set_node(&mut self, name: &str, node: Option<Node>) {
        if self.nodes.set(name, node) {
            // Who waited for one may have it now, and who would have been admitted may not.
            self.dirty.extend(self.ledger.members.keys().cloned());
        }
    }

    /// A pod that no queue admitted holds something of a node, or nothing any more; whether anybody may start for it.
    pub fn set_outsider(&mut self, name: &str, outsider: Option<Outsider>) -> bool {
        let room = self.nodes.set_outsider(name, outsider);
        if room {
            self.dirty.extend(self.ledger.members.keys().cloned());
        }
        room
    }

    /// The pods that no queue admitted and that hold something of a node.
    pub fn outsiders(&self) -> impl Iterator<Item = &String> {
        self.nodes.outsiders()
    }

    /// The extended resources that queues list: of these it matters what other pods hold.
    #[must_use]
    pub fn listed(&self) -> BTreeSet<Word> {
        let flavors = self.ledger.lines.values().flat_map(|line| &line.config.flavors);
        let enforced = flavors.filter(|flavor| flavor.node_fit).flat_map(|flavor| flavor.limits.keys());
        enforced.filter(|resource| is_extended(resource)).cloned().collect()
    }

    /// An experiment wants an attempt started. Asked again it is what it was, unless it has changed.
    pub fn ask(&mut self, id: &Id, ask: Ask, now: Timestamp) {
        if let Some(grant) = self.grants.get(id) {
            if grant.attempt == ask.attempt {
                return;
            }
            self.drop_grant(id, now);
        }
        if let Some(asked) = self.asks.get_mut(id) {
            // That it has its place is what was decided here, and moves nobody.
            asked.ask.placed |= ask.placed;
            if asked.ask == (Ask { placed: asked.ask.placed, ..ask.clone() }) {
                return;
            }
        }
        self.take_back(id, now);
        self.asks.insert(id.clone(), Asked { ask, queue: None, priority: 0 });
        self.place(id);
    }

    /// An experiment wants nothing, and uses no leave to start that it may have.
    pub fn withdraw(&mut self, id: &Id, now: Timestamp) {
        self.take_back(id, now);
        self.drop_grant(id, now);
    }

    /// What an experiment holds: everything that its live Jobs and unfinished pods ask for.
    pub fn set_holds(&mut self, id: &Id, bearer: Bearer, holds: Vec<Hold>, now: Timestamp) {
        let seen: BTreeMap<u32, Hold> = holds.into_iter().map(|hold| (hold.attempt, hold)).collect();
        if let Some(grant) = self.grants.get(id)
            && seen.keys().any(|attempt| *attempt >= grant.attempt)
        {
            self.drop_grant(id, now);
        }
        let known: Vec<u32> = self.holds_of(id).map(|(_, attempt)| *attempt).collect();
        for attempt in known.into_iter().filter(|attempt| !seen.contains_key(attempt)) {
            self.release(id, attempt, now);
        }
        for (attempt, hold) in seen {
            let key = (id.clone(), attempt);
            let held = Held { hold, bearer };
            match self.holds.get(&key) {
                Some(known) if *known == held => continue,
                Some(known) if known.hold.claim == held.hold.claim => {
                    self.touch(&held.hold.claim.queue);
                    self.holds.insert(key, held);
                    continue;
                }
                Some(_) => self.release(id, attempt, now),
                None => {}
            }
            self.ledger.count(&id.namespace, &held.hold.claim, 1, now);
            let queue = Arc::clone(&held.hold.claim.queue);
            if let Some(line) = self.ledger.lines.get_mut(&queue) {
                line.holds.insert(key.clone());
            }
            self.touch(&queue);
            self.holds.insert(key, held);
        }
        if !self.holds_of(id).any(|(_, attempt)| self.evictions.get(id).is_some_and(|one| one.attempt == *attempt)) {
            self.evictions.remove(id);
        }
    }

    pub(super) fn touch(&mut self, queue: &Word) {
        self.dirty.extend(self.ledger.group_of(queue));
    }

    fn holds_of(&self, id: &Id) -> impl Iterator<Item = &(Id, u32)> {
        self.holds.range((id.clone(), 0)..=(id.clone(), u32::MAX)).map(|(key, _)| key)
    }

    fn release(&mut self, id: &Id, attempt: u32, now: Timestamp) {
        let key = (id.clone(), attempt);
        let Some(held) = self.holds.remove(&key) else { return };
        let claim = held.hold.claim;
        self.ledger.count(&id.namespace, &claim, -1, now);
        if let Some(line) = self.ledger.lines.get_mut(&claim.queue) {
            line.holds.remove(&key);
        }
        self.touch(&claim.queue);
    }

    fn drop_grant(&mut self, id: &Id, now: Timestamp) {
        let Some(grant) = self.grants.remove(id) else { return };
        self.ledger.count(&id.namespace, &grant.claim, -1, now);
        self.touch(&grant.claim.queue);
    }

    pub(super) fn promise_of(&self, id: &Id) -> Option<Claim> {
        let asked = self.asks.get(id)?;
        let queue = asked.queue.clone()?;
        let flavor = self.ledger.lines.get(&queue)?.promised.get(id)?.clone();
        Some(Claim { queue, flavor, amounts: asked.ask.class.amounts.clone() })
    }

    // Out of wherever it waits; what it was promised is free again.
    pub(super) fn unplace(&mut self, id: &Id, now: Timestamp) {
        if let Some(claim) = self.promise_of(id) {
            self.ledger.count(&id.namespace, &claim, -1, now);
        }
        let Some(asked) = self.asks.get_mut(id) else { return };
        let Some(queue) = asked.queue.take() else { return };
        if let Some(line) = self.ledger.lines.get_mut(&queue) {
            line.pending.remove(id, asked.priority, &asked.ask);
            line.outside.remove(&(Reverse(asked.priority), asked.ask.since, id.clone()));
            line.promised.remove(id);
            line.fresh.remove(id);
        }
        self.touch(&queue);
    }

    fn take_back(&mut self, id: &Id, now: Timestamp) {
        self.unplace(id, now);
        self.asks.remove(id);
        self.waits.remove(id);
        self.fresh.remove(id);
    }

    fn has_place(&self, id: &Id) -> bool {
        let Some(asked) = self.asks.get(id) else { return false };
        let line = asked.queue.as_ref().and_then(|queue| self.ledger.lines.get(queue));
        line.is_some_and(|line| !line.outside.contains(&(Reverse(asked.priority), asked.ask.since, id.clone())))
    }

    fn place_again(&mut self, ids: Vec<Id>, now: Timestamp) {
        for id in ids {
            // What was promised is decided anew; who had a place has one.
            let placed = self.has_place(&id);
            self.unplace(&id, now);
            if let Some(asked) = self.asks.get_mut(&id) {
                asked.ask.placed |= placed;
            }
            self.place(&id);
        }
    }

    // Into the queue that it names, or its namespace does; else it is told why none takes it.
    fn place(&mut self, id: &Id) {
        let Some(asked) = self.asks.get(id) else { return };
        if self.ledger.lines.is_empty() && asked.ask.queue.is_none() {
            // Without any queue it needs no leave: its next pass finds that out.
            self.waits.remove(id);
            self.fresh.insert(id.clone());
            return;
        }
        match self.queue_for(id, &asked.ask) {
            Ok(queue) => {
                let (Some(line), Some(asked)) = (self.ledger.lines.get_mut(&queue), self.asks.get_mut(id)) else {
                    return;
                };
                let priority = asked.ask.priority.min(line.config.max_priority);
                if asked.ask.placed || line.config.max_queued.is_none() {
                    line.pending.insert(id, priority, &mut asked.ask);
                } else {
                    // The next pass lets in whoever comes first.
                    line.outside.insert((Reverse(priority), asked.ask.since, id.clone()));
                }
                line.fresh.insert(id.clone());
                (asked.queue, asked.priority) = (Some(Arc::clone(&queue)), priority);
                self.touch(&queue);
            }
            Err(wait) => {
                if self.waits.get(id) != Some(&wait) {
                    self.waits.insert(id.clone(), wait);
                    self.fresh.insert(id.clone());
                }
            }
        }
    }

    fn queue_for(&self, id: &Id, ask: &Ask) -> Result<Word, Wait> {
        let nobody = |queue: Option<Word>, reason, message: String| Wait {
            queue,
            reason,
            message: message.into(),
            position: None,
        };
        let Some(name) = self.name_of_queue(&id.namespace, ask.queue.as_deref()).map(Word::from) else {
            return Err(nobody(
                None,
                Reason::QueueRequired,
                format!(
                    "this cluster has Queues, and none is named: set spec.queue, or the label {DEFAULT_QUEUE} of namespace {}",
                    id.namespace
                ),
            ));
        };
        let Some(line) = self.ledger.lines.get(&name) else {
            let known: Vec<&str> = self.ledger.lines.keys().map(AsRef::as_ref).collect();
            let known = if known.is_empty() {
                "there is no Queue at all".to_owned()
            } else {
                format!("there are: {}", crate::domain::text::some_of(&known, 8))
            };
            return Err(nobody(
                Some(Arc::clone(&name)),
                Reason::QueueNotFound,
                format!("no Queue is called {name}; {known}"),
            ));
        };
        let empty = BTreeMap::new();
        let labels = self.namespaces.get(&id.namespace).unwrap_or(&empty);
        let may = line.config.namespaces.as_ref().is_none_or(|wanted| selects(wanted, labels));
        if !may {
            let message = format!(
                "queue {name} does not take runs of namespace {}: its labels are not those that spec.namespaces of the queue selects",
                id.namespace
            );
            return Err(nobody(Some(name), Reason::NamespaceNotAllowed, message));
        }
        Ok(name)
    }

    // After a change of any queue: everything that is held is counted from the holds themselves.
    fn recount(&mut self, now: Timestamp) {
        self.ledger.reset();
        for line in self.ledger.lines.values_mut() {
            line.holds.clear();
        }
        let held = self.holds.iter().map(|((id, attempt), held)| (id.clone(), Some(*attempt), held.hold.claim.clone()));
        let granted = self.grants.iter().map(|(id, grant)| (id.clone(), None, grant.claim.clone()));
        let promised = self.asks.keys().filter_map(|id| Some((id.clone(), None, self.promise_of(id)?)));
        let all: Vec<_> = held.chain(granted).chain(promised).collect();
        for (id, attempt, claim) in all {
            self.ledger.count(&id.namespace, &claim, 1, now);
            if let (Some(line), Some(attempt)) = (self.ledger.lines.get_mut(&claim.queue), attempt) {
                line.holds.insert((id, attempt));
            }
        }
        self.dirty.extend(self.ledger.members.keys().cloned());
    }
}
