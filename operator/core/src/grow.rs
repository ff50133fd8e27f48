//! Growing: from experiments that ran by hand to the pipeline that they are.
//!
//! Comes in: some experiments, and those of the namespace that made what they read. Goes out: a Pipeline in which each is a
//! stage by its name, wired by who made which input. Run unchanged it does what has been done already.

use cultivar_crds::{Artifact, Phase};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

use crate::clone::canonical_json;
use crate::domain::inputs::uris;
use crate::domain::{ExperimentRecord, Producer};

/// Longest name of a stage.
const MAX_STAGE: usize = 40;
/// Most stages of a pipeline.
const MAX_STAGES: usize = 100;

/// A pipeline that was grown.
#[derive(Clone, Debug, PartialEq)]
pub struct Grown {
    /// Its spec.
    pub spec: Value,
    /// By stage: the experiment that it is a clone of; the makers first.
    pub stages: Vec<(String, String)>,
    /// What else a person should know.
    pub notes: Vec<String>,
}

/// Grows a pipeline from `from` and everything that made what they read. With `share_params`, values that several of them
/// have become parameters of the pipeline.
///
/// # Errors
/// An experiment does not exist, has not completed, or they are too many; in words.
pub fn grow(from: &[String], known: &BTreeMap<String, &ExperimentRecord>, share_params: bool) -> Result<Grown, String> {
    let mut notes = Vec::new();
    let chosen = with_makers(from, known, &mut notes)?;
    let ordered = makers_first(&chosen, known);
    if ordered.len() > MAX_STAGES {
        return Err(format!("{} experiments made this, and a pipeline has at most {MAX_STAGES} stages", ordered.len()));
    }
    let stage_names = stage_names(&ordered);
    let stage_of: BTreeMap<&str, &str> =
        ordered.iter().map(|name| name.as_str()).zip(stage_names.iter().map(String::as_str)).collect();
    let shared = if share_params { shared_params(&ordered, known) } else { BTreeMap::new() };
    let made = artifacts(&ordered, known);
    let mut stages = Vec::new();
    for (name, stage) in ordered.iter().zip(&stage_names) {
        let record = known[name];
        let mut spec = json!({"name": stage, "from": {"experiment": name}});
        let inputs = inputs(record, &made, &stage_of);
        if !inputs.is_empty() {
            spec["inputs"] = Value::Array(inputs);
        }
        let template = record.status.template.as_ref();
        let params = template.and_then(|template| template.get("params")?.as_object());
        let wired: Map<String, Value> = params
            .into_iter()
            .flatten()
            .filter(|(key, value)| shared.get(*key) == Some(*value))
            .map(|(key, _)| (key.clone(), reference("pipeline.params", &[key]).into()))
            .collect();
        if !wired.is_empty() {
            spec["params"] = Value::Object(wired);
        }
        stages.push(spec);
    }
    let mut spec = json!({"stages": stages});
    if !shared.is_empty() {
        spec["params"] = json!(shared);
    }
    let stages = stage_names.iter().cloned().zip(ordered.iter().cloned()).collect();
    Ok(Grown { spec, stages, notes })
}

fn with_makers(
    from: &[String],
    known: &BTreeMap<String, &ExperimentRecord>,
    notes: &mut Vec<String>,
) -> Result<BTreeSet<String>, String> {
    let mut chosen = BTreeSet::new();
    let mut open: Vec<String> = from.to_vec();
    while let Some(name) = open.pop() {
        let Some(record) = known.get(&name) else {
            return Err(format!("experiment {name} does not exist in this namespace"));
        };
        if record.status.phase != Phase::Completed {
            let phase = record.status.phase;
            return Err(format!("experiment {name} is {phase}: a pipeline grows from experiments that have completed"));
        }
        if !chosen.insert(name.clone()) {
            continue;
        }
        for maker in makers(record) {
            if known.get(&maker).is_some_and(|maker| maker.status.phase == Phase::Completed) {
                open.push(maker);
            } else {
                notes.push(format!(
                    "{name} reads what {maker} made, which is gone or has not completed: it stays as it is"
                ));
            }
        }
    }
    Ok(chosen)
}

fn makers(record: &ExperimentRecord) -> Vec<String> {
    let traced = record.status.inputs.iter().filter_map(|input| input.experiment.clone());
    traced.chain(crate::decide::inputs::makers(&record.spec).map(str::to_owned)).collect()
}

// Each after those that made what it reads; of those that are free the one that ended first.
fn makers_first(chosen: &BTreeSet<String>, known: &BTreeMap<String, &ExperimentRecord>) -> Vec<String> {
    let finished = |name: &str| known[name].status.times.as_ref().and_then(|times| times.finished.clone());
    let mut left: Vec<&String> = chosen.iter().collect();
    left.sort_by_key(|name| (finished(name), (*name).clone()));
    let mut ordered: Vec<String> = Vec::new();
    while !left.is_empty() {
        let waits = |name: &&String| {
            let makers = makers(known[*name]);
            makers.iter().any(|maker| maker != *name && chosen.contains(maker) && !ordered.contains(maker))
        };
        // What ran cannot have waited for itself; were it told so, the first goes on.
        let next = left.iter().position(|name| !waits(name)).unwrap_or(0);
        ordered.push(left.remove(next).clone());
    }
    ordered
}

// `prepare` and `train` of `digits-prepare` and `digits-train`; names that are no stage's stay whole.
fn stage_names(experiments: &[String]) -> Vec<String> {
    let parts: Vec<Vec<&str>> = experiments.iter().map(|name| name.split('-').collect()).collect();
    let common = |depth: usize| {
        parts.len() > 1 && parts.iter().all(|part| part.len() > depth + 1 && part[depth] == parts[0][depth])
    };
    let depth = (0..).take_while(|depth| common(*depth)).count();
    let short: Vec<String> = parts.iter().map(|part| part[depth..].join("-")).collect();
    let good = short.iter().all(|name| name.len() <= MAX_STAGE && name.starts_with(|c: char| c.is_ascii_lowercase()));
    if good {
        return short;
    }
    let cut = |name: &String| name[..name.len().min(MAX_STAGE)].trim_end_matches('-').to_owned();
    let names: Vec<String> = experiments.iter().map(cut).collect();
    let distinct = names.iter().collect::<BTreeSet<_>>().len() == names.len();
    if distinct { names } else { (1..=experiments.len()).map(|number| format!("stage-{number}")).collect() }
}

// Of which two stages at least have the same value; a name with several shared values stays as it is.
fn shared_params(ordered: &[String], known: &BTreeMap<String, &ExperimentRecord>) -> BTreeMap<String, Value> {
    let mut values: BTreeMap<&String, Vec<&Value>> = BTreeMap::new();
    for name in ordered {
        let template = known[name].status.template.as_ref();
        let params = template.and_then(|template| template.get("params")?.as_object());
        for (key, value) in params.into_iter().flatten() {
            values.entry(key).or_default().push(value);
        }
    }
    let shared = values.into_iter().filter(|(_, values)| {
        let same = |value: &&&Value| canonical_json(value) == canonical_json(values[0]);
        values.len() > 1 && values.iter().filter(same).count() == values.len()
    });
    shared.map(|(key, values)| (key.clone(), values[0].clone())).collect()
}

type Made<'r> = BTreeMap<&'r str, (&'r ExperimentRecord, &'r Artifact)>;

// By uri: who made it.
fn artifacts<'r>(ordered: &[String], known: &BTreeMap<String, &'r ExperimentRecord>) -> Made<'r> {
    let mut made = Made::new();
    for record in ordered.iter().map(|name| known[name]) {
        for artifact in &record.status.artifacts {
            made.entry(&artifact.uri).or_insert((record, artifact));
        }
    }
    made
}

fn inputs(record: &ExperimentRecord, made: &Made<'_>, stage_of: &BTreeMap<&str, &str>) -> Vec<Value> {
    let template = record.status.template.as_ref();
    let inputs = template.and_then(|template| template.get("inputs")?.as_array());
    let found = |uri: &Value| {
        let (maker, artifact) = made.get(uri.as_str()?)?;
        let stage = stage_of.get(maker.meta.name.as_str()).filter(|_| maker.meta.name != record.meta.name)?;
        Some((*stage, *maker, *artifact))
    };
    let of = |stage: &str, artifact: &Artifact, field: &str| {
        reference("stages", &[stage, "artifacts", artifact.name.as_str(), field])
    };
    let wired = inputs.into_iter().flatten().filter_map(|input| {
        if let Some(uris) = uris(input) {
            // What nobody here has made stays where it is, in its place.
            let one = |uri: &Value| found(uri).map(|(stage, _, artifact)| Value::from(of(stage, artifact, "uri")));
            let wired: Vec<Value> = uris.iter().map(|uri| one(uri).unwrap_or_else(|| uri.clone())).collect();
            let name = input.get("name").filter(|_| wired != uris)?;
            return Some(json!({"name": name, "uris": wired}));
        }
        let (stage, maker, artifact) = found(input.get("uri")?)?;
        let of = |field: &str| of(stage, artifact, field);
        let mut wired = json!({"name": input.get("name")?, "uri": of("uri")});
        // Where it is not known by itself.
        if Producer::of(maker, artifact).digest.is_none() && artifact.digest.is_some() {
            wired["digest"] = of("digest").into();
        }
        Some(wired)
    });
    wired.collect()
}

// `${stages.train.artifacts["my model"].uri}`
fn reference<S: AsRef<str>>(head: &str, segments: &[S]) -> String {
    let path = segments.iter().fold(head.to_owned(), |path, segment| {
        let segment = segment.as_ref();
        match crate::refs::is_identifier(segment) {
            true => format!("{path}.{segment}"),
            false => format!("{path}[{}]", Value::from(segment)),
        }
    });
    format!("${{{path}}}")
}
