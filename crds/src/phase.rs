//! Where an Experiment, a stage or a PipelineRun stands.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Phase of an Experiment, a stage or a run. A phase never leaves a terminal one.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Accepted, or waiting for what it refers to; nothing was started. The reason says for what.
    #[default]
    Pending,
    /// The template is frozen; waits in its queue for what its pods ask for.
    Queued,
    /// The template is frozen; a Job exists or is about to, but the program does not run yet.
    Starting,
    /// The program runs.
    Running,
    /// Ended well: exit code 0 and every declared output present.
    Completed,
    /// Ended badly; the reason says how.
    Failed,
    /// Stopped on request.
    Cancelled,
    /// Never started, since something it depends on did not complete, or its `when` was false.
    Skipped,
}

impl Phase {
    /// Every phase, in the order of a life.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Queued,
        Self::Starting,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Skipped,
    ];

    /// Whether nothing can follow.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Skipped)
    }

    /// The phase's name as users read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Queued => "Queued",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
            Self::Skipped => "Skipped",
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
