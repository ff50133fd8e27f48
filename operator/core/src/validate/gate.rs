//! A stage that is a gate: what goes with it, and what an Approval may give.

use cultivar_crds::ParamSchema;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use super::params::{conform, regex};
use crate::decide::object;
use crate::domain::time;
use crate::refs::{FieldPath, instead};

/// What such a stage may have.
const FIELDS: [&str; 4] = ["name", "gate", "after", "when"];

/// Whether a stage is a gate.
pub fn is_gate(stage: &Value) -> bool {
    stage.get("gate").is_some_and(|gate| !gate.is_null())
}

/// The values that an Approval of a stage gives, by the stage's name.
pub fn values<'a>(stages: impl IntoIterator<Item = &'a Value>) -> BTreeMap<String, BTreeSet<String>> {
    let gates = stages.into_iter().filter(|stage| is_gate(stage));
    gates
        .filter_map(|stage| {
            let names = object(stage["gate"].get("values")).into_iter().map(|(name, _)| name);
            Some((stage.get("name")?.as_str()?.to_owned(), names.collect()))
        })
        .collect()
}

/// Refuses what a gate has no use for.
pub fn check(stage: &Value, at: &FieldPath, report: &mut Report) {
    if !is_gate(stage) {
        return;
    }
    for (key, _) in object(Some(stage)).into_iter().filter(|(key, _)| !FIELDS.contains(&key.as_str())) {
        report.fault(
            at.key(&key),
            "the stage is a gate, which runs nothing: put it into a stage after it, or leave gate out",
        );
    }
    let (gate, at) = (&stage["gate"], at.key("gate"));
    if let Some(Err(error)) = gate.get("timeout").and_then(Value::as_str).map(time::parse_duration) {
        report.fault(at.key("timeout"), error);
    }
    for (name, schema) in object(gate.get("values")) {
        let pattern = schema.get("pattern").and_then(Value::as_str);
        if let Some(Err(error)) = pattern.map(regex) {
            report.fault(at.key("values").key(&name).key("pattern"), error);
        }
    }
    if gate["onTimeout"] == "Approve" && !object(gate.get("values")).is_empty() {
        let why = "nobody gives values when the time approves: leave values out, or onTimeout";
        report.fault(at.key("values"), why);
    }
}

/// Checks the values of an Approval against what its gate asks for.
#[must_use]
pub fn gate_values(wanted: &BTreeMap<String, ParamSchema>, given: &Map<String, Value>) -> Report {
    let mut report = Report::default();
    let at = FieldPath::of("spec").key("values");
    for (name, value) in given {
        match wanted.get(name) {
            Some(schema) => conform(value, schema, &at.key(name), &mut report),
            None if wanted.is_empty() => report.fault(at.key(name), "the gate asks for no values"),
            None => {
                let known = instead(name, wanted.keys());
                report.fault(at.key(name), format!("the gate asks for no such value; it asks for: {known}"));
            }
        }
    }
    for name in wanted.keys().filter(|name| !given.contains_key(*name)) {
        report.fault(at.key(name), "the gate asks for it");
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::pipeline;
    use serde_json::json;

    fn faults(gate: Value, then: Value) -> Vec<String> {
        let report = pipeline(&json!({"stages": [gate, then]}));
        report.faults.into_iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect()
    }

    fn reads(path: &str) -> Value {
        json!({"name": "ship", "image": "x", "args": [format!("${{stages.ask.{path}}}")], "after": [{"stage": "ask"}]})
    }

    #[test]
    fn a_gate_is_accepted_and_what_it_brings_is_known() {
        let gate = json!({"name": "ask", "gate": {"message": "Ship ${pipeline.name}?", "timeout": "2h", "values": {"share": {"type": "number"}}}});
        for path in ["values.share", "approvedBy", "phase", "comment"] {
            assert_eq!(faults(gate.clone(), reads(path)), Vec::<String>::new(), "{path}");
        }
        for (path, words) in [
            ("values.shares", "stages.ask.values has no"),
            ("metrics.acc.last", "stages.ask has no"),
            ("experiment", "stages.ask has no"),
        ] {
            let said = faults(gate.clone(), reads(path)).join("\n");
            assert!(said.contains("spec.stages[1].args[0]") && said.contains(words), "{path}: {said}");
        }
    }

    #[test]
    fn nothing_that_runs_stands_beside_it() {
        for (field, value) in [
            ("image", json!("x")),
            ("pipeline", json!("other")),
            ("params", json!({"a": 1})),
            ("count", json!(2)),
            ("matrix", json!({"axes": {"lr": [1]}})),
            ("repeat", json!({"max": 2})),
            ("queue", json!("q")),
        ] {
            let mut gate = json!({"name": "ask", "gate": {}});
            gate[field] = value;
            let said = faults(gate, reads("phase")).join("\n");
            assert!(said.contains(&format!("spec.stages[0].{field}: the stage is a gate")), "{field}: {said}");
        }
    }

    #[test]
    fn its_own_fields_are_checked() {
        for (gate, words) in [
            (json!({"timeout": "1w"}), "gate.timeout"),
            (json!({"values": {"a": {"pattern": "("}}}), "gate.values.a.pattern"),
            (json!({"onTimeout": "Approve", "values": {"a": {}}}), "gate.values: nobody gives values"),
            (json!({"message": "${params.lr}"}), "gate.message"),
            (json!({"message": "${stages.none.phase}"}), "gate.message"),
        ] {
            let said = faults(json!({"name": "ask", "gate": gate}), reads("phase")).join("\n");
            assert!(said.contains(words), "{words}: {said}");
        }
    }

    #[test]
    fn an_approval_gives_all_that_is_asked_for_and_no_more() {
        let wanted: BTreeMap<String, ParamSchema> =
            serde_json::from_value(json!({"share": {"type": "number", "maximum": 1}, "note": {}})).unwrap();
        let said = |given: Value| gate_values(&wanted, &object(Some(&given))).refusal().unwrap_or_default();
        assert_eq!(said(json!({"share": 0.5, "note": [null]})), "");
        assert!(said(json!({"share": 0.5})).contains("spec.values.note: the gate asks for it"));
        assert!(said(json!({"share": 2, "note": 1})).contains("more than the maximum"));
        assert!(
            said(json!({"share": 1, "note": 1, "x": 1})).contains("spec.values.x: the gate asks for no such value")
        );
    }
}
