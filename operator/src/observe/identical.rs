//! Which experiments do the same work: by digest and namespace, the latest first, in the same time however many there are.
//! Those that ended without a result that others could take over are left out.

use cultivar_core::decide::experiment::reuse;
use cultivar_core::domain::ExperimentRecord;
use cultivar_core::domain::conditions::{self, kind};
use cultivar_crds::Phase;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use super::store::Name;

/// Experiments by their digests.
#[derive(Default)]
pub struct Identical {
    places: BTreeSet<Place>,
    // Those of them that wait for another one.
    waiting: BTreeSet<Place>,
    // Of those that have no digest yet, the one that they will have.
    expected: HashMap<Name, String>,
}

// The head of a digest, for what it finds is compared in full; the namespace; when it was created; the name.
type Place = (u128, Box<str>, Reverse<i64>, Box<str>);

// The first half of `sha256:` and 64 hex digits.
fn head(digest: &str) -> Option<u128> {
    u128::from_str_radix(digest.strip_prefix("sha256:")?.get(..32)?, 16).ok()
}

fn place(record: &ExperimentRecord, digest: &str) -> Option<Place> {
    let status = &record.status;
    let is_loose = conditions::is_false(&status.conditions, kind::INPUTS_PINNED);
    if status.phase.is_terminal() && (status.phase != Phase::Completed || is_loose) {
        return None;
    }
    let created = record.meta.created.map_or(i64::MIN, |created| created.as_second());
    Some((head(digest)?, record.meta.namespace.as_str().into(), Reverse(created), record.meta.name.as_str().into()))
}

impl Identical {
    /// An experiment is another one, appears or goes. `expected` is the digest of one that has none yet: it may have been
    /// started before that was stored.
    pub fn set(
        &mut self,
        name: &Name,
        before: Option<&ExperimentRecord>,
        now: Option<&ExperimentRecord>,
        expected: Option<String>,
    ) {
        let at = |index: &Self, record: Option<&ExperimentRecord>| {
            let place = record.and_then(|record| place(record, index.digest(name, record)?));
            (place.clone().filter(|_| record.is_some_and(|record| reuse::waits(&record.status))), place)
        };
        let before = at(self, before);
        match expected {
            Some(digest) => drop(self.expected.insert(name.clone(), digest)),
            None => drop(self.expected.remove(name)),
        }
        let now = at(self, now);
        change(&mut self.waiting, before.0, now.0);
        change(&mut self.places, before.1, now.1);
    }

    /// The digest of an experiment, or the one that it will have.
    pub fn digest<'i>(&'i self, name: &Name, record: &'i ExperimentRecord) -> Option<&'i str> {
        record.status.digest.as_deref().or_else(|| self.expected.get(name).map(String::as_str))
    }

    /// Those of a namespace that may have this digest, the latest first.
    pub fn of<'i>(&'i self, namespace: &'i str, digest: &str) -> impl Iterator<Item = Name> + 'i {
        range(&self.places, namespace, digest)
    }

    /// Those of them that may wait for another one.
    pub fn waiting<'i>(&'i self, namespace: &'i str, digest: &str) -> impl Iterator<Item = Name> + 'i {
        range(&self.waiting, namespace, digest)
    }
}

// What is there stays, also when it was not known to be.
fn change(places: &mut BTreeSet<Place>, before: Option<Place>, now: Option<Place>) {
    if let Some(before) = before.filter(|before| Some(before) != now.as_ref()) {
        places.remove(&before);
    }
    places.extend(now);
}

fn range<'i>(places: &'i BTreeSet<Place>, namespace: &'i str, digest: &str) -> impl Iterator<Item = Name> + 'i {
    let head = head(digest);
    let first = (head.unwrap_or_default(), namespace.into(), Reverse(i64::MAX), Box::default());
    let found = places.range(first..).take_while(move |place| head == Some(place.0) && *place.1 == *namespace);
    found.map(|(_, namespace, _, name)| (namespace.to_string(), name.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cultivar_core::domain::{Meta, Record};
    use cultivar_crds::ExperimentStatus;
    use jiff::Timestamp;
    use std::sync::Arc;

    fn digest(letter: &str) -> String {
        format!("sha256:{}", letter.repeat(64))
    }

    fn record(namespace: &str, name: &str, created: i64, letter: Option<&str>) -> ExperimentRecord {
        let created = Timestamp::from_second(created).ok();
        let meta = Meta { namespace: namespace.into(), name: name.into(), created, ..Meta::default() };
        let status = ExperimentStatus { digest: letter.map(digest), ..ExperimentStatus::default() };
        Record { meta, spec: Arc::default(), status: Arc::new(status) }
    }

    fn set(index: &mut Identical, before: Option<&ExperimentRecord>, now: Option<&ExperimentRecord>) {
        let meta = &before.or(now).unwrap().meta;
        index.set(&(meta.namespace.clone(), meta.name.clone()), before, now, None);
    }

    fn found(index: &Identical, letter: &str) -> Vec<String> {
        index.of("n", &digest(letter)).map(|(_, name)| name).collect()
    }

    #[test]
    fn an_experiment_is_found_by_its_newest_digest_in_its_namespace() {
        let mut index = Identical::default();
        let (old, new) = (record("n", "old", 1, Some("a")), record("n", "new", 2, Some("a")));
        for record in [&old, &new, &record("m", "other", 3, Some("a")), &record("n", "none", 4, None)] {
            set(&mut index, None, Some(record));
        }
        assert_eq!(found(&index, "a"), ["new", "old"]);
        let changed = record("n", "new", 2, Some("b"));
        set(&mut index, Some(&new), Some(&changed));
        assert_eq!((found(&index, "a"), found(&index, "b")), (vec!["old".to_owned()], vec!["new".to_owned()]));
        // Made again under its name.
        let again = record("n", "new", 9, Some("b"));
        set(&mut index, Some(&changed), Some(&again));
        assert_eq!(found(&index, "b"), ["new"]);
        set(&mut index, Some(&again), None);
        assert!(found(&index, "b").is_empty());
    }

    #[test]
    fn what_left_no_result_is_not_found() {
        let mut index = Identical::default();
        let running = record("n", "e", 1, Some("a"));
        let mut failed = running.clone();
        Arc::make_mut(&mut failed.status).phase = Phase::Failed;
        let mut completed = running.clone();
        Arc::make_mut(&mut completed.status).phase = Phase::Completed;
        for (end, is_found) in [(&failed, false), (&completed, true)] {
            set(&mut index, None, Some(&running));
            assert_eq!(found(&index, "a"), ["e"]);
            set(&mut index, Some(&running), Some(end));
            assert_eq!(found(&index, "a").len(), usize::from(is_found));
            set(&mut index, Some(end), None);
            assert!(found(&index, "a").is_empty());
        }
    }

    #[test]
    fn those_that_wait_are_found_among_many() {
        let mut index = Identical::default();
        for name in ["a", "b"] {
            set(&mut index, None, Some(&record("n", name, 1, Some("a"))));
        }
        let runs = record("n", "c", 1, Some("a"));
        let mut waits = runs.clone();
        Arc::make_mut(&mut waits.status).reason = Some(cultivar_crds::Reason::WaitingForIdentical);
        let waiting = |index: &Identical| index.waiting("n", &digest("a")).map(|(_, name)| name).collect::<Vec<_>>();
        set(&mut index, None, Some(&waits));
        assert_eq!((waiting(&index), found(&index, "a").len()), (vec!["c".to_owned()], 3));
        set(&mut index, Some(&waits), Some(&runs));
        assert!(waiting(&index).is_empty());
        // What was decided came to nothing, and it waits as before.
        set(&mut index, Some(&waits), Some(&waits));
        assert_eq!(waiting(&index), ["c"]);
        set(&mut index, Some(&waits), None);
        assert!(waiting(&index).is_empty());
    }

    #[test]
    fn what_will_have_a_digest_is_found_by_it() {
        let mut index = Identical::default();
        let name = ("n".to_owned(), "e".to_owned());
        let (fresh, frozen) = (record("n", "e", 1, None), record("n", "e", 1, Some("b")));
        index.set(&name, None, Some(&fresh), Some(digest("a")));
        assert_eq!((found(&index, "a"), index.digest(&name, &fresh)), (vec!["e".to_owned()], Some(&*digest("a"))));
        index.set(&name, Some(&fresh), Some(&frozen), None);
        assert_eq!((found(&index, "a"), found(&index, "b")), (vec![], vec!["e".to_owned()]));
        index.set(&name, Some(&frozen), Some(&fresh), Some(digest("a")));
        index.set(&name, Some(&fresh), None, None);
        assert!(found(&index, "a").is_empty() && index.expected.is_empty());
    }
}
