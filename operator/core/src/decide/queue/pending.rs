//! Who waits in a queue, in order, and alike next to alike.
//!
//! Runs of one namespace that ask for the same are one class: where the first of them does not fit, none does. So a pass
//! looks at classes, of which there are few, and not at runs, of which there may be fifty thousand.

use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::model::{Ask, Class, Id};
use crate::domain::queue::Word;

/// Its place in the order of its class.
pub type Turn = (Timestamp, Id);

/// Those who wait for a place, in the order in which they get one: by priority, then by age.
pub type Outside = BTreeSet<(Reverse<i32>, Timestamp, Id)>;

type Classes = BTreeMap<Arc<Class>, BTreeSet<Turn>>;

/// Everything that waits in a queue.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    levels: BTreeMap<Reverse<i32>, BTreeMap<Word, Classes>>,
    // How many have waited since when.
    asked: BTreeMap<Timestamp, usize>,
    count: usize,
}

/// The first of a class at a level.
#[derive(Clone, Debug)]
pub struct First {
    pub priority: i32,
    pub namespace: Word,
    pub class: Arc<Class>,
    pub turn: Turn,
}

impl Pending {
    pub fn insert(&mut self, id: &Id, priority: i32, ask: &mut Ask) {
        let level = self.levels.entry(Reverse(priority)).or_default();
        let classes = level.entry(Arc::clone(&id.namespace)).or_default();
        if let Some((known, _)) = classes.get_key_value(&ask.class) {
            ask.class = Arc::clone(known);
        }
        if classes.entry(Arc::clone(&ask.class)).or_default().insert((ask.since, id.clone())) {
            self.count += 1;
            *self.asked.entry(ask.asked).or_default() += 1;
        }
    }

    pub fn remove(&mut self, id: &Id, priority: i32, ask: &Ask) {
        let Some(level) = self.levels.get_mut(&Reverse(priority)) else { return };
        let Some(classes) = level.get_mut(&id.namespace) else { return };
        let Some(turns) = classes.get_mut(&ask.class) else { return };
        if turns.remove(&(ask.since, id.clone())) {
            self.count -= 1;
            let alike = self.asked.entry(ask.asked).or_default();
            *alike = alike.saturating_sub(1);
            if *alike == 0 {
                self.asked.remove(&ask.asked);
            }
        }
        if turns.is_empty() {
            classes.remove(&ask.class);
        }
        if classes.is_empty() {
            level.remove(&id.namespace);
        }
        if level.is_empty() {
            self.levels.remove(&Reverse(priority));
        }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    /// Since when the one waits that has waited longest.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.asked.keys().next().copied()
    }

    /// The levels' priorities, highest first.
    pub fn priorities(&self) -> impl Iterator<Item = i32> + '_ {
        self.levels.keys().map(|Reverse(priority)| *priority)
    }

    /// The first of each class of a level, in the order of their turn: namespaces by `share`, then by age.
    pub fn firsts(&self, priority: i32, share: impl Fn(&Word) -> f64) -> Vec<First> {
        let Some(level) = self.levels.get(&Reverse(priority)) else { return Vec::new() };
        let mut firsts: Vec<(f64, First)> = Vec::new();
        for (namespace, classes) in level {
            let share = share(namespace);
            let of_class = |(class, turns): (&Arc<Class>, &BTreeSet<Turn>)| {
                let turn = turns.first()?.clone();
                let first = First { priority, namespace: Arc::clone(namespace), class: Arc::clone(class), turn };
                Some((share, first))
            };
            firsts.extend(classes.iter().filter_map(of_class));
        }
        firsts.sort_by(|(a, one), (b, other)| a.total_cmp(b).then_with(|| one.turn.cmp(&other.turn)));
        firsts.into_iter().map(|(_, first)| first).collect()
    }

    /// Everybody, in the order of their turn.
    pub fn all(&self, share: impl Fn(&Word) -> f64) -> Vec<Id> {
        let mut all = Vec::with_capacity(self.count);
        for level in self.levels.values() {
            let mut namespaces: Vec<(f64, &Classes)> =
                level.iter().map(|(name, classes)| (share(name), classes)).collect();
            namespaces.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            for (_, classes) in namespaces {
                let mut turns: Vec<&Turn> = classes.values().flatten().collect();
                turns.sort_unstable();
                all.extend(turns.into_iter().map(|(_, id)| id.clone()));
            }
        }
        all
    }

    /// Everybody of a class in a namespace, at every level.
    pub fn of_class<'a>(&'a self, namespace: &'a Word, class: &'a Class) -> impl Iterator<Item = &'a Id> {
        let classes = self.levels.values().filter_map(move |level| level.get(namespace)?.get(class));
        classes.flatten().map(|(_, id)| id)
    }

    /// Every class of every namespace.
    pub fn classes(&self) -> BTreeSet<(Word, Arc<Class>)> {
        let of = |(namespace, classes): (&Word, &Classes)| {
            classes.keys().map(|class| (Arc::clone(namespace), Arc::clone(class))).collect::<Vec<_>>()
        };
        self.levels.values().flatten().flat_map(of).collect()
    }
}
