//! What goes into the engine and comes out of it.

use cultivar_crds::Reason;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::Claim;
use crate::domain::node::PodShape;
use crate::domain::queue::{Amounts, Word};

/// An experiment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Its namespace.
    pub namespace: Word,
    /// Its name.
    pub name: Word,
}

impl Id {
    /// Of a namespace and a name.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An attempt that wants to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Number of the attempt.
    pub attempt: u32,
    /// The queue that the experiment names; its namespace's default one unless it does.
    pub queue: Option<Word>,
    /// Higher comes first.
    pub priority: i32,
    /// Since when its experiment has asked: the age that counts.
    pub since: Timestamp,
    /// Since when this attempt waits: later than its age where the experiment has run before.
    pub asked: Timestamp,
    /// Whether it has its place already, from before: a full queue takes it all the same.
    pub placed: bool,
    /// What it asks for; those that are alike share it while they wait.
    pub class: Arc<Class>,
}

/// What makes runs alike: where one of them does not fit, none does.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    /// What its pods ask for together.
    pub amounts: Amounts,
    /// What each of them asks of a node.
    pub pod: PodShape,
    /// Longest that it runs, where that is known.
    pub limit: Option<Duration>,
}

/// The experiment that holds something, as far as preemption asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bearer {
    /// Since when it has asked: its age, which does not change when it is admitted again.
    pub since: Timestamp,
    /// Higher is stopped later.
    pub priority: i32,
    /// How often it was stopped for others.
    pub preempted: u32,
    /// Longest that it runs, where that is known.
    pub limit: Option<Duration>,
}

/// An attempt may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Number of the attempt.
    pub attempt: u32,
    /// Of which queue and flavor; the amounts are those of all its pods.
    pub claim: Claim,
    /// When it was decided.
    pub since: Timestamp,
}

/// An attempt must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// Number of the attempt.
    pub attempt: u32,
    /// For whom and why, for a person.
    pub message: String,
}

/// Why an experiment waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Its queue, where one is known.
    pub queue: Option<Word>,
    /// Machine-readable.
    pub reason: Reason,
    /// The particulars, as of when the reason came to be; those that are alike share them.
    pub message: Word,
    /// How many come before it, and one.
    pub position: Option<u32>,
}

/// How a queue stands, in numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// What is in use, by flavor and resource.
    pub uses: Vec<Use>,
    /// The most that pods outside the queues leave on one node, by flavor and extended resource; only of flavors whose nodes
    /// are looked at.
    pub largest_free: BTreeMap<(Word, Word), i64>,
    /// What each namespace holds, whatever the flavor.
    pub namespaces: BTreeMap<Word, Amounts>,
    /// How many wait, by reason.
    pub waiting: BTreeMap<Reason, usize>,
    /// How many hold something.
    pub admitted: usize,
    /// How long the one has waited that has waited longest.
    pub oldest_wait: Duration,
}

/// Use of a resource of a flavor; the flavor is empty where the queue has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The flavor.
    pub flavor: Word,
    /// The resource.
    pub resource: Word,
    /// The queue's own.
    pub quota: i64,
    /// What its runs hold.
    pub used: i64,
    /// What of that is beyond the quota.
    pub borrowed: i64,
    /// What others hold of the quota: of all that is borrowed, in proportion to what this queue has idle.
    pub lent: i64,
}

/// What follows from a pass. The particulars are asked of the engine, by experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Experiments that were admitted, must end, or wait for another reason than before.
    pub changed: BTreeSet<Id>,
    /// The queues that have admitted, and how long each run had waited.
    pub admitted: Vec<(Word, Duration)>,
    /// The queues of which runs must end.
    pub evicted: Vec<Word>,
    /// When to look again if nothing happens.
    pub wake_at: Option<Timestamp>,
}

impl Outcome {
    pub(super) fn wake(&mut self, moment: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(moment, |earlier| earlier.min(moment)));
    }
}
