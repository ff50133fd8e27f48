//! Concurrency groups: which unfinished runs are in which, and who has taken a place that the index does not show yet.
//!
//! Comes in: runs as they change. Goes out: the other runs of a group. Everything is known anew from the runs themselves after
//! a restart; a place that was taken in between lasts until the run shows that it has begun.

use cultivar_crds::PipelineRunStatus;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use cultivar_core::domain::RunRecord;

use super::index::{Key, Kind};

/// Namespace and name of a group.
type Group = (String, String);

/// The groups of every namespace.
#[derive(Default)]
pub struct Groups {
    runs: HashMap<Group, BTreeSet<String>>,
    // By namespace and name of a run.
    of: BTreeMap<(String, String), String>,
    // Runs that may begin, and do not show it yet.
    places: HashMap<Group, BTreeSet<String>>,
}

/// The group that a run was frozen with.
pub fn group_of(status: &PipelineRunStatus) -> Option<&str> {
    status.pipeline_spec.as_ref()?.get("concurrency")?.get("group")?.as_str()
}

impl Groups {
    /// Takes in how a run stands; one that has ended is in no group.
    pub fn note(&mut self, namespace: &str, run: &str, status: &PipelineRunStatus) {
        match group_of(status).filter(|_| !status.phase.is_terminal()) {
            Some(group) => {
                let at = (namespace.to_owned(), group.to_owned());
                if status.started_at.is_some() {
                    self.places.entry(at.clone()).or_default().remove(run);
                }
                self.of.insert((namespace.to_owned(), run.to_owned()), group.to_owned());
                self.runs.entry(at).or_default().insert(run.to_owned());
            }
            None => self.forget(namespace, run),
        }
    }

    /// Forgets a run that has ended or is gone.
    pub fn forget(&mut self, namespace: &str, run: &str) {
        let Some(group) = self.of.remove(&(namespace.to_owned(), run.to_owned())) else { return };
        let at = (namespace.to_owned(), group);
        for runs in [&mut self.runs, &mut self.places] {
            if let Some(members) = runs.get_mut(&at) {
                members.remove(run);
                if members.is_empty() {
                    runs.remove(&at);
                }
            }
        }
    }

    /// The unfinished runs of a group.
    pub fn runs(&self, namespace: &str, group: &str) -> impl Iterator<Item = &String> {
        self.runs.get(&(namespace.to_owned(), group.to_owned())).into_iter().flatten()
    }

    /// Whether a run has taken a place that it does not show yet.
    pub fn has_place(&self, namespace: &str, group: &str, run: &str) -> bool {
        let places = self.places.get(&(namespace.to_owned(), group.to_owned()));
        places.is_some_and(|places| places.contains(run))
    }

    /// Takes a place.
    pub fn take_place(&mut self, namespace: &str, group: &str, run: &str) {
        self.places.entry((namespace.to_owned(), group.to_owned())).or_default().insert(run.to_owned());
    }

    /// Forgets places that are not shown: another leader may have decided otherwise.
    pub fn forget_places(&mut self) {
        self.places.clear();
    }

    /// The other runs of a run's group, to be looked at.
    pub fn others<'a>(&'a self, namespace: &'a str, run: &'a RunRecord) -> impl Iterator<Item = Key> + 'a {
        let group = group_of(&run.status);
        let runs = group.into_iter().flat_map(move |group| self.runs(namespace, group));
        runs.filter(|name| **name != run.meta.name).map(move |name| Key::new(Kind::PipelineRun, namespace, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cultivar_crds::Phase;
    use serde_json::json;

    fn in_group(phase: Phase, started: bool) -> PipelineRunStatus {
        PipelineRunStatus {
            phase,
            pipeline_spec: Some(json!({"concurrency": {"group": "deploy"}, "stages": []})),
            started_at: started.then(|| "2026-11-25T10:00:00Z".to_owned()),
            ..PipelineRunStatus::default()
        }
    }

    #[test]
    fn a_place_lasts_until_it_shows_or_the_run_ends() {
        let mut groups = Groups::default();
        groups.note("a", "one", &in_group(Phase::Pending, false));
        groups.note("a", "two", &in_group(Phase::Pending, false));
        groups.take_place("a", "deploy", "one");
        assert!(groups.has_place("a", "deploy", "one") && !groups.has_place("b", "deploy", "one"));
        groups.note("a", "one", &in_group(Phase::Running, true));
        assert!(!groups.has_place("a", "deploy", "one"));
        groups.note("a", "one", &in_group(Phase::Completed, true));
        assert_eq!(groups.runs("a", "deploy").collect::<Vec<_>>(), ["two"]);
        groups.take_place("a", "deploy", "two");
        groups.forget("a", "two");
        assert_eq!((groups.runs.len(), groups.places.len(), groups.of.len()), (0, 0, 0));
    }
}
