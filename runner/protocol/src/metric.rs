//! One metric, condensed: what a status shows of a series.

use serde::{Deserialize, Deserializer, Serialize};

/// A series of numbers, condensed. In JSON a plain number stands for its last value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// The value reported last.
    pub last: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// The step of the last value, when it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<i64>,
}

impl Metric {
    /// A series of one value.
    #[must_use]
    pub fn of(value: f64, step: Option<i64>) -> Self {
        Self { last: value, min: value, max: value, step }
    }

    /// Takes the next value in.
    pub fn push(&mut self, value: f64, step: Option<i64>) {
        self.last = value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.step = step.or(self.step);
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a metric is a number or {last, min, max, step}")]
        enum Written {
            Number(f64),
            Full { last: f64, min: Option<f64>, max: Option<f64>, step: Option<i64> },
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Number(value) => Self::of(value, None),
            Written::Full { last, min, max, step } => {
                Self { last, min: min.unwrap_or(last), max: max.unwrap_or(last), step }
            }
        })
    }
}
