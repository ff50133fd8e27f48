//! Judging an attempt: from its Job and pods to how it stands or how it ended.
//!
//! The container's own state decides, since the Job's condition comes about a second later; the
//! condition is for attempts whose pod is gone.

use cultivar_crds::Reason;
use jiff::Timestamp;

use crate::domain::{ContainerState, Disruption, JobRecord, JobState, PodPhase, PodRecord, Terminated, text};
use crate::render::RUNNER;

/// How an attempt stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// Neither a Job nor a pod is known.
    Absent,
    /// Not running yet, with what it waits for.
    Starting {
        /// What the start timeout would call it.
        timeout: Reason,
        /// What it waits for.
        waits: Reason,
        /// In the cluster's words.
        message: String,
    },
    /// The program runs.
    Running {
        /// Since.
        since: Option<Timestamp>,
    },
    /// It ended.
    Ended(End),
    /// It seems to have ended without a trace; to be confirmed with the API server first.
    Vanished(End),
}

/// How an attempt ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct End {
    /// Nothing for exit code 0.
    pub reason: Option<Reason>,
    /// The particulars.
    pub message: String,
    /// Exit code, where one is known.
    pub exit_code: Option<i32>,
    /// Result message, or the tail of the log.
    pub output: String,
    /// When the program started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
}

/// Judges an attempt.
#[must_use]
pub fn judge(job: Option<&JobRecord>, pods: &[&PodRecord]) -> Standing {
    // A pod that ended counts before one that still runs, a live one before one that is gone.
    let pod = pods.iter().max_by_key(|pod| {
        let ended = matches!(pod.main, ContainerState::Terminated(_));
        (ended, !pod.gone, pod.created)
    });
    match (pod, job) {
        (Some(pod), Some(job)) if vanished_unseen(pod) && job.state != JobState::Active => judge_job(job),
        (Some(pod), _) => judge_pod(pod, job),
        (None, Some(job)) => judge_job(job),
        (None, None) => Standing::Absent,
    }
}

// Nobody saw how this pod ended: a watch was down. Its Job's condition has kept the cause.
fn vanished_unseen(pod: &PodRecord) -> bool {
    let seen = matches!(pod.main, ContainerState::Terminated(_)) || pod.disruption.is_some();
    pod.gone && !seen && !matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed)
}

fn judge_pod(pod: &PodRecord, job: Option<&JobRecord>) -> Standing {
    match &pod.main {
        ContainerState::Terminated(end) => Standing::Ended(ended(pod, end)),
        _ if pod.phase == PodPhase::Succeeded => Standing::Ended(End::default()),
        _ if pod.gone || pod.phase == PodPhase::Failed => Standing::Ended(without_container(pod)),
        ContainerState::Running(since) => Standing::Running { since: *since },
        ContainerState::Waiting { reason, message } => starting(reason, message),
        ContainerState::Unknown => match &pod.unschedulable {
            Some(message) => Standing::Starting {
                timeout: Reason::Unschedulable,
                waits: Reason::WaitingForNode,
                message: format!("no node takes the pod: {message}"),
            },
            None if pod.node.is_none() && job.is_some() => Standing::Starting {
                timeout: Reason::Unschedulable,
                waits: Reason::WaitingForNode,
                message: "the pod is not placed on a node yet".to_owned(),
            },
            None => starting("", ""),
        },
    }
}

fn starting(reason: &str, message: &str) -> Standing {
    let pull = ["ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"];
    let timeout = if pull.contains(&reason) { Reason::ImagePullFailed } else { Reason::StartTimeout };
    let text = match (reason, message) {
        ("", _) => "the container is being started".to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    };
    Standing::Starting { timeout, waits: Reason::WaitingForContainer, message: text }
}

fn ended(pod: &PodRecord, end: &Terminated) -> End {
    let (reason, message) = if end.exit_code == 0 {
        (None, String::new())
    } else {
        let (reason, message) = cause(pod, Some(end));
        (Some(reason), message)
    };
    End {
        reason,
        message,
        exit_code: Some(end.exit_code),
        output: end.message.clone(),
        started: end.started,
        finished: end.finished,
    }
}

fn without_container(pod: &PodRecord) -> End {
    let (reason, message) = cause(pod, None);
    End { reason: Some(reason), message, ..End::default() }
}

// The cluster's own causes come first: a program that is being evicted ends with an exit code too.
fn cause(pod: &PodRecord, end: Option<&Terminated>) -> (Reason, String) {
    if let Some(Disruption { reason, message }) = &pod.disruption {
        let cause = match reason.as_str() {
            "PreemptionByScheduler" => Reason::Preempted,
            "DeletionByTaintManager" | "DeletionByPodGC" => Reason::NodeLost,
            _ => Reason::Evicted,
        };
        return (cause, text::message(format!("{reason}: {message}")));
    }
    let cluster = match pod.reason.as_str() {
        "Evicted" | "Preempting" | "NodeAffinity" | "Terminated" | "NodeShutdown" | "Shutdown" => Some(Reason::Evicted),
        "NodeLost" | "UnexpectedAdmissionError" | "OutOfcpu" | "OutOfmemory" => Some(Reason::NodeLost),
        "DeadlineExceeded" => Some(Reason::DeadlineExceeded),
        _ => None,
    };
    if let Some(cause) = cluster {
        return (cause, text::message(format!("{}: {}", pod.reason, pod.message)));
    }
    match end {
        Some(end) if end.reason == "OOMKilled" => (
            Reason::OutOfMemory,
            "the kernel killed the program for its memory limit: raise resources.limits.memory".to_owned(),
        ),
        Some(end) if end.reason == "ContainerStatusUnknown" => {
            (Reason::NodeLost, "the node no longer knows the container".to_owned())
        }
        Some(end) if pod.deleting || pod.gone => (
            Reason::PodDeleted,
            format!("pod {} was deleted; the program ended with exit code {}", pod.name, end.exit_code),
        ),
        Some(end) => (Reason::Error, format!("the program ended with exit code {}", end.exit_code)),
        None if pod.init_failure.is_some() => {
            let (name, words) = pod.init_failure.clone().unwrap_or_default();
            let reason = if name == RUNNER { Reason::RunnerFailed } else { Reason::Error };
            (reason, text::message(words))
        }
        None if pod.gone => (Reason::PodDeleted, format!("pod {} was deleted before the program ended", pod.name)),
        None => (
            Reason::Error,
            text::message(format!("the pod failed before the program ran: {} {}", pod.reason, pod.message)),
        ),
    }
}

fn judge_job(job: &JobRecord) -> Standing {
    match &job.state {
        JobState::Active if job.deleting => Standing::Vanished(deleted(job)),
        JobState::Active => Standing::Starting {
            timeout: Reason::StartTimeout,
            waits: Reason::WaitingForContainer,
            message: format!("job {} has no pod yet; if this lasts, see its events", job.name),
        },
        JobState::Complete => Standing::Vanished(End {
            reason: Some(Reason::ResultLost),
            message: format!("job {} is complete, but its pod is gone and the result with it", job.name),
            ..End::default()
        }),
        JobState::Failed { reason, message } => Standing::Vanished(failed_job(job, reason, message)),
    }
}

// Without its pod, what remains of a failed attempt is the condition's text; the podFailurePolicy
// makes the Job controller write the exit code or the pod's condition into it.
fn failed_job(job: &JobRecord, reason: &str, message: &str) -> End {
    let exit_code = message
        .split_once("exit code ")
        .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next())
        .and_then(|digits| digits.parse().ok());
    let cause = match (reason, exit_code) {
        ("DeadlineExceeded", _) => Reason::DeadlineExceeded,
        // Killed by a signal, and its pod is gone: the pod was deleted, and the program was told to end.
        (_, Some(137 | 143)) => Reason::PodDeleted,
        (_, Some(_)) => Reason::Error,
        _ if message.contains("DisruptionTarget") => Reason::Evicted,
        _ => Reason::PodDeleted,
    };
    End {
        reason: Some(cause),
        message: text::message(format!("job {} failed: {reason}: {message}", job.name)),
        exit_code,
        ..End::default()
    }
}

fn deleted(job: &JobRecord) -> End {
    End {
        reason: Some(Reason::PodDeleted),
        message: format!("job {} was deleted before it ended", job.name),
        ..End::default()
    }
}

/// The end of an attempt whose Job is gone without a trace.
#[must_use]
pub fn vanished(job: &str) -> End {
    End {
        reason: Some(Reason::PodDeleted),
        message: format!("job {job} is gone, and its end was not recorded"),
        ..End::default()
    }
}
