//! A Queue's status: what is in use, by whom, and who waits.

use cultivar_crds::Reason;
use cultivar_crds::queue::{NamespaceUsage, QueueStatus, Usage};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

use super::engine::Engine;
use super::ledger::{Group, Line, Place, Total};
use super::model::{Reading, Use};
use crate::domain::conditions::{Conditions, kind};
use crate::domain::queue::{Amounts, is_extended};
use crate::domain::{quantity, time};

/// Most namespaces that a status lists.
const NAMESPACES: usize = 50;

impl Engine {
    /// How a queue stands, written over its last status; nothing if there is no such queue.
    #[must_use]
    pub fn report(&self, name: &str, generation: i64, last: &QueueStatus, now: Timestamp) -> Option<QueueStatus> {
        let line = self.ledger.lines.get(name)?;
        let waiting = line.pending.len() + line.promised.len();
        let mut status = QueueStatus {
            observed_generation: Some(generation),
            conditions: last.conditions.clone(),
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
            outside: u32::try_from(line.outside.len()).unwrap_or(u32::MAX),
            admitted: u32::try_from(self.admitted(line)).unwrap_or(u32::MAX),
            oldest_wait: self.oldest(line).map(time::stamp),
            usage: self.uses_of(line).into_iter().map(in_words).collect(),
            namespaces: namespaces(line),
        };
        let mut set = Conditions::new(&mut status.conditions, generation, now);
        match (self.stopped(&line.config.name), &line.conflict) {
            // Nothing comes of it without a change.
            (Some(Reason::FlavorConflict), Some(conflict)) => set
                .set(kind::READY, false, Reason::FlavorConflict, conflict)
                .set(kind::STALLED, true, Reason::FlavorConflict, conflict),
            (Some(reason), _) => set.set(kind::READY, false, reason, self.why_stopped(line)).clear(kind::STALLED),
            (None, _) => set.set(kind::READY, true, Reason::Admits, "").clear(kind::STALLED),
        };
        Some(status)
    }

    /// Whether nothing is held of a queue, so that it can go.
    #[must_use]
    pub fn is_empty(&self, name: &str) -> bool {
        let held = self.holds.values().map(|held| &held.hold.claim);
        !held.chain(self.grants.values().map(|grant| &grant.claim)).any(|claim| *claim.queue == *name)
    }

    fn why_stopped(&self, line: &Line) -> String {
        if line.config.deleting {
            format!("it is being deleted and goes when its runs have ended: {} hold something of it", line.holds.len())
        } else {
            format!("spec.stop is {:?}", line.config.stop)
        }
    }

    /// How every queue stands, in numbers.
    #[must_use]
    pub fn readings(&self, now: Timestamp) -> BTreeMap<String, Reading> {
        let mut readings: BTreeMap<String, Reading> = BTreeMap::new();
        // Many queues share their nodes, and these are looked through once.
        let mut free: BTreeMap<&BTreeMap<String, String>, Amounts> = BTreeMap::new();
        for (name, line) in &self.ledger.lines {
            let oldest = self.oldest(line).map(|since| now.duration_since(since));
            let reading = Reading {
                uses: self.uses_of(line),
                largest_free: self.largest_free(line, &mut free),
                namespaces: line.by_namespace.clone(),
                waiting: BTreeMap::new(),
                admitted: self.admitted(line),
                oldest_wait: oldest.and_then(|waited| Duration::try_from(waited).ok()).unwrap_or_default(),
            };
            readings.insert(name.to_string(), reading);
        }
        for wait in self.waits.values() {
            let reading = wait.queue.as_ref().and_then(|queue| readings.get_mut(&**queue));
            if let Some(reading) = reading {
                *reading.waiting.entry(wait.reason).or_default() += 1;
            }
        }
        readings
    }

    // Who was promised a place waits like everybody else, until those have ended that were stopped for it.
    fn oldest(&self, line: &Line) -> Option<Timestamp> {
        let promised = line.promised.keys().filter_map(|id| Some(self.asks.get(id)?.ask.asked));
        let outside = line.outside.iter().filter_map(|(_, _, id)| Some(self.asks.get(id)?.ask.asked));
        promised.chain(line.pending.oldest()).chain(outside).min()
    }

    fn admitted(&self, line: &Line) -> usize {
        line.holds.len() + self.grants.values().filter(|grant| grant.claim.queue == line.config.name).count()
    }

    fn uses_of(&self, line: &Line) -> Vec<Use> {
        let totals = self.ledger.totals.get(&Group::of(&line.config));
        let mut uses = Vec::new();
        for flavor in &line.config.flavors {
            for (resource, limit) in &flavor.limits {
                let place = (flavor.name.clone(), resource.clone());
                let used = line.used(&place);
                let total = totals.and_then(|totals| totals.get(&place)).copied().unwrap_or_default();
                let idle = limit.quota - used.min(limit.quota).max(limit.reserved);
                let lent = self.lent(line, &place, idle, total);
                let borrowed = (used - limit.quota).max(0);
                let (flavor, resource) = place;
                uses.push(Use { flavor, resource, quota: limit.quota, used, borrowed, lent });
            }
        }
        uses
    }

    fn largest_free<'a>(
        &self,
        line: &'a Line,
        known: &mut BTreeMap<&'a BTreeMap<String, String>, Amounts>,
    ) -> BTreeMap<Place, i64> {
        let mut largest = BTreeMap::new();
        for flavor in line.config.flavors.iter().filter(|flavor| flavor.node_fit && self.nodes.are_told()) {
            let selector = &flavor.node_selector;
            let free = known.entry(selector).or_insert_with(|| self.nodes.largest_free(selector));
            for resource in flavor.limits.keys().filter(|resource| is_extended(resource)) {
                let amount = free.get(resource).copied().unwrap_or(0);
                largest.insert((flavor.name.clone(), resource.clone()), amount);
            }
        }
        largest
    }

    // Nobody says from whom something is borrowed: of all that is, a queue lends in proportion to what it has idle.
    fn lent(
        &self,
        line: &Line,
        place: &(crate::domain::queue::Word, crate::domain::queue::Word),
        idle: i64,
        total: Total,
    ) -> i64 {
        let members = self.ledger.members.get(&Group::of(&line.config)).into_iter().flatten();
        let borrowed: i64 = members
            .filter_map(|name| self.ledger.lines.get(name))
            .map(|line| (line.used(place) - line.limit(place).unwrap_or_default().quota).max(0))
            .sum();
        let all_idle = total.quota - total.occupied + borrowed;
        if all_idle <= 0 { 0 } else { idle.saturating_mul(borrowed) / all_idle }
    }
}

fn in_words(of: Use) -> Usage {
    let text = |amount: i64| quantity::text(&of.resource, amount);
    Usage {
        flavor: (!of.flavor.is_empty()).then(|| of.flavor.to_string()),
        resource: of.resource.to_string(),
        quota: text(of.quota),
        used: text(of.used),
        borrowed: text(of.borrowed),
        lent: text(of.lent),
    }
}

fn namespaces(line: &Line) -> Vec<NamespaceUsage> {
    let mut namespaces: Vec<(f64, NamespaceUsage)> = Vec::new();
    for (namespace, held) in &line.by_namespace {
        let used =
            held.iter().map(|(resource, amount)| (resource.to_string(), quantity::text(resource, *amount))).collect();
        let share = line.held_share(namespace);
        namespaces.push((share, NamespaceUsage { namespace: namespace.to_string(), used }));
    }
    namespaces.sort_by(|(a, one), (b, other)| b.total_cmp(a).then_with(|| one.namespace.cmp(&other.namespace)));
    namespaces.truncate(NAMESPACES);
    namespaces.into_iter().map(|(_, usage)| usage).collect()
}
