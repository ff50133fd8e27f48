//! Schedules in the index: which of them make runs of a pipeline, and what deciding about one looks at.

use cultivar_core::decide::schedule::Snapshot;
use cultivar_core::domain::ScheduleRecord;
use cultivar_crds::{ScheduleStatus, labels};
use jiff::Timestamp;

use super::index::{Index, Key, Kind};
use super::slot::Slot;
use super::snapshot::{View, place};
use super::state::State;

fn pipeline_of(schedule: &ScheduleRecord) -> String {
    schedule.spec.get("pipeline").and_then(|name| name.as_str()).unwrap_or_default().to_owned()
}

impl State {
    /// The schedules that make runs of a pipeline.
    pub(super) fn schedules_of(&self, pipeline: &Key) -> impl Iterator<Item = Key> {
        let names = self.schedules_of.get(&pipeline.place()).into_iter().flatten();
        names.map(|name| Key::new(Kind::Schedule, &pipeline.namespace, name))
    }

    pub(super) fn apply_schedule(&mut self, record: ScheduleRecord) -> Vec<Key> {
        let key = Key::new(Kind::Schedule, &record.meta.namespace, &record.meta.name);
        let pipeline = pipeline_of(&record);
        let before = self.schedules.get(&key.place()).map(Slot::stored);
        if before.as_ref().is_some_and(|before| before.meta.uid != record.meta.uid) {
            self.refusals.remove(&key);
        }
        if !self.schedules.apply(record) {
            return Vec::new();
        }
        before.iter().for_each(|before| self.unlink_schedule(before));
        self.schedules_of.entry((key.namespace.clone(), pipeline)).or_default().insert(key.name.clone());
        vec![key]
    }

    pub(super) fn unlink_schedule(&mut self, record: &ScheduleRecord) {
        let of = (record.meta.namespace.clone(), pipeline_of(record));
        if let Some(names) = self.schedules_of.get_mut(&of) {
            names.remove(&record.meta.name);
            if names.is_empty() {
                self.schedules_of.remove(&of);
            }
        }
    }
}

impl Index {
    /// A schedule, or nothing if it is gone.
    pub fn schedule(&self, key: &Key, now: Timestamp) -> Option<View<Snapshot, ScheduleStatus>> {
        let state = self.lock();
        let slot = state.schedules.get(&place(key))?;
        let of = (key.namespace.clone(), pipeline_of(&slot.stored()));
        let runs = state.runs_of.get(&of).into_iter().flatten();
        let runs = runs.filter_map(|name| state.runs.get(&(key.namespace.clone(), name.clone())));
        let runs = runs.filter(|slot| slot.head().label(labels::SCHEDULE) == Some(&key.name));
        let snapshot = Snapshot {
            schedule: (*slot.current()).clone(),
            pipeline: state.pipelines.get(&of).map(Slot::current),
            runs: runs.map(Slot::current).collect(),
            refusal: state.refusals.get(key).cloned(),
            now,
        };
        Some(View { snapshot, stored: slot.stored() })
    }
}
