//! A stage that runs another pipeline.
//!
//! Comes in: the board and a stage with `pipeline`. Goes out: the run to be made, with its params.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::board::Board;
use super::{matrix, values};
use crate::decide::{Action, NewNested};
use crate::domain::Member;
use crate::refs::{FieldPath, Names};
use cultivar_crds::labels;

/// How deep pipelines nest.
const MAX_DEPTH: usize = 8;

/// The pipeline that a stage runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nested {
    /// Its name.
    pub pipeline: String,
    /// Digest that it must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

impl Nested {
    /// What a stage as it is stored runs, if that is another pipeline.
    #[must_use]
    pub fn of(stage: &Value) -> Option<Self> {
        let text = |key: &str| stage.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Self { pipeline: text("pipeline")?, digest: text("pipelineDigest") })
    }
}

impl Board<'_> {
    /// Has the run of a stage made; returns its name. What `template` refers to is data from here on.
    pub(super) fn create_nested(
        &self,
        nested: &Nested,
        template: &Value,
        at: &FieldPath,
        member: &Member,
        names: &Names<'_>,
    ) -> Result<Action, String> {
        let run = &self.snapshot.run;
        let around = run.meta.annotations.get(labels::NESTED_IN).map(String::as_str).unwrap_or_default();
        let own = run.spec.get("pipeline").and_then(Value::as_str).unwrap_or_default();
        let nested_in: Vec<String> =
            around.split('/').filter(|name| !name.is_empty()).chain([own]).map(str::to_owned).collect();
        if nested_in.len() >= MAX_DEPTH {
            let way = nested_in.iter().map(String::as_str).chain([nested.pipeline.as_str()]);
            let way = way.collect::<Vec<_>>().join(" → ");
            return Err(format!("pipelines nest up to {MAX_DEPTH} deep: {way}; does one of them contain itself?"));
        }
        let params = template.get("params").filter(|params| !params.is_null());
        let params = params.map(|params| matrix::read(params, &at.key("params"), names)).transpose()?;
        Ok(Action::CreateNested(Box::new(NewNested {
            name: self.experiment_of(member),
            member: member.clone(),
            pipeline: nested.pipeline.clone(),
            params: crate::decide::object(params.as_ref()),
            digest: nested.digest.clone(),
            nested_in,
            scheduled_time: values::time_of(run),
            cache: run.spec.get("cache").cloned(),
        })))
    }
}
