//! A stage's fan-out: its matrix or count, and which coordinates its references may read.

use serde_json::Value;
use std::collections::BTreeSet;

use super::Report;
use crate::decide::object;
use crate::decide::pipeline_run::FanOut;
use crate::refs::{FieldPath, Head, Kind, Known, Names, Part, Scope, Template, check, scan};

/// What every member has beside its coordinates.
const INDEX: &str = "index";

/// Whether a stage fans out.
pub fn fans_out(stage: &Value) -> bool {
    ["matrix", "count"].iter().any(|key| stage.get(key).is_some_and(|value| !value.is_null()))
}

/// Adds to what a stage may refer to the coordinates that its members have.
pub fn coordinates(stage: &Value, known: Known) -> Known {
    if !fans_out(stage) {
        return known;
    }
    let matrix = stage.get("matrix");
    let included = matrix.and_then(|matrix| matrix.get("include"));
    if included.is_some_and(Value::is_string) {
        // What a reference brings is known when it has a value.
        return known.allow_any(Head::Matrix).allow_any(Head::Params);
    }
    let axes = object(matrix.and_then(|matrix| matrix.get("axes")));
    let included = included.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object);
    let names: BTreeSet<String> =
        axes.into_iter().map(|(axis, _)| axis).chain(included.flat_map(|extra| extra.keys().cloned())).collect();
    // A coordinate is a param of the member.
    known.add(Head::Params, &names).allow(Head::Matrix, names.iter().map(String::as_str).chain([INDEX]))
}

/// Checks a stage's fan-out; `outer` is what it may refer to.
pub fn check_fan_out(stage: &Value, at: &FieldPath, outer: &Known, report: &mut Report) {
    if !fans_out(stage) {
        for key in ["maxParallel", "failFast"].into_iter().filter(|key| stage.get(key).is_some()) {
            report.fault(at.key(key), "means something for a stage with matrix or count only");
        }
        return;
    }
    let (matrix, count) = (stage.get("matrix"), stage.get("count"));
    if matrix.is_some() && count.is_some() {
        report.fault(
            at.key("count"),
            "a stage has either matrix or count: for repetitions add an axis, as in `seed: \"${= range(5)}\"`",
        );
    }
    for (key, value) in [("matrix", matrix), ("count", count)] {
        for fault in value.into_iter().flat_map(|value| check(value, &at.key(key), outer)) {
            report.fault(fault.path, fault.value);
        }
    }
    if let Some(count) = count {
        number(count, &at.key("count"), outer, report);
    }
    if let Some(matrix) = matrix {
        check_matrix(matrix, &at.key("matrix"), outer, report);
    }
    // Nothing to resolve: the members are known already.
    let plain = [matrix, count].into_iter().flatten().all(|value| scan(value, at).is_empty());
    if plain
        && report.faults.is_empty()
        && let Some(Err(error)) = FanOut::of(stage).map(|fan_out| fan_out.members(&Names::new()))
    {
        report.fault(at, error);
    }
}

fn number(count: &Value, at: &FieldPath, outer: &Known, report: &mut Report) {
    let is_number = count.as_u64().is_some();
    if !is_number && !is_reference(count) {
        return report.fault(at, "a whole number from 0, or one reference to a number");
    }
    gives(count, Kind::Number, at, outer, report);
}

// What one reference brings, where that can be told.
fn gives(value: &Value, wanted: Kind, at: &FieldPath, outer: &Known, report: &mut Report) {
    let Some(template) = value.as_str().and_then(|text| Template::parse(text).ok()) else { return };
    let kind = match template.parts.as_slice() {
        [Part::Path { path, .. }] => outer.kind(path),
        [Part::Cel { expression, .. }] => expression.gives(outer).ok().flatten(),
        _ => None,
    };
    if let Some(kind) = kind.filter(|kind| *kind != wanted) {
        report.fault(at, format!("it refers to {kind}, and {wanted} is wanted"));
    }
}

fn check_matrix(matrix: &Value, at: &FieldPath, outer: &Known, report: &mut Report) {
    let axes = object(matrix.get("axes"));
    if axes.is_empty() && matrix.get("include").is_none() {
        report.fault(at, "name at least one axis, as in `axes: {lr: [0.1, 0.01]}`, or list the members in include");
    }
    for (axis, values) in &axes {
        let at = at.key("axes").key(axis);
        if axis == INDEX {
            report.fault(&at, "every member has its index already: ${matrix.index}; call the axis something else");
        }
        if !values.is_array() && !is_reference(values) {
            report.fault(&at, "a list of values, or one reference to a list");
        }
        gives(values, Kind::List, &at, outer, report);
    }
    for key in ["include", "exclude"] {
        let Some(list) = matrix.get(key) else { continue };
        let is_list = list.as_array().is_some_and(|list| list.iter().all(Value::is_object));
        if !is_list && !is_reference(list) {
            report.fault(at.key(key), "a list of objects, or one reference to such a list");
        }
        gives(list, Kind::List, &at.key(key), outer, report);
    }
}

// One reference and nothing around it, which keeps the type of what it refers to.
fn is_reference(value: &Value) -> bool {
    let Some(text) = value.as_str() else { return false };
    let template = Template::parse(text);
    template.is_ok_and(|template| matches!(template.parts.as_slice(), [part] if part.scope() == Some(Scope::Outer) || text.starts_with("${=")))
}
