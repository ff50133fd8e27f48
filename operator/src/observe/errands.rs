//! The errands of experiments: which are under way, and how the others went.

use cultivar_core::domain::Errand;
use cultivar_core::domain::errand::{Errands, Outcome};
use jiff::Timestamp;
use std::collections::{BTreeSet, HashMap};

use super::index::Key;

/// The errands of every experiment.
#[derive(Default)]
pub struct ErrandBook {
    outcomes: HashMap<Key, Errands>,
    running: HashMap<Key, BTreeSet<Errand>>,
}

impl ErrandBook {
    /// How an experiment's errands went so far.
    pub fn of(&self, key: &Key) -> Errands {
        self.outcomes.get(key).cloned().unwrap_or_default()
    }

    /// Begins an errand; false while it is under way.
    pub fn begin(&mut self, key: &Key, errand: &Errand) -> bool {
        self.running.entry(key.clone()).or_default().insert(errand.clone())
    }

    /// An errand has ended, unless nobody waits for it any more.
    pub fn end(&mut self, key: &Key, errand: Errand, result: Result<String, String>, now: Timestamp) -> bool {
        if !self.running.get_mut(key).is_some_and(|running| running.remove(&errand)) {
            return false;
        }
        let errands = self.outcomes.entry(key.clone()).or_default();
        let (since, tries) = errands.get(&errand).map_or((now, 0), |before| (before.since, before.tries));
        errands.insert(errand, Outcome { result, at: now, since, tries: tries + 1 });
        true
    }

    /// Forgets those that are no longer wanted.
    pub fn retain(&mut self, key: &Key, wanted: impl Fn(&Errand) -> bool) {
        if let Some(errands) = self.outcomes.get_mut(key) {
            errands.retain(|errand, _| wanted(errand));
            if errands.is_empty() {
                self.outcomes.remove(key);
            }
        }
    }

    /// Forgets an experiment: what is under way for it brings nothing.
    pub fn forget(&mut self, key: &Key) {
        self.outcomes.remove(key);
        self.running.remove(key);
    }

    /// Those under way were broken off.
    pub fn broken_off(&mut self) {
        self.running.clear();
    }

    /// How many outcomes are kept.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.outcomes.values().map(Errands::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Kind;
    use cultivar_core::domain::errand::Document;

    #[test]
    fn an_errand_runs_once_at_a_time_and_is_counted() {
        let (mut book, key) = (ErrandBook::default(), Key::new(Kind::Experiment, "a", "b"));
        let errand = Errand::ReadResult(Document::default());
        let second = |second: i64| Timestamp::from_second(second).unwrap();
        assert!(book.begin(&key, &errand) && !book.begin(&key, &errand));
        assert!(book.end(&key, errand.clone(), Err("away".into()), second(1)));
        assert!(book.begin(&key, &errand));
        assert!(book.end(&key, errand.clone(), Ok("text".into()), second(9)));
        let outcome = &book.of(&key)[&errand];
        assert_eq!((outcome.since, outcome.at, outcome.tries), (second(1), second(9), 2));
        assert!(book.begin(&key, &errand));
        book.forget(&key);
        assert!(!book.end(&key, errand, Ok(String::new()), second(10)), "nobody waits for it");
        assert_eq!(book.len(), 0);
    }
}
