//! References: what each one gives, from the table in `cases/refs.yaml`, and what the checks find.

use cultivar_core::refs::{
    FieldPath, Head, Insert, Known, Names, RefError, Scope, check, eval_bool, resolve, resolve_params, resolve_text,
    scan, unused_params,
};
use serde_json::{Value, json};

fn names(values: &Value) -> Names<'_> {
    let heads = Head::ALL.into_iter().filter_map(|head| Some((head, values.get(head.as_str())?)));
    heads.fold(Names::new(), |names, (head, value)| names.with(head, value))
}

const PASSES: [(&str, Scope, Insert); 4] = [
    ("own", Scope::Own, Insert::Plain),
    ("own_doubled", Scope::Own, Insert::Doubled),
    ("own_escaped", Scope::Own, Insert::Escaped),
    ("outer", Scope::Outer, Insert::Escaped),
];

#[test]
fn every_case_of_the_table() {
    let table: Value = serde_yaml::from_str(include_str!("cases/refs.yaml")).expect("the table is YAML");
    let names = names(&table["names"]);
    let mut wrong = Vec::new();
    for case in table["cases"].as_array().expect("a list of cases") {
        let (pass, scope, insert) =
            PASSES.into_iter().find(|(pass, ..)| case.get(*pass).is_some()).expect("a case has a text");
        let result = resolve_text(case[pass].as_str().expect("text"), scope, &names, insert);
        let right = match (&result, case.get("error")) {
            (Ok(value), None) => *value == case["gives"],
            (Err(error), Some(parts)) => {
                let message = error.to_string();
                parts.as_array().expect("a list of parts").iter().all(|part| message.contains(part.as_str().unwrap()))
            }
            _ => false,
        };
        if !right {
            wrong.push(format!("{}: {}", case["name"], result.map_or_else(|e| e.to_string(), |v| v.to_string())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn keys_are_no_references_and_every_error_has_its_field() {
    let value = json!({"args": ["ok", "${nope.x}"], "limits": {"nvidia.com/gpu": "${params.gpus}"}, "${a.b}": 1});
    let params = json!({"lr": 1});
    let errors =
        resolve(&value, &FieldPath::of("spec"), Scope::Own, &Names::new().with(Head::Params, &params), Insert::Plain)
            .unwrap_err();
    let paths: Vec<String> = errors.iter().map(|error| error.path.to_string()).collect();
    assert_eq!(paths, ["spec.args[1]", "spec.limits[nvidia.com/gpu]"]);
}

#[test]
fn a_long_list_of_names_is_cut() {
    let params: Value = (0..30).map(|i| (format!("p{i:02}"), Value::Null)).collect::<serde_json::Map<_, _>>().into();
    let error = resolve_text("${params.x}", Scope::Own, &Names::new().with(Head::Params, &params), Insert::Plain);
    let message = error.unwrap_err().to_string();
    assert!(message.ends_with("p08, p09 and 20 more"), "{message}");
}

#[test]
fn a_condition_must_be_a_boolean() {
    let stages = json!({"train": {"metrics": {"val/acc": {"max": 0.95}}}});
    let names = Names::new().with(Head::Stages, &stages);
    assert_eq!(eval_bool(r#"stages.train.metrics["val/acc"].max > 0.9"#, &names), Ok(true));
    assert_eq!(eval_bool("has(stages.train.metrics.loss) && stages.train.metrics.loss.max > 1", &names), Ok(false));
    assert_eq!(eval_bool(r#""val/acc" in stages.train.metrics"#, &names), Ok(true));
    assert_eq!(eval_bool("stages.train.metrics.`val/acc`.max == 0.95", &names), Ok(true));
    let message = eval_bool(r#"stages.train.metrics["val/acc"].max"#, &names).unwrap_err().to_string();
    assert!(message.contains("gives a number, but a condition must be true or false"), "{message}");
    let message = eval_bool("!stages.train.metrics", &names).unwrap_err().to_string();
    assert!(message.contains("stages.train.metrics is an object, not a boolean"), "{message}");
}

#[test]
fn scan_says_what_is_read_and_where() {
    let stage = json!({
        "args": ["${params.lr}", "plain", "$${not.this}"],
        "inputs": [{"uri": "${stages[\"prepare-data\"].artifacts.data.uri}"}],
        "params": {"good": "${= stages.train.metrics['val/acc'].max > pipeline.params.bar && size(stages.train.x[matrix.i]) > 1}"},
    });
    let found: Vec<(String, Vec<String>)> = scan(&stage, &FieldPath::of("spec").key("stages").index(0))
        .into_iter()
        .map(|(path, reference)| {
            (path.to_string(), reference.expect("well formed").uses().iter().map(ToString::to_string).collect())
        })
        .collect();
    let expected = [
        ("spec.stages[0].args[0]", vec!["params.lr"]),
        ("spec.stages[0].inputs[0].uri", vec![r#"stages["prepare-data"].artifacts.data.uri"#]),
        (
            "spec.stages[0].params.good",
            vec![r#"stages.train.metrics["val/acc"].max"#, "pipeline.params.bar", "stages.train.x", "matrix.i"],
        ),
    ];
    let expected: Vec<(String, Vec<String>)> = expected
        .into_iter()
        .map(|(path, uses)| (path.to_owned(), uses.into_iter().map(str::to_owned).collect()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn names_that_do_not_exist_are_refused_with_their_field() {
    let template = json!({
        "params": {"lr": 1, "twice": "${= params.lr * 2}"},
        "inputs": [{"name": "dataset", "uri": "s3://x"}],
        "outputs": [{"name": "model", "path": "${params.wrong}"}],
        "args": ["${params.lr}", "${inputs.data.path}", "${outputs.model.path}", "${run.name}", "${stages.a.b}"],
    });
    let errors = check(&template, &FieldPath::of("spec"), &Known::of_template(&template));
    let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            r#"spec.args[1]: inputs has no "data"; it has: dataset; did you mean dataset?"#,
            r#"spec.args[4]: stages.a.b: "stages" cannot be used here; only a pipeline's stages have it"#,
            r#"spec.outputs[0].path: params has no "wrong"; it has: lr, twice"#,
        ]
    );
    let known = Known::of_template(&template).pipeline_params(["lr"]).allow(Head::Stages, ["prepare"]);
    let stage = json!([
        "${pipeline.params.lr}",
        "${pipeline.name}",
        "${pipeline.params.x}",
        "${stages.prepare.a}",
        "${= stages.prepare.metrics.acc.maxx > 0.5}",
        "${stages.prepare.artifacts.m.url}",
        "${stages.prepare.metrics.acc.max}"
    ]);
    let messages: Vec<String> = check(&stage, &FieldPath::root(), &known).iter().map(ToString::to_string).collect();
    assert_eq!(
        messages,
        [
            r#"[2]: pipeline.params has no "x"; it has: lr"#,
            r#"[3]: stages.prepare has no "a"; it has: artifacts, experiment, metrics, phase"#,
            r#"[4]: stages.prepare.metrics.acc has no "maxx"; it has: last, max, min, step; did you mean max?"#,
            r#"[5]: stages.prepare.artifacts.m has no "url"; it has: digest, json, name, size, type, uri"#,
        ]
    );
}

#[test]
fn params_that_nothing_reads_are_found() {
    let template = json!({"params": {"a": 1, "b": "${params.a}", "c": 1, "d": 1}, "args": ["${= params.c + 1}"]});
    assert_eq!(unused_params(&template), ["b", "d"]);
    let template = json!({"params": {"a": 1}, "args": ["${= size(params)}"]});
    assert!(unused_params(&template).is_empty());
    assert!(unused_params(&json!({"params": [1]})).is_empty());
}

#[test]
fn params_may_read_each_other_but_not_in_a_circle() {
    let run = json!({"name": "t-1"});
    let names = Names::new().with(Head::Run, &run);
    let at = FieldPath::of("spec").key("params");
    let params =
        json!({"z": 2, "m": "${= params.z * 2}", "a": "${params.m}", "t": "${run.name}-${params.a}", "raw": "$${x}"});
    let resolved = resolve_params(params.as_object().unwrap(), &at, &names).unwrap();
    assert_eq!(Value::Object(resolved), json!({"z": 2, "m": 4, "a": 4, "t": "t-1-4", "raw": "${x}"}));

    let circle = json!({"a": "${params.b}", "b": {"deep": ["${= params.c}"]}, "c": "${params.a}", "fine": 1});
    let errors = resolve_params(circle.as_object().unwrap(), &at, &names).unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "spec.params.a: params read each other in a circle: params.a → params.b → params.c → params.a"
    );
    let own = json!({"a": "${params.a}"});
    let errors = resolve_params(own.as_object().unwrap(), &at, &names).unwrap_err();
    assert!(matches!(&errors[0].value, RefError::Cycle(circle) if circle == &["params.a", "params.a"]));

    let missing = json!({"a": "${params.x}"});
    let errors = resolve_params(missing.as_object().unwrap(), &at, &names).unwrap_err();
    assert_eq!(errors[0].to_string(), r#"spec.params.a: params has no "x"; it has: a"#);
}

#[test]
fn whole_values_are_escaped_and_doubled_deep_inside() {
    let params = json!({"o": {"${k.x}": ["$(A) ${params.b}"]}});
    let names = Names::new().with(Head::Params, &params);
    assert_eq!(
        resolve_text("${params.o}", Scope::Own, &names, Insert::Doubled),
        Ok(json!({"${k.x}": ["$$(A) $${params.b}"]}))
    );
    let escaped = resolve_text("${params.o}", Scope::Own, &names, Insert::Escaped).unwrap();
    let back = resolve(&escaped, &FieldPath::root(), Scope::Own, &Names::new(), Insert::Plain);
    assert_eq!(back.as_ref(), Ok(&params["o"]));
}
