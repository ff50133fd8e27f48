//! Snapshots: everything that deciding about one object looks at, taken under one lock.

use cultivar_core::decide::experiment::queueing::Queueing;
use cultivar_core::decide::experiment::reuse;
use cultivar_core::decide::freeze::{Query, Sources, queries as queries_of};
use cultivar_core::decide::inputs;
use cultivar_core::decide::pipeline_run::{Child, GroupRun, queries, take_over};
use cultivar_core::decide::{experiment, pipeline, pipeline_run};
use cultivar_core::domain::{ExperimentRecord, Member, Producer, Record, RunRecord, StoreAccess, Stores, names};
use cultivar_crds::artifact_store::DEFAULT_STORE;
use cultivar_crds::{ExperimentStatus, labels};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::groups;
use super::index::{Index, Key};
use super::slot::{Slot, Status};
use super::state::State;
use super::store::Name;

/// A snapshot, and the record as the API server stores it.
pub struct View<Snapshot, Status> {
    /// For deciding.
    pub snapshot: Snapshot,
    /// For comparing and for conditional writes.
    pub stored: Arc<Record<Status>>,
}

// The queue that it stands in, or that it names.
fn queue_of<'a>(record: &'a ExperimentRecord, template: &'a Value) -> Option<&'a str> {
    let standing = record.status.queue.as_ref().and_then(|standing| standing.name.as_deref());
    standing.or_else(|| template.get("queue").and_then(Value::as_str))
}

pub(super) fn place(key: &Key) -> (String, String) {
    (key.namespace.clone(), key.name.clone())
}

impl Index {
    /// An experiment, or nothing if it is gone.
    pub fn experiment(
        &self,
        key: &Key,
        now: Timestamp,
    ) -> Option<View<experiment::Snapshot, cultivar_crds::ExperimentStatus>> {
        let state = self.lock();
        let slot = state.experiments.get(&place(key))?;
        let (stored, decided) = slot.versions();
        let record = decided.as_ref().unwrap_or(&stored);
        let uid = &record.meta.uid;
        let frozen = record.status.template.is_some();
        // A stage's spec is its template.
        let template = record.template();
        let jobs = state.work.jobs(&place(key)).iter();
        let jobs: Vec<_> = jobs.filter(|job| job.owner_uid == *uid).cloned().collect();
        let suspended = jobs.iter().find(|job| job.suspended).map(|job| job.uid.clone());
        let producers = state.producers_of(&key.namespace, template);
        let wanted = reuse::wanted(record, &producers);
        let snapshot = experiment::Snapshot {
            experiment: (**record).clone(),
            identical: wanted.iter().flat_map(|digest| state.identical_to(record, digest)).collect(),
            nearest: wanted.as_ref().and_then(|_| state.nearest_to(record)),
            sources: if frozen { Sources::new() } else { state.sources(&key.namespace, queries_of(&record.spec)) },
            referred: if record.meta.deleting { state.referred(record) } else { BTreeSet::new() },
            jobs,
            pods: state.work.pods(&place(key)).to_vec(),
            in_use: state.links.in_use(&key.namespace, &key.name),
            confirmed: state.confirmed.get(key).and_then(|confirmed| confirmed.attempt),
            refusal: state.refusals.get(key).cloned(),
            queueing: match template.get("admission") {
                None => self.queues.of(key, queue_of(record, template)),
                // The queues here have no say.
                Some(_) => Queueing { kueue: self.queues.of_kueue(key, suspended), ..Queueing::default() },
            },
            runner_image: self.data.runner_image.clone(),
            stores: Stores { named: state.store_of(&key.namespace, template), own: self.data.store.clone() },
            errands: state.errands.of(key),
            resolve_images: self.data.resolve_images,
            producers,
            now,
        };
        Some(View { snapshot, stored })
    }

    /// A run, or nothing if it is gone.
    pub fn pipeline_run(
        &self,
        key: &Key,
        now: Timestamp,
    ) -> Option<View<pipeline_run::Snapshot, cultivar_crds::PipelineRunStatus>> {
        let state = self.lock();
        let slot = state.runs.get(&place(key))?;
        let run = slot.current();
        let name = run.spec.get("pipeline").and_then(|name| name.as_str()).unwrap_or_default();
        let of = (key.namespace.clone(), name.to_owned());
        let slot_of_pipeline = state.pipelines.get(&of);
        let remembered = slot_of_pipeline.is_none_or(|slot| pipeline::remembers(&slot.stored(), &run));
        let pipeline = slot_of_pipeline.map(Slot::current);
        let sources = match &pipeline {
            Some(pipeline) if run.status.pipeline_spec.is_none() => {
                state.sources(&key.namespace, queries(&pipeline.spec))
            }
            _ => Sources::new(),
        };
        let siblings = state.runs_of.get(&of).into_iter().flatten().filter(|sibling| **sibling != key.name);
        let siblings = siblings.filter_map(|name| state.runs.get(&(key.namespace.clone(), name.clone())));
        let siblings = siblings.filter(|slot| !slot.head().is_nested());
        let resumed = run.spec.get("resumeOf").and_then(Value::as_str);
        let resumed = resumed.and_then(|name| state.runs.get(&(key.namespace.clone(), name.to_owned())));
        let children = state.children_of(&key.namespace, &run, RESUMES);
        let group = state.group_of(&key.namespace, &run);
        let confirmed = state.confirmed.get(key).cloned().unwrap_or_default();
        let snapshot = pipeline_run::Snapshot {
            run: (*run).clone(),
            pipeline,
            sources,
            siblings: siblings.map(Slot::current).collect(),
            children,
            approvals: state.approvals.of(&key.namespace, &key.name),
            group,
            resumed: resumed.map(Slot::current),
            confirmed_gone: confirmed.stages,
            stores: Stores { named: state.store_of(&key.namespace, &Value::Null), own: self.data.store.clone() },
            errands: state.errands.of(key),
            resolve_images: self.data.resolve_images,
            refusals: confirmed.refused_stages,
            remembered,
            in_use: if run.status.phase.is_terminal() {
                state.stages_in_use(&key.namespace, &run.meta.uid)
            } else {
                Vec::new()
            },
            now,
        };
        Some(View { snapshot, stored: slot.stored() })
    }

    /// A pipeline, or nothing if it is gone.
    pub fn pipeline(
        &self,
        key: &Key,
        now: Timestamp,
    ) -> Option<View<pipeline::Snapshot, cultivar_crds::PipelineStatus>> {
        let state = self.lock();
        let slot = state.pipelines.get(&place(key))?;
        let runs = state.runs_of.get(&place(key)).into_iter().flatten();
        let runs: Vec<_> = runs
            .filter_map(|name| state.runs.get(&(key.namespace.clone(), name.clone())))
            .filter(|slot| !slot.head().is_nested())
            .map(Slot::current)
            .collect();
        let in_use = runs
            .iter()
            .filter(|run| run.status.phase.is_terminal())
            .map(|run| (run.meta.uid.clone(), state.stages_in_use(&key.namespace, &run.meta.uid)))
            .filter(|(_, names)| !names.is_empty());
        let snapshot = pipeline::Snapshot {
            pipeline: (*slot.current()).clone(),
            in_use: in_use.collect(),
            runs: runs.clone(),
            now,
        };
        Some(View { snapshot, stored: slot.stored() })
    }
}

// By a run that goes on, again and again.
fn looked_at<S: Status>(slot: &Slot<S>, again: bool) -> Arc<Record<S>> {
    if again { slot.in_use() } else { slot.current() }
}

/// How many identical experiments under way are looked at, those that are waited for first. It is the first that counts,
/// unless it is about to end.
const UNDER_WAY: usize = 16;
/// How many results are looked at, the latest of them: one is enough, unless its artifacts are gone.
const RESULTS: usize = 4;

/// How many runs that resume one another are followed back.
const RESUMES: u32 = 16;

impl State {
    // The other unfinished runs of a run's group; those that it is part of have the place that it needs.
    pub(super) fn group_of(&self, namespace: &str, run: &RunRecord) -> Vec<GroupRun> {
        let Some(group) = groups::group_of(&run.status).filter(|_| run.status.started_at.is_none()) else {
            return Vec::new();
        };
        let at = |name: &str| self.runs.get(&(namespace.to_owned(), name.to_owned()));
        let outer = |run: &RunRecord| {
            let owner = run.meta.owner.as_ref().filter(|owner| owner.kind == "PipelineRun");
            owner.map(|owner| owner.name.clone())
        };
        let mut around = vec![run.meta.name.clone()];
        let mut next = outer(run);
        while let Some(name) = next.filter(|_| around.len() < 16) {
            next = at(&name).and_then(|slot| outer(&slot.current()));
            around.push(name);
        }
        let others = self.groups.runs(namespace, group).filter(|name| !around.contains(name));
        let others = others.filter_map(|name| at(name)).map(|slot| {
            let other = slot.current();
            let has_begun = other.status.started_at.is_some()
                || self.stages.contains_key(&other.meta.uid)
                || self.groups.has_place(namespace, group, &other.meta.name);
            GroupRun { run: other, has_begun }
        });
        others.collect()
    }

    // What stands for the stages of a run: its own, and what completed in the run that it resumes.
    fn children_of(&self, namespace: &str, run: &RunRecord, resumes: u32) -> BTreeMap<Member, Child> {
        let at = |name: &String| (namespace.to_owned(), name.clone());
        let ended = run.status.phase.is_terminal();
        let experiments = self.stages.get(&run.meta.uid).into_iter().flatten().filter_map(|(member, name)| {
            Some((member.clone(), Child::Experiment(looked_at(self.experiments.get(&at(name))?, !ended))))
        });
        let nested = self.nested.get(&run.meta.uid).into_iter().flatten().filter_map(|(member, name)| {
            Some((member.clone(), Child::Run(looked_at(self.runs.get(&at(name))?, !ended))))
        });
        let own = experiments.chain(nested).collect();
        let old = run.spec.get("resumeOf").and_then(Value::as_str).filter(|_| resumes > 0);
        match old.and_then(|name| self.runs.get(&(namespace.to_owned(), name.to_owned()))) {
            Some(old) => take_over(own, self.children_of(namespace, &old.current(), resumes - 1)),
            None => own,
        }
    }

    // A query by labels looks at every experiment of the namespace: it is asked once per clone, when it freezes.
    fn sources(&self, namespace: &str, queries: impl IntoIterator<Item = Query>) -> Sources {
        let answer = |query: &Query| match query {
            Query::Name(name) => {
                let slot = self.experiments.get(&(namespace.to_owned(), name.clone()));
                slot.filter(|slot| !slot.head().deleting).map(Slot::current).into_iter().collect()
            }
            Query::Labels(labels) => self
                .experiments
                .iter()
                .filter(|((within, _), slot)| within == namespace && !slot.head().deleting)
                .filter(|(_, slot)| slot.head().has_labels(labels))
                .map(|(_, slot)| slot.current())
                .collect(),
        };
        queries
            .into_iter()
            .map(|query| {
                let found = answer(&query);
                (query, found)
            })
            .collect()
    }

    // Whether nobody who does the same has begun.
    pub(super) fn is_first(&self, place: &Name) -> bool {
        let Some(record) = self.experiments.get(place).map(Slot::current) else { return true };
        let template = record.template();
        let producers = self.producers_of(&place.0, template);
        let Some(digest) = reuse::wanted(&record, &producers) else { return true };
        let mut others = self.identical_to(&record, &digest);
        !others.any(|other| {
            let name = (other.meta.namespace.clone(), other.meta.name.clone());
            let begun = other.status.attempt.is_some() || self.beginning.contains(&name);
            begun && !other.status.phase.is_terminal()
        })
    }

    fn identical_to<'s>(
        &'s self,
        record: &'s ExperimentRecord,
        digest: &'s str,
    ) -> impl Iterator<Item = Arc<ExperimentRecord>> + 's {
        let namespace = &record.meta.namespace;
        let is_other = |(_, name): &Name| *name != record.meta.name;
        // Most results have to be unpacked.
        let results = self.identical.results(namespace, digest).filter(is_other).take(RESULTS);
        let under_way = self.identical.under_way(namespace, digest).filter(is_other).take(UNDER_WAY);
        results.chain(under_way).filter_map(move |name| {
            let other = self.experiments.get(&name)?.current();
            (self.identical.digest(&name, &other) == Some(digest)).then(|| self.as_begun(&name, other))
        })
    }

    // One whose Job is there has begun, also when the operator died before that was stored.
    fn as_begun(&self, name: &Name, other: Arc<ExperimentRecord>) -> Arc<ExperimentRecord> {
        if other.status.phase.is_terminal() || other.status.attempt.is_some() {
            return other;
        }
        match self.work.jobs(name).iter().filter(|job| job.owner_uid == other.meta.uid).map(|job| job.attempt).max() {
            Some(attempt) => {
                let status = ExperimentStatus { attempt: Some(attempt), ..(*other.status).clone() };
                Arc::new(ExperimentRecord { status: Arc::new(status), ..(*other).clone() })
            }
            None => other,
        }
    }

    // Of the same stage in the latest other run of the pipeline in which that has ended; or whose clone it is.
    fn nearest_to(&self, record: &ExperimentRecord) -> Option<Arc<ExperimentRecord>> {
        let namespace = &record.meta.namespace;
        let at = |name: &str| (namespace.clone(), name.to_owned());
        let ended = |name: &str| self.experiments.get(&at(name)).filter(|slot| slot.phase().is_terminal());
        let of_stage = || {
            let (member, owner) = names::member_of(&record.meta).zip(record.meta.owner.as_ref())?;
            let runs = self.runs_of.get(&at(record.meta.label(labels::PIPELINE)?)).into_iter().flatten();
            let others = runs.filter_map(|name| {
                let run = self.runs.get(&at(name)).filter(|slot| *slot.head().uid != *owner.uid)?;
                let child = ended(self.stages.get(&*run.head().uid)?.get(&member)?)?.current();
                let finished = child.status.times.as_ref().and_then(|times| times.finished.clone());
                Some((finished, child))
            });
            others.max_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, child)| child)
        };
        of_stage().or_else(|| ended(&reuse::source_of(record)?).map(Slot::current))
    }

    // The ArtifactStore that a template names, or the namespace's default one.
    fn store_of(&self, namespace: &str, template: &Value) -> Option<StoreAccess> {
        let name = template.get("store").and_then(Value::as_str).unwrap_or(DEFAULT_STORE);
        self.stores.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub(super) fn producers_of(&self, namespace: &str, template: &Value) -> BTreeMap<String, Producer> {
        let made = |uri: &str| self.producers.get(&(namespace.to_owned(), uri.to_owned())).cloned();
        inputs::uris(template).filter_map(|uri| Some((uri.to_owned(), made(uri)?))).collect()
    }

    fn stages_in_use(&self, namespace: &str, run_uid: &str) -> Vec<String> {
        let names = self.stages.get(run_uid).into_iter().flat_map(BTreeMap::values);
        names
            .filter(|name| self.links.in_use(namespace, name).is_some())
            .filter(|name| {
                let slot = self.experiments.get(&(namespace.to_owned(), (*name).clone()));
                slot.is_some_and(|slot| slot.head().owner.is_some())
            })
            .cloned()
            .collect()
    }
}
