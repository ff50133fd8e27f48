//! The graph of stages: what is inferred, in which order stages run, what is refused.

use cultivar_crds::Until;
use std::collections::BTreeSet;

use cultivar_core::dag::{Dag, Need, Stage, faults, infer, needs};
use cultivar_core::refs::FieldPath;
use proptest::prelude::*;
use serde_json::{Value, json};

fn at() -> FieldPath {
    FieldPath::of("spec").key("stages")
}

fn digits() -> Vec<Value> {
    let stages = json!([
        {"name": "evaluate", "when": "stages[\"train-model\"].metrics[\"val/acc\"].max > 0.9", "inputs": [{"name": "m", "uri": "${stages[\"train-model\"].artifacts.model.uri}"}]},
        {"name": "report", "after": [{"stage": "evaluate", "until": "Ended"}], "params": {"best": "${= max(stages.prepare.metrics.n.last, 1)}"}},
        {"name": "prepare", "args": ["$${stages.nothing.x}", "${pipeline.params.lr}"]},
        {"name": "train-model", "podTemplate": {"metadata": {"annotations": {"data": "${stages.prepare.artifacts.d.uri}"}}}},
        {"name": "alone"},
    ]);
    stages.as_array().unwrap().clone()
}

#[test]
fn edges_come_from_references_conditions_and_after() {
    let stages = digits();
    let names = |stage| needs(stage).into_keys().collect::<BTreeSet<String>>();
    assert_eq!(names(&stages[0]), BTreeSet::from(["train-model".to_owned()]));
    assert_eq!(names(&stages[1]), BTreeSet::from(["evaluate".to_owned(), "prepare".to_owned()]));
    assert!(needs(&stages[2]).is_empty());
    let dag = infer(&stages, &at()).unwrap();
    assert_eq!(dag.order(), ["prepare", "train-model", "evaluate", "report", "alone"]);
    assert_eq!(dag.descendants("prepare"), ["train-model", "evaluate", "report"]);
    assert_eq!(dag.descendants("train-model"), ["evaluate", "report"]);
    assert!(dag.descendants("alone").is_empty());
    assert!(dag.descendants("unknown").is_empty());
    assert_eq!(dag.needs("report").collect::<Vec<_>>(), ["evaluate", "prepare"]);
    assert!(faults(&stages).is_empty());
}

fn messages(stages: &Value) -> Vec<String> {
    let errors = infer(stages.as_array().unwrap(), &at()).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_circle_names_its_stages_in_order() {
    let stages = json!([
        {"name": "report", "args": ["${stages.evaluate.x}"]},
        {"name": "train", "args": ["x", "${stages.evaluate.x}"]},
        {"name": "evaluate", "after": [{"stage": "train"}]},
    ]);
    let message = "spec.stages[1].args[1]: stages wait for each other in a circle: train → evaluate → train";
    assert_eq!(messages(&stages), [message]);
    let found = faults(stages.as_array().unwrap());
    assert_eq!(format!("{}: {}", found[0].field, found[0].message), message);
    let own = json!([{"name": "train", "when": "stages.train.x == 1"}]);
    assert_eq!(messages(&own), ["spec.stages[0].when: stages wait for each other in a circle: train → train"]);
}

#[test]
fn names_that_no_stage_or_two_stages_have() {
    let stages = json!([
        {"name": "a", "args": ["${stages.b.x}"]},
        {"name": "c", "after": [{"stage": "d"}]},
        {"name": "a"},
    ]);
    assert_eq!(
        messages(&stages),
        [
            "spec.stages[2].name: there is another stage called \"a\"",
            "spec.stages[0].args[0]: there is no stage \"b\"; there are: a, c",
            "spec.stages[1].after[0].stage: there is no stage \"d\"; there are: a, c",
        ]
    );
    // The reference is left to the check of references, which knows the same names.
    let fields: Vec<String> = faults(stages.as_array().unwrap()).into_iter().map(|fault| fault.field).collect();
    assert_eq!(fields, ["spec.stages[2].name", "spec.stages[1].after[0].stage"]);
}

#[test]
fn what_cannot_be_read_has_its_field() {
    let stages =
        json!([{"args": ["${stages.a"]}, {"name": "b", "when": "size(stages) > 1"}, {"name": "c", "when": "1 +"}]);
    let messages = messages(&stages);
    assert!(messages[0].starts_with("spec.stages[0].args[0]: ${stages.a: the closing } is missing"), "{messages:?}");
    assert_eq!(messages[1], "spec.stages[0]: a stage needs a name");
    assert!(
        messages[2].starts_with("spec.stages[1].when: an expression has to name the stages it reads"),
        "{messages:?}"
    );
    assert!(messages[3].starts_with("spec.stages[2].when: expression `1 +`"), "{messages:?}");
}

fn stages(edges: &[Vec<usize>]) -> Vec<Stage> {
    let name = |i: usize| format!("s{i}");
    let need = |i: &usize| Need { stage: name(*i), at: at().index(*i), until: Until::Completed };
    edges
        .iter()
        .enumerate()
        .map(|(i, needs)| Stage { name: name(i), at: at().index(i), needs: needs.iter().map(need).collect() })
        .collect()
}

/// Edges among `n` stages, to any of them.
fn graph() -> impl Strategy<Value = Vec<Vec<usize>>> {
    (1..12_usize).prop_flat_map(|n| prop::collection::vec(prop::collection::vec(0..n, 0..3), n))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn the_order_respects_the_edges_or_a_circle_is_real(edges in graph()) {
        let stages = stages(&edges);
        let index = |name: &str| stages.iter().position(|stage| stage.name == name).unwrap();
        match Dag::new(&stages) {
            Ok(dag) => {
                prop_assert_eq!(dag.order().len(), stages.len());
                let place = |i: usize| dag.order().iter().position(|name| *name == stages[i].name).unwrap();
                for (stage, needs) in edges.iter().enumerate() {
                    for need in needs {
                        prop_assert!(place(*need) < place(stage));
                        prop_assert!(dag.descendants(&stages[*need].name).contains(&stages[stage].name.as_str()));
                    }
                }
            }
            Err(errors) => {
                let text = errors[0].value.to_string();
                let circle: Vec<usize> = text.rsplit(": ").next().unwrap().split(" → ").map(index).collect();
                prop_assert!(circle.len() > 1 && circle.first() == circle.last(), "{}", text);
                prop_assert!(circle.windows(2).all(|pair| edges[pair[0]].contains(&pair[1])), "{}", text);
            }
        }
    }

    #[test]
    fn stages_without_edges_stay_as_declared(n in 0..20_usize) {
        let stages = stages(&vec![Vec::new(); n]);
        let names: Vec<String> = stages.iter().map(|stage| stage.name.clone()).collect();
        let dag = Dag::new(&stages).unwrap();
        prop_assert_eq!(dag.order(), names);
    }
}

#[test]
fn the_end_that_is_waited_for_is_said_or_follows_from_what_is_read() {
    let until = |stage: Value| needs(&stage).get("a").copied();
    let after = |end: &str| json!([{"stage": "a", "until": end}]);
    for (stage, wanted) in [
        (json!({"after": [{"stage": "a"}]}), Until::Completed),
        (json!({"after": after("Failed")}), Until::Failed),
        (json!({"when": "stages.a.phase == \"Failed\""}), Until::Ended),
        (json!({"when": "stages.a.phase == \"Failed\"", "args": ["${stages.a.metrics.x.last}"]}), Until::Completed),
        (json!({"args": ["${stages.a.metrics.x.last}", "${stages.a.phase}"]}), Until::Completed),
        (json!({"after": after("Ended"), "args": ["${stages.a.metrics.x.last}"]}), Until::Ended),
        (json!({"args": ["${stages.a.metrics.x.last}"], "after": after("Skipped")}), Until::Skipped),
        (json!({"after": [{"stage": "a"}], "when": "stages.a.phase == \"Failed\""}), Until::Completed),
    ] {
        assert_eq!(until(stage.clone()), Some(wanted), "{stage}");
    }
}
