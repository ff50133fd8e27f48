//! What stands for a stage: an experiment, or a run of another pipeline.

use cultivar_crds::{CancelMode, ExperimentStatus, Phase, Reason};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

use super::board::standing;
use crate::decide::Action;
use crate::domain::{ExperimentRecord, Meta, RunRecord, time};

/// What stands for a stage of a run, for a member of its fan-out or for a turn of its loop.
#[derive(Clone, Debug, PartialEq)]
pub enum Child {
    /// An experiment.
    Experiment(Arc<ExperimentRecord>),
    /// A run of another pipeline.
    Run(Arc<RunRecord>),
}

impl Child {
    /// Its metadata.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Experiment(experiment) => &experiment.meta,
            Self::Run(run) => &run.meta,
        }
    }

    /// Its phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self {
            Self::Experiment(experiment) => experiment.status.phase,
            Self::Run(run) => run.status.phase,
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.phase().is_terminal()
    }

    /// When it ended.
    #[must_use]
    pub fn finished(&self) -> Option<Timestamp> {
        match self {
            Self::Experiment(experiment) => {
                time::read(experiment.status.times.as_ref().and_then(|times| times.finished.as_deref()))
            }
            Self::Run(run) => time::read(run.status.finished_at.as_deref()),
        }
    }

    /// Why it stands where it does.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Experiment(experiment) => experiment.status.reason,
            Self::Run(run) => run.status.reason,
        }
    }

    /// How it stands, as its run tells it: phase, reason and message.
    #[must_use]
    pub fn standing(&self) -> (Phase, Option<Reason>, Option<&str>) {
        match self {
            Self::Experiment(experiment) => standing(&experiment.status),
            Self::Run(run) if run.status.phase == Phase::Running => (Phase::Running, None, None),
            Self::Run(run) => (run.status.phase, run.status.reason, run.status.message.as_deref()),
        }
    }

    fn spec(&self) -> &Value {
        match self {
            Self::Experiment(experiment) => &experiment.spec,
            Self::Run(run) => &run.spec,
        }
    }

    /// Whether it was asked to end already, in this way or a stricter one, or goes anyway.
    #[must_use]
    pub fn is_asked_to_end(&self, mode: CancelMode) -> bool {
        let asked = match self {
            Self::Experiment(_) => self.spec().get("cancel").and_then(Value::as_bool).unwrap_or(false),
            Self::Run(run) => cancel_mode(&run.spec).is_some_and(|asked| asked >= mode),
        };
        self.meta().deleting || asked
    }

    /// Asks it to end, where that is to be done to it: what runs may go on to its end, and a run ends in the same way as the
    /// one around it.
    #[must_use]
    pub fn cancel(&self, mode: CancelMode) -> Option<Action> {
        let name = self.meta().name.clone();
        match self {
            Self::Experiment(experiment) if mode == CancelMode::FinishRunning && has_begun(&experiment.status) => None,
            Self::Experiment(_) => Some(Action::CancelExperiment { name }),
            Self::Run(_) => Some(Action::CancelRun { name, mode: Some(mode) }),
        }
    }

    /// The params that it was given.
    #[must_use]
    pub fn params(&self) -> Value {
        self.spec().get("params").cloned().unwrap_or_else(|| json!({}))
    }

    /// What references read of it, once it has ended.
    #[must_use]
    pub fn value(&self) -> Value {
        match self {
            Self::Experiment(experiment) => {
                let status = &experiment.status;
                let artifacts: Map<String, Value> = status
                    .artifacts
                    .iter()
                    .map(|artifact| (artifact.name.clone(), serde_json::to_value(artifact).unwrap_or_default()))
                    .collect();
                json!({
                    "experiment": experiment.meta.name,
                    "phase": status.phase,
                    "metrics": status.metrics,
                    "artifacts": artifacts,
                })
            }
            Self::Run(run) => json!({
                "run": run.meta.name,
                "phase": run.status.phase,
                "outputs": run.status.outputs.clone().unwrap_or_else(|| json!({})),
            }),
        }
    }
}

// What waits for its first place in a queue has not.
fn has_begun(status: &ExperimentStatus) -> bool {
    status.attempt.is_some() || !matches!(status.phase, Phase::Pending | Phase::Queued)
}

/// How a run is asked to end, if it is.
#[must_use]
pub fn cancel_mode(spec: &Value) -> Option<CancelMode> {
    let asked = spec.get("cancel").and_then(Value::as_bool).unwrap_or(false);
    asked.then(|| spec.get("cancelMode").and_then(|mode| CancelMode::deserialize(mode).ok()).unwrap_or_default())
}
