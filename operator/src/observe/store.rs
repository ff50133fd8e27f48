//! A store of records of one kind of ours: what was stored, and the status that is about to be.

use cultivar_core::domain::Record;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::packed::Packer;
use super::slot::{Slot, Status};

/// Namespace and name.
pub type Name = (String, String);

/// All objects of one kind.
pub struct Store<S> {
    // Boxed: the table is half empty at times.
    slots: HashMap<Name, Box<Slot<S>>>,
    packer: Packer,
    // By the namespace that is being listed (empty: all): what the list has named so far.
    listing: HashMap<String, HashSet<Name>>,
}

impl<S> Default for Store<S> {
    fn default() -> Self {
        Self { slots: HashMap::new(), packer: Packer::default(), listing: HashMap::new() }
    }
}

// Resource versions are comparable numbers; one that is not parses as nothing and is always news.
fn version(text: &str) -> Option<u64> {
    text.parse().ok()
}

impl<S: Status> Store<S> {
    pub fn get(&self, name: &Name) -> Option<&Slot<S>> {
        self.slots.get(name).map(|slot| &**slot)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Slot<S>)> {
        self.slots.iter().map(|(name, slot)| (name, &**slot))
    }

    /// Packs what has become history, so much of it at most; returns how much that was.
    pub fn pack(&mut self, most: usize) -> usize {
        let Self { slots, packer, .. } = self;
        packer.tidy();
        slots.values_mut().filter_map(|slot| slot.pack(packer).then_some(())).take(most).count()
    }

    /// Takes in what was read; true when it is news.
    pub fn apply(&mut self, record: Record<S>) -> bool {
        let name = (record.meta.namespace.clone(), record.meta.name.clone());
        self.note_seen(&name);
        if let Some(slot) = self.slots.get_mut(&name).filter(|slot| *slot.head().uid == *record.meta.uid) {
            let (old, new) = (version(&slot.head().resource_version), version(&record.meta.resource_version));
            if old.is_some() && new <= old {
                return false;
            }
            let (stored, decided) = slot.versions();
            let current = decided.as_ref().unwrap_or(&stored);
            if current.is_echoed_by(&record) {
                slot.clean();
                slot.store(Arc::new(record));
                slot.doze(&mut self.packer);
                return false;
            }
            // Somebody else wrote a status: another leader. What was decided here is worth nothing.
            let overtaken = stored.status != record.status && !slot.writing;
            if decided.is_some_and(|decided| decided.status == record.status) || overtaken {
                slot.clean();
            }
            slot.store(Arc::new(record));
            slot.doze(&mut self.packer);
            return true;
        }
        let slot = Slot::new(Arc::new(record), &mut self.packer);
        self.slots.insert(name, Box::new(slot));
        true
    }

    /// Notes a decided status; true when it differs from what was known.
    pub fn decide(&mut self, name: &Name, uid: &str, status: &S, urgent: bool) -> bool {
        let Some(slot) = self.slots.get_mut(name).filter(|slot| *slot.head().uid == *uid) else { return false };
        let (stored, decided) = slot.versions();
        let changed = *decided.as_ref().unwrap_or(&stored).status != *status;
        if *stored.status == *status && !slot.writing {
            slot.clean();
        } else if changed || decided.is_none() {
            slot.decide(status);
            slot.dirty_since.get_or_insert_with(Instant::now);
            if urgent && !slot.urgent {
                (slot.urgent, slot.due, slot.dirty_since) = (true, None, Some(Instant::now()));
            }
            slot.doze(&mut self.packer);
        }
        changed
    }

    /// The turn has come of a write that waited for it: what is decided by now is what is written.
    pub fn take_turn(&mut self, name: &Name) -> Turn<S> {
        let Some(slot) = self.slots.get_mut(name) else { return Turn::Nothing };
        let Some((version, _)) = slot.turn.take() else { return Turn::Nothing };
        if slot.writing {
            slot.again = true;
            return Turn::Nothing;
        }
        let (_, Some(decided)) = slot.versions() else { return Turn::Nothing };
        if version != slot.head().resource_version {
            return Turn::DecideAgain;
        }
        slot.writing = true;
        Turn::Write(decided)
    }

    /// A status write has ended. What was written is no longer only decided, unless more was decided since; after a
    /// failure nothing is, and the next pass starts from what is stored.
    ///
    /// True when there is more to store.
    pub fn end_write(&mut self, name: &Name, written: Option<&S>) -> bool {
        let Some(slot) = self.slots.get_mut(name) else { return false };
        slot.writing = false;
        let again = std::mem::take(&mut slot.again);
        let decided = slot.versions().1;
        let newer = decided.zip(written).is_some_and(|(decided, written)| *decided.status != *written);
        if newer {
            slot.dirty_since = Some(Instant::now());
            slot.due = None;
        } else {
            slot.clean();
        }
        slot.doze(&mut self.packer);
        newer || again
    }

    pub fn remove(&mut self, name: &Name) -> Option<Arc<Record<S>>> {
        self.slots.remove(name).map(|slot| slot.stored())
    }
}

/// What a write that waited for its turn comes to.
#[derive(Debug)]
pub enum Turn<S> {
    /// Its write has begun: this is to be stored, in place of the version it names.
    Write(Arc<Record<S>>),
    /// The object has changed since it was decided on.
    DecideAgain,
    /// There is nothing to store any more, or another write is under way.
    Nothing,
}

/// How an object that arrives compares with what is known, before it is read.
pub enum Arrival {
    /// As old as what is known, or older.
    Stale,
    /// Newer, with the spec that is known.
    SameSpec(Arc<Value>),
    /// Not known, or with another spec.
    New,
}

/// What a store does whatever the status of its kind is.
pub trait Tracked {
    /// Most objects that arrive are echoes of our own writes: those need not be read.
    fn arrival(&self, name: &Name, meta: &ObjectMeta) -> Arrival;
    /// When a decided status may be stored: `settle` says it once, and once more when it becomes urgent, from the time
    /// since when it waits and from whether it is urgent. Nothing if nothing waits.
    fn due(&mut self, name: &Name, settle: &dyn Fn(Instant, bool) -> Instant) -> Option<Instant>;
    /// When news of what only waits may be stored: `turn` says it once, until something has been stored.
    fn later(&mut self, name: &Name, turn: &dyn Fn() -> Instant) -> Option<Instant>;
    /// Whether this object, and no namesake of it, is known.
    fn knows(&self, name: &Name, uid: &str) -> bool;
    /// Begins a status write, unless one is under way; then its end is told as if there were more to store.
    fn begin_write(&mut self, name: &Name) -> bool;
    /// Asks for a turn to write what was decided on this version. False if it has been asked for, no less urgently, or if a
    /// write is under way, whose end is then told as if there were more to store.
    fn ask_turn(&mut self, name: &Name, version: &str, urgent: bool) -> bool;
    /// Forgets what was decided: the next pass starts from what is stored.
    fn forget(&mut self, name: &Name);
    /// Forgets everything that was decided: another leader may have decided since.
    fn forget_all(&mut self);
    /// A list names an object, also one that cannot be read: it is not gone.
    fn note_seen(&mut self, name: &Name);
    /// A list begins: what it does not name, and what is not written meanwhile, is gone at its end.
    fn begin(&mut self, within: Option<&str>);
    /// The list is complete; returns what is gone.
    fn finish(&mut self, within: Option<&str>) -> Vec<Name>;
}

impl<S: Status> Tracked for Store<S> {
    fn arrival(&self, name: &Name, meta: &ObjectMeta) -> Arrival {
        let slot = self.slots.get(name).filter(|slot| Some(&*slot.head().uid) == meta.uid.as_deref());
        let Some(slot) = slot else { return Arrival::New };
        let head = slot.head();
        let (old, new) = (version(&head.resource_version), meta.resource_version.as_deref().and_then(version));
        if old.is_some() && new <= old {
            Arrival::Stale
        } else if meta.generation == Some(head.generation) {
            // The generation counts the changes of the spec.
            Arrival::SameSpec(Arc::clone(&slot.stored().spec))
        } else {
            Arrival::New
        }
    }

    fn due(&mut self, name: &Name, settle: &dyn Fn(Instant, bool) -> Instant) -> Option<Instant> {
        let slot = self.slots.get_mut(name)?;
        let since = slot.dirty_since?;
        Some(*slot.due.get_or_insert_with(|| settle(since, slot.urgent)))
    }

    fn later(&mut self, name: &Name, turn: &dyn Fn() -> Instant) -> Option<Instant> {
        let slot = self.slots.get_mut(name).filter(|slot| !slot.is_decided())?;
        Some(*slot.later.get_or_insert_with(turn))
    }

    fn knows(&self, name: &Name, uid: &str) -> bool {
        self.slots.get(name).is_some_and(|slot| *slot.head().uid == *uid)
    }

    fn begin_write(&mut self, name: &Name) -> bool {
        let Some(slot) = self.slots.get_mut(name) else { return false };
        slot.again = slot.writing;
        !std::mem::replace(&mut slot.writing, true)
    }
    fn ask_turn(&mut self, name: &Name, version: &str, urgent: bool) -> bool {
        let Some(slot) = self.slots.get_mut(name) else { return false };
        if slot.writing {
            slot.again = true;
            return false;
        }
        let asked = slot.turn.take().map(|(_, urgent)| urgent);
        slot.turn = Some((version.into(), urgent || asked == Some(true)));
        asked.is_none_or(|before| urgent && !before)
    }
    fn forget(&mut self, name: &Name) {
        self.slots.get_mut(name).into_iter().for_each(|slot| slot.clean());
    }
    fn forget_all(&mut self) {
        self.slots.values_mut().for_each(|slot| slot.clean());
    }
    fn note_seen(&mut self, name: &Name) {
        for listing in self.listing.values_mut() {
            listing.insert(name.clone());
        }
    }
    fn begin(&mut self, within: Option<&str>) {
        self.listing.insert(within.unwrap_or_default().to_owned(), HashSet::new());
    }
    fn finish(&mut self, within: Option<&str>) -> Vec<Name> {
        let Some(seen) = self.listing.remove(within.unwrap_or_default()) else { return Vec::new() };
        let here = |name: &&Name| within.is_none_or(|namespace| name.0 == namespace);
        self.slots.keys().filter(here).filter(|name| !seen.contains(*name)).cloned().collect()
    }
}
