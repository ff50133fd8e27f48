//! Deciding: a snapshot and a time in, a plan out.
//!
//! One file or folder per kind, with the same names as the controllers that call it. A [`Plan`] has
//! ordered actions in words a person would use, the wanted status, events, and the next wake-up.

pub mod experiment;
pub mod freeze;
pub mod images;
pub mod inputs;
pub mod pipeline;
pub mod pipeline_run;
pub mod queue;
pub mod restore;
pub mod schedule;

use cultivar_crds::{CancelMode, ClonedFrom, Reason};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::sync::Arc;

use crate::domain::{Equipment, Errand, Member, Meta, Placement};

use self::queue::Ask;

/// When a changed status must be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// When there is time: other news of what waits as before, and might be told something else again. It is decided on anew.
    Later,
    /// Soon: progress for a person to see; several changes may share one write.
    Soon,
    /// Now, beside or after the actions.
    Now,
    /// Before anything else is done: the next pass continues from what was stored.
    First,
}

/// What to do about one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<S> {
    /// In order; each safe to repeat.
    pub actions: Vec<Action>,
    /// The wanted status.
    pub status: S,
    /// How soon a changed status must be stored.
    pub urgency: Urgency,
    /// For `kubectl describe`.
    pub events: Vec<Event>,
    /// When to look again if nothing happens.
    pub wake_at: Option<Timestamp>,
}

impl<S> Plan<S> {
    /// A plan that changes nothing yet.
    pub fn new(status: S) -> Self {
        Self { actions: Vec::new(), status, urgency: Urgency::Soon, events: Vec::new(), wake_at: None }
    }

    /// Looks again at `moment`, or earlier if that was asked for already.
    pub fn wake(&mut self, moment: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(moment, |earlier| earlier.min(moment)));
    }

    /// Stores the status at least this soon.
    pub fn urge(&mut self, urgency: Urgency) {
        self.urgency = self.urgency.max(urgency);
    }
}

/// An event for `kubectl describe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether something is wrong.
    pub warning: bool,
    /// Machine-readable cause.
    pub reason: Reason,
    /// For a person.
    pub message: String,
}

/// One thing to do. Names are within the namespace of the object that the plan is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Ask the experiment's queue for leave to start an attempt.
    Ask(Ask),
    /// Create the Job of an attempt.
    StartAttempt {
        /// Number of the attempt, from 1.
        number: u32,
        /// The frozen template.
        template: Arc<Value>,
        /// What the pod is given for the data plane; nothing: the program runs as it is.
        equipment: Option<Equipment>,
        /// Where its queue has admitted it to; nothing where there is none.
        placement: Option<Placement>,
    },
    /// Make the Service by which the workers of an attempt find each other, where its Job is there already.
    OfferService {
        /// Number of the attempt.
        number: u32,
        /// Uid of its Job.
        job_uid: String,
    },
    /// Delete a Job whose attempt must end; its pods get their grace period.
    StopAttempt {
        /// Name of the Job.
        job: String,
    },
    /// Delete a Job whose end has been recorded for a while.
    DeleteJob {
        /// Name of the Job.
        job: String,
    },
    /// Ask the API server itself for an attempt's Job and pods, before absence is believed.
    Confirm {
        /// Number of the attempt.
        number: u32,
    },
    /// Do something outside the API server, beside the passes.
    Run(Errand),
    /// Ask the API server itself for a stage's experiment, before absence is believed.
    ConfirmStage {
        /// Which stage, or which member of its fan-out.
        member: Member,
        /// Name of the Experiment, or of the PipelineRun.
        experiment: String,
        /// Whether it is a PipelineRun.
        nested: bool,
    },
    /// Delete an Experiment whose time to live is over.
    DeleteExperiment {
        /// Name.
        name: String,
        /// Uid: a later namesake is left alone.
        uid: String,
    },
    /// Create the Experiment of a stage.
    CreateStage(Box<NewStage>),
    /// Ask an Experiment to end.
    CancelExperiment {
        /// Name.
        name: String,
    },
    /// Take a place in the run's concurrency group, or fail and be asked again.
    EnterGroup {
        /// Name of the group.
        group: String,
        /// How many runs of it run at a time.
        limit: u32,
    },
    /// Create the run of a stage that runs another pipeline.
    CreateNested(Box<NewNested>),
    /// Ask a run to end.
    CancelRun {
        /// Name.
        name: String,
        /// How, where not the run itself says it.
        mode: Option<CancelMode>,
    },
    /// Create the next run of a pipeline.
    CreateRun(NewRun),
    /// Create the run of a schedule's time.
    CreateScheduled(Box<NewScheduled>),
    /// Delete a run beyond the history limit.
    DeleteRun {
        /// Name.
        name: String,
        /// Uid.
        uid: String,
    },
    /// Write down in an annotation what came of the object.
    NoteVerdict {
        /// The annotation's text.
        verdict: String,
    },
    /// Put the finalizer on an Experiment whose artifacts are deleted with it.
    HoldForArtifacts,
    /// Take the finalizer off a deleted Experiment: nothing more is to be done.
    ReleaseDeleted,
    /// Take an Experiment out of its run's ownership, since something names it in `from`.
    ReleaseExperiment {
        /// Name.
        name: String,
    },
}

impl Action {
    /// What is done, in a word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ask(_) => "Ask",
            Self::StartAttempt { .. } => "StartAttempt",
            Self::OfferService { .. } => "OfferService",
            Self::StopAttempt { .. } => "StopAttempt",
            Self::DeleteJob { .. } => "DeleteJob",
            Self::Confirm { .. } => "Confirm",
            Self::Run(Errand::ReadResult(_)) => "ReadResult",
            Self::Run(Errand::ReadRecord(_)) => "ReadRecord",
            Self::Run(Errand::DeleteArtifacts(_)) => "DeleteArtifacts",
            Self::Run(Errand::Publish(_)) => "Publish",
            Self::Run(Errand::FindLocalQueue(_)) => "FindLocalQueue",
            Self::Run(Errand::FindArtifacts(_)) => "FindArtifacts",
            Self::Run(Errand::ResolveImage(_)) => "ResolveImage",
            Self::ConfirmStage { .. } => "ConfirmStage",
            Self::DeleteExperiment { .. } => "DeleteExperiment",
            Self::CreateStage(_) => "CreateStage",
            Self::CancelExperiment { .. } => "CancelExperiment",
            Self::EnterGroup { .. } => "EnterGroup",
            Self::CreateNested(_) => "CreateNested",
            Self::CancelRun { .. } => "CancelRun",
            Self::CreateRun(_) => "CreateRun",
            Self::CreateScheduled(_) => "CreateScheduled",
            Self::DeleteRun { .. } => "DeleteRun",
            Self::NoteVerdict { .. } => "NoteVerdict",
            Self::HoldForArtifacts => "HoldForArtifacts",
            Self::ReleaseDeleted => "ReleaseDeleted",
            Self::ReleaseExperiment { .. } => "ReleaseExperiment",
        }
    }
}

/// The Experiment of a stage, to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewStage {
    /// Name of the Experiment.
    pub name: String,
    /// Which stage, or which member of its fan-out.
    pub member: Member,
    /// Where a member stands, by axis; nothing for a stage that does not fan out.
    pub coordinates: Option<Map<String, Value>>,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Its spec: the effective template, outer references resolved, and its priority.
    pub spec: Value,
    /// Whose copy it is.
    pub cloned_from: Option<ClonedFrom>,
}

/// The run of a stage that runs another pipeline, to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewNested {
    /// Name of the PipelineRun.
    pub name: String,
    /// Which stage, or which member of its fan-out or turn of its loop.
    pub member: Member,
    /// Name of the pipeline that is run.
    pub pipeline: String,
    /// Its parameters.
    pub params: Map<String, Value>,
    /// Digest that it must have.
    pub digest: Option<String>,
    /// The pipelines around it, the outermost first.
    pub nested_in: Vec<String>,
    /// The time that the run around it is for.
    pub scheduled_time: Option<String>,
    /// What the run around it says about reuse.
    pub cache: Option<Value>,
}

/// A run, to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRun {
    /// Name of the PipelineRun.
    pub name: String,
    /// Its revision.
    pub revision: i64,
    /// Digest of the part of the pipeline's spec that starts runs.
    pub digest: String,
    /// Generation of the pipeline.
    pub generation: i64,
    /// Value of the pipeline's `rerun`.
    pub rerun: Option<String>,
    /// Whether that is a new one: nothing is reused.
    pub refresh: bool,
    /// Whether it goes with its pipeline.
    pub owned: bool,
    /// How long it is kept after its end.
    pub ttl: Option<String>,
}

/// The run of a schedule's time, to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewScheduled {
    /// Name of the PipelineRun.
    pub name: String,
    /// The pipeline, which owns the run as it does its others.
    pub pipeline: Meta,
    /// Its parameters.
    pub params: Map<String, Value>,
    /// The time that it is for, with its zone.
    pub time: String,
    /// Range of the backfill that it is of.
    pub backfill: Option<String>,
    /// Whether it may run beside others of its schedule, whatever the pipeline says.
    pub side_by_side: bool,
    /// Whether it goes with its pipeline.
    pub owned: bool,
    /// How long it is kept after its end.
    pub ttl: Option<String>,
}

/// JSON of an object, or an empty one.
pub(crate) fn object(value: Option<&Value>) -> Map<String, Value> {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}
