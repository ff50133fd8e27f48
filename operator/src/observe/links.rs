//! Links between objects by name: who names whom in `from`. Kept so that a change wakes whom it concerns.

use cultivar_core::decide::inputs::{self, makers};
use cultivar_core::domain::ExperimentRecord;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap, HashSet};

use super::index::{Key, Kind};

/// Who names which experiments in `from`.
#[derive(Default)]
pub struct Links {
    // By experiment (namespace, name): who names it.
    namers: HashMap<(String, String), HashSet<Key>>,
    // By who: the experiments it names.
    named: HashMap<Key, BTreeSet<String>>,
}

impl Links {
    /// Sets what `who` names; returns the experiments for which this is news.
    pub fn set(&mut self, who: &Key, names: BTreeSet<String>) -> Vec<Key> {
        let before = self.named.get(who).cloned().unwrap_or_default();
        let changed: Vec<String> = before.symmetric_difference(&names).cloned().collect();
        for name in &changed {
            let entry = self.namers.entry((who.namespace.clone(), name.clone())).or_default();
            if names.contains(name) {
                entry.insert(who.clone());
            } else {
                entry.remove(who);
                if entry.is_empty() {
                    self.namers.remove(&(who.namespace.clone(), name.clone()));
                }
            }
        }
        if names.is_empty() {
            self.named.remove(who);
        } else {
            self.named.insert(who.clone(), names);
        }
        changed.into_iter().map(|name| Key::new(Kind::Experiment, &who.namespace, &name)).collect()
    }

    /// What names this.
    pub fn namers(&self, namespace: &str, name: &str) -> impl Iterator<Item = &Key> {
        self.namers.get(&(namespace.to_owned(), name.to_owned())).into_iter().flatten()
    }

    /// Which kinds name this experiment, in words that change only when the kinds do.
    pub fn in_use(&self, namespace: &str, name: &str) -> Option<String> {
        let namers = self.namers.get(&(namespace.to_owned(), name.to_owned()))?;
        let kinds: BTreeSet<&str> = namers
            .iter()
            .map(|who| match who.kind {
                Kind::Experiment => "an Experiment",
                Kind::Pipeline => "a Pipeline",
                Kind::PipelineRun => "an unfinished PipelineRun",
                // It names a pipeline, and never an experiment.
                Kind::Schedule => "a Schedule",
            })
            .collect();
        (!kinds.is_empty()).then(|| kinds.into_iter().collect::<Vec<_>>().join(" and "))
    }
}

/// The experiments that an Experiment's spec, or a stage, names: in `from` and as makers of inputs.
pub fn of_experiment(spec: &Value) -> BTreeSet<String> {
    let from = spec.get("from").and_then(|from| from.get("experiment")?.as_str());
    from.into_iter().chain(makers(spec)).map(str::to_owned).collect()
}

/// What an Experiment refers to: see [`inputs::uses`].
pub fn uses_of_experiment(record: &ExperimentRecord) -> BTreeSet<String> {
    let template = record.status.template.as_deref().into_iter().flat_map(inputs::uses);
    let used = record.status.inputs.iter().map(|input| input.uri.clone());
    // What it took over lies where another one left it.
    let taken_over = record.status.artifacts.iter().filter(|_| record.status.reused_from.is_some());
    let taken_over = taken_over.map(|artifact| artifact.uri.clone());
    inputs::uses(&record.spec).chain(template).chain(used).chain(taken_over).collect()
}

/// What the stages of a Pipeline's spec, frozen or not, refer to.
pub fn uses_of_stages(spec: &Value) -> BTreeSet<String> {
    stages(spec).flat_map(inputs::uses).collect()
}

/// The stages of a Pipeline's spec, frozen or not.
pub fn stages(spec: &Value) -> impl Iterator<Item = &Value> {
    cultivar_core::dag::all(spec)
}

/// The experiments that a Pipeline's spec names.
pub fn of_pipeline(spec: &Value) -> BTreeSet<String> {
    stages(spec).flat_map(of_experiment).collect()
}

/// Whether an Experiment's spec, or a stage, may mean this experiment: by its name, by a selector, or by an input.
pub fn may_mean(spec: &Value, experiment: &str) -> bool {
    spec.get("from").is_some_and(|from| from.get("selector").is_some() || from["experiment"] == experiment)
        || makers(spec).any(|maker| maker == experiment)
}

/// The experiments that a frozen run was made from.
pub fn of_frozen(frozen: Option<&Value>) -> BTreeSet<String> {
    let names = frozen.into_iter().flat_map(stages).filter_map(|stage| stage["clonedFrom"]["name"].as_str());
    names.map(str::to_owned).collect()
}
