//! Approvals: what was said about the gates of runs.
//!
//! Comes in: events of their watch. Goes out: who said what of a run, and the runs to wake.

use cultivar_core::domain::ApprovalRecord;
use cultivar_crds::Approval;
use kube::core::ApiResource;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::convert;
use super::index::{Index, Key, Kind};
use super::raw::Raw;
use super::store::Name;
use super::watch::Sink;

/// The Approvals that are known.
#[derive(Default)]
pub struct Approvals {
    // By an Approval's namespace and name: the run that it speaks of.
    runs: HashMap<Name, String>,
    // By a run's namespace and name: what was said of it, by stage and name.
    said: HashMap<Name, BTreeMap<(String, String), Arc<ApprovalRecord>>>,
}

impl Approvals {
    /// Takes one in; returns the runs that it concerns.
    pub fn apply(&mut self, record: ApprovalRecord) -> Vec<Key> {
        let name = (record.namespace.clone(), record.name.clone());
        // A namesake may speak of another run.
        let mut keys = self.remove(&name);
        keys.push(Key::new(Kind::PipelineRun, &record.namespace, &record.spec.run));
        let place = (record.namespace.clone(), record.spec.run.clone());
        self.runs.insert(name, record.spec.run.clone());
        let entry = (record.spec.stage.clone(), record.name.clone());
        self.said.entry(place).or_default().insert(entry, Arc::new(record));
        keys
    }

    /// One is gone; returns the run that it concerned.
    pub fn remove(&mut self, name: &Name) -> Vec<Key> {
        let Some(run) = self.runs.remove(name) else { return Vec::new() };
        let place = (name.0.clone(), run);
        if let Some(said) = self.said.get_mut(&place) {
            said.retain(|(_, approval), _| *approval != name.1);
            if said.is_empty() {
                self.said.remove(&place);
            }
        }
        vec![Key::new(Kind::PipelineRun, &place.0, &place.1)]
    }

    /// What was said of a run.
    pub fn of(&self, namespace: &str, run: &str) -> Vec<Arc<ApprovalRecord>> {
        let said = self.said.get(&(namespace.to_owned(), run.to_owned()));
        said.into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    fn names(&self, within: Option<&str>) -> HashSet<Name> {
        self.runs.keys().filter(|name| within.is_none_or(|namespace| name.0 == namespace)).cloned().collect()
    }
}

impl Index {
    /// An Approval as it is now.
    pub fn apply_approval(&self, record: ApprovalRecord) {
        let keys = self.lock().approvals.apply(record);
        keys.iter().for_each(|key| self.look_at(key));
    }

    fn remove_approval(&self, name: &Name) {
        let keys = self.lock().approvals.remove(name);
        keys.iter().for_each(|key| self.look_at(key));
    }
}

/// What their watch feeds.
pub struct Watched {
    index: Arc<Index>,
    within: Option<String>,
    unseen: HashSet<Name>,
}

impl Watched {
    pub fn new(index: Arc<Index>, within: Option<&str>) -> Self {
        Self { index, within: within.map(str::to_owned), unseen: HashSet::new() }
    }
}

fn name(object: &Raw) -> Name {
    convert::key(Kind::PipelineRun, &object.metadata).place()
}

impl Sink<Raw> for Watched {
    fn begin(&mut self) {
        self.unseen = self.index.lock().approvals.names(self.within.as_deref());
    }

    fn apply(&mut self, object: Raw) {
        let name = name(&object);
        self.unseen.remove(&name);
        match convert::approval(object) {
            Ok(record) => self.index.apply_approval(record),
            Err(error) => {
                let (namespace, name) = (&name.0, &name.1);
                tracing::error!(%namespace, %name, %error, "this Approval cannot be read and does not count: its values are nested too deep, or a newer version wrote it");
            }
        }
    }

    fn finish(&mut self) {
        for name in std::mem::take(&mut self.unseen) {
            self.index.remove_approval(&name);
        }
    }

    fn delete(&mut self, object: Raw) {
        self.index.remove_approval(&name(&object));
    }
}

/// The API resource of Approvals.
pub fn resource() -> ApiResource {
    ApiResource::erase::<Approval>(&())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::wakeups::Wakeups;
    use crate::observe::DataPlane;
    use crate::queues::Queues;

    fn object(name: &str, run: &str, stage: &str) -> Raw {
        let text = format!(
            r#"{{"metadata": {{"namespace": "n", "name": "{name}", "creationTimestamp": "2026-01-01T00:00:00Z"}},
                "spec": {{"run": "{run}", "stage": "{stage}", "verdict": "Approve", "by": "ada", "values": {{"a": 1}}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn said(index: &Index, run: &str) -> Vec<String> {
        index.lock().approvals.of("n", run).iter().map(|said| format!("{}/{}", said.spec.stage, said.name)).collect()
    }

    #[test]
    fn an_approval_is_found_by_its_run_and_a_list_forgets_what_is_gone() {
        let index =
            Arc::new(Index::new(Arc::new(Wakeups::default()), Arc::new(Queues::new(false)), DataPlane::default()));
        let mut watched = Watched::new(Arc::clone(&index), None);
        watched.apply(object("b", "r-1", "ask"));
        watched.apply(object("a", "r-1", "ask"));
        watched.apply(object("c", "r-2", "ask"));
        assert_eq!((said(&index, "r-1"), said(&index, "r-2").len()), (vec!["ask/a".to_owned(), "ask/b".to_owned()], 1));
        assert!(index.lock().approvals.of("n", "r-1")[0].created.is_some());
        watched.begin();
        watched.apply(object("a", "r-1", "ask"));
        // A namesake, made anew while nothing was heard.
        watched.apply(object("c", "r-1", "other"));
        watched.finish();
        assert_eq!(said(&index, "r-1"), ["ask/a", "other/c"]);
        assert!(said(&index, "r-2").is_empty());
        watched.delete(object("a", "r-1", "ask"));
        watched.delete(object("c", "r-1", "other"));
        assert!(index.lock().approvals.said.is_empty() && index.lock().approvals.runs.is_empty());
    }

    #[test]
    fn one_that_cannot_be_read_does_not_count() {
        let deep = format!("{}1{}", r#"{"a": ["#.repeat(3000), "]}".repeat(3000));
        let text = format!(r#"{{"metadata": {{"namespace": "n", "name": "deep"}}, "spec": {{"values": {deep}}}}}"#);
        assert!(convert::approval(serde_json::from_str(&text).unwrap()).is_err());
        assert!(convert::approval(serde_json::from_str(r#"{"metadata": {"name": "bare"}}"#).unwrap()).is_err());
    }
}
