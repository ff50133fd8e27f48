//! One object in a store. What has ended a while ago is kept packed, and so is what waits in a queue: a cluster's history, or a
//! long queue, is much larger than what is alive in it, and hardly ever looked at.
//!
//! In: records. Out: records; of a packed one the head is there at once, the rest is unpacked for whoever asks.

use cultivar_core::domain::{Meta, Record};
use cultivar_crds::{ExperimentStatus, Phase, PipelineRunStatus, PipelineStatus, ScheduleStatus};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::packed::{Packed, Packer};

/// How long ago something must have ended, and nobody have used it, to be packed: a run that goes on looks at all its stages.
const AGE: Duration = Duration::from_secs(600);
/// The same, of what is no part of a run.
const AGE_ALONE: Duration = Duration::from_secs(10);
/// The same, of a stage that waits.
const STILL: Duration = Duration::from_secs(30);

/// What of a status says whether its object is history. Some kinds have neither phases nor an end.
pub trait Status: Clone + PartialEq + Default + Serialize + DeserializeOwned {
    /// How it stands, where its kind has phases.
    fn phase(&self) -> Phase {
        Phase::default()
    }
    /// When it ended, if it will never change again.
    fn ended(&self) -> Option<Timestamp> {
        None
    }
    /// Whether it may stand as it does for long, with nobody having to look at it.
    fn stands_still(&self) -> bool {
        false
    }
}

impl Status for PipelineStatus {}
impl Status for ScheduleStatus {}

impl Status for ExperimentStatus {
    fn phase(&self) -> Phase {
        self.phase
    }
    fn ended(&self) -> Option<Timestamp> {
        let finished = self.times.as_ref().and_then(|times| times.finished.as_deref());
        self.phase.is_terminal().then(|| finished?.parse().ok())?
    }
    fn stands_still(&self) -> bool {
        matches!(self.phase, Phase::Pending | Phase::Queued)
    }
}

impl Status for PipelineRunStatus {
    fn phase(&self) -> Phase {
        self.phase
    }
    fn ended(&self) -> Option<Timestamp> {
        self.phase.is_terminal().then(|| self.finished_at.as_deref()?.parse().ok())?
    }
}

/// One object.
pub struct Slot<S> {
    head: Head,
    kept: RefCell<Kept<S>>,
    used: Cell<Instant>,
    // Of the status that is decided and not stored yet, if there is one.
    decided: Option<Phase>,
    /// Since when the decided status waits to be stored.
    pub dirty_since: Option<Instant>,
    /// When it may be stored, once that is settled.
    pub due: Option<Instant>,
    /// Whether it should be stored without waiting for more.
    pub urgent: bool,
    /// When other news of what only waits is to be decided on again, and stored.
    pub later: Option<Instant>,
    /// Whether a status write is under way: one at a time.
    pub writing: bool,
    /// Whether a pass waits for the end of that write.
    pub again: bool,
    /// What waits for its turn to be written, if something does: the version on which it was decided, and whether it is urgent.
    pub turn: Option<(Box<str>, bool)>,
}

/// What is looked at of every object, also of those that are packed.
pub struct Head {
    pub uid: Box<str>,
    pub resource_version: Box<str>,
    pub generation: i64,
    pub deleting: bool,
    /// Kind of what controls it.
    pub owner: Option<Box<str>>,
    labels: Box<[(Box<str>, Box<str>)]>,
    phase: Phase,
}

impl Head {
    fn of<S: Status>(record: &Record<S>) -> Self {
        let Meta { uid, resource_version, generation, labels, deleting, owner, .. } = &record.meta;
        Self {
            uid: uid.as_str().into(),
            resource_version: resource_version.as_str().into(),
            generation: *generation,
            deleting: *deleting,
            owner: owner.as_ref().map(|owner| owner.kind.as_str().into()),
            labels: labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect(),
            phase: record.status.phase(),
        }
    }

    /// Whether this run is a stage of another one.
    pub fn is_nested(&self) -> bool {
        self.owner.as_deref() == Some("PipelineRun")
    }

    /// A label's value, or nothing.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| **name == *key).map(|(_, value)| &**value)
    }

    /// Whether it carries all of these labels.
    pub fn has_labels(&self, wanted: &BTreeMap<String, String>) -> bool {
        wanted.iter().all(|(key, value)| self.label(key) == Some(value))
    }
}

/// An object as it is stored, and with the status that is decided and not stored yet, if there is one.
type Versions<S> = (Arc<Record<S>>, Option<Arc<Record<S>>>);

enum Kept<S> {
    Whole(Versions<S>),
    /// Metadata, spec and both statuses: they have most of their text in common.
    Packed(Packed),
}

impl<S: Status> Slot<S> {
    /// A new one, packed if it is history or waits: after a start, all of those are read at once.
    pub fn new(stored: Arc<Record<S>>, packer: &mut Packer) -> Self {
        let asleep = Self::sleeps(&stored) || Self::is_history(&stored);
        let mut slot = Self {
            head: Head::of(&stored),
            kept: RefCell::new(Kept::Whole((stored, None))),
            used: Cell::new(Instant::now()),
            decided: None,
            dirty_since: None,
            due: None,
            urgent: false,
            later: None,
            writing: false,
            again: false,
            turn: None,
        };
        slot.pack_if(asleep, packer);
        slot
    }

    /// What of it is known without unpacking it, as stored.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// As the API server stores it, and as it is decided while that is not stored yet.
    pub fn versions(&self) -> Versions<S> {
        match &*self.kept.borrow() {
            Kept::Whole(versions) => versions.clone(),
            Kept::Packed(packed) => unpack(packed),
        }
    }

    /// As the API server stores it.
    pub fn stored(&self) -> Arc<Record<S>> {
        match &*self.kept.borrow() {
            Kept::Whole((stored, _)) => Arc::clone(stored),
            Kept::Packed(packed) => unpack(packed).0,
        }
    }

    /// What deciding continues from.
    pub fn current(&self) -> Arc<Record<S>> {
        let (stored, decided) = self.versions();
        decided.unwrap_or(stored)
    }

    /// The same, for whoever will ask again soon: it is kept whole.
    pub fn in_use(&self) -> Arc<Record<S>> {
        self.used.set(Instant::now());
        let versions = self.versions();
        *self.kept.borrow_mut() = Kept::Whole(versions);
        self.current()
    }

    /// How it stands, decided or stored.
    pub fn phase(&self) -> Phase {
        self.decided.unwrap_or(self.head.phase)
    }

    /// Whether a status is decided that is not stored yet.
    pub fn is_decided(&self) -> bool {
        self.decided.is_some()
    }

    /// Another version is stored. What was decided stays, over the newer spec and metadata.
    pub fn store(&mut self, record: Arc<Record<S>>) {
        let decided = if self.is_decided() { self.versions().1 } else { None };
        let over = |decided: Arc<Record<S>>| Record { status: Arc::clone(&decided.status), ..(*record).clone() };
        let decided = decided.map(|decided| Arc::new(over(decided)));
        self.head = Head::of(&record);
        self.keep((record, decided));
    }

    /// A status is decided on that is not stored yet.
    pub fn decide(&mut self, status: &S) {
        let stored = self.stored();
        let record = Record { status: Arc::new(status.clone()), ..(*stored).clone() };
        self.decided = Some(status.phase());
        self.keep((stored, Some(Arc::new(record))));
    }

    /// Nothing is to be stored, or what was is worth nothing.
    pub fn clean(&mut self) {
        (self.dirty_since, self.due, self.urgent, self.later) = (None, None, false, None);
        if self.decided.take().is_some() {
            let stored = self.stored();
            self.keep((stored, None));
        }
    }

    fn keep(&mut self, versions: Versions<S>) {
        self.used.set(Instant::now());
        self.kept = RefCell::new(Kept::Whole(versions));
    }

    /// Packs what waits as soon as that is known: of thousands that came at once most are looked at no more for minutes.
    pub fn doze(&mut self, packer: &mut Packer) {
        let Kept::Whole((stored, decided)) = self.kept.get_mut() else { return };
        let asleep = Self::sleeps(decided.as_ref().unwrap_or(stored));
        self.pack_if(asleep, packer);
    }

    // A run looks at its stages whenever one of them moves.
    fn sleeps(record: &Record<S>) -> bool {
        record.meta.owner.is_none() && record.status.stands_still()
    }

    /// Packs what is hardly ever looked at, and has not been used for a while; true if this did.
    pub fn pack(&mut self, packer: &mut Packer) -> bool {
        let Kept::Whole((stored, decided)) = self.kept.get_mut() else { return false };
        let unused = self.used.get().elapsed();
        let still = unused >= STILL && decided.as_ref().unwrap_or(stored).status.stands_still();
        let old = decided.is_none() && unused >= Self::age(stored) && Self::is_history(stored);
        self.pack_if(still || old, packer)
    }

    fn age(record: &Record<S>) -> Duration {
        if record.meta.owner.is_some() { AGE } else { AGE_ALONE }
    }

    fn is_history(record: &Record<S>) -> bool {
        let age = Self::age(record).as_secs().cast_signed();
        record.status.ended().is_some_and(|ended| Timestamp::now().duration_since(ended).as_secs() >= age)
    }

    fn pack_if(&mut self, wanted: bool, packer: &mut Packer) -> bool {
        let Kept::Whole((stored, decided)) = self.kept.get_mut() else { return false };
        if !wanted || self.writing || stored.meta.deleting {
            return false;
        }
        let decided = decided.as_ref().map(|decided| &*decided.status);
        let object = (&stored.meta, &*stored.spec, &*stored.status, decided);
        // One that cannot be packed stays as it is.
        let Some(packed) = packer.pack(&stored.meta.namespace, &object) else { return false };
        self.kept = RefCell::new(Kept::Packed(packed));
        true
    }
}

fn unpack<S: Status>(packed: &Packed) -> Versions<S> {
    let (meta, spec, stored, decided): (Meta, Value, S, Option<S>) = packed.unpack();
    let stored = Record { meta, spec: Arc::new(spec), status: Arc::new(stored) };
    let decided = decided.map(|status| Arc::new(Record { status: Arc::new(status), ..stored.clone() }));
    (Arc::new(stored), decided)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cultivar_core::domain::Owner;
    use cultivar_crds::{Metric, PhaseTimes};
    use proptest::prelude::*;
    use serde_json::json;

    fn ended(finished: &str, template: Value) -> Record<ExperimentStatus> {
        let meta = Meta {
            namespace: "n".into(),
            name: "e".into(),
            uid: "u".into(),
            resource_version: "7".into(),
            generation: 3,
            labels: BTreeMap::from([("team".into(), "a".into())]),
            created: Some(Timestamp::UNIX_EPOCH),
            owner: Some(Owner { kind: "PipelineRun".into(), name: "r".into(), uid: "o".into() }),
            ..Meta::default()
        };
        let status = ExperimentStatus {
            phase: Phase::Completed,
            template: Some(Arc::new(template.clone())),
            metrics: BTreeMap::from([("acc".into(), Metric { last: 0.1 + 0.2, ..Metric::default() })]),
            times: Some(PhaseTimes { finished: Some(finished.into()), ..PhaseTimes::default() }),
            ..ExperimentStatus::default()
        };
        Record { meta, spec: Arc::new(template), status: Arc::new(status) }
    }

    fn is_packed(slot: &Slot<ExperimentStatus>) -> bool {
        matches!(&*slot.kept.borrow(), Kept::Packed(_))
    }

    #[test]
    fn history_is_packed_and_what_has_just_ended_is_not() {
        let mut packer = Packer::default();
        let old = ended("2020-01-01T00:00:00Z", json!({"image": "x"}));
        let slot = Slot::new(Arc::new(old.clone()), &mut packer);
        assert!(is_packed(&slot));
        assert_eq!(*slot.current(), old);
        assert!(is_packed(&slot), "a look does not keep it");
        assert_eq!(*slot.in_use(), old);
        assert!(!is_packed(&slot), "whoever uses it finds it whole");
        assert!(slot.head().has_labels(&BTreeMap::from([("team".into(), "a".into())])) && slot.head().is_nested());
        let new = ended(&Timestamp::now().to_string(), json!({}));
        assert!(!is_packed(&Slot::new(Arc::new(new), &mut packer)));
        let mut going = old;
        going.meta.deleting = true;
        assert!(!is_packed(&Slot::new(Arc::new(going), &mut packer)));
    }

    #[test]
    fn what_waits_in_a_queue_is_packed_with_what_was_decided() {
        let mut packer = Packer::default();
        let with = |record: &Record<ExperimentStatus>, phase| {
            let status = Arc::new(ExperimentStatus { phase, ..ExperimentStatus::default() });
            Record { status, ..record.clone() }
        };
        let stage = with(&ended("", json!({"image": "x"})), Phase::Pending);
        let new = Record { meta: Meta { owner: None, ..stage.meta.clone() }, ..stage.clone() };
        let waiting = with(&new, Phase::Queued);
        let mut slot = Slot::new(Arc::new(new.clone()), &mut packer);
        let long_ago = Instant::now().checked_sub(STILL).unwrap();
        assert!(is_packed(&slot), "it may be one of thousands");
        slot.decide(&waiting.status);
        assert!(!is_packed(&slot));
        slot.doze(&mut packer);
        assert!(is_packed(&slot) && slot.phase() == Phase::Queued);
        assert_eq!(*slot.in_use(), waiting);
        assert!(!slot.pack(&mut packer), "somebody has looked at it a moment ago");
        slot.used.set(long_ago);
        assert!(slot.pack(&mut packer) && is_packed(&slot));
        assert_eq!(slot.versions(), (Arc::new(new.clone()), Some(Arc::new(waiting.clone()))), "both are there");
        // What another has written meanwhile changes what is stored, and not what was decided.
        let labelled = |record: &Record<_>| {
            let meta = Meta { labels: BTreeMap::from([("team".into(), "b".into())]), ..record.meta.clone() };
            Record { meta, ..record.clone() }
        };
        slot.store(Arc::new(labelled(&new)));
        assert_eq!(slot.versions(), (Arc::new(labelled(&new)), Some(Arc::new(labelled(&waiting)))));
        slot.used.set(long_ago);
        assert!(slot.pack(&mut packer) && slot.is_decided());
        slot.clean();
        assert_eq!(slot.versions(), (Arc::new(labelled(&new)), None));
        assert!(!slot.is_decided() && slot.phase() == Phase::Pending);
        assert!(is_packed(&Slot::new(Arc::new(waiting), &mut packer)), "after a start, all that wait are read at once");
        slot.store(Arc::new(with(&new, Phase::Running)));
        slot.used.set(long_ago);
        assert!(!slot.pack(&mut packer), "what runs is looked at all the time");
        let mut slot = Slot::new(Arc::new(stage), &mut packer);
        slot.doze(&mut packer);
        assert!(!is_packed(&slot), "its run looks at it");
        slot.used.set(long_ago);
        assert!(slot.pack(&mut packer));
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back_as_it_was(
            number in any::<f64>().prop_filter("JSON has no others", |number| number.is_finite()),
            text in ".{0,40}",
            whole in any::<i64>(),
        ) {
            let record = ended("2020-01-01T00:00:00Z", json!({"params": {"a": number, "b": text, "c": whole, "d": null}}));
            let slot = Slot::new(Arc::new(record.clone()), &mut Packer::default());
            prop_assert!(is_packed(&slot));
            prop_assert_eq!(&*slot.stored(), &record);
        }
    }
}
