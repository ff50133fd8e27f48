//! Why something ended, waits or was refused: one enum for the whole product.
//!
//! To add a reason: add the variant here with its documentation and its [`Budget`], then return it
//! from the place in `cultivar-core` that decides. Numbers and names belong into the message.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which retry budget the end of an attempt spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// `retries.limit`: the program's own failures.
    User,
    /// `retries.infrastructure`: the cluster's failures.
    Infrastructure,
    /// None: the attempt is repeated for free.
    Free,
    /// Never retried.
    Final,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $budget:ident,)+) => {
        /// Machine-readable cause of a phase or condition; the message carries the particulars.
        #[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every reason of the product.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The reason as users read it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The retry budget that an attempt which ended for this reason spends.
            #[must_use]
            pub const fn budget(self) -> Budget {
                match self { $(Self::$name => Budget::$budget,)+ }
            }
        }
    };
}

reasons! {
    // Ends of an attempt that spend the user's budget.
    /// The program ended with a non-zero exit code.
    Error => User,
    /// The program ended well but did not report a declared output.
    OutputMissing => User,
    /// The kernel killed the program for its memory limit; the same limit would kill it again, so it is not retried.
    OutOfMemory => Final,
    /// The program ran longer than `timeouts.run`.
    DeadlineExceeded => User,
    /// The bytes of an input, or of the code, are not those that its digest names, or are broken or hostile.
    InputCorrupt => User,
    /// An input, or the code, is not there, or may not be read.
    InputUnavailable => User,
    /// The runner in the pod could not do its work, such as starting the command; the message says why.
    RunnerFailed => User,

    // Ends of an attempt that spend the infrastructure budget.
    /// The node or the eviction API removed the pod.
    Evicted => Infrastructure,
    /// The node vanished or stopped answering.
    NodeLost => Infrastructure,
    /// Somebody deleted the pod or its Job.
    PodDeleted => Infrastructure,
    /// The Job is complete but its pod, and with it the result, is gone.
    ResultLost => Infrastructure,
    /// The artifact store did not answer for minutes.
    StoreUnavailable => Infrastructure,

    // Ends of an attempt that spend nothing.
    /// A pod or a run of higher priority took the place, or a queue took back what it had lent.
    Preempted => Free,

    // Final.
    /// The run waited in its queue for longer than `timeouts.queue`.
    QueueTimeout => Final,
    /// The image could not be pulled within `timeouts.start`.
    ImagePullFailed => Final,
    /// No node could take the pod within `timeouts.start`.
    Unschedulable => Final,
    /// The pod did not start within `timeouts.start` for another cause, which the message names.
    StartTimeout => Final,
    /// The template does not make a valid pod, or the overrides do not fit the source.
    InvalidTemplate => Final,
    /// The experiment named in `from` ended without satisfying `require`.
    TemplateNotCompleted => Final,
    /// A reference names a value that does not exist.
    ReferenceUnresolved => Final,
    /// Somebody asked for the end with `cancel: true`.
    Cancelled => Final,
    /// A newer revision took the place of a run that had not started.
    Superseded => Final,
    /// Another run of the pipeline had not ended, and `concurrencyPolicy` is Forbid.
    RunForbidden => Final,
    /// The pipeline of a run that it had made was deleted.
    PipelineDeleted => Final,
    /// The experiment of a stage was deleted before it had ended.
    ExperimentDeleted => Final,
    /// A stage that this one depends on did not complete, or a failure stopped the run.
    StageFailed => Final,
    /// Somebody said no at a gate.
    Rejected => Final,
    /// The stage's `when` is false.
    ConditionFalse => Final,
    /// The stage fans out, and its matrix or count has no members.
    NoMembers => Final,
    /// The last turn of a loop has completed, and its condition does not hold.
    RepeatLimit => Final,
    /// Members of the stage's fan-out did not complete.
    MemberFailed => Final,

    // Waiting.
    /// Waits until the experiment named in `from` exists.
    TemplateNotFound => Final,
    /// Waits until the experiment named in `from` has ended.
    WaitingForTemplate => Final,
    /// Waits until the ArtifactStore that the experiment names exists.
    StoreNotFound => Final,
    /// Waits until the experiment that makes an input has ended.
    WaitingForInput => Final,
    /// The program has ended; its result, too large for a termination message, is being read from the store.
    ReadingResult => Final,
    /// Waits for an identical experiment that is under way, to take over its result.
    WaitingForIdentical => Final,
    /// Registries are asked for the digests of images that tags name, before anything begins.
    ResolvingImages => Final,
    /// The store is asked whether the artifacts of an identical experiment are still there.
    CheckingArtifacts => Final,
    /// The record that the experiment is made from is being read, and the artifacts in it are checked.
    ReadingRecord => Final,
    /// Waits for stages that have not ended.
    WaitingForStages => Final,
    /// A gate waits for an Approval, which says yes or no.
    WaitingForApproval => Final,
    /// Waits until another run of its concurrency group has ended.
    WaitingForGroup => Final,
    /// An artifact whose content a reference reads is being read from the store.
    ReadingArtifact => Final,
    /// Nothing starts while `suspend` is true.
    Suspended => Final,
    /// Waits for an experiment of the run to end: `maxParallel` are there already.
    WaitingForMaxParallel => Final,
    /// Every stage has ended, and those of `finally` run.
    Finishing => Final,
    /// Waits for an earlier run of the same pipeline to end.
    WaitingForRun => Final,
    /// The API server refuses a run that a schedule makes; tried again from time to time.
    RunRefused => Final,
    /// Times of a schedule got no run.
    TimesMissed => Final,
    /// Waits until the pipeline of the run exists and is accepted.
    PipelineNotFound => Final,
    /// Waits before the next attempt.
    BackingOff => Final,
    /// Waits for the pod to be placed on a node.
    WaitingForNode => Final,
    /// Waits for the container to start (image, volumes).
    WaitingForContainer => Final,
    /// Waits for the pods to end after a stop was asked for.
    Stopping => Final,
    /// The queue's quota is in use, or the API server refuses the Job for a quota of the namespace; tried again when
    /// something is released, and from time to time.
    WaitingForQuota => Final,
    /// The queue's quota would do, or what its cohort could lend, but others of the cohort hold it.
    WaitingForCohort => Final,
    /// Waits until those have ended that were stopped for it.
    WaitingForPreemption => Final,
    /// Waits behind others of its queue that come first.
    WaitingForTurn => Final,
    /// As many wait in the queue as it takes (`maxQueued`); it joins when one of them starts or leaves.
    QueueFull => Final,
    /// The queue admits nothing: it is on hold, drained, or being deleted.
    QueueHeld => Final,
    /// Waits until the Queue that the experiment names exists.
    QueueNotFound => Final,
    /// The cluster has Queues, and neither the experiment nor its namespace names one.
    QueueRequired => Final,
    /// Waits until the namespace has the LocalQueue of Kueue that the experiment names.
    LocalQueueNotFound => Final,
    /// Kueue has not admitted the Job yet.
    WaitingForKueue => Final,
    /// Kueue has stopped the Job, which starts again when Kueue admits it again.
    EvictedByKueue => Final,
    /// The queue does not take runs of this namespace.
    NamespaceNotAllowed => Final,
    /// The run asks for more than its queue can ever have.
    ExceedsCap => Final,
    /// No node could take one of its pods, even if it were empty.
    NoNodeFits => Final,
    /// The API server refuses the Job for a policy or a missing right; tried again from time to time.
    JobRefused => Final,

    // Conditions.
    /// The object is valid.
    Valid => Final,
    /// The object contradicts itself; the message has the field's path.
    Invalid => Final,
    /// The queue admits runs.
    Admits => Final,
    /// Queues of one cohort mean different nodes by one flavor's name.
    FlavorConflict => Final,
    /// Everything that was asked for has been done or is under way.
    UpToDate => Final,
    /// The program runs, or stages do.
    Running => Final,
    /// Ended well.
    Succeeded => Final,
    /// The result message was not used in full; the message says why.
    ResultMalformed => Final,
    /// An output's place could not be written into its ConfigMap.
    PublishFailed => Final,
    /// Artifacts could not be deleted with their experiment, and stay in the store.
    ArtifactsLeft => Final,
    /// An input has no digest, and its server names no version or ETag: what was read may not be there any more.
    InputUnpinned => Final,
    /// Every input is known by its digest, version or ETag.
    InputsPinned => Final,
    /// An image is known by a tag alone, which can be moved: nothing is reused from it.
    ImageUnpinned => Final,
    /// The image is known by its digest.
    ImagePinned => Final,
    /// The result message was understood.
    ResultAccepted => Final,
    /// A Pipeline, an Experiment or an unfinished run names this in `from`.
    Referenced => Final,
    /// Nothing names this in `from`.
    NotReferenced => Final,
    /// The newest value that `from.selector` could pick does not exist.
    NothingSelected => Final,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
