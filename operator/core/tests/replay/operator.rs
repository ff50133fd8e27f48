//! The operator: takes events, decides with the core, acts as `operator/src/act` does.
//!
//! Comes in: the cluster's events. Goes out: writes, and when to look at what again.

use cultivar_core::decide::experiment::Refusal;
use cultivar_core::decide::{Action, Plan, Urgency, experiment, pipeline, pipeline_run};
use cultivar_core::domain::{Errand, JobState, Meta, PodRecord, names, time};
use cultivar_core::render;
use cultivar_crds::{CancelMode, ExperimentStatus, PipelineRunStatus, PipelineStatus, labels};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::cluster::{Cluster, Event, Failure, Kind};
use super::index::{InFlight, Index, Indexed, Key, Write};

/// How long what only waits is told nothing new: anything from one to three hundred seconds.
const A_CROWD: Duration = Duration::from_secs(20);

/// The operator, from its start to its crash.
#[derive(Default)]
pub struct Operator {
    pub index: Index,
    pub timers: BTreeMap<Key, Timestamp>,
    /// Status writes that go on beside the passes.
    pub in_flight: BTreeMap<Key, InFlight>,
    /// When what only waits may be told other news.
    later: BTreeMap<Key, Timestamp>,
    /// Questions to registries that are under way.
    pub asked: BTreeSet<(Key, Errand)>,
}

impl Operator {
    /// A new operator lists everything before it does anything.
    pub fn start(cluster: &mut Cluster) -> Self {
        let mut operator = Self::default();
        operator.index.resolve_images = cluster.resolves_images;
        for kind in Kind::ALL {
            operator.relist(cluster, kind);
        }
        operator
    }

    /// The watch of a kind is set up again: what it would have told is lost, and everything is listed.
    pub fn relist(&mut self, cluster: &mut Cluster, kind: Kind) {
        cluster.queues.entry(kind).or_default().clear();
        let gone: Vec<Event> = match kind {
            Kind::Pipeline => self
                .index
                .pipelines
                .keys()
                .filter(|name| !cluster.pipelines.contains_key(*name))
                .map(|name| Event::Pipeline(name.clone(), None))
                .collect(),
            Kind::Run => self
                .index
                .runs
                .keys()
                .filter(|name| !cluster.runs.contains_key(*name))
                .map(|name| Event::Run(name.clone(), None))
                .collect(),
            Kind::Experiment => self
                .index
                .experiments
                .keys()
                .filter(|name| !cluster.experiments.contains_key(*name))
                .map(|name| Event::Experiment(name.clone(), None))
                .collect(),
            Kind::Job => self
                .index
                .jobs
                .values()
                .filter(|job| !cluster.jobs.contains_key(&job.name))
                .map(|job| Event::Job((**job).clone(), true))
                .collect(),
            Kind::Pod => self
                .index
                .pods
                .values()
                .filter(|pod| !cluster.pods.contains_key(&pod.name))
                .map(|pod| Event::Pod((**pod).clone(), true))
                .collect(),
            Kind::Approval => self
                .index
                .approvals
                .values()
                .filter(|said| !cluster.approvals.contains_key(&said.name))
                .map(|said| Event::Approval((**said).clone(), true))
                .collect(),
        };
        let there: Vec<Event> = match kind {
            Kind::Pipeline => cluster
                .pipelines
                .iter()
                .map(|(name, record)| Event::Pipeline(name.clone(), Some(record.clone())))
                .collect(),
            Kind::Run => {
                cluster.runs.iter().map(|(name, record)| Event::Run(name.clone(), Some(record.clone()))).collect()
            }
            Kind::Experiment => cluster
                .experiments
                .iter()
                .map(|(name, record)| Event::Experiment(name.clone(), Some(record.clone())))
                .collect(),
            Kind::Job => cluster.jobs.values().map(|job| Event::Job(job.clone(), false)).collect(),
            Kind::Pod => cluster.pods.values().map(|pod| Event::Pod(pod.clone(), false)).collect(),
            Kind::Approval => cluster.approvals.values().map(|said| Event::Approval(said.clone(), false)).collect(),
        };
        there.into_iter().chain(gone).for_each(|event| self.index.take(event));
    }

    pub fn wake_due(&mut self, now: Timestamp) {
        let due: Vec<Key> =
            self.timers.iter().filter(|(_, moment)| **moment <= now).map(|(key, _)| key.clone()).collect();
        for key in due {
            self.timers.remove(&key);
            self.index.queue.insert(key);
        }
    }

    /// One pass over one object: snapshot → decide → act.
    ///
    /// # Errors
    /// The crash, which leaves this operator unusable.
    pub fn pass(&mut self, cluster: &mut Cluster, key: &Key) -> Result<(), Failure> {
        self.index.queue.remove(key);
        let (now, name) = (cluster.now, &key.1);
        let result = match key.0 {
            Kind::Pipeline => self.index.pipeline(name, now).map(|snapshot| {
                let plan = pipeline::decide(&snapshot);
                self.check_same(cluster, key, &plan, || pipeline::decide(&snapshot));
                self.carry_out(cluster, key, plan)
            }),
            Kind::Run => self.index.run(name, now).map(|snapshot| {
                let plan = pipeline_run::decide(&snapshot);
                self.check_same(cluster, key, &plan, || pipeline_run::decide(&snapshot));
                self.carry_out(cluster, key, plan)
            }),
            _ => self.index.experiment(name, now).map(|snapshot| {
                let plan = experiment::decide(&snapshot);
                self.check_same(cluster, key, &plan, || experiment::decide(&snapshot));
                self.carry_out(cluster, key, plan)
            }),
        };
        let wake_at = match result {
            None => None,
            Some(Ok(wake_at)) => wake_at,
            Some(Err(Failure::Crash)) => return Err(Failure::Crash),
            Some(Err(failure)) => {
                cluster.note(format!("{key:?} failed: {failure:?}"));
                Some(time::after(now, Duration::from_millis(100)))
            }
        };
        match wake_at {
            Some(moment) => self.timers.insert(key.clone(), moment),
            None => self.timers.remove(key),
        };
        Ok(())
    }

    fn check_same<S: Indexed>(
        &self,
        cluster: &mut Cluster,
        key: &Key,
        plan: &Plan<S>,
        again: impl FnOnce() -> Plan<S>,
    ) {
        // Every eighth pass: deciding twice takes twice as long.
        if cluster.log.len().is_multiple_of(8) && *plan != again() {
            cluster.violated(format!("{key:?}: the same snapshot gave two plans"));
        }
        let words: Vec<&str> = plan.actions.iter().map(Action::name).collect();
        cluster.note(format!("pass over {key:?}: {words:?} {:?}", plan.urgency));
    }

    fn carry_out<S: Indexed>(
        &mut self,
        cluster: &mut Cluster,
        key: &Key,
        plan: Plan<S>,
    ) -> Result<Option<Timestamp>, Failure> {
        let (now, name) = (cluster.now, key.1.as_str());
        let Some(stored) = S::store(&mut self.index).get(name).map(|slot| Arc::clone(&slot.stored)) else {
            return Ok(None);
        };
        if plan.urgency == Urgency::First && plan.status != *stored.status {
            if self.index.begin_write::<S>(name) {
                self.index.forget::<S>(name);
                self.store(cluster, &Write { stored, status: plan.status })?;
            }
            return Ok(None);
        }
        // Stages last, and all of them are tried.
        let (stages, others): (Vec<_>, Vec<_>) =
            plan.actions.into_iter().partition(|action| matches!(action, Action::CreateStage(_)));
        let done: Result<(), Failure> =
            others.into_iter().chain(stages).try_for_each(|action| self.perform(cluster, key, &stored.meta, action));
        if let Err(failure) = done {
            self.index.forget::<S>(name);
            return Err(failure);
        }
        if plan.urgency == Urgency::Later && plan.status != *stored.status {
            // Not remembered until its turn comes.
            let turn = *self.later.entry(key.clone()).or_insert_with(|| time::after(now, A_CROWD));
            if turn > now {
                return Ok(Some(plan.wake_at.map_or(turn, |planned| planned.min(turn))));
            }
        }
        self.later.remove(key);
        self.index.publish(name, &stored.meta.uid, &plan.status, plan.urgency > Urgency::Soon, now);
        if plan.status == *stored.status {
            return Ok(plan.wake_at);
        }
        let waits = S::store(&mut self.index).get(name).filter(|slot| !slot.urgent).and_then(|slot| slot.dirty_since);
        let due = waits.map(|since| time::after(since, Duration::from_secs(S::SHARE_WRITES)));
        if let Some(due) = due.filter(|due| *due > now) {
            return Ok(Some(plan.wake_at.map_or(due, |planned| planned.min(due))));
        }
        // The write goes on beside: what the object does next does not wait for its record.
        if self.index.begin_write::<S>(name) {
            self.in_flight.insert(key.clone(), S::in_flight(Write { stored, status: plan.status }));
        }
        Ok(plan.wake_at)
    }

    /// A status write that is under way arrives.
    ///
    /// # Errors
    /// The crash.
    pub fn land(&mut self, cluster: &mut Cluster, key: &Key) -> Result<(), Failure> {
        match self.in_flight.remove(key) {
            Some(InFlight::Pipeline(write)) => self.store(cluster, &write),
            Some(InFlight::Run(write)) => self.store(cluster, &write),
            Some(InFlight::Experiment(write)) => self.store(cluster, &write),
            None => Ok(()),
        }
    }

    fn store<S: Indexed>(&mut self, cluster: &mut Cluster, write: &Write<S>) -> Result<(), Failure> {
        let name = &write.stored.meta.name;
        match cluster.replace_status(&write.stored.meta, &write.status) {
            Ok(record) => {
                self.index.apply(record);
                self.index.end_write(name, Some(&write.status), cluster.now);
            }
            Err(Failure::Crash) => return Err(Failure::Crash),
            Err(Failure::Gone) => {
                cluster.note(format!("the status of {name}: it is gone"));
                self.index.remove_if::<S>(name, &write.stored.meta.uid);
                return Ok(());
            }
            Err(failure) => {
                cluster.note(format!("the status of {name}: {failure:?}"));
                self.index.end_write::<S>(name, None, cluster.now);
            }
        }
        self.index.queue.insert((S::KIND, name.clone()));
        Ok(())
    }

    fn perform(&mut self, cluster: &mut Cluster, key: &Key, meta: &Meta, action: Action) -> Result<(), Failure> {
        match action {
            Action::Run(errand @ Errand::ResolveImage(_)) => {
                self.asked.insert((key.clone(), errand));
                Ok(())
            }
            // No scenario has a store, a queue or a schedule.
            Action::Ask(_)
            | Action::CreateScheduled(_)
            | Action::OfferService { .. }
            | Action::Run(_)
            // Decided and taken in one step here: nobody can come in between.
            | Action::EnterGroup { .. }
            | Action::HoldForArtifacts
            | Action::ReleaseDeleted => Ok(()),
            Action::NoteVerdict { verdict } => match key.0 {
                Kind::Pipeline => self.note::<PipelineStatus>(cluster, &key.1, &verdict),
                Kind::Run => self.note::<PipelineRunStatus>(cluster, &key.1, &verdict),
                _ => self.note::<ExperimentStatus>(cluster, &key.1, &verdict),
            },
            Action::StartAttempt { number, template, .. } => self.start_attempt(cluster, key, meta, number, &template),
            Action::StopAttempt { job } | Action::DeleteJob { job } => cluster.delete_job(&job),
            Action::Confirm { number } => {
                self.confirm(cluster, key, meta, number);
                Ok(())
            }
            Action::ConfirmStage { member, experiment, .. } => {
                match (cluster.experiments.get(&experiment), cluster.runs.get(&experiment)) {
                    (Some(record), _) => self.index.apply(record.clone()),
                    (None, Some(run)) => self.index.apply(run.clone()),
                    (None, None) => {
                        self.index.confirmed_stages.entry(key.clone()).or_default().insert(member);
                        self.index.queue.insert(key.clone());
                    }
                }
                Ok(())
            }
            Action::CreateStage(new) => self.create::<ExperimentStatus>(cluster, &render::stage(meta, &new), &meta.uid),
            Action::CreateNested(new) => {
                self.create::<PipelineRunStatus>(cluster, &render::nested(meta, &new), &meta.uid)
            }
            Action::CancelRun { name, mode } => self.cancel::<PipelineRunStatus>(cluster, &name, mode),
            Action::CreateRun(new) => self.create::<PipelineRunStatus>(cluster, &render::run(meta, &new), &meta.uid),
            Action::CancelExperiment { name } => self.cancel::<ExperimentStatus>(cluster, &name, None),
            Action::ReleaseExperiment { name } => {
                let patched = cluster.patch::<ExperimentStatus>(&name, |record| record.meta.owner = None)?;
                patched.into_iter().for_each(|record| self.index.apply(record));
                Ok(())
            }
            Action::DeleteExperiment { name, uid } => cluster.delete::<ExperimentStatus>(&name, &uid),
            Action::DeleteRun { name, uid } => cluster.delete::<PipelineRunStatus>(&name, &uid),
        }
    }

    fn cancel<S: Indexed>(
        &mut self,
        cluster: &mut Cluster,
        name: &str,
        mode: Option<CancelMode>,
    ) -> Result<(), Failure> {
        let patched = cluster.patch::<S>(name, |record| {
            let mut spec = (*record.spec).clone();
            spec["cancel"] = true.into();
            if let Some(mode) = mode {
                spec["cancelMode"] = serde_json::json!(mode);
            }
            record.spec = Arc::new(spec);
        })?;
        patched.into_iter().for_each(|record| self.index.apply(record));
        Ok(())
    }

    fn note<S: Indexed>(&mut self, cluster: &mut Cluster, name: &str, verdict: &str) -> Result<(), Failure> {
        let patched = cluster.patch::<S>(name, |record| {
            record.meta.annotations.insert(labels::VERDICT.to_owned(), verdict.to_owned());
        })?;
        patched.into_iter().for_each(|record| self.index.apply(record));
        Ok(())
    }

    fn start_attempt(
        &mut self,
        cluster: &mut Cluster,
        key: &Key,
        meta: &Meta,
        number: u32,
        template: &Value,
    ) -> Result<(), Failure> {
        self.index.refusals.remove(key);
        let manifest = match render::job(meta, number, template, None, None) {
            Ok(manifest) => manifest,
            Err(error) => {
                let refusal = Refusal { reason: error.reason, message: error.message, at: cluster.now };
                self.index.refusals.insert(key.clone(), refusal);
                self.index.queue.insert(key.clone());
                return Err(Failure::Refused);
            }
        };
        let job = match cluster.create_job(&manifest) {
            Err(Failure::Exists) => {
                let job = cluster.jobs[&names::job(&meta.name, &meta.uid, number)].clone();
                if job.owner_uid != meta.uid {
                    cluster.violated(format!("Job {} belongs to somebody else", job.name));
                }
                job
            }
            answer => answer?,
        };
        self.index.apply_job(job);
        Ok(())
    }

    // Absence is believed when the API server itself confirms it.
    fn confirm(&mut self, cluster: &Cluster, key: &Key, meta: &Meta, number: u32) {
        let job = cluster.jobs.get(&names::job(&meta.name, &meta.uid, number)).cloned();
        let labelled = |pod: &&PodRecord| pod.experiment == meta.name && pod.attempt == number;
        let pods: Vec<PodRecord> = cluster.pods.values().filter(labelled).cloned().collect();
        let over = job.as_ref().is_none_or(|job| job.state != JobState::Active || job.deleting);
        let uid = job.as_ref().map(|job| job.uid.clone());
        job.into_iter().for_each(|job| self.index.apply_job(job));
        if pods.is_empty() && over {
            self.index.confirmed_attempts.insert(key.clone(), number);
            self.index.queue.insert(key.clone());
        }
        for pod in pods.into_iter().filter(|pod| uid.as_ref().is_none_or(|uid| *uid == pod.job_uid)) {
            self.index.apply_pod(pod);
        }
    }

    fn create<S: Indexed>(&mut self, cluster: &mut Cluster, manifest: &Value, owner: &str) -> Result<(), Failure> {
        let record = match cluster.create_ours::<S>(manifest) {
            Err(Failure::Exists) => {
                let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
                let found = S::shelf(cluster).get(name).cloned().ok_or(Failure::Gone)?;
                if !found.meta.is_owned_by(owner) {
                    cluster.violated(format!("{name} belongs to somebody else"));
                }
                found
            }
            answer => answer?,
        };
        self.index.apply(record);
        Ok(())
    }
}
