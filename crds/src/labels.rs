//! Label and annotation keys that the operator writes and reads.

/// On every Experiment, Job and Pod of ours: `cultivar`.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const MANAGER: &str = "cultivar";
/// Name of the Experiment that a Job or Pod belongs to.
pub const EXPERIMENT: &str = "cultivar.dev/experiment";
/// Number of the attempt that a Job or Pod plays, from 1.
pub const ATTEMPT: &str = "cultivar.dev/attempt";
/// Name of the Pipeline.
pub const PIPELINE: &str = "cultivar.dev/pipeline";
/// Name of the PipelineRun.
pub const PIPELINE_RUN: &str = "cultivar.dev/pipeline-run";
/// Name of the stage within its pipeline.
pub const STAGE: &str = "cultivar.dev/stage";
/// Which member of its stage's fan-out an Experiment is, from 0.
pub const MEMBER: &str = "cultivar.dev/member";
/// Before the name of an axis: the member's coordinate on it, where it can be a label's value.
pub const COORDINATE_PREFIX: &str = "matrix.cultivar.dev/";
/// Name of the Schedule that made a run.
pub const SCHEDULE: &str = "cultivar.dev/schedule";
/// Revision of the Pipeline that a run executes, from 1.
pub const REVISION: &str = "cultivar.dev/revision";
/// Name of the Queue that a Job or Pod was admitted by.
pub const QUEUE: &str = "cultivar.dev/queue";
/// Name of the Queue's flavor that it was admitted to.
pub const FLAVOR: &str = "cultivar.dev/flavor";
/// On a namespace: the Queue of its experiments that name none.
pub const DEFAULT_QUEUE: &str = "cultivar.dev/default-queue";
/// On a Job and its Pods: JSON of what one pod holds of the queue, by resource in whole units (cpu in thousandths).
pub const HOLDS: &str = "cultivar.dev/holds";

/// Finalizer of an Experiment whose artifacts are deleted with it.
pub const ARTIFACTS_FINALIZER: &str = "cultivar.dev/artifacts";
/// Finalizer of a Queue: it stays until nothing is held of it.
pub const QUEUE_FINALIZER: &str = "cultivar.dev/queue";

/// On the Experiment of a stage: JSON `{name, uid, digest}` of the experiment its template came from.
pub const CLONED_FROM: &str = "cultivar.dev/cloned-from";
/// On the Experiment of a member of a fan-out: JSON of its coordinates, by axis.
pub const COORDINATES: &str = "cultivar.dev/coordinates";
/// On a PipelineRun that is a stage of another run: the pipelines around it, the outermost first, with / between them.
pub const NESTED_IN: &str = "cultivar.dev/nested-in";
/// On a PipelineRun: the time that it is for, with its zone: RFC 9557.
pub const SCHEDULED_TIME: &str = "cultivar.dev/scheduled-time";
/// On a PipelineRun made by a Schedule for a backfill: first and last day of that.
pub const BACKFILL: &str = "cultivar.dev/backfill";
/// On a PipelineRun made by a Schedule whose runs may run side by side: Allow.
pub const CONCURRENCY: &str = "cultivar.dev/concurrency";
/// On what is done: JSON of what came of it, for a backup that drops `status`.
pub const VERDICT: &str = "cultivar.dev/verdict";
/// On a PipelineRun made by its Pipeline: digest of the part of the spec that starts runs.
pub const PIPELINE_DIGEST: &str = "cultivar.dev/pipeline-digest";
/// On a PipelineRun made by its Pipeline: the value of `rerun` that it was made for.
pub const RERUN: &str = "cultivar.dev/rerun";
/// On a PipelineRun made by its Pipeline: the Pipeline's uid, which tells it from a namesake.
pub const PIPELINE_UID: &str = "cultivar.dev/pipeline-uid";
/// On a PipelineRun made by its Pipeline: the Pipeline's generation it was made for.
pub const PIPELINE_GENERATION: &str = "cultivar.dev/pipeline-generation";
