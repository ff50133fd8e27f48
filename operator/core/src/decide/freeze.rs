//! Freezing: from a spec to the effective template, resolved once.
//!
//! Comes in: the stored spec of an experiment or stage, and the experiments that its `from` may
//! mean. Goes out: a template and whose copy it is, or what is waited for, or why it cannot be.

use cultivar_crds::schema::MAX_TEMPLATE;
use cultivar_crds::{ClonedFrom, ExperimentTemplate, From, Goal, MetricUse, Phase, Pick, Reason, Require, Selector};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::inputs;
use crate::clone;
use crate::domain::{ExperimentRecord, source, time};
use crate::reuse::digest_of_template;

/// What `from` asks the index for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Query {
    /// The experiment of this name.
    Name(String),
    /// The experiments with these labels.
    Labels(BTreeMap<String, String>),
}

/// Answers to queries: every matching experiment of the namespace.
pub type Sources = BTreeMap<Query, Vec<Arc<ExperimentRecord>>>;

/// An effective template.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// Canonical fields, own references kept.
    pub template: Value,
    /// Whose copy it is; nothing for a root.
    pub cloned_from: Option<ClonedFrom>,
}

/// The outcome of freezing an experiment or a whole pipeline.
#[derive(Clone, Debug, PartialEq)]
pub enum Frozen<T> {
    /// It is frozen.
    Ready(T),
    /// Nothing yet: wait for a change of the source.
    Waiting {
        /// Which wait.
        reason: Reason,
        /// For what.
        message: String,
    },
    /// It never will be, unless the spec changes.
    Refused {
        /// Which refusal.
        reason: Reason,
        /// Why.
        message: String,
    },
}

impl<T> Frozen<T> {
    /// Goes on with what is frozen so far.
    fn and_then<U>(self, next: impl FnOnce(T) -> Frozen<U>) -> Frozen<U> {
        match self {
            Self::Ready(frozen) => next(frozen),
            Self::Waiting { reason, message } => Frozen::Waiting { reason, message },
            Self::Refused { reason, message } => Frozen::Refused { reason, message },
        }
    }
}

/// What the spec's `from` and its inputs ask the index for.
#[must_use]
pub fn queries(spec: &Value) -> Vec<Query> {
    let from = from_of(spec).and_then(|from| match from {
        From { experiment: Some(name), .. } => Some(Query::Name(name)),
        From { selector: Some(selector), .. } => Some(Query::Labels(selector.match_labels)),
        From { .. } => None,
    });
    let makers = inputs::makers(spec).map(|name| Query::Name(name.to_owned()));
    from.into_iter().chain(makers).collect()
}

fn from_of(spec: &Value) -> Option<From> {
    From::deserialize(spec.get("from")?).ok()
}

// What stands in a spec beside the template: of an experiment, and of a stage.
const NOT_TEMPLATE: [&str; 16] = [
    "from",
    "unset",
    "record",
    "cancel",
    "priority",
    "ttlAfterFinished",
    "name",
    "after",
    "when",
    "matrix",
    "count",
    "maxParallel",
    "failFast",
    "repeat",
    "pipeline",
    "pipelineDigest",
];

/// The part of a stored spec that overrides a source's template, or is the template of a root.
#[must_use]
pub fn overrides(spec: &Value) -> Value {
    let fields = super::object(Some(spec)).into_iter().filter(|(key, _)| !NOT_TEMPLATE.contains(&key.as_str()));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// Freezes `spec`. `exclude` is the pipeline whose own experiments a selector never picks.
#[must_use]
pub fn freeze(spec: &Value, sources: &Sources, exclude: Option<&str>) -> Frozen<Effective> {
    let Some(from) = from_of(spec) else {
        return inputs::pin(overrides(spec), sources).and_then(|template| check(template, None));
    };
    let source = match pick(&from, sources, exclude) {
        Ok(source) => source,
        Err(outcome) => return outcome,
    };
    let Some(template) = &source.status.template else {
        return refused(
            Reason::TemplateNotCompleted,
            format!("experiment {} ended before its template was frozen: there is nothing to clone", source.meta.name),
        );
    };
    let unset: Vec<String> = spec.get("unset").and_then(|unset| Vec::deserialize(unset).ok()).unwrap_or_default();
    match clone::merge_template(&without_its_cache(template), &unset, &overrides(spec)) {
        Err(error) => refused(Reason::InvalidTemplate, format!("cloning {}: {error}", source.meta.name)),
        Ok(merged) => {
            let digest = source.status.digest.clone().unwrap_or_else(|| digest_of_template(template));
            let cloned_from = ClonedFrom { name: source.meta.name.clone(), uid: source.meta.uid.clone(), digest };
            inputs::pin(merged, sources).and_then(|template| check(template, Some(cloned_from)))
        }
    }
}

// Whether its source looked for results, and how old ones it took, is no part of what a clone is a copy of.
pub(crate) fn without_its_cache(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(cache) = template.get_mut("cache").and_then(Value::as_object_mut) {
        cache.remove("mode");
        cache.remove("maxAge");
        if cache.is_empty() {
            template.as_object_mut().into_iter().for_each(|fields| drop(fields.remove("cache")));
        }
    }
    template
}

fn pick(from: &From, sources: &Sources, exclude: Option<&str>) -> Result<Arc<ExperimentRecord>, Frozen<Effective>> {
    let require = from.require.unwrap_or_default();
    if let Some(name) = &from.experiment {
        let found = sources.get(&Query::Name(name.clone())).and_then(|found| found.first());
        let Some(source) = found else {
            return Err(waiting(
                Reason::TemplateNotFound,
                format!("experiment {name} does not exist in this namespace"),
            ));
        };
        return satisfied(source, require).map(|()| Arc::clone(source));
    }
    let Some(selector) = &from.selector else {
        return Err(refused(Reason::InvalidTemplate, "from names neither an experiment nor a selector".to_owned()));
    };
    let empty = Vec::new();
    let found = sources.get(&Query::Labels(selector.match_labels.clone())).unwrap_or(&empty);
    let candidates = found.iter().filter(|candidate| {
        satisfied(candidate, require).is_ok()
            && (exclude.is_none() || candidate.meta.label(cultivar_crds::labels::PIPELINE) != exclude)
    });
    best(selector, candidates).cloned().ok_or_else(|| {
        waiting(
            Reason::NothingSelected,
            format!("none of the {} experiments with these labels can be cloned yet", found.len()),
        )
    })
}

fn best<'a>(
    selector: &Selector,
    candidates: impl Iterator<Item = &'a Arc<ExperimentRecord>>,
) -> Option<&'a Arc<ExperimentRecord>> {
    let ended = |candidate: &ExperimentRecord| {
        candidate.status.times.as_ref().and_then(|times| time::read(times.finished.as_deref()))
    };
    // Ties go to the one that ended last, then to the name, so that the pick never depends on order.
    let latest = |a: &Arc<ExperimentRecord>, b: &Arc<ExperimentRecord>| {
        ended(a).cmp(&ended(b)).then_with(|| b.meta.name.cmp(&a.meta.name))
    };
    match (selector.pick.unwrap_or_default(), &selector.best) {
        (Pick::Best, Some(best)) => candidates
            .filter_map(|candidate| {
                let metric = candidate.status.metrics.get(&best.metric)?;
                let value = match best.use_.unwrap_or_default() {
                    MetricUse::Last => metric.last,
                    MetricUse::Min => metric.min.unwrap_or(metric.last),
                    MetricUse::Max => metric.max.unwrap_or(metric.last),
                };
                let score = match best.goal.unwrap_or_default() {
                    Goal::Maximize => value,
                    Goal::Minimize => -value,
                };
                Some((score, candidate))
            })
            .max_by(|(a, one), (b, other)| a.total_cmp(b).then_with(|| latest(one, other)))
            .map(|(_, candidate)| candidate),
        _ => candidates.max_by(|a, b| latest(a, b)),
    }
}

fn satisfied(source: &ExperimentRecord, require: Require) -> Result<(), Frozen<Effective>> {
    let name = &source.meta.name;
    match (source.status.phase, require) {
        (Phase::Completed, _) | (Phase::Failed | Phase::Cancelled, Require::Ended) => Ok(()),
        (phase, Require::Completed) if phase.is_terminal() => Err(refused(
            Reason::TemplateNotCompleted,
            format!(
                "experiment {name} is {phase}, and a clone needs a completed one: fix it by cloning it with from.require: Ended, or name another"
            ),
        )),
        (phase, Require::Ended) if phase.is_terminal() => {
            Err(refused(Reason::TemplateNotCompleted, format!("experiment {name} is {phase} and never ran")))
        }
        (phase, _) => Err(waiting(Reason::WaitingForTemplate, format!("experiment {name} is {phase}"))),
    }
}

// Everything that a template must satisfy after the merge, whoever wrote its parts.
fn check(template: Value, cloned_from: Option<ClonedFrom>) -> Frozen<Effective> {
    let size = clone::canonical_json(&template).len();
    if size > MAX_TEMPLATE {
        return refused(
            Reason::InvalidTemplate,
            format!("the template has {size} bytes, and {MAX_TEMPLATE} are allowed: keep data out of params and args"),
        );
    }
    if template.get("image").and_then(Value::as_str).is_none_or(str::is_empty) {
        return refused(Reason::InvalidTemplate, "the template has no image".to_owned());
    }
    if let Some(fault) = source::fault(&template) {
        return refused(Reason::InvalidTemplate, format!("source: {fault}"));
    }
    if let Err(error) = ExperimentTemplate::deserialize(&template) {
        return refused(Reason::InvalidTemplate, format!("the template does not fit the schema: {error}"));
    }
    Frozen::Ready(Effective { template, cloned_from })
}

fn waiting<T>(reason: Reason, message: String) -> Frozen<T> {
    Frozen::Waiting { reason, message }
}

fn refused<T>(reason: Reason, message: String) -> Frozen<T> {
    Frozen::Refused { reason, message }
}
