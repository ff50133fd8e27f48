//! The ledger: what each queue uses, what its cohort has, and whether something more fits.
//!
//! Sums are kept beside the holds and changed with them, so that asking costs the same for ten holds and for ten thousand.

use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::model::{Class, Id};
use super::pass::Block;
use super::pending::{Outside, Pending};
use crate::domain::Claim;
use crate::domain::queue::{Amounts, Flavor, Limit, QueueConfig, Word};

/// A resource of a flavor.
pub type Place = (Word, Word);

/// Queues that lend each other: a cohort, or one queue by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// A cohort.
    Cohort(Word),
    /// A queue without one.
    Alone(Word),
}

impl Group {
    pub fn of(config: &QueueConfig) -> Self {
        match &config.cohort {
            Some(cohort) => Self::Cohort(Arc::clone(cohort)),
            None => Self::Alone(Arc::clone(&config.name)),
        }
    }
}

/// How a namespace used a queue of late: an average over time that fades by half each hour.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recent {
    average: f64,
    at: Option<Timestamp>,
}

const HALF_LIFE_SECONDS: f64 = 3600.0;

impl Recent {
    // What was held since the last change counts as much as it lasted.
    fn advance(&mut self, held: f64, now: Timestamp) {
        let passed = self.at.map_or(0.0, |at| now.duration_since(at).as_secs_f64().max(0.0));
        let kept = 0.5_f64.powf(passed / HALF_LIFE_SECONDS);
        self.average = self.average * kept + held * (1.0 - kept);
        self.at = Some(now);
    }
}

/// A queue, what is held of it and who waits in it.
#[derive(Clone, Debug, Default)]
pub struct Line {
    pub config: Arc<QueueConfig>,
    /// Why it may not admit although nobody stopped it.
    pub conflict: Option<String>,
    pub used: BTreeMap<Place, i64>,
    pub by_namespace: BTreeMap<Word, Amounts>,
    recent: BTreeMap<Word, Recent>,
    pub holds: BTreeSet<(Id, u32)>,
    pub pending: Pending,
    /// Who waits for a place, for the queue has as many waiting as it takes.
    pub outside: Outside,
    /// Who stopped others and waits until they have ended, and in which flavor.
    pub promised: BTreeMap<Id, Word>,
    /// Who has come since the last pass, and is to hear why it waits.
    pub fresh: BTreeSet<Id>,
    /// What each class was told last.
    pub told: BTreeMap<(Word, Arc<Class>), Block>,
}

impl Line {
    /// Whether one more may wait here. Whoever cannot start as things are (a typo in a run, a node that is not there) takes
    /// no place: it could keep all the others out for good.
    pub fn has_place(&self) -> bool {
        let Some(most) = self.config.max_queued else { return true };
        let stuck = self.told.iter().filter(|(_, block)| block.is_stuck());
        let stuck: usize = stuck.map(|((namespace, class), _)| self.pending.of_class(namespace, class).count()).sum();
        self.pending.len() + self.promised.len() - stuck < most
    }

    pub fn used(&self, place: &Place) -> i64 {
        self.used.get(place).copied().unwrap_or(0)
    }

    pub fn limit(&self, place: &Place) -> Option<Limit> {
        self.config.flavor(&place.0)?.limits.get(&place.1).copied()
    }

    /// What a claim counts for here: what the queue lists. Of a flavor that it no longer has everything counts, or others
    /// would be given what is still in use.
    pub fn counted<'a>(&self, claim: &'a Claim) -> impl Iterator<Item = (Place, i64)> + use<'a> {
        let listed: Option<BTreeSet<Word>> =
            self.config.flavor(&claim.flavor).map(|flavor| flavor.limits.keys().cloned().collect());
        let all = claim
            .amounts
            .iter()
            .filter(move |(resource, _)| listed.as_ref().is_none_or(|listed| listed.contains(*resource)));
        all.map(|(resource, amount)| ((Arc::clone(&claim.flavor), Arc::clone(resource)), *amount))
    }

    /// A namespace's part of the queue: of what it uses now, and of late.
    pub fn share_of(&self, namespace: &Word, now: Timestamp) -> f64 {
        let held = self.held_share(namespace);
        let mut recent = self.recent.get(namespace).copied().unwrap_or_default();
        recent.advance(held, now);
        held + recent.average
    }

    pub fn held_share(&self, namespace: &Word) -> f64 {
        let Some(held) = self.by_namespace.get(namespace) else { return 0.0 };
        let quota = |resource: &Word| -> i64 {
            let limits = self.config.flavors.iter().filter_map(|flavor| flavor.limits.get(resource));
            limits.map(|limit| limit.quota).fold(0, i64::saturating_add)
        };
        let shares = held.iter().filter_map(|(resource, amount)| {
            let quota = quota(resource);
            (quota > 0).then(|| ratio(*amount, quota))
        });
        shares.fold(0.0, f64::max)
    }

    fn note_namespace(&mut self, namespace: &Word, amounts: &Amounts, sign: i64, now: Timestamp) {
        let held = self.held_share(namespace);
        self.recent.entry(Arc::clone(namespace)).or_default().advance(held, now);
        let sum = self.by_namespace.entry(Arc::clone(namespace)).or_default();
        for (resource, amount) in amounts {
            let entry = sum.entry(Arc::clone(resource)).or_default();
            *entry += sign * amount;
            if *entry == 0 {
                sum.remove(resource);
            }
        }
        if sum.is_empty() {
            self.by_namespace.remove(namespace);
        }
    }
}

/// Parts of a whole as a fraction.
#[expect(clippy::cast_precision_loss, reason = "a share is compared, not summed")]
pub fn ratio(part: i64, whole: i64) -> f64 {
    part as f64 / whole as f64
}

/// What a group has of one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// The sum of the quotas.
    pub quota: i64,
    /// The sum of what is used or reserved, whichever is more, queue by queue.
    pub occupied: i64,
    /// The sum of what is reserved.
    pub reserved: i64,
}

/// Every queue and every group.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub lines: BTreeMap<Word, Line>,
    pub members: BTreeMap<Group, BTreeSet<Word>>,
    pub totals: BTreeMap<Group, BTreeMap<Place, Total>>,
}

/// Why something does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shortage {
    /// Those who hold the queue's own quota must end.
    Quota,
    /// It is within the queue's quota, but lent.
    Lent,
    /// It would borrow, and the cohort has nothing idle.
    Cohort,
    /// Its namespace holds all that one may.
    Namespace,
    /// It asks for more than there can be.
    Never,
    /// No node could take one of its pods.
    Node,
}

/// Whether something fits, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It does; and whether it borrows then.
    Fits { borrows: bool },
    /// It does not: of which resource there is too little, and why.
    Short { resource: Word, shortage: Shortage },
}

/// The ledger as it would be without some of what is held.
#[derive(Clone, Debug, Default)]
pub struct Without(BTreeMap<(Word, Place), i64>);

impl Without {
    pub fn take(&mut self, queue: &Word, counted: impl IntoIterator<Item = (Place, i64)>) {
        for (place, amount) in counted {
            *self.0.entry((Arc::clone(queue), place)).or_default() += amount;
        }
    }

    fn of(&self, queue: &Word, place: &Place) -> i64 {
        self.0.get(&(Arc::clone(queue), place.clone())).copied().unwrap_or(0)
    }
}

impl Ledger {
    pub fn group_of(&self, queue: &Word) -> Option<Group> {
        self.lines.get(queue).map(|line| Group::of(&line.config))
    }

    /// Counts a claim in or, with `sign` -1, out.
    pub fn count(&mut self, namespace: &Word, claim: &Claim, sign: i64, now: Timestamp) {
        let Some(line) = self.lines.get_mut(&claim.queue) else { return };
        let totals = self.totals.entry(Group::of(&line.config)).or_default();
        let counted: Vec<(Place, i64)> = line.counted(claim).collect();
        for (place, amount) in counted {
            let reserved = line.limit(&place).unwrap_or_default().reserved;
            let used = line.used.entry(place.clone()).or_default();
            let before = (*used).max(reserved);
            *used += sign * amount;
            let after = (*used).max(reserved);
            if *used == 0 {
                line.used.remove(&place);
            }
            totals.entry(place).or_default().occupied += after - before;
        }
        line.note_namespace(namespace, &claim.amounts, sign, now);
    }

    /// What a queue uses of a place, without what is to be left out.
    pub fn used(&self, queue: &Word, place: &Place, without: &Without) -> i64 {
        self.lines.get(queue).map_or(0, |line| line.used(place)) - without.of(queue, place)
    }

    fn total(&self, group: &Group, place: &Place, without: &Without) -> Total {
        let mut total = self.totals.get(group).and_then(|totals| totals.get(place)).copied().unwrap_or_default();
        for ((queue, at), amount) in without.0.iter().filter(|((_, at), _)| at == place) {
            let Some(line) = self.lines.get(queue) else { continue };
            let reserved = line.limit(at).unwrap_or_default().reserved;
            total.occupied += (line.used(at) - amount).max(reserved) - line.used(at).max(reserved);
        }
        total
    }

    /// The most that a queue could ever hold of a place: all that no other has reserved, and no more than its cap.
    pub fn reach(&self, queue: &Word, place: &Place) -> Option<i64> {
        let line = self.lines.get(queue)?;
        let limit = line.limit(place)?;
        let total = self.total(&Group::of(&line.config), place, &Without::default());
        let most = total.quota - (total.reserved - limit.reserved);
        Some(limit.cap.map_or(most, |cap| cap.min(most)))
    }

    /// Whether amounts fit into a flavor of a queue.
    pub fn fit(&self, queue: &Word, flavor: &Flavor, namespace: &Word, amounts: &Amounts, without: &Without) -> Fit {
        let Some(line) = self.lines.get(queue) else { return Fit::Fits { borrows: false } };
        let group = Group::of(&line.config);
        let mut borrows = false;
        let mut worst: Option<(Shortage, Word)> = None;
        let mut short = |resource: &Word, shortage: Shortage| {
            if worst.as_ref().is_none_or(|(known, _)| *known < shortage) {
                worst = Some((shortage, Arc::clone(resource)));
            }
        };
        for (resource, need) in amounts.iter().filter(|(_, need)| **need > 0) {
            let namespace_limit = line.config.namespace_limits.get(resource);
            if let Some(most) = namespace_limit {
                let held = line.by_namespace.get(namespace).and_then(|held| held.get(resource)).copied().unwrap_or(0);
                if need > most {
                    short(resource, Shortage::Never);
                } else if held + need > *most {
                    short(resource, Shortage::Namespace);
                }
            }
            let Some(limit) = flavor.limits.get(resource) else { continue };
            let place = (Arc::clone(&flavor.name), Arc::clone(resource));
            let used = self.used(queue, &place, without);
            let total = self.total(&group, &place, without);
            let after = used.saturating_add(*need);
            let occupied = total.occupied - used.max(limit.reserved) + after.max(limit.reserved);
            if self.reach(queue, &place).is_some_and(|reach| *need > reach) {
                short(resource, Shortage::Never);
            } else if limit.cap.is_some_and(|cap| after > cap) {
                short(resource, Shortage::Quota);
            } else if occupied > total.quota {
                let shortage = match (after <= limit.quota, line.config.cohort.is_some()) {
                    (true, _) => Shortage::Lent,
                    (false, true) => Shortage::Cohort,
                    (false, false) => Shortage::Quota,
                };
                short(resource, shortage);
            }
            borrows |= after > limit.quota;
        }
        match worst {
            None => Fit::Fits { borrows },
            Some((shortage, resource)) => Fit::Short { resource, shortage },
        }
    }

    /// A queue's share of what its cohort lends, by weight, once it has these amounts more.
    pub fn share_after(&self, queue: &Word, flavor: &Flavor, amounts: &Amounts) -> f64 {
        let Some(line) = self.lines.get(queue) else { return 0.0 };
        let Some(totals) = self.totals.get(&Group::of(&line.config)) else { return 0.0 };
        let mut share: f64 = 0.0;
        for (place, total) in totals.iter().filter(|(_, total)| total.quota > 0) {
            let more = if place.0 == flavor.name { amounts.get(&place.1).copied().unwrap_or(0) } else { 0 };
            let quota = line.limit(place).unwrap_or_default().quota;
            share = share.max(ratio((line.used(place) + more - quota).max(0), total.quota));
        }
        share / f64::from(line.config.weight.max(1))
    }

    /// Sets the queues and forgets all that is counted: what is held must be counted anew.
    pub fn reset(&mut self) {
        self.members.clear();
        self.totals.clear();
        for (name, line) in &mut self.lines {
            let group = Group::of(&line.config);
            line.used.clear();
            line.by_namespace.clear();
            let totals = self.totals.entry(group.clone()).or_default();
            for flavor in &line.config.flavors {
                for (resource, limit) in &flavor.limits {
                    let total = totals.entry((Arc::clone(&flavor.name), Arc::clone(resource))).or_default();
                    total.quota = total.quota.saturating_add(limit.quota);
                    total.reserved = total.reserved.saturating_add(limit.reserved);
                    total.occupied = total.occupied.saturating_add(limit.reserved);
                }
            }
            self.members.entry(group).or_default().insert(Arc::clone(name));
        }
        self.find_conflicts();
    }

    // One name must mean the same nodes: the first queue by name says which.
    fn find_conflicts(&mut self) {
        for members in self.members.values() {
            let mut known: BTreeMap<Word, (Word, Flavor)> = BTreeMap::new();
            for name in members {
                let Some(line) = self.lines.get_mut(name) else { continue };
                line.conflict = None;
                for flavor in &line.config.flavors {
                    let (first, meant) =
                        known.entry(Arc::clone(&flavor.name)).or_insert_with(|| (Arc::clone(name), flavor.clone()));
                    if meant.node_selector != flavor.node_selector || meant.tolerations != flavor.tolerations {
                        line.conflict = Some(format!(
                            "flavor {} has another nodeSelector or other tolerations than in queue {first} of the same cohort: make them equal, or rename one",
                            flavor.name
                        ));
                    }
                }
            }
        }
    }
}
