//! Preemption: who is stopped so that the first of a queue gets what is its queue's own.
//!
//! Only the first of a queue preempts, and only if it then stands within the queue's quota together with all that is not of
//! lower priority there. It takes from runs of other queues that their own quota does not cover, in the resource that is
//! short; and from runs of lower priority in its own queue.
//!
//! **It comes to an end.** Rank a queue's runs by priority, then by age. Go through those that are admitted in this order
//! and take each that still fits into the quota, in every resource: these are *covered*. (1) The preemptor is covered
//! afterwards: whatever ranks before it is not of lower priority, and with all of that it stays within the quota. (2) No
//! run of another queue that is covered is ever stopped, and taking away one that is not changes nothing for those that
//! are. (3) In its own queue only what ranks behind the preemptor is stopped. So the covered runs of each queue, read
//! by rank, only ever grow (as words do in a dictionary: the first place in which they differ gains a run), and for the
//! preemptor's queue they do grow. An admission without preemption adds a run and takes none away. There are finitely
//! many runs, so without news from outside this ends: nobody can be stopped for one whom it had been stopped for. It holds
//! resource by resource, whichever of them is dominant.

use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::engine::{Engine, Held};
use super::ledger::{Fit, Group, Place, Shortage, Without};
use super::model::{Eviction, Id, Outcome};
use super::pending::First;
use crate::domain::quantity;
use crate::domain::queue::{Amounts, Flavor, Word, add};
use crate::domain::time;

type HoldKey = (Id, u32);

/// What a preemptor may stop, in the order in which it would.
struct Victims {
    others: Vec<HoldKey>,
    own: Vec<HoldKey>,
}

/// One who is stopped, and what its queue counts for it.
struct Chosen {
    key: HoldKey,
    of: Word,
    counted: Vec<(Place, i64)>,
}

impl Engine {
    /// Stops others for the first of a queue, and promises it their place; false where that does not help.
    pub(super) fn preempt(&mut self, queue: &Word, first: &First, now: Timestamp, outcome: &mut Outcome) -> bool {
        let Some(line) = self.ledger.lines.get(queue) else { return false };
        let config = Arc::clone(&line.config);
        let Some(members) = self.ledger.members.get(&Group::of(&config)).cloned() else { return false };
        let leaving = self.leaving(&members);
        for flavor in &config.flavors {
            if !self.nodes.take(flavor, &first.class.pod) || !self.is_own(queue, first, flavor, &leaving) {
                continue;
            }
            let Some(chosen) = self.choose(queue, first, flavor, &members, &leaving, now) else { continue };
            let stopped: Vec<String> = chosen.iter().map(|(id, _)| id.to_string()).collect();
            for (id, attempt) in chosen {
                let message = self.message_for(queue, first, flavor, &(id.clone(), attempt));
                outcome.changed.insert(id.clone());
                let of = self.holds.get(&(id.clone(), attempt)).map(|held| Arc::clone(&held.hold.claim.queue));
                outcome.evicted.extend(of);
                self.evictions.insert(id, Eviction { attempt, message });
            }
            self.promise(queue, first, flavor, now);
            self.tell_promised(queue, &first.turn.1, &stopped, outcome);
            return true;
        }
        false
    }

    fn promise(&mut self, queue: &Word, first: &First, flavor: &Flavor, now: Timestamp) {
        let id = &first.turn.1;
        let (Some(asked), Some(line)) = (self.asks.get(id), self.ledger.lines.get_mut(queue)) else { return };
        line.pending.remove(id, asked.priority, &asked.ask);
        line.promised.insert(id.clone(), Arc::clone(&flavor.name));
        if let Some(claim) = self.promise_of(id) {
            self.ledger.count(&id.namespace, &claim, 1, now);
        }
    }

    // Whether it stays within the quota with all of its queue that is not of lower priority.
    fn is_own(&self, queue: &Word, first: &First, flavor: &Flavor, leaving: &Without) -> bool {
        let Some(line) = self.ledger.lines.get(queue) else { return false };
        let mut without = leaving.clone();
        for key in line.holds.iter().filter(|key| !self.is_leaving(key)) {
            let Some(held) = self.holds.get(key).filter(|held| self.is_lower(queue, held, first.priority)) else {
                continue;
            };
            without.take(queue, line.counted(&held.hold.claim));
        }
        first.class.amounts.iter().all(|(resource, need)| {
            let place = (Arc::clone(&flavor.name), Arc::clone(resource));
            let Some(limit) = flavor.limits.get(resource) else { return true };
            self.ledger.used(queue, &place, &without).saturating_add(*need) <= limit.quota
        })
    }

    // As its priority counts in its queue.
    fn is_lower(&self, queue: &Word, held: &Held, priority: i32) -> bool {
        let most = self.ledger.lines.get(queue).map_or(i32::MAX, |line| line.config.max_priority);
        held.bearer.priority.min(most) < priority
    }

    fn choose(
        &mut self,
        queue: &Word,
        first: &First,
        flavor: &Flavor,
        members: &BTreeSet<Word>,
        leaving: &Without,
        now: Timestamp,
    ) -> Option<Vec<HoldKey>> {
        let fits = |engine: &Self, without: &Without| {
            engine.ledger.fit(queue, flavor, &first.namespace, &first.class.amounts, without)
        };
        let victims = self.victims(queue, first, members, now);
        let mut chosen: Vec<Chosen> = Vec::new();
        let without = |chosen: &[Chosen]| {
            let mut without = leaving.clone();
            chosen.iter().for_each(|one| without.take(&one.of, one.counted.iter().cloned()));
            without
        };
        loop {
            let now_without = without(&chosen);
            let (resource, shortage) = match fits(self, &now_without) {
                Fit::Fits { .. } => break,
                Fit::Short { resource, shortage } => (resource, shortage),
            };
            let place = (Arc::clone(&flavor.name), resource);
            let taken = |key: &HoldKey| chosen.iter().any(|one| one.key == *key);
            // A queue over its own cap is helped by its own runs only.
            let others = victims.others.iter().filter(|_| matches!(shortage, Shortage::Lent | Shortage::Cohort));
            let others = others.filter(|key| self.is_borrowing(key, &place, &now_without));
            let next = others.chain(&victims.own).find(|key| !taken(key) && self.uses(key, &place))?;
            let (of, counted) = self.counted(next)?;
            chosen.push(Chosen { key: next.clone(), of, counted });
        }
        // Those that were taken first may have become needless.
        let mut index = chosen.len();
        while index > 0 {
            index -= 1;
            let dropped = chosen.remove(index);
            if !matches!(fits(self, &without(&chosen)), Fit::Fits { .. }) {
                chosen.insert(index, dropped);
            }
        }
        Some(chosen.into_iter().map(|one| one.key).collect())
    }

    fn counted(&self, key: &HoldKey) -> Option<(Word, Vec<(Place, i64)>)> {
        let claim = &self.holds.get(key)?.hold.claim;
        let line = self.ledger.lines.get(&claim.queue)?;
        Some((Arc::clone(&claim.queue), line.counted(claim).collect()))
    }

    fn uses(&self, key: &HoldKey, place: &Place) -> bool {
        self.counted(key).is_some_and(|(_, counted)| counted.iter().any(|(at, amount)| at == place && *amount > 0))
    }

    fn is_borrowing(&self, key: &HoldKey, place: &Place, without: &Without) -> bool {
        let Some((queue, _)) = self.counted(key) else { return false };
        let quota = self.ledger.lines.get(&queue).and_then(|line| line.limit(place)).unwrap_or_default().quota;
        self.ledger.used(&queue, place, without) > quota
    }

    fn victims(&mut self, queue: &Word, first: &First, members: &BTreeSet<Word>, now: Timestamp) -> Victims {
        let (mut others, mut own) = (Vec::new(), Vec::new());
        let mut wakes: Option<Timestamp> = None;
        for line in members.iter().filter_map(|name| self.ledger.lines.get(name)) {
            let name = &line.config.name;
            let covered = if name == queue { BTreeSet::new() } else { self.covered(name) };
            for key in line.holds.iter().filter(|key| !self.is_leaving(key) && !covered.contains(*key)) {
                let Some(held) = self.holds.get(key) else { continue };
                if name == queue && !self.is_lower(queue, held, first.priority) {
                    continue;
                }
                if line.config.preemption_limit.is_some_and(|limit| held.bearer.preempted >= limit) {
                    continue;
                }
                let open = time::after(held.hold.since, line.config.min_runtime);
                if open > now {
                    wakes = Some(wakes.map_or(open, |earlier| earlier.min(open)));
                    continue;
                }
                if name == queue { &mut own } else { &mut others }.push(key.clone());
            }
        }
        if let (Some(moment), Some(group)) = (wakes, self.ledger.group_of(queue)) {
            self.timers.insert((moment, group));
        }
        // Lowest priority first, then the newest.
        let order =
            |key: &HoldKey| self.holds.get(key).map(|held| (held.bearer.priority, std::cmp::Reverse(held.hold.since)));
        others.sort_by_key(order);
        own.sort_by_key(order);
        Victims { others, own }
    }

    // The runs of a queue that its quota covers, by rank.
    fn covered(&self, queue: &Word) -> BTreeSet<HoldKey> {
        let Some(line) = self.ledger.lines.get(queue) else { return BTreeSet::new() };
        let mut ranked: Vec<(&HoldKey, &Held)> = line
            .holds
            .iter()
            .filter(|key| !self.is_leaving(key))
            .filter_map(|key| Some((key, self.holds.get(key)?)))
            .collect();
        ranked.sort_by_key(|(key, held)| (std::cmp::Reverse(held.bearer.priority), held.bearer.since, (*key).clone()));
        let mut sums: std::collections::BTreeMap<Word, Amounts> = std::collections::BTreeMap::new();
        let mut covered = BTreeSet::new();
        for (key, held) in ranked {
            let claim = &held.hold.claim;
            let counted: Amounts = line.counted(claim).map(|((_, resource), amount)| (resource, amount)).collect();
            let mut sum = sums.get(&claim.flavor).cloned().unwrap_or_default();
            add(&mut sum, &counted);
            let within = counted.keys().all(|resource| {
                let quota = line.limit(&(Arc::clone(&claim.flavor), Arc::clone(resource))).unwrap_or_default().quota;
                sum.get(resource).copied().unwrap_or(0) <= quota
            });
            if within {
                sums.insert(Arc::clone(&claim.flavor), sum);
                covered.insert(key.clone());
            }
        }
        covered
    }

    fn message_for(&self, queue: &Word, first: &First, flavor: &Flavor, victim: &HoldKey) -> String {
        let of = self.holds.get(victim).map(|held| &held.hold.claim.queue);
        let asks: Vec<String> = first
            .class
            .amounts
            .iter()
            .filter(|(resource, _)| flavor.limits.contains_key(*resource))
            .map(|(resource, amount)| format!("{} {resource}", quantity::text(resource, *amount)))
            .collect();
        let (who, asks) = (&first.turn.1, asks.join(", "));
        if of == Some(queue) {
            format!("stopped for {who}, which has priority {} in queue {queue} and asks for {asks}", first.priority)
        } else {
            let borrowed = of.map_or("", AsRef::as_ref);
            format!(
                "stopped for {who}: queue {queue} takes back {asks} of its quota, which queue {borrowed} had borrowed"
            )
        }
    }
}
