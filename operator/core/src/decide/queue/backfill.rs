//! Overtaking: who may start although another one of the queue comes first and does not fit yet.
//!
//! The first one must not start later for it. Either the other ends before the first can start, which takes known lengths
//! of time; or there is room for both once everything has ended that was there before the first one asked. What overtook it
//! already counts as staying, so that a stream of small runs cannot starve a big one.

use jiff::Timestamp;
use std::sync::Arc;

use super::engine::Engine;
use super::ledger::{Fit, Group, Without};
use super::model::Id;
use super::pending::First;
use crate::domain::queue::{Flavor, Word};
use crate::domain::time;

impl Engine {
    pub(super) fn may_overtake(
        &self,
        queue: &Word,
        head: &First,
        first: &First,
        flavor: &Flavor,
        now: Timestamp,
    ) -> bool {
        if self.leaves_room(queue, head, first, flavor) {
            return true;
        }
        let ends = first.class.limit.map(|limit| time::after(now, limit));
        ends.is_some_and(|ends| self.start_of(queue, head).is_some_and(|start| ends <= start))
    }

    fn leaves_room(&self, queue: &Word, head: &First, first: &First, flavor: &Flavor) -> bool {
        let Some(line) = self.ledger.lines.get(queue) else { return true };
        first.class.amounts.iter().all(|(resource, need)| {
            let place = (Arc::clone(&flavor.name), Arc::clone(resource));
            let wanted = head.class.amounts.get(resource).copied().unwrap_or(0);
            let Some(reach) = self.ledger.reach(queue, &place).filter(|_| wanted > 0) else { return true };
            // Where the first one can never go, nobody is in its way.
            if wanted > reach {
                return true;
            }
            let later = |since: Timestamp| since > head.turn.0;
            let held = line.holds.iter().filter_map(|key| self.holds.get(key)).filter(|held| later(held.hold.since));
            let granted = self.grants.values().filter(|grant| later(grant.since)).map(|grant| &grant.claim);
            let overtook = held.map(|held| &held.hold.claim).chain(granted);
            let overtook = overtook.filter(|claim| claim.queue == *queue && claim.flavor == flavor.name);
            let overtook: i64 = overtook.filter_map(|claim| claim.amounts.get(resource)).sum();
            *need <= reach - wanted - overtook
        })
    }

    // When the first one can start at the latest: what is held ends one after the other, as far as that is known.
    fn start_of(&self, queue: &Word, head: &First) -> Option<Timestamp> {
        let line = self.ledger.lines.get(queue)?;
        let members = self.ledger.members.get(&Group::of(&line.config))?;
        let mut ends: Vec<(Timestamp, &(Id, u32))> = Vec::new();
        for key in members.iter().filter_map(|name| self.ledger.lines.get(name)).flat_map(|line| &line.holds) {
            let Some(held) = self.holds.get(key) else { continue };
            ends.extend(held.bearer.limit.map(|limit| (time::after(held.hold.since, limit), key)));
        }
        ends.sort_unstable();
        let mut without = Without::default();
        for (end, key) in ends {
            let Some(held) = self.holds.get(key) else { continue };
            let claim = &held.hold.claim;
            let Some(of) = self.ledger.lines.get(&claim.queue) else { continue };
            without.take(&claim.queue, of.counted(claim));
            let fits = |flavor: &Flavor| {
                let fit = self.ledger.fit(queue, flavor, &head.namespace, &head.class.amounts, &without);
                matches!(fit, Fit::Fits { .. })
            };
            if line.config.flavors.iter().any(fits) {
                return Some(end);
            }
        }
        None
    }
}
