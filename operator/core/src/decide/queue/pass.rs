//! A pass: who may start now, group by group, as long as anybody fits.

use cultivar_crds::Reason;
use cultivar_crds::queue::Stop;
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::engine::Engine;
use super::ledger::{Fit, Group, Shortage, Without};
use super::model::{Admission, Class, Eviction, Id, Outcome};
use super::pending::First;
use crate::domain::Claim;
use crate::domain::queue::{Flavor, Word};

/// What a pass knows of a queue.
#[derive(Debug, Default)]
pub struct Seen {
    /// Classes of which nobody can start in this pass, and why.
    pub blocked: BTreeMap<(Word, Arc<Class>), Block>,
    /// The first of the queue that does not fit: others start only if it is not delayed.
    pub head: Option<First>,
}

/// Why nobody of a class can start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub reason: Reason,
    /// Too little of this, in this flavor.
    pub short: Option<(Word, Word)>,
}

impl Block {
    /// Whether it starts only once somebody changes something, not when others end.
    pub fn is_stuck(&self) -> bool {
        matches!(self.reason, Reason::ExceedsCap | Reason::NoNodeFits)
    }
}

/// The next of a queue, which fits.
struct Candidate {
    first: First,
    flavor: Flavor,
    borrows: bool,
    share: f64,
}

impl Candidate {
    // Who stays within its queue's quota comes first; then the queue with the smallest share; then as within a queue.
    fn before(&self, other: &Self) -> bool {
        let key = |one: &Self| (one.borrows, Reverse(one.first.priority), one.first.turn.clone());
        match (self.borrows, other.borrows) {
            (true, true) if self.share.total_cmp(&other.share).is_ne() => self.share < other.share,
            _ => key(self) < key(other),
        }
    }
}

impl Engine {
    /// Decides what follows from what was told since the last pass, and from the time.
    pub fn pass(&mut self, now: Timestamp) -> Outcome {
        let mut outcome = Outcome::default();
        while let Some((moment, group)) = self.timers.first().cloned().filter(|(moment, _)| *moment <= now) {
            self.timers.remove(&(moment, group.clone()));
            self.dirty.insert(group);
        }
        for group in std::mem::take(&mut self.dirty) {
            self.timers.retain(|(_, known)| *known != group);
            self.pass_group(&group, now, &mut outcome);
            // Those were let in meanwhile who take the places of others that turned out to be stuck.
            while self.has_places(&group) {
                self.pass_group(&group, now, &mut outcome);
            }
        }
        // Whoever no queue takes was told when that was found.
        outcome.changed.extend(std::mem::take(&mut self.fresh));
        if let Some((moment, _)) = self.timers.first() {
            outcome.wake(*moment);
        }
        outcome
    }

    fn pass_group(&mut self, group: &Group, now: Timestamp, outcome: &mut Outcome) {
        let members = self.ledger.members.get(group).cloned().unwrap_or_default();
        let mut seen: BTreeMap<Word, Seen> = members.iter().map(|name| (Arc::clone(name), Seen::default())).collect();
        self.drain(&members, outcome);
        self.keep_promises(&members, now, outcome);
        members.iter().for_each(|queue| self.let_in(queue));
        let mut next: BTreeMap<Word, Candidate> = BTreeMap::new();
        for (queue, seen) in &mut seen {
            next.extend(self.next_of(queue, seen, now, outcome).map(|candidate| (Arc::clone(queue), candidate)));
        }
        while let Some(queue) = best(&next) {
            let Some(candidate) = next.remove(&queue) else { break };
            let Some(seen) = seen.get_mut(&queue) else { break };
            // Others were admitted since it was found to fit.
            if let Some((flavor, _)) =
                self.fitting(&queue, &candidate.first).ok().filter(|(f, _)| f.name == candidate.flavor.name)
            {
                let claim = Claim {
                    queue: Arc::clone(&queue),
                    flavor: flavor.name,
                    amounts: candidate.first.class.amounts.clone(),
                };
                self.admit(&candidate.first.turn.1, claim, now, outcome);
            }
            next.extend(self.next_of(&queue, seen, now, outcome).map(|candidate| (queue, candidate)));
        }
        for (queue, seen) in seen {
            self.tell(&queue, seen, outcome);
        }
    }

    fn has_places(&self, group: &Group) -> bool {
        let members = self.ledger.members.get(group).into_iter().flatten();
        members.filter_map(|name| self.ledger.lines.get(name)).any(|line| !line.outside.is_empty() && line.has_place())
    }

    // Into a queue that takes only so many: as many of those outside as there are places.
    fn let_in(&mut self, queue: &Word) {
        let Some(line) = self.ledger.lines.get_mut(queue) else { return };
        while line.has_place()
            && let Some((Reverse(priority), _, id)) = line.outside.pop_first()
        {
            let Some(asked) = self.asks.get_mut(&id) else { continue };
            line.pending.insert(&id, priority, &mut asked.ask);
            line.fresh.insert(id);
        }
    }

    fn admit(&mut self, id: &Id, claim: Claim, now: Timestamp, outcome: &mut Outcome) {
        self.unplace(id, now);
        let Some(asked) = self.asks.remove(id) else { return };
        self.waits.remove(id);
        self.ledger.count(&id.namespace, &claim, 1, now);
        let waited = Duration::try_from(now.duration_since(asked.ask.asked)).unwrap_or_default();
        outcome.admitted.push((Arc::clone(&claim.queue), waited));
        self.grants.insert(id.clone(), Admission { attempt: asked.ask.attempt, claim, since: now });
        outcome.changed.insert(id.clone());
    }

    /// Whether a queue admits; else why not.
    pub(super) fn stopped(&self, queue: &Word) -> Option<Reason> {
        let line = self.ledger.lines.get(queue)?;
        match line.config.stop {
            _ if line.config.deleting => Some(Reason::QueueHeld),
            Stop::Hold | Stop::Drain => Some(Reason::QueueHeld),
            Stop::None => line.conflict.as_ref().map(|_| Reason::FlavorConflict),
        }
    }

    fn drain(&mut self, members: &BTreeSet<Word>, outcome: &mut Outcome) {
        for queue in members {
            let Some(line) = self.ledger.lines.get(queue).filter(|line| line.config.stop == Stop::Drain) else {
                continue;
            };
            let message = format!("queue {queue} is drained (spec.stop)");
            for (id, attempt) in &line.holds {
                let leaving = self.holds.get(&(id.clone(), *attempt)).is_none_or(|held| held.hold.leaving);
                if !leaving && self.evictions.get(id).is_none_or(|eviction| eviction.attempt != *attempt) {
                    self.evictions.insert(id.clone(), Eviction { attempt: *attempt, message: message.clone() });
                    outcome.changed.insert(id.clone());
                    outcome.evicted.push(Arc::clone(queue));
                }
            }
        }
    }

    // Whoever stopped others gets what they leave, before anybody else is asked.
    fn keep_promises(&mut self, members: &BTreeSet<Word>, now: Timestamp, outcome: &mut Outcome) {
        for queue in members {
            let promised = self.ledger.lines.get(queue).map(|line| line.promised.clone()).unwrap_or_default();
            if promised.is_empty() {
                continue;
            }
            let (stopped, leaving) = (self.stopped(queue).is_some(), self.leaving(members));
            for (id, flavor) in promised {
                let (Some(claim), Some(asked)) = (self.promise_of(&id), self.asks.get(&id).cloned()) else { continue };
                let Some(line) = self.ledger.lines.get(queue) else { continue };
                // Of a node that went meanwhile nothing is kept for anybody.
                let lands = |flavor: &&Flavor| !stopped && self.nodes.take(flavor, &asked.ask.class.pod);
                let flavor = line.config.flavor(&flavor).filter(lands).cloned();
                self.ledger.count(&id.namespace, &claim, -1, now);
                let fit = |without: &Without| {
                    let Some(flavor) = &flavor else { return false };
                    let fit = self.ledger.fit(queue, flavor, &id.namespace, &claim.amounts, without);
                    matches!(fit, Fit::Fits { .. })
                };
                let (at_once, later) = (fit(&Without::default()), fit(&leaving));
                if later {
                    self.ledger.count(&id.namespace, &claim, 1, now);
                }
                if at_once {
                    self.admit(&id, claim, now, outcome);
                } else if !later
                    && let Some(line) = self.ledger.lines.get_mut(queue)
                    && let Some(asked) = self.asks.get_mut(&id)
                {
                    // What was promised is there no more, for a quota was changed: it waits like everybody else.
                    line.promised.remove(&id);
                    line.pending.insert(&id, asked.priority, &mut asked.ask);
                    line.fresh.insert(id);
                }
            }
        }
    }

    /// What those hold that were told to end.
    pub(super) fn leaving(&self, members: &BTreeSet<Word>) -> Without {
        let mut leaving = Without::default();
        for line in members.iter().filter_map(|queue| self.ledger.lines.get(queue)) {
            for key in line.holds.iter().filter(|key| self.is_leaving(key)) {
                let Some(held) = self.holds.get(key) else { continue };
                leaving.take(&held.hold.claim.queue, line.counted(&held.hold.claim));
            }
        }
        leaving
    }

    pub(super) fn is_leaving(&self, key: &(Id, u32)) -> bool {
        let told = self.evictions.get(&key.0).is_some_and(|eviction| eviction.attempt == key.1);
        told || self.holds.get(key).is_some_and(|held| held.hold.leaving)
    }

    /// The first flavor that it fits into, and whether it borrows there; else the nearest that it comes to fitting.
    fn fitting(&self, queue: &Word, first: &First) -> Result<(Flavor, bool), (Shortage, (Word, Word))> {
        let Some(line) = self.ledger.lines.get(queue) else { return Err((Shortage::Quota, Default::default())) };
        let mut nearest: Option<(Shortage, (Word, Word))> = None;
        for flavor in &line.config.flavors {
            if !self.nodes.take(flavor, &first.class.pod) {
                let none = (Shortage::Node, (Arc::clone(&flavor.name), Word::default()));
                nearest.get_or_insert(none);
                continue;
            }
            match self.ledger.fit(queue, flavor, &first.namespace, &first.class.amounts, &Without::default()) {
                Fit::Fits { borrows } => return Ok((flavor.clone(), borrows)),
                Fit::Short { resource, shortage } => {
                    if nearest.as_ref().is_none_or(|(known, _)| shortage < *known) {
                        nearest = Some((shortage, (Arc::clone(&flavor.name), resource)));
                    }
                }
            }
        }
        Err(nearest.unwrap_or((Shortage::Quota, Default::default())))
    }

    fn next_of(&mut self, queue: &Word, seen: &mut Seen, now: Timestamp, outcome: &mut Outcome) -> Option<Candidate> {
        if self.stopped(queue).is_some() {
            return None;
        }
        self.let_in(queue);
        // Once more from the start whenever somebody was promised a place, and waits in line no more.
        while let Some(first) = self.first_open(queue, seen, now) {
            let class = (Arc::clone(&first.namespace), Arc::clone(&first.class));
            match self.fitting(queue, &first) {
                Ok((flavor, borrows)) => {
                    let head = seen.head.as_ref();
                    if head.is_none_or(|head| self.may_overtake(queue, head, &first, &flavor, now)) {
                        let share = self.ledger.share_after(queue, &flavor, &first.class.amounts);
                        return Some(Candidate { first, flavor, borrows, share });
                    }
                    seen.blocked.insert(class, Block { reason: Reason::WaitingForTurn, short: None });
                }
                Err((shortage, short)) => {
                    let waits = !matches!(shortage, Shortage::Never | Shortage::Namespace | Shortage::Node);
                    if waits && seen.head.is_none() {
                        if self.preempt(queue, &first, now, outcome) {
                            continue;
                        }
                        seen.head = Some(first);
                    }
                    seen.blocked.insert(class, Block { reason: reason_of(shortage), short: Some(short) });
                }
            }
        }
        None
    }

    // In the order of the queue, the first whose class is not known to be stuck.
    fn first_open(&self, queue: &Word, seen: &Seen, now: Timestamp) -> Option<First> {
        let line = self.ledger.lines.get(queue)?;
        let open =
            |first: &First| !seen.blocked.contains_key(&(Arc::clone(&first.namespace), Arc::clone(&first.class)));
        let share = |namespace: &Word| line.share_of(namespace, now);
        line.pending.priorities().find_map(|priority| line.pending.firsts(priority, share).into_iter().find(open))
    }
}

fn best(next: &BTreeMap<Word, Candidate>) -> Option<Word> {
    let mut best: Option<(&Word, &Candidate)> = None;
    for (queue, candidate) in next {
        if best.is_none_or(|(_, known)| candidate.before(known)) {
            best = Some((queue, candidate));
        }
    }
    best.map(|(queue, _)| Arc::clone(queue))
}

fn reason_of(shortage: Shortage) -> Reason {
    match shortage {
        Shortage::Never => Reason::ExceedsCap,
        Shortage::Node => Reason::NoNodeFits,
        Shortage::Lent | Shortage::Cohort => Reason::WaitingForCohort,
        Shortage::Quota | Shortage::Namespace => Reason::WaitingForQuota,
    }
}
