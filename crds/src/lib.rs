//! The API types of Cultivar, group `cultivar.dev`, version `v1alpha1`.
//!
//! Comes in: nothing. Goes out: one Rust type per kind, from which [`manifest::all`] makes the
//! CustomResourceDefinitions. Documentation of a field here is what `kubectl explain` prints; the
//! CEL rules stand beside the field that they guard.

pub mod approval;
pub mod artifact_store;
pub mod cache;
pub mod data;
pub mod experiment;
pub mod fan_out;
pub mod labels;
pub mod manifest;
pub mod merge_keys;
pub mod phase;
pub mod pipeline;
pub mod pipeline_run;
pub mod queue;
pub mod reason;
pub mod reference;
pub mod schedule;
pub mod schema;
pub mod source;
pub mod template;

pub use approval::{Answer, Approval, ApprovalSpec};
pub use artifact_store::{ArtifactStore, ArtifactStoreSpec};
pub use cache::{Cache, CacheMode, CacheResult, CacheStatus, ReusedFrom};
pub use data::{Checkpoint, Input, Output};
pub use experiment::{
    Artifact, Attempt, ClonedFrom, Experiment, ExperimentSpec, ExperimentStatus, InputUsed, Metric, PhaseTimes,
    RecordAt,
};
pub use fan_out::{MAX_MEMBERS, Matrix, MemberEnds, MembersStatus};
pub use phase::Phase;
pub use pipeline::{
    Concurrency, ConcurrencyPolicy, DeletionPolicy, Gate, OnFailure, OnTimeout, ParamSchema, Pipeline, PipelineSpec,
    PipelineStatus, Repeat, RunOn, RunSummary, Stage, StageDependency, Until,
};
pub use pipeline_run::{CancelMode, GateStatus, PipelineRun, PipelineRunSpec, PipelineRunStatus, StageStatus};
pub use queue::{Queue, QueueSpec, QueueStatus};
pub use reason::Reason;
pub use schedule::{Schedule, ScheduleSpec, ScheduleStatus};
pub use source::{Git, Packed, Python, Source};
pub use template::{
    Admission, ArtifactPolicy, Best, ExperimentTemplate, From, Goal, Kueue, MetricUse, Pick, Require, Retries,
    Selector, Timeouts,
};

/// The API group of every kind.
pub const GROUP: &str = "cultivar.dev";
/// The served and stored version of every kind.
pub const VERSION: &str = "v1alpha1";
