//! Conditions: set in place, keeping the time of the last change of state.

use cultivar_crds::Reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::text;

/// Types of conditions that the product uses.
pub mod kind {
    /// The object is valid.
    pub const ACCEPTED: &str = "Accepted";
    /// It ended well.
    pub const COMPLETE: &str = "Complete";
    /// It ended badly.
    pub const FAILED: &str = "Failed";
    /// What was asked for exists.
    pub const READY: &str = "Ready";
    /// Work is under way (kstatus).
    pub const RECONCILING: &str = "Reconciling";
    /// Nothing will happen without a change (kstatus).
    pub const STALLED: &str = "Stalled";
    /// Something names it in `from`.
    pub const IN_USE: &str = "InUse";
    /// The result message was used in full.
    pub const RESULT_ACCEPTED: &str = "ResultAccepted";
    /// Every input is known by its digest, version or ETag.
    pub const INPUTS_PINNED: &str = "InputsPinned";
    /// The image that ran is known by its digest.
    pub const IMAGE_PINNED: &str = "ImagePinned";
    /// The images of a run's stages are known by their digests.
    pub const IMAGES_PINNED: &str = "ImagesPinned";
    /// The places of outputs stand in their ConfigMaps.
    pub const PUBLISHED: &str = "Published";
    /// What goes with a deleted experiment is gone.
    pub const ARTIFACTS_DELETED: &str = "ArtifactsDeleted";
    /// Verdict of the latest ended run.
    pub const LAST_RUN_SUCCEEDED: &str = "LastRunSucceeded";
}

/// A writer of conditions for one pass.
pub struct Conditions<'a> {
    list: &'a mut Vec<Condition>,
    generation: i64,
    now: Timestamp,
}

impl<'a> Conditions<'a> {
    /// Writes into `list`, for `generation` of the spec, at `now`.
    pub fn new(list: &'a mut Vec<Condition>, generation: i64, now: Timestamp) -> Self {
        Self { list, generation, now }
    }

    /// Sets one condition; its transition time changes with its state only.
    pub fn set(&mut self, kind: &str, status: bool, reason: Reason, message: impl Into<String>) -> &mut Self {
        let status = if status { "True" } else { "False" };
        let message = text::message(message);
        let moment = Timestamp::from_second(self.now.as_second()).unwrap_or(self.now);
        if let Some(condition) = self.list.iter_mut().find(|condition| condition.type_ == kind) {
            if condition.status != status {
                condition.last_transition_time = Time(moment);
            }
            condition.status = status.to_owned();
            condition.reason = reason.to_string();
            condition.message = message;
            condition.observed_generation = Some(self.generation);
        } else {
            self.list.push(Condition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: reason.to_string(),
                message,
                observed_generation: Some(self.generation),
                last_transition_time: Time(moment),
            });
        }
        self
    }

    /// Removes one condition: kstatus reads an absent Reconciling or Stalled as false.
    pub fn clear(&mut self, kind: &str) -> &mut Self {
        self.list.retain(|condition| condition.type_ != kind);
        self
    }
}

/// Whether `kind` is True.
#[must_use]
pub fn is_true(list: &[Condition], kind: &str) -> bool {
    list.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// Whether a condition is there and false.
#[must_use]
pub fn is_false(list: &[Condition], kind: &str) -> bool {
    list.iter().any(|condition| condition.type_ == kind && condition.status == "False")
}

/// A condition.
#[must_use]
pub fn of<'l>(list: &'l [Condition], kind: &str) -> Option<&'l Condition> {
    list.iter().find(|condition| condition.type_ == kind)
}
