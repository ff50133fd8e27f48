//! One object in a store. What has ended a while ago is kept packed, and so is what waits in a queue: a cluster's history, or a
//! long queue, is much larger than what is alive in it, and hardly ever looked at.
//!
//! In: records. Out: records; of a packed one the head is there at once, the rest is unpacked for whoever asks.

use cultivar_core::domain::{Meta, Record};
use cultivar_crds::{ExperimentStatus, Phase, PipelineRunStatus, PipelineStatus, ScheduleStatus};
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long ago something must have ended, and nobody have used it, to be packed: a run that goes on looks at all its stages.
const AGE: Duration = Duration::from_secs(600);
/// The same, of what is no part of a run.
const AGE_ALONE: Duration = Duration::from_secs(30);
/// How long something must have waited in a queue without news.
const STILL: Duration = Duration::from_secs(5);

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
        self.phase == Phase::Queued
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
    stored: RefCell<Kept<S>>,
    used: Cell<Instant>,
    /// With the decided status, while that is not stored yet.
    pub decided: Option<Arc<Record<S>>>,
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

enum Kept<S> {
    Whole(Arc<Record<S>>),
    /// Deflated JSON.
    Packed(Box<[u8]>),
}

impl<S: Status> Slot<S> {
    pub fn new(stored: Arc<Record<S>>) -> Self {
        let mut slot = Self {
            head: Head::of(&stored),
            stored: RefCell::new(Kept::Whole(stored)),
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
        slot.pack_if(Self::is_history);
        slot
    }

    /// What of it is known without unpacking it, as stored.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// As the API server stores it.
    pub fn stored(&self) -> Arc<Record<S>> {
        match &*self.stored.borrow() {
            Kept::Whole(record) => Arc::clone(record),
            Kept::Packed(bytes) => Arc::new(unpack(bytes)),
        }
    }

    /// What deciding continues from.
    pub fn current(&self) -> Arc<Record<S>> {
        self.decided.clone().unwrap_or_else(|| self.stored())
    }

    /// The same, for whoever will ask again soon: it is kept whole.
    pub fn in_use(&self) -> Arc<Record<S>> {
        self.used.set(Instant::now());
        if matches!(&*self.stored.borrow(), Kept::Packed(_)) {
            let whole = self.stored();
            *self.stored.borrow_mut() = Kept::Whole(whole);
        }
        self.current()
    }

    /// How it stands, decided or stored.
    pub fn phase(&self) -> Phase {
        self.decided.as_ref().map_or(self.head.phase, |decided| decided.status.phase())
    }

    /// Another version is stored.
    pub fn store(&mut self, record: Arc<Record<S>>) {
        self.head = Head::of(&record);
        self.used.set(Instant::now());
        self.stored = RefCell::new(Kept::Whole(record));
    }

    pub fn clean(&mut self) {
        (self.decided, self.dirty_since, self.due, self.urgent, self.later) = (None, None, None, false, None);
    }

    /// Packs what is hardly ever looked at, and has not been used for a while; true if this did.
    pub fn pack(&mut self) -> bool {
        let unused = self.used.get().elapsed();
        self.pack_if(|record| {
            let still = unused >= STILL && record.status.stands_still();
            still || unused >= Self::age(record) && Self::is_history(record)
        })
    }

    fn age(record: &Record<S>) -> Duration {
        if record.meta.owner.is_some() { AGE } else { AGE_ALONE }
    }

    fn is_history(record: &Record<S>) -> bool {
        let age = Self::age(record).as_secs().cast_signed();
        record.status.ended().is_some_and(|ended| Timestamp::now().duration_since(ended).as_secs() >= age)
    }

    fn pack_if(&mut self, wanted: impl FnOnce(&Record<S>) -> bool) -> bool {
        let Kept::Whole(record) = self.stored.get_mut() else { return false };
        let busy = self.decided.is_some() || self.writing || record.meta.deleting;
        if busy || !wanted(record) {
            return false;
        }
        // One that cannot be packed stays as it is.
        let Ok(bytes) = pack(record) else { return false };
        self.stored = RefCell::new(Kept::Packed(bytes));
        true
    }
}

fn pack<S: Serialize>(record: &Record<S>) -> std::io::Result<Box<[u8]>> {
    // At once: an encoder that is handed every bit of JSON by itself takes three times as long.
    let text = serde_json::to_vec(&(&record.meta, &*record.spec, &*record.status))?;
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&text)?;
    Ok(encoder.finish()?.into())
}

fn unpack<S: DeserializeOwned>(bytes: &[u8]) -> Record<S> {
    let mut text = Vec::new();
    let read = DeflateDecoder::new(bytes).read_to_end(&mut text);
    let content = read.ok().and_then(|_| serde_json::from_slice::<(Meta, Value, S)>(&text).ok());
    #[expect(clippy::expect_used, reason = "the bytes are ours, and never leave this process")]
    let (meta, spec, status) = content.expect("what was packed here can be unpacked");
    Record { meta, spec: Arc::new(spec), status: Arc::new(status) }
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
        matches!(&*slot.stored.borrow(), Kept::Packed(_))
    }

    #[test]
    fn history_is_packed_and_what_has_just_ended_is_not() {
        let old = ended("2020-01-01T00:00:00Z", json!({"image": "x"}));
        let slot = Slot::new(Arc::new(old.clone()));
        assert!(is_packed(&slot));
        assert_eq!(*slot.current(), old);
        assert!(is_packed(&slot), "a look does not keep it");
        assert_eq!(*slot.in_use(), old);
        assert!(!is_packed(&slot), "whoever uses it finds it whole");
        assert!(slot.head().has_labels(&BTreeMap::from([("team".into(), "a".into())])) && slot.head().is_nested());
        let new = ended(&Timestamp::now().to_string(), json!({}));
        assert!(!is_packed(&Slot::new(Arc::new(new))));
        let mut going = old;
        going.meta.deleting = true;
        assert!(!is_packed(&Slot::new(Arc::new(going))));
    }

    #[test]
    fn what_waits_in_a_queue_is_packed_once_there_is_no_news_of_it() {
        let mut waiting = ended("", json!({"image": "x"}));
        waiting.status = Arc::new(ExperimentStatus { phase: Phase::Queued, ..ExperimentStatus::default() });
        let mut slot = Slot::new(Arc::new(waiting.clone()));
        assert!(!slot.pack() && !is_packed(&slot), "it came a moment ago");
        let long_ago = Instant::now().checked_sub(STILL).unwrap();
        slot.used.set(long_ago);
        slot.decided = Some(Arc::new(waiting.clone()));
        assert!(!slot.pack(), "there is something to store");
        slot.clean();
        assert!(slot.pack() && is_packed(&slot) && slot.phase() == Phase::Queued);
        assert_eq!(*slot.current(), waiting);
        let mut running = waiting;
        running.status = Arc::new(ExperimentStatus { phase: Phase::Running, ..ExperimentStatus::default() });
        slot.store(Arc::new(running));
        slot.used.set(long_ago);
        assert!(!slot.pack(), "what runs is looked at all the time");
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back_as_it_was(
            number in any::<f64>().prop_filter("JSON has no others", |number| number.is_finite()),
            text in ".{0,40}",
            whole in any::<i64>(),
        ) {
            let record = ended("2020-01-01T00:00:00Z", json!({"params": {"a": number, "b": text, "c": whole, "d": null}}));
            let slot = Slot::new(Arc::new(record.clone()));
            prop_assert!(is_packed(&slot));
            prop_assert_eq!(&*slot.stored(), &record);
        }
    }
}
