//! A Queue's status: what is in use, by whom, and who waits.

use cultivar_crds::Reason;
use cultivar_crds::queue::{NamespaceUsage, QueueStatus, Usage};
use jiff::Timestamp;

use super::engine::Engine;
use super::ledger::Line;
use super::standing::Use;
use crate::domain::conditions::{Conditions, kind};
use crate::domain::queue::{Amounts, Word};
use crate::domain::{quantity, time};

impl Engine {
    /// How a queue stands, written over its last status; nothing if there is no such queue.
    #[must_use]
    pub fn report(&self, name: &str, generation: i64, last: &QueueStatus, now: Timestamp) -> Option<QueueStatus> {
        let line = self.ledger.lines.get(name)?;
        let standing = self.standing(name)?;
        let mut status = QueueStatus {
            observed_generation: Some(generation),
            conditions: last.conditions.clone(),
            waiting: u32::try_from(standing.waiting).unwrap_or(u32::MAX),
            admitted: u32::try_from(standing.admitted).unwrap_or(u32::MAX),
            oldest_wait: standing.oldest.map(time::stamp),
            usage: standing.usage.iter().map(usage).collect(),
            namespaces: standing.namespaces.iter().map(namespace).collect(),
        };
        let mut set = Conditions::new(&mut status.conditions, generation, now);
        match (self.stopped(&line.config.name), &line.conflict) {
            (Some(Reason::FlavorConflict), Some(conflict)) => {
                set.set(kind::READY, false, Reason::FlavorConflict, conflict)
            }
            (Some(reason), _) => set.set(kind::READY, false, reason, self.why_stopped(line)),
            (None, _) => set.set(kind::READY, true, Reason::Admits, ""),
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
}

fn usage(one: &Use) -> Usage {
    let text = |amount: i64| quantity::text(&one.resource, amount);
    Usage {
        flavor: (!one.flavor.is_empty()).then(|| one.flavor.to_string()),
        resource: one.resource.to_string(),
        quota: text(one.quota),
        used: text(one.used),
        borrowed: text(one.borrowed),
        lent: text(one.lent),
    }
}

fn namespace((name, held): &(Word, Amounts)) -> NamespaceUsage {
    let text = |(resource, amount): (&Word, &i64)| (resource.to_string(), quantity::text(resource, *amount));
    NamespaceUsage { namespace: name.to_string(), used: held.iter().map(text).collect() }
}
