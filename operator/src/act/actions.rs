//! One method per action. "Already exists" with our owner is success; with another owner an error.

use cultivar_core::decide::experiment::Refusal;
use cultivar_core::decide::{Action, NewRun, NewScheduled};
use cultivar_core::domain::{Equipment, Member, Meta, Placement, Record, names, settings, text};
use cultivar_core::render;
use cultivar_crds::{CancelMode, Reason, labels};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

use super::{Act, ActError, ours};
use crate::observe::raw::Raw;
use crate::observe::{Key, Kind, convert};
use crate::telemetry::metrics::Outcome;

/// What an attempt is started with.
struct Attempt<'a> {
    number: u32,
    template: &'a Value,
    equipment: Option<Equipment>,
    placement: Option<Placement>,
}

impl Act {
    /// Does one thing.
    pub(super) async fn perform<S>(
        self: &Arc<Self>,
        key: &Key,
        about: &Record<S>,
        action: Action,
    ) -> Result<(), ActError> {
        let meta = &about.meta;
        let namespace = &key.namespace;
        match action {
            Action::Ask(ask) => {
                self.queues.ask(key, ask);
                Ok(())
            }
            Action::StartAttempt { number, template, equipment, placement } => {
                if number == 1 && !self.index.begin_work(key) {
                    return Err(ActError::Refused { doing: "another experiment does the same by now".to_owned() });
                }
                let attempt = Attempt { number, template: &template, equipment, placement };
                self.start_attempt(key, meta, attempt).await
            }
            Action::OfferService { number, job_uid } => self.offer_service(meta, number, &job_uid).await,
            Action::StopAttempt { job } | Action::DeleteJob { job } => self.calls.delete_job(namespace, &job).await,
            Action::Confirm { number } => self.confirm(key, meta, number).await,
            Action::Run(errand) => {
                self.run(key, errand);
                Ok(())
            }
            Action::ConfirmStage { member, experiment, nested } => {
                let kind = if nested { Kind::PipelineRun } else { Kind::Experiment };
                self.confirm_stage(key, &member, kind, &experiment).await
            }
            Action::CreateStage(new) => {
                self.create_child(key, meta, &new.member, Kind::Experiment, &render::stage(meta, &new)).await
            }
            Action::EnterGroup { group, limit } => {
                if self.index.enter_group(key, &group, limit) {
                    return Ok(());
                }
                Err(ActError::Refused { doing: format!("group {group} is full by now") })
            }
            Action::CreateNested(new) => {
                self.create_child(key, meta, &new.member, Kind::PipelineRun, &render::nested(meta, &new)).await
            }
            Action::CreateRun(new) => self.create_run(meta, &new).await,
            Action::CreateScheduled(new) => self.create_scheduled(key, meta, &new).await,
            Action::CancelExperiment { name } => self.cancel(Kind::Experiment, namespace, &name, None).await,
            Action::CancelRun { name, mode } => self.cancel(Kind::PipelineRun, namespace, &name, mode).await,
            Action::NoteVerdict { verdict } => {
                self.note_verdict(key, meta, verdict);
                Ok(())
            }
            Action::HoldForArtifacts => self.set_finalizer(key, meta, true).await,
            Action::ReleaseDeleted => self.set_finalizer(key, meta, false).await,
            Action::ReleaseExperiment { name } => {
                let patch = json!({"metadata": {"ownerReferences": null}});
                if let Some(object) = self.calls.patch(Kind::Experiment, namespace, &name, patch).await? {
                    self.take_in(Kind::Experiment, object);
                }
                // The run that it leaves can go now.
                self.index.look_at(key);
                Ok(())
            }
            Action::DeleteExperiment { name, uid } => self.calls.delete(Kind::Experiment, namespace, &name, &uid).await,
            Action::DeleteRun { name, uid } => self.calls.delete(Kind::PipelineRun, namespace, &name, &uid).await,
        }
    }

    async fn start_attempt(&self, key: &Key, meta: &Meta, attempt: Attempt<'_>) -> Result<(), ActError> {
        let Attempt { number, template, equipment, placement } = attempt;
        self.index.clear_refusal(key);
        if equipment.as_ref().and_then(|equipment| equipment.store.as_ref()).is_some_and(|store| store.own) {
            match self.stores.ensure(&self.calls, &key.namespace).await {
                Err(error) if !matches!(error.outcome(), Outcome::Transient | Outcome::Conflict) => {
                    let words = format!("the namespace's credentials for the artifact store: {error}");
                    return self.refuse(key, Reason::JobRefused, words);
                }
                done => done?,
            }
        }
        let manifest = match render::job(meta, number, template, equipment.as_ref(), placement.as_ref()) {
            Ok(manifest) => manifest,
            Err(error) => return self.refuse(key, error.reason, error.message),
        };
        let job = match self.calls.create_job(&key.namespace, &manifest).await {
            Ok(job) => job,
            Err(error) if error.already_exists() => {
                let name = names::job(&meta.name, &meta.uid, number);
                let taken = || ActError::NameTaken { doing: "creating the Job".to_owned(), name: name.clone() };
                // Gone again between the two calls: the next pass sees that.
                let Some(job) = self.calls.get_job(&key.namespace, &name).await? else { return Err(error) };
                let owners = job.metadata.owner_references.as_deref().unwrap_or_default();
                if !owners.iter().any(|owner| owner.uid == meta.uid) {
                    return self.refuse(key, Reason::JobRefused, taken().to_string());
                }
                job
            }
            Err(error) => {
                let words = format!("the API server refuses the Job: {}", error.words());
                return match error.outcome() {
                    Outcome::Invalid => self.refuse(key, Reason::InvalidTemplate, words),
                    Outcome::Quota => self.refuse(key, Reason::WaitingForQuota, words),
                    // A policy, or a right that is missing in this namespace: somebody may mend it.
                    Outcome::Fatal => self.refuse(key, Reason::JobRefused, words),
                    _ => Err(error),
                };
            }
        };
        if let Some(owner) = meta.owner.as_ref().filter(|_| number == 1)
            && let Some(ended) = self.index.stage_end(&owner.uid)
        {
            self.metrics.stage_gap(ended.elapsed());
        }
        let record = convert::job(job);
        let uid = record.uid.clone();
        self.index.apply_job(record);
        if settings::workers(template) > 1 {
            self.offer_service(meta, number, &uid).await?;
        }
        Ok(())
    }

    async fn offer_service(&self, meta: &Meta, number: u32, job_uid: &str) -> Result<(), ActError> {
        match self.calls.create_service(&meta.namespace, &render::service(meta, number, job_uid)).await {
            // Its name is that of this one Job.
            Err(error) if error.already_exists() => Ok(()),
            answer => answer,
        }
    }

    async fn set_finalizer(&self, key: &Key, meta: &Meta, wanted: bool) -> Result<(), ActError> {
        let Some(object) = self.calls.get(key.kind, &key.namespace, &key.name).await? else { return Ok(()) };
        if object.metadata.uid.as_deref() != Some(&meta.uid) {
            return Ok(());
        }
        let patch = ours::finalizer(&object.metadata, labels::ARTIFACTS_FINALIZER, wanted);
        if let Some(object) = self.calls.patch(key.kind, &key.namespace, &key.name, patch).await? {
            self.take_in(key.kind, object);
        }
        Ok(())
    }

    // Put down for the next pass to decide about. This pass must not go on as if the Job existed.
    fn refuse(&self, key: &Key, reason: Reason, message: String) -> Result<(), ActError> {
        self.index.refuse_attempt(key, Refusal { reason, message: text::message(message), at: Timestamp::now() });
        Err(ActError::Refused { doing: format!("refused ({reason})") })
    }

    // The index can be behind or, after a new list, for a moment even older than it was.
    async fn confirm(&self, key: &Key, meta: &Meta, number: u32) -> Result<(), ActError> {
        let name = names::job(&meta.name, &meta.uid, number);
        let job = self.calls.get_job(&key.namespace, &name).await?;
        let selector = format!("{}={},{}={number}", labels::EXPERIMENT, meta.name, labels::ATTEMPT);
        let pods = self.calls.list_pods(&key.namespace, &selector).await?;
        let job_uid = job.as_ref().and_then(|job| job.metadata.uid.clone());
        let mut job_ended = job.is_none();
        if let Some(job) = job {
            let job = convert::job(job);
            job_ended = job.state != cultivar_core::domain::JobState::Active || job.deleting;
            self.index.apply_job(job);
        }
        let mut found = false;
        for pod in pods.into_iter().map(|pod| convert::pod(pod, false)) {
            // A pod of an earlier namesake, orphaned, is none of ours.
            let ours = job_uid.as_ref().map_or(pod.created >= meta.created, |uid| *uid == pod.job_uid);
            if ours {
                found = true;
                self.index.apply_pod(pod);
            }
        }
        if !found && job_ended {
            self.index.confirm_attempt(key, number);
        }
        Ok(())
    }

    async fn cancel(&self, kind: Kind, namespace: &str, name: &str, mode: Option<CancelMode>) -> Result<(), ActError> {
        let mut patch = json!({"spec": {"cancel": true}});
        if let Some(mode) = mode {
            patch["spec"]["cancelMode"] = json!(mode);
        }
        if let Some(object) = self.calls.patch(kind, namespace, name, patch).await? {
            self.take_in(kind, object);
        }
        Ok(())
    }

    async fn confirm_stage(&self, key: &Key, member: &Member, kind: Kind, name: &str) -> Result<(), ActError> {
        match self.calls.get(kind, &key.namespace, name).await? {
            Some(object) => self.take_in(kind, object),
            None => self.index.confirm_stage_gone(key, member),
        }
        Ok(())
    }

    // The experiment or the nested run of a stage.
    async fn create_child(
        &self,
        key: &Key,
        run: &Meta,
        member: &Member,
        kind: Kind,
        manifest: &Value,
    ) -> Result<(), ActError> {
        match self.calls.create(kind, &key.namespace, manifest).await {
            Ok(object) => self.take_in(kind, object),
            Err(error) if error.already_exists() => {
                let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
                let object = self.existing(kind, &key.namespace, name, &run.uid).await?;
                self.take_in(kind, object);
            }
            Err(error) if error.outcome() == Outcome::Invalid => {
                self.index.refuse_stage(key, member, text::message(error.words()));
                return Err(ActError::Refused { doing: format!("stage {member}: {}", error.words()) });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn create_run(&self, pipeline: &Meta, new: &NewRun) -> Result<(), ActError> {
        let manifest = render::run(pipeline, new);
        let object = match self.calls.create(Kind::PipelineRun, &pipeline.namespace, &manifest).await {
            Err(error) if error.already_exists() => {
                self.existing(Kind::PipelineRun, &pipeline.namespace, &new.name, &pipeline.uid).await?
            }
            answer => answer?,
        };
        self.take_in(Kind::PipelineRun, object);
        Ok(())
    }

    // What is refused is put down, and tried again after a while: the time is not passed over meanwhile.
    async fn create_scheduled(&self, key: &Key, schedule: &Meta, new: &NewScheduled) -> Result<(), ActError> {
        let manifest = render::scheduled(schedule, new);
        let object = match self.calls.create(Kind::PipelineRun, &schedule.namespace, &manifest).await {
            Err(error) if error.already_exists() => {
                let found = self.existing(Kind::PipelineRun, &schedule.namespace, &new.name, &new.pipeline.uid).await;
                match found {
                    Err(error @ ActError::NameTaken { .. }) => {
                        return self.refuse(key, Reason::RunRefused, error.to_string());
                    }
                    found => found?,
                }
            }
            Err(error) if matches!(error.outcome(), Outcome::Invalid | Outcome::Quota | Outcome::Fatal) => {
                let words = format!("the API server refuses run {}: {}", new.name, error.words());
                return self.refuse(key, Reason::RunRefused, words);
            }
            answer => answer?,
        };
        self.index.clear_refusal(key);
        self.take_in(Kind::PipelineRun, object);
        Ok(())
    }

    async fn existing(&self, kind: Kind, namespace: &str, name: &str, owner: &str) -> Result<Raw, ActError> {
        let doing = || format!("creating {}", kind.as_str());
        let found = self.calls.get(kind, namespace, name).await?;
        let ours = |object: &Raw| {
            let owners = object.metadata.owner_references.as_deref().unwrap_or_default();
            let notes = object.metadata.annotations.as_ref();
            // A run that stays without its pipeline has no owner.
            let made_by = notes.and_then(|notes| notes.get(labels::PIPELINE_UID)).filter(|_| owners.is_empty());
            owners.iter().any(|reference| reference.uid == owner) || made_by.is_some_and(|uid| uid == owner)
        };
        found.filter(ours).ok_or_else(|| ActError::NameTaken { doing: doing(), name: name.to_owned() })
    }
}
