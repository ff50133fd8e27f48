//! Parameters against their schema: the pipeline's defaults, and a run's own values.

use cultivar_crds::ParamSchema;
use cultivar_crds::pipeline::ParamType;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use super::Report;
use crate::decide::object;
use crate::domain::text;
use crate::domain::time::parse_moment;
use crate::refs::{FieldPath, Kind, instead, scan};

fn schemas(spec: &Value) -> BTreeMap<String, ParamSchema> {
    spec.get("paramSchema").and_then(|schema| BTreeMap::deserialize(schema).ok()).unwrap_or_default()
}

/// Names of a pipeline's parameters: those with a default and those with a schema.
pub fn declared(spec: &Value) -> Vec<String> {
    let mut names: Vec<String> = object(spec.get("params")).keys().cloned().collect();
    names.extend(schemas(spec).into_keys());
    names.sort();
    names.dedup();
    names
}

/// What kinds its parameters are of: as their schema says, else as their defaults are. On demand a run may give others.
pub fn kinds(spec: &Value) -> BTreeMap<String, Kind> {
    let on_demand = spec.get("runOn").and_then(Value::as_str) == Some("Demand");
    let defaults = object(spec.get("params")).into_iter().filter(|_| !on_demand);
    let mut kinds: BTreeMap<String, Kind> =
        defaults.filter_map(|(name, value)| Some((name, Kind::of(&value)?))).collect();
    let declared = schemas(spec).into_iter();
    kinds.extend(declared.filter_map(|(name, schema)| Some((name, schema.type_?.into()))));
    kinds
}

/// Checks a pipeline's defaults.
pub fn defaults(spec: &Value, at: &FieldPath, report: &mut Report) {
    let params = object(spec.get("params"));
    let schemas = schemas(spec);
    for (path, _) in scan(&Value::Object(params.clone()), &at.key("params")) {
        report.fault(
            path,
            "a pipeline's parameters are values; references are resolved in stages (write $${ for a literal ${)",
        );
    }
    let on_demand = spec.get("runOn").and_then(Value::as_str) == Some("Demand");
    for (name, schema) in &schemas {
        let at_schema = at.key("paramSchema").key(name);
        if let Some(pattern) = &schema.pattern
            && let Err(error) = regex(pattern)
        {
            report.fault(at_schema.key("pattern"), error);
        }
        match params.get(name) {
            Some(value) => conform(value, schema, &at.key("params").key(name), report),
            None if !on_demand => report.fault(
                at_schema,
                "the parameter has no default in spec.params: give one, or set runOn: Demand and give it in each PipelineRun",
            ),
            None => {}
        }
    }
}

/// Checks a run's parameters against its pipeline.
#[must_use]
pub fn run_params(pipeline: &Value, run: &Value) -> Report {
    let mut report = Report::default();
    let at = FieldPath::of("spec").key("params");
    let (declared, schemas) = (declared(pipeline), schemas(pipeline));
    let given: Map<String, Value> = object(run.get("params"));
    for (path, _) in scan(&Value::Object(given.clone()), &at) {
        report.fault(
            path,
            "a run's parameters are values; references are not resolved here (write $${ for a literal ${)",
        );
    }
    for (name, value) in &given {
        if !declared.contains(name) {
            report.fault(
                at.key(name),
                format!("the pipeline has no such parameter; it has: {}", instead(name, &declared)),
            );
        } else if let Some(schema) = schemas.get(name) {
            conform(value, schema, &at.key(name), &mut report);
        }
    }
    let stages: Vec<&str> = crate::dag::all(pipeline).filter_map(|stage| stage.get("name")?.as_str()).collect();
    for (index, name) in run.get("only").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if !name.as_str().is_some_and(|name| stages.contains(&name)) {
            let wrong = name.as_str().unwrap_or_default();
            let message = format!("the pipeline has no stage {name}; it has: {}", instead(wrong, &stages));
            report.fault(FieldPath::of("spec").key("only").index(index), message);
        }
    }
    scheduled_time(run, &mut report);
    let defaults = object(pipeline.get("params"));
    for name in declared.iter().filter(|name| !defaults.contains_key(*name) && !given.contains_key(*name)) {
        report.fault(at.key(name), "the pipeline has no default for it, and the run gives no value");
    }
    report
}

/// Checks the time that a run is for.
pub fn scheduled_time(run: &Value, report: &mut Report) {
    if let Some(Err(error)) = run.get("scheduledTime").and_then(Value::as_str).map(parse_moment) {
        report.fault("spec.scheduledTime", error);
    }
}

/// Checks a value against its schema.
pub fn conform(value: &Value, schema: &ParamSchema, at: &FieldPath, report: &mut Report) {
    if let Some(type_) = schema.type_.filter(|type_| !is_of(value, *type_)) {
        report.fault(at, format!("{value} is not of type {}", format!("{type_:?}").to_lowercase()));
        return;
    }
    if let Some(allowed) = schema.enum_.as_ref().filter(|allowed| !allowed.contains(value)) {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        report.fault(at, format!("{value} is not one of {}", text::some_of(&allowed, 16)));
    }
    if let Some(number) = value.as_f64() {
        if let Some(minimum) = schema.minimum.filter(|minimum| number < *minimum) {
            report.fault(at, format!("{value} is less than the minimum, {minimum}"));
        }
        if let Some(maximum) = schema.maximum.filter(|maximum| number > *maximum) {
            report.fault(at, format!("{value} is more than the maximum, {maximum}"));
        }
    }
    if let (Some(text), Some(pattern)) = (value.as_str(), &schema.pattern)
        && regex(pattern).is_ok_and(|regex| !regex.is_match(text))
    {
        report.fault(at, format!("{value} does not match the pattern {pattern}"));
    }
}

/// Reads a pattern.
pub fn regex(pattern: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(pattern)
        .size_limit(1 << 20)
        .build()
        .map_err(|error| format!("not a regular expression: {error}"))
}

fn is_of(value: &Value, type_: ParamType) -> bool {
    match type_ {
        ParamType::String => value.is_string(),
        ParamType::Number => value.is_number(),
        ParamType::Integer => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        ParamType::Boolean => value.is_boolean(),
        ParamType::Object => value.is_object(),
        ParamType::Array => value.is_array(),
    }
}
