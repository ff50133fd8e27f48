//! The frozen pipeline: what a run executes, resolved once and stored in its status as JSON.

use cultivar_crds::schema::MAX_FROZEN_PIPELINE;
use cultivar_crds::{ClonedFrom, Concurrency, Gate, OnFailure, Reason, Repeat, Until};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::nested::Nested;
use super::{FanOut, matrix};
use crate::clone;
use crate::dag;
use crate::decide::freeze::{self, Effective, Frozen, Query, Sources};
use crate::domain::{PipelineRecord, settings};
use crate::refs::{FieldPath, Head, Names};

/// What a run executes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrozenPipeline {
    /// Effective parameters.
    #[serde(default)]
    pub params: Map<String, Value>,
    /// In the pipeline's order.
    pub stages: Vec<FrozenStage>,
    /// Those that run when all of these have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finally: Vec<FrozenStage>,
    /// Values of the run as a whole.
    #[serde(default)]
    pub outputs: Map<String, Value>,
    /// What a failure does.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Priority of the stages in their queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// The group that it is in, its name resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// How long the run may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_timeout: Option<String>,
    /// How many experiments are there at once that have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
}

/// A stage with its template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrozenStage {
    /// Name of the stage.
    pub name: String,
    /// Stages that must have ended first: those it refers to, and its `after`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// The end of those that is waited for, where it is not that they completed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub until: BTreeMap<String, Until>,
    /// CEL; false skips the stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The pipeline that it runs; its template has params alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nested: Option<Nested>,
    /// What it waits for, where it runs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// What makes turns of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Repeat>,
    /// What makes many experiments of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fan_out: Option<FanOut>,
    /// Effective template; references of both scopes kept.
    pub template: Value,
    /// Whose copy it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned_from: Option<ClonedFrom>,
}

impl FrozenStage {
    /// The end of a stage that it needs which it waits for.
    #[must_use]
    pub fn until(&self, need: &str) -> Until {
        self.until.get(need).copied().unwrap_or_default()
    }
}

impl FrozenPipeline {
    /// Every stage, those of the end last.
    pub fn all(&self) -> impl Iterator<Item = &FrozenStage> {
        self.stages.iter().chain(&self.finally)
    }

    /// The stages that wait for the failure of `stage`, or for any end of it.
    pub fn handlers(&self, stage: &str) -> impl Iterator<Item = &FrozenStage> {
        self.stages.iter().filter(move |other| matches!(other.until.get(stage), Some(Until::Failed | Until::Ended)))
    }
}

/// What the stages of a pipeline's spec ask the index for.
#[must_use]
pub fn queries(spec: &Value) -> Vec<Query> {
    dag::all(spec).flat_map(freeze::queries).collect()
}

/// The longest that a run waits for the sources of its stages.
pub fn template_timeout(spec: &Value) -> Duration {
    let longest = dag::all(spec).map(|stage| settings::timeouts(stage).template).max();
    longest.unwrap_or_else(|| settings::timeouts(&Value::Null).template)
}

// One of the two admits a stage: what it says itself, else what its pipeline says, else what its source said.
fn admitted_by(pipeline: &Value, stage: &Value, template: &mut Value) {
    if stage.get("queue").or(stage.get("admission")).is_some() {
        return;
    }
    for (said, other) in [("queue", "admission"), ("admission", "queue")] {
        if let (Some(value), Some(template)) = (pipeline.get(said), template.as_object_mut()) {
            template.insert(said.to_owned(), value.clone());
            template.remove(other);
        }
    }
}

// The stages of `only` and all that they need; nothing: all of them.
fn wanted(spec: &Value, run: &Value) -> Option<BTreeSet<String>> {
    let only = run.get("only")?.as_array()?;
    let mut open: Vec<String> = only.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    let mut wanted = BTreeSet::new();
    while let Some(name) = open.pop() {
        let stage = dag::all(spec).find(|stage| stage["name"] == name.as_str());
        open.extend(
            stage.into_iter().flat_map(|stage| dag::needs(stage).into_keys()).filter(|need| !wanted.contains(need)),
        );
        wanted.insert(name);
    }
    Some(wanted)
}

fn is_in(wanted: Option<&BTreeSet<String>>, stage: &Value) -> bool {
    wanted.is_none_or(|wanted| stage.get("name").and_then(Value::as_str).is_some_and(|name| wanted.contains(name)))
}

fn group(pipeline: &PipelineRecord, params: &Map<String, Value>) -> Result<Option<Concurrency>, String> {
    let said = pipeline.spec.get("concurrency").and_then(|said| Concurrency::deserialize(said).ok());
    let Some(Concurrency { group, limit }) = said else { return Ok(None) };
    let about = json!({"name": pipeline.meta.name, "params": params});
    let at = FieldPath::of("spec").key("concurrency").key("group");
    let group = matrix::read(&Value::String(group), &at, &Names::new().with(Head::Pipeline, &about))?;
    let group = group.as_str().map_or_else(|| group.to_string(), str::to_owned);
    Ok(Some(Concurrency { group, limit }))
}

// Without those that read stages which do not run.
fn outputs(spec: &Value, wanted: Option<&BTreeSet<String>>) -> Map<String, Value> {
    let reads = |value: &Value| dag::needs(&json!({"outputs": value})).into_keys().collect::<Vec<_>>();
    let all = crate::decide::object(spec.get("outputs")).into_iter();
    all.filter(|(_, value)| wanted.is_none_or(|wanted| reads(value).iter().all(|stage| wanted.contains(stage))))
        .collect()
}

/// Freezes an accepted pipeline for a run, as JSON.
pub fn freeze(pipeline: &PipelineRecord, run: &Value, sources: &Sources) -> Frozen<Value> {
    let spec = &pipeline.spec;
    let mut stages = Vec::new();
    let wanted = wanted(spec, run);
    for stage in dag::all(spec).filter(|stage| is_in(wanted.as_ref(), stage)) {
        let name = stage.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let nested = Nested::of(stage);
        let gate = stage.get("gate").and_then(|gate| Gate::deserialize(gate).ok());
        let runs_nothing = nested.is_some() || gate.is_some();
        let frozen = match runs_nothing {
            true => Frozen::Ready(Effective { template: json!({"params": stage.get("params")}), cloned_from: None }),
            false => freeze::freeze(stage, sources, Some(&pipeline.meta.name)),
        };
        match frozen {
            Frozen::Ready(Effective { mut template, cloned_from }) => {
                // Of this pipeline, and not of the one in which its source ran.
                if !runs_nothing {
                    admitted_by(spec, stage, &mut template);
                }
                let needs = dag::needs(stage);
                stages.push(FrozenStage {
                    needs: needs.keys().cloned().collect(),
                    until: needs.into_iter().filter(|(_, until)| *until != Until::default()).collect(),
                    when: stage.get("when").and_then(Value::as_str).map(str::to_owned),
                    nested,
                    gate,
                    repeat: stage.get("repeat").and_then(|repeat| Repeat::deserialize(repeat).ok()),
                    fan_out: FanOut::of(stage),
                    name,
                    template,
                    cloned_from,
                });
            }
            Frozen::Waiting { reason, message } => {
                return Frozen::Waiting { reason, message: format!("stage {name}: {message}") };
            }
            Frozen::Refused { reason, message } => {
                return Frozen::Refused { reason, message: format!("stage {name}: {message}") };
            }
        }
    }
    let last = spec.get("finally").and_then(Value::as_array).filter(|_| wanted.is_none()).map_or(0, Vec::len);
    let finally = stages.split_off(stages.len() - last);
    let on_failure = spec.get("onFailure").and_then(|value| OnFailure::deserialize(value).ok());
    let params = super::params(spec, run);
    let concurrency = match group(pipeline, &params) {
        Ok(concurrency) => concurrency,
        Err(message) => return Frozen::Refused { reason: Reason::ReferenceUnresolved, message },
    };
    let frozen = FrozenPipeline {
        params,
        stages,
        finally,
        outputs: outputs(spec, wanted.as_ref()),
        on_failure: on_failure.unwrap_or_default(),
        priority: spec.get("priority").and_then(Value::as_i64).and_then(|priority| i32::try_from(priority).ok()),
        concurrency,
        run_timeout: spec.pointer("/timeouts/run").and_then(Value::as_str).map(str::to_owned),
        max_parallel: spec.get("maxParallel").and_then(|most| u32::deserialize(most).ok()),
    };
    within_size(serde_json::to_value(&frozen).unwrap_or(Value::Null))
}

/// A frozen pipeline that fits into a status.
pub fn within_size(frozen: Value) -> Frozen<Value> {
    let size = clone::canonical_json(&frozen).len();
    if size > MAX_FROZEN_PIPELINE {
        return Frozen::Refused {
            reason: Reason::InvalidTemplate,
            message: format!(
                "the frozen pipeline has {size} bytes, and {MAX_FROZEN_PIPELINE} are allowed: keep data out of params and args"
            ),
        };
    }
    Frozen::Ready(frozen)
}
