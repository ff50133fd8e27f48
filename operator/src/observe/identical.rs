//! Which experiments do the same work: by digest and namespace, in the same time however many there are. First those under
//! way, in the order in which they are waited for, then results, the latest first. Those that ended without a result that
//! others could take over are left out.

use cultivar_core::decide::experiment::reuse;
use cultivar_core::domain::ExperimentRecord;
use cultivar_core::domain::conditions::{self, kind};
use cultivar_crds::Phase;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::store::Name;

/// Experiments by their digests.
#[derive(Default)]
pub struct Identical {
    places: BTreeSet<Arc<Place>>,
    // Those of them that wait for another one.
    waiting: BTreeSet<Arc<Place>>,
    // Where those under way stand: that changes also when what was decided comes to nothing.
    places_under_way: HashMap<Name, Arc<Place>>,
    // Of those that have no digest yet, the one that they will have.
    expected: HashMap<Name, String>,
}

// The head of a digest, for what it finds is compared in full; the namespace; where it stands among the others; the name.
type Place = (u128, Box<str>, Standing, Box<str>);

// Whoever looks must see the same first one, so the order is that in which the others wait for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    // When it was created, and its uid.
    Begun(i64, Box<str>),
    Pending(i64, Box<str>),
    // When it was created, backwards.
    Result(i64),
}

const LATEST: Standing = Standing::Result(i64::MIN);

// The first half of `sha256:` and 64 hex digits.
fn head(digest: &str) -> Option<u128> {
    u128::from_str_radix(digest.strip_prefix("sha256:")?.get(..32)?, 16).ok()
}

fn place(record: &ExperimentRecord, digest: &str) -> Option<Arc<Place>> {
    let status = &record.status;
    let is_loose = conditions::is_false(&status.conditions, kind::INPUTS_PINNED);
    if status.phase.is_terminal() && (status.phase != Phase::Completed || is_loose) {
        return None;
    }
    let created = record.meta.created.map_or(i64::MIN, |created| created.as_second());
    let uid = || record.meta.uid.as_str().into();
    let standing = match (status.phase.is_terminal(), status.attempt.is_some()) {
        (true, _) => Standing::Result(created.checked_neg().unwrap_or(i64::MAX)),
        (false, true) => Standing::Begun(created, uid()),
        (false, false) => Standing::Pending(created, uid()),
    };
    let (namespace, name) = (record.meta.namespace.as_str().into(), record.meta.name.as_str().into());
    Some(Arc::new((head(digest)?, namespace, standing, name)))
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
        let last = self.places_under_way.remove(name);
        if let Some(place) = now.1.clone().filter(|place| place.2 < LATEST) {
            self.places_under_way.insert(name.clone(), place);
        }
        change(&mut self.places, last.or(before.1), now.1);
    }

    /// The digest of an experiment, or the one that it will have.
    pub fn digest<'i>(&'i self, name: &Name, record: &'i ExperimentRecord) -> Option<&'i str> {
        record.status.digest.as_deref().or_else(|| self.expected.get(name).map(String::as_str))
    }

    /// Those of a namespace that may have this digest and are under way: who has begun, then by age and uid.
    pub fn under_way<'i>(&'i self, namespace: &'i str, digest: &str) -> impl Iterator<Item = Name> + 'i {
        range(&self.places, namespace, digest, oldest())
            .take_while(|place| place.2 < LATEST)
            .map(|place| name_of(place))
    }

    /// Those of a namespace that may have this digest and left a result, the latest first.
    pub fn results<'i>(&'i self, namespace: &'i str, digest: &str) -> impl Iterator<Item = Name> + 'i {
        range(&self.places, namespace, digest, LATEST).map(|place| name_of(place))
    }

    /// Those of them that may wait for another one.
    pub fn waiting<'i>(&'i self, namespace: &'i str, digest: &str) -> impl Iterator<Item = Name> + 'i {
        range(&self.waiting, namespace, digest, oldest()).map(|place| name_of(place))
    }
}

// What is there stays, also when it was not known to be.
fn change(places: &mut BTreeSet<Arc<Place>>, before: Option<Arc<Place>>, now: Option<Arc<Place>>) {
    if let Some(before) = before.filter(|before| Some(before) != now.as_ref()) {
        places.remove(&before);
    }
    places.extend(now);
}

fn range<'i>(
    places: &'i BTreeSet<Arc<Place>>,
    namespace: &'i str,
    digest: &str,
    first: Standing,
) -> impl Iterator<Item = &'i Arc<Place>> + 'i {
    let head = head(digest);
    let first = (head.unwrap_or_default(), namespace.into(), first, Box::default());
    places.range::<Place, _>(first..).take_while(move |place| head == Some(place.0) && *place.1 == *namespace)
}

fn oldest() -> Standing {
    Standing::Begun(i64::MIN, Box::default())
}

fn name_of((_, namespace, _, name): &Place) -> Name {
    (namespace.to_string(), name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cultivar_core::domain::{Meta, Record};
    use cultivar_crds::ExperimentStatus;
    use jiff::Timestamp;

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
        let digest = digest(letter);
        index.under_way("n", &digest).chain(index.results("n", &digest)).map(|(_, name)| name).collect()
    }

    #[test]
    fn an_experiment_is_found_by_its_newest_digest_in_its_namespace() {
        let mut index = Identical::default();
        let (old, new) = (record("n", "old", 1, Some("a")), record("n", "new", 2, Some("a")));
        for record in [&old, &new, &record("m", "other", 3, Some("a")), &record("n", "none", 4, None)] {
            set(&mut index, None, Some(record));
        }
        assert_eq!(found(&index, "a"), ["old", "new"]);
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
    fn who_is_waited_for_comes_first_and_then_the_latest_result() {
        let mut index = Identical::default();
        let with = |name: &str, created: i64, uid: &str, phase: Phase, attempt: Option<u32>| {
            let mut record = record("n", name, created, Some("a"));
            record.meta.uid = uid.into();
            let status = Arc::make_mut(&mut record.status);
            (status.phase, status.attempt) = (phase, attempt);
            record
        };
        for record in [
            with("old result", 1, "u", Phase::Completed, Some(1)),
            with("b", 5, "u1", Phase::Queued, None),
            with("a", 5, "u2", Phase::Queued, None),
            with("younger", 6, "u", Phase::Queued, None),
            with("begun", 7, "u", Phase::Running, Some(1)),
            with("new result", 9, "u", Phase::Completed, Some(1)),
        ] {
            set(&mut index, None, Some(&record));
        }
        assert_eq!(found(&index, "a"), ["begun", "b", "a", "younger", "new result", "old result"]);
        assert_eq!(index.under_way("n", &digest("a")).count(), 4);
        // It was decided to begin, and that came to nothing.
        let (pending, begun) = (with("b", 5, "u1", Phase::Queued, None), with("b", 5, "u1", Phase::Starting, Some(1)));
        set(&mut index, Some(&pending), Some(&begun));
        set(&mut index, Some(&pending), Some(&pending));
        assert_eq!(found(&index, "a").len(), 6);
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
