//! Validation: faults inside one object, found by one function for the webhook and the controllers.
//!
//! Comes in: a stored spec. Goes out: a [`Report`]. What lies outside the object (a missing experiment)
//! is never a fault: it is waited for.

mod fan_out;
mod gate;
mod loops;
mod nested;
mod params;
mod schedule;
mod source;

pub use gate::gate_values;
pub use params::run_params;
pub use schedule::schedule;

use cultivar_crds::{ExperimentSpec, PipelineRunSpec, PipelineSpec};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;

use crate::dag;
use crate::decide::freeze::overrides;
use crate::domain::{text, time};
use crate::refs::{Expression, FieldPath, Head, Kind, Known, Reference, Scope, check, scan, unused_params};

/// What is wrong with an object, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Path of the field, such as `spec.stages[1].args[0]`.
    pub field: String,
    /// What is wrong, why, and what to do.
    pub message: String,
}

/// Everything found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Each refuses the object.
    pub faults: Vec<Fault>,
    /// Shown to whoever applies the object, which is admitted.
    pub warnings: Vec<String>,
}

impl Report {
    /// All faults as one message, or nothing.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let lines: Vec<String> =
            self.faults.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    fn fault(&mut self, field: impl ToString, message: impl ToString) {
        self.faults.push(Fault { field: field.to_string(), message: message.to_string() });
    }
}

/// Validates an Experiment's spec.
#[must_use]
pub fn experiment(spec: &Value) -> Report {
    let mut report = Report::default();
    if let Err(error) = ExperimentSpec::deserialize(spec) {
        report.fault("spec", error);
        return report;
    }
    let at = FieldPath::of("spec");
    settings(spec, &at, &[], &mut report);
    time_to_live(spec, &at, &mut report);
    source::check(spec, &at, &mut report);
    template(spec, &at, own_names(spec), &mut report);
    warn_unused(spec, &at, &mut report);
    report
}

fn time_to_live(spec: &Value, at: &FieldPath, report: &mut Report) {
    let ttl = spec.get("ttlAfterFinished").and_then(Value::as_str);
    if let Some(Err(error)) = ttl.map(time::parse_duration) {
        report.fault(at.key("ttlAfterFinished"), error);
    }
}

/// Validates a Pipeline's spec.
#[must_use]
pub fn pipeline(spec: &Value) -> Report {
    let mut report = Report::default();
    if let Err(error) = PipelineSpec::deserialize(spec) {
        report.fault("spec", error);
        return report;
    }
    let at = FieldPath::of("spec");
    let stages = spec.get("stages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if stages.is_empty() {
        report.fault(at.key("stages"), "a pipeline has at least one stage");
    }
    for fault in dag::faults(stages) {
        report.faults.push(Fault { field: fault.field, message: fault.message });
    }
    let names = names_of(stages, |_| true);
    let declared = params::declared(spec);
    let (fan_outs, nested) = (names_of(stages, fan_out::fans_out), names_of(stages, nested::is_nested));
    let gates = gate::values(stages);
    let kinds = params::kinds(spec);
    let outer = |known: Known| {
        let known = known.allow(Head::Stages, &names).fan_outs(&fan_outs).nested(&nested).gates(&gates);
        known.pipeline_params(&declared).param_kinds(&kinds)
    };
    for (index, stage) in stages.iter().enumerate() {
        let at = at.key("stages").index(index);
        check_stage(stage, &at, &outer, &mut report);
    }
    finally(spec, &at, &names, &outer, &mut report);
    if let Some(outputs) = spec.get("outputs") {
        for fault in check(outputs, &at.key("outputs"), &outer(Known::nothing())) {
            report.fault(fault.path, fault.value);
        }
    }
    if let Some(group) = spec.pointer("/concurrency/group") {
        let known = Known::nothing().pipeline_params(&declared);
        for fault in check(group, &at.key("concurrency").key("group"), &known) {
            report.fault(fault.path, fault.value);
        }
    }
    if let Some(Err(error)) = spec.pointer("/timeouts/run").and_then(Value::as_str).map(time::parse_duration) {
        report.fault(at.key("timeouts").key("run"), error);
    }
    time_to_live(spec, &at, &mut report);
    params::defaults(spec, &at, &mut report);
    one_admits(spec, &at, &mut report);
    report
}

fn names_of(stages: &[Value], is_meant: fn(&Value) -> bool) -> Vec<&str> {
    stages.iter().filter(|stage| is_meant(stage)).filter_map(|stage| stage.get("name")?.as_str()).collect()
}

// A stage by itself; `outer` adds what lies outside of it to what it may refer to.
fn check_stage(stage: &Value, at: &FieldPath, outer: &dyn Fn(Known) -> Known, report: &mut Report) {
    let own = if nested::is_nested(stage) || gate::is_gate(stage) { Known::nothing() } else { own_names(stage) };
    nested::check(stage, at, report);
    gate::check(stage, at, report);
    settings(stage, at, &CHOSEN, report);
    source::check(stage, at, report);
    fan_out::check_fan_out(stage, at, &outer(Known::nothing()), report);
    loops::check(stage, at, &outer(Known::nothing()), report);
    template(stage, at, loops::turns(stage, fan_out::coordinates(stage, outer(own))), report);
    if let Some(when) = stage.get("when").and_then(Value::as_str) {
        condition(when, &at.key("when"), &fan_out::coordinates(stage, outer(Known::nothing())), report);
    }
    warn_unused(stage, at, report);
}

// The stages of the end wait for all others and for none of their own: what they may refer to are the others.
fn finally(spec: &Value, at: &FieldPath, names: &[&str], outer: &dyn Fn(Known) -> Known, report: &mut Report) {
    let last = spec.get("finally").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut taken: BTreeSet<&str> = names.iter().copied().collect();
    for (index, stage) in last.iter().enumerate() {
        let at = at.key("finally").index(index);
        let name = stage.get("name").and_then(Value::as_str).unwrap_or_default();
        if !taken.insert(name) {
            report.fault(at.key("name"), format!("there is another stage called {name:?}"));
        }
        if stage.get("after").is_some() {
            report.fault(at.key("after"), "a stage of finally runs when all others have ended: leave after out");
        }
        check_stage(stage, &at, outer, report);
    }
}

/// Validates a PipelineRun's spec, as far as it can be without its pipeline.
#[must_use]
pub fn pipeline_run(spec: &Value) -> Report {
    let mut report = Report::default();
    if let Err(error) = PipelineRunSpec::deserialize(spec) {
        report.fault("spec", error);
    }
    params::scheduled_time(spec, &mut report);
    report
}

// A root's own names are all there; a clone's come from its source too, and are checked when it is frozen.
fn own_names(spec: &Value) -> Known {
    if spec.get("from").is_none() {
        return Known::of_template(spec);
    }
    [Head::Params, Head::Inputs, Head::Outputs, Head::Run].into_iter().fold(Known::nothing(), Known::allow_any)
}

fn template(spec: &Value, at: &FieldPath, known: Known, report: &mut Report) {
    for (key, value) in crate::decide::object(Some(spec)) {
        let at = at.key(&key);
        match key.as_str() {
            // An expression, and what has a check of its own.
            "when" | "matrix" | "count" | "repeat" => {}
            "name" | "after" | "from" | "unset" | "cancel" | "ttlAfterFinished" | "store" | "keepOnFailure"
            | "queue" | "admission" | "pipeline" | "pipelineDigest" => {
                for (path, _) in scan(&value, &at) {
                    report.fault(path, LITERAL);
                }
            }
            _ => {
                for fault in check(&value, &at, &known) {
                    report.fault(fault.path, fault.value);
                }
            }
        }
        match key.as_str() {
            "inputs" => literal(&value, &["experiment", "artifact"], MAKER, &at, report),
            "outputs" => literal(&value, &["type", "default"], LITERAL, &at, report),
            _ => {}
        }
    }
}

const LITERAL: &str = "references are not resolved here; write the value itself";
// Makers are looked up when the template is frozen, before any reference has a value.
const MAKER: &str =
    "write the name itself; an artifact of another stage is uri: ${stages.<stage>.artifacts.<artifact>.uri}";

fn literal(list: &Value, keys: &[&str], why: &str, at: &FieldPath, report: &mut Report) {
    for (index, item) in list.as_array().into_iter().flatten().enumerate() {
        for key in keys {
            if item.get(key).and_then(Value::as_str).is_some_and(|text| text.contains("${")) {
                report.fault(at.index(index).key(key), why);
            }
        }
    }
}

fn condition(when: &str, at: &FieldPath, known: &Known, report: &mut Report) {
    match Expression::parse(when) {
        Err(error) => report.fault(at, error),
        Ok(expression) if expression.scope() == Scope::Own && !expression.uses().is_empty() => {
            report.fault(at, "when is decided before the stage exists: it reads stages and pipeline, not the stage's own params, inputs or run");
        }
        Ok(expression) => check_condition(&expression, at, known, report),
    }
}

fn check_condition(expression: &Expression, at: &FieldPath, known: &Known, report: &mut Report) {
    if let Some(error) = expression.uses().iter().find_map(|path| known.check(path).err()) {
        return report.fault(at, error);
    }
    match expression.gives(known) {
        Err(error) => report.fault(at, error),
        Ok(Some(kind)) if kind != Kind::Boolean => {
            report.fault(at, format!("it gives {kind}, but a condition must be true or false"));
        }
        Ok(_) => {}
    }
}

// Times that a stage may take from the pipeline or from another stage: they are resolved when its experiment is made.
const CHOSEN: [&[&str]; 5] = [
    &["timeouts", "queue"],
    &["timeouts", "start"],
    &["timeouts", "run"],
    &["retries", "backoff", "initial"],
    &["retries", "backoff", "max"],
];

fn settings(spec: &Value, at: &FieldPath, chosen: &[&[&str]], report: &mut Report) {
    one_admits(spec, at, report);
    let literal: [&[&str]; 3] = [&["timeouts", "template"], &["checkpoint", "every"], &["keepOnFailure"]];
    for path in CHOSEN.into_iter().chain(literal) {
        let value = path.iter().try_fold(spec, |value, key| value.get(key));
        let Some(Value::String(text)) = value else { continue };
        let at = path.iter().fold(at.clone(), |at, key| at.key(key));
        if chosen.contains(&path) && text.contains("${") {
            // What is wrong with a reference itself is found with all others.
            let own =
                |(_, found): &(_, Result<Reference, _>)| found.as_ref().is_ok_and(|found| found.scope() == Scope::Own);
            if scan(&Value::String(text.clone()), &at).iter().any(own) {
                report.fault(at, "it holds for the program before the program's own names have values: write a duration, or refer to pipeline, stages or matrix");
            }
        } else if let Err(error) = time::parse_duration(text) {
            report.fault(at, error);
        }
    }
}

fn one_admits(spec: &Value, at: &FieldPath, report: &mut Report) {
    if spec.get("queue").is_some() && spec.get("admission").is_some() {
        report.fault(
            at.key("admission"),
            "either a Queue admits it (queue) or Kueue does (admission): leave one of them out",
        );
    }
}

fn warn_unused(spec: &Value, at: &FieldPath, report: &mut Report) {
    if spec.get("from").is_some() || nested::is_nested(spec) || gate::is_gate(spec) {
        return; // what the source or the other pipeline reads is not known here
    }
    let template = overrides(spec);
    let unused = unused_params(&template);
    let all = crate::decide::object(template.get("params"));
    let read: Vec<&String> = all.keys().filter(|name| !unused.contains(name)).collect();
    if !unused.is_empty() && !read.is_empty() {
        report.warnings.push(format!(
            "{}: no reference reads {}; the program finds them in CULTIVAR_PARAMS only. Read by reference: {}",
            at.key("params"),
            text::some_of(&unused, 8),
            text::some_of(&read, 8),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_of_the_two_admits_and_the_fault_names_the_field() {
        let both = json!({"image": "a", "queue": "q", "admission": {"kueue": {"localQueue": "team-a"}}});
        let refused = |report: Report| report.refusal().unwrap_or_default();
        assert!(
            refused(experiment(&both)).contains("spec.admission: either a Queue admits it"),
            "{:?}",
            experiment(&both)
        );
        let mut stage = both.clone();
        stage["name"] = "train".into();
        let said = refused(pipeline(&json!({ "stages": [stage] })));
        assert!(said.contains("spec.stages[0].admission"), "{said}");
        let said = refused(pipeline(
            &json!({"queue": "q", "admission": both["admission"], "stages": [{"name": "a", "image": "a"}]}),
        ));
        assert!(said.contains("spec.admission"), "{said}");
        assert_eq!(experiment(&json!({"image": "a", "admission": both["admission"]})).refusal(), None);
    }
}
