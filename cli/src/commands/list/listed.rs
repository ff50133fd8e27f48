//! What is known of a listed experiment: the columns that its definition prints, a fraction of the whole object.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use crate::cluster::experiment;
use crate::error::{Error, Result};
use crate::rows::Row;

/// The columns that are read.
pub const COLUMNS: &[&str] = &[NAME, PHASE, REASON, REUSED, FROM, PIPELINE, STAGE, PARAMS, METRICS, CREATED];

const NAME: &str = "Name";
const PHASE: &str = "Phase";
const REASON: &str = "Reason";
const REUSED: &str = "Reused";
const FROM: &str = "From";
const PIPELINE: &str = "Pipeline";
const STAGE: &str = "Stage";
const PARAMS: &str = "Params";
const METRICS: &str = "Metrics";
const CREATED: &str = "Created";

/// A line of the list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listed {
    pub namespace: String,
    pub name: String,
    pub created: Option<Timestamp>,
    pub phase: String,
    pub reason: String,
    pub from: String,
    pub pipeline: String,
    pub stage: String,
    /// Those of the template, from when the experiment has one.
    pub params: Map<String, Value>,
    /// Last values.
    pub metrics: BTreeMap<String, f64>,
    /// All of it, where only a record is left.
    pub recorded: Option<Value>,
}

impl Listed {
    /// From the columns of `kubectl get -o wide`.
    pub fn of(row: &Row) -> Result<Self> {
        let text = |column: &str| row.text(column).to_owned();
        let metrics: BTreeMap<String, Metric> = parsed(row, METRICS)?;
        let reason = match (row.text(REASON), row.text(REUSED)) {
            ("", from) if !from.is_empty() => "Reused".to_owned(),
            (reason, _) => reason.to_owned(),
        };
        Ok(Self {
            namespace: row.namespace.clone(),
            name: text(NAME),
            created: row.text(CREATED).parse().ok(),
            phase: text(PHASE),
            reason,
            from: text(FROM),
            pipeline: text(PIPELINE),
            stage: text(STAGE),
            params: parsed(row, PARAMS)?,
            metrics: metrics.into_iter().map(|(name, metric)| (name, metric.last)).collect(),
            recorded: None,
        })
    }

    /// From what a record still tells: its time is when the run began.
    pub fn recorded(object: Value) -> Result<Self> {
        let record = experiment(&object)?;
        let status = &record.status;
        Ok(Self {
            namespace: record.meta.namespace.clone(),
            name: record.meta.name.clone(),
            created: status.times.as_ref().and_then(|times| times.running.as_ref()?.parse().ok()),
            phase: status.phase.to_string(),
            reason: "Recorded".to_owned(),
            params: record.template()["params"].as_object().cloned().unwrap_or_default(),
            metrics: status.metrics.iter().map(|(name, metric)| (name.clone(), metric.last)).collect(),
            recorded: Some(object),
            ..Self::default()
        })
    }

    /// What `-o name` reads.
    pub fn named(&self) -> Value {
        json!({"kind": "Experiment", "metadata": {"name": self.name}})
    }
}

// An object that is printed as JSON.
fn parsed<T: serde::de::DeserializeOwned + Default>(row: &Row, column: &str) -> Result<T> {
    let text = row.text(column);
    if text.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_str(text).map_err(|error| {
        let hint = "is this program as new as the operator?";
        Error::new(format!("{} of {} cannot be read", column.to_lowercase(), row.text(NAME))).why(error).hint(hint)
    })
}

#[derive(serde::Deserialize)]
struct Metric {
    last: f64,
}
