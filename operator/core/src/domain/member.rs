//! What an experiment of a run stands for: a stage, or one member of a stage's fan-out.

use std::fmt;

/// A stage of a run, or one member of its fan-out.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Name of the stage.
    pub stage: String,
    /// Which member, from 0; nothing for a stage that does not fan out.
    pub index: Option<u32>,
}

impl Member {
    /// A stage that does not fan out.
    pub fn stage(name: impl Into<String>) -> Self {
        Self { stage: name.into(), index: None }
    }

    /// A member of a fan-out.
    pub fn of(stage: impl Into<String>, index: u32) -> Self {
        Self { stage: stage.into(), index: Some(index) }
    }
}

/// As a person reads it: `train`, or `train-3`.
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.stage)?;
        self.index.map_or(Ok(()), |index| write!(f, "-{index}"))
    }
}
