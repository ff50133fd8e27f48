//! What a pass has done, in numbers: who was admitted after how long, and how many were stopped.
//!
//! The engine's state says how things are, not what has happened; this remembers as much as it takes to tell that once.

use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::engine::Engine;
use super::model::{Id, Outcome};
use crate::domain::queue::Word;

/// What is known beside the engine's state.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    // Of whoever asks or has leave to start: since when it waits, or waited.
    asked: BTreeMap<Id, Timestamp>,
    // Whose eviction was counted and is not over.
    evicted: BTreeSet<Id>,
}

impl Tally {
    pub fn asked(&mut self, id: &Id, since: Timestamp) {
        self.asked.insert(id.clone(), since);
    }

    pub fn forget(&mut self, id: &Id) {
        self.asked.remove(id);
    }

    pub fn ended(&mut self, id: &Id) {
        self.evicted.remove(id);
    }
}

/// What happened in a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallied {
    /// Of each who was admitted: to which queue, and how long it had waited.
    pub admitted: Vec<(Word, Duration)>,
    /// Of each who must end: what it holds is of which queue.
    pub evicted: Vec<Word>,
}

impl Engine {
    /// Counts what a pass at `now` has decided; to be asked once after each.
    pub fn tally(&mut self, outcome: &Outcome, now: Timestamp) -> Tallied {
        let mut tallied = Tallied::default();
        for id in &outcome.changed {
            if let Some(grant) = self.grants.get(id).filter(|grant| grant.since == now) {
                let asked = self.tally.asked.get(id).copied().unwrap_or(now);
                // Clocks differ between one leader and the next.
                let waited = Duration::try_from(now.duration_since(asked)).unwrap_or_default();
                tallied.admitted.push((Arc::clone(&grant.claim.queue), waited));
            }
            let evicted = self.evictions.get(id).and_then(|eviction| self.holds.get(&(id.clone(), eviction.attempt)));
            if let Some(held) = evicted
                && self.tally.evicted.insert(id.clone())
            {
                tallied.evicted.push(Arc::clone(&held.hold.claim.queue));
            }
        }
        tallied
    }
}
