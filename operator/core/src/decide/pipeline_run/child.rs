//! What stands for a stage: an experiment, or a run of another pipeline.

use cultivar_crds::{Phase, Reason};
use jiff::Timestamp;
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

    /// Whether it was asked to end already, or goes anyway.
    #[must_use]
    pub fn is_asked_to_end(&self) -> bool {
        let spec = match self {
            Self::Experiment(experiment) => &experiment.spec,
            Self::Run(run) => &run.spec,
        };
        self.meta().deleting || spec.get("cancel").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Asks it to end.
    #[must_use]
    pub fn cancel(&self) -> Action {
        let name = self.meta().name.clone();
        match self {
            Self::Experiment(_) => Action::CancelExperiment { name },
            Self::Run(_) => Action::CancelRun { name },
        }
    }

    /// The params that it was given.
    #[must_use]
    pub fn params(&self) -> Value {
        let spec = match self {
            Self::Experiment(experiment) => &experiment.spec,
            Self::Run(run) => &run.spec,
        };
        spec.get("params").cloned().unwrap_or_else(|| json!({}))
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
