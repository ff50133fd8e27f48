//! How a queue stands, in numbers: what its status and the metrics are written from.

use cultivar_crds::Reason;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::engine::Engine;
use super::ledger::{Group, Line, Place, Total};
use crate::domain::queue::{Amounts, Word};

/// Most namespaces that are told of.
const NAMESPACES: usize = 50;

/// A queue at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// How many wait in it.
    pub waiting: usize,
    /// How many are admitted.
    pub admitted: usize,
    /// Since when the one waits that has waited longest.
    pub oldest: Option<Timestamp>,
    /// Each resource of each flavor, in the order of the spec.
    pub usage: Vec<Use>,
    /// What namespaces hold, the largest share first; at most fifty.
    pub namespaces: Vec<(Word, Amounts)>,
}

/// A resource of a flavor of a queue: thousandths of `cpu`, else whole units or bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Its flavor; empty where the queue has none.
    pub flavor: Word,
    /// The resource.
    pub resource: Word,
    /// The queue's own.
    pub quota: i64,
    /// Held of it, the borrowed part included.
    pub used: i64,
    /// What is used beyond the quota.
    pub borrowed: i64,
    /// What others of the cohort borrow of the quota.
    pub lent: i64,
}

impl Engine {
    /// How a queue stands; nothing if there is no such queue.
    #[must_use]
    pub fn standing(&self, name: &str) -> Option<Standing> {
        let line = self.ledger.lines.get(name)?;
        let granted = self.grants.values().filter(|grant| *grant.claim.queue == *name).count();
        // Who was promised a place waits like everybody else, until those have ended that were stopped for it.
        let promised = line.promised.keys().filter_map(|id| Some(self.asks.get(id)?.ask.asked));
        Some(Standing {
            waiting: line.pending.len() + line.promised.len(),
            admitted: line.holds.len() + granted,
            oldest: promised.chain(line.pending.oldest()).min(),
            usage: self.usage(line),
            namespaces: namespaces(line),
        })
    }

    /// Names of all queues.
    pub fn queues(&self) -> impl Iterator<Item = &Word> {
        self.ledger.lines.keys()
    }

    /// How many wait in each queue, by reason; without a queue those whom none takes.
    #[must_use]
    pub fn waiting(&self) -> BTreeMap<(Option<Word>, Reason), usize> {
        let mut waiting = BTreeMap::new();
        for (id, asked) in &self.asks {
            let reason = match (self.waits.get(id), &asked.queue) {
                (Some(wait), _) => wait.reason,
                // It came after the last pass.
                (None, Some(_)) => Reason::WaitingForTurn,
                // There is no queue at all, and it needs none.
                (None, None) => continue,
            };
            *waiting.entry((asked.queue.clone(), reason)).or_default() += 1;
        }
        waiting
    }

    fn usage(&self, line: &Line) -> Vec<Use> {
        let totals = self.ledger.totals.get(&Group::of(&line.config));
        let mut usage = Vec::new();
        for flavor in &line.config.flavors {
            for (resource, limit) in &flavor.limits {
                let place = (Arc::clone(&flavor.name), Arc::clone(resource));
                let used = line.used(&place);
                let total = totals.and_then(|totals| totals.get(&place)).copied().unwrap_or_default();
                let idle = limit.quota - used.min(limit.quota).max(limit.reserved);
                usage.push(Use {
                    quota: limit.quota,
                    used,
                    borrowed: (used - limit.quota).max(0),
                    lent: self.lent(line, &place, idle, total),
                    flavor: place.0,
                    resource: place.1,
                });
            }
        }
        usage
    }

    // Nobody says from whom something is borrowed: of all that is, a queue lends in proportion to what it has idle.
    fn lent(&self, line: &Line, place: &Place, idle: i64, total: Total) -> i64 {
        let members = self.ledger.members.get(&Group::of(&line.config)).into_iter().flatten();
        let borrowed: i64 = members
            .filter_map(|name| self.ledger.lines.get(name))
            .map(|line| (line.used(place) - line.limit(place).unwrap_or_default().quota).max(0))
            .sum();
        let all_idle = total.quota - total.occupied + borrowed;
        if all_idle <= 0 { 0 } else { idle.saturating_mul(borrowed) / all_idle }
    }
}

fn namespaces(line: &Line) -> Vec<(Word, Amounts)> {
    let mut namespaces: Vec<(f64, &Word, &Amounts)> =
        line.by_namespace.iter().map(|(namespace, held)| (line.held_share(namespace), namespace, held)).collect();
    namespaces.sort_by(|(a, one, _), (b, other, _)| b.total_cmp(a).then_with(|| one.cmp(other)));
    namespaces.truncate(NAMESPACES);
    namespaces.into_iter().map(|(_, namespace, held)| (Arc::clone(namespace), held.clone())).collect()
}
