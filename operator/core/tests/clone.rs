//! Cloning: the tables in `cases/clone.yaml` and `cases/clone_pod.yaml`, and the laws of merging.

use cultivar_core::clone::{canonical_json, digest, merge_template, strategic_merge};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn table(text: &str) -> Vec<Value> {
    serde_yaml::from_str(text).expect("the table is YAML")
}

#[test]
fn every_clone_of_the_table() {
    let mut wrong = Vec::new();
    for case in table(include_str!("cases/clone.yaml")) {
        let unset: Vec<String> = serde_json::from_value(case.get("unset").cloned().unwrap_or(json!([]))).unwrap();
        let result = merge_template(&case["source"], &unset, case.get("overrides").unwrap_or(&json!({})));
        let right = match (&result, case.get("error")) {
            (Ok(value), None) => *value == case["gives"],
            (Err(error), Some(parts)) => {
                parts.as_array().unwrap().iter().all(|part| error.to_string().contains(part.as_str().unwrap()))
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
fn every_pod_of_the_table() {
    for case in table(include_str!("cases/clone_pod.yaml")) {
        assert_eq!(strategic_merge(&case["base"], &case["patch"]), case["gives"], "{}", case["name"]);
    }
}

#[test]
fn equal_values_have_one_text() {
    let value: Value =
        serde_json::from_str(r#"{"b": [10.0, -0.0, 1e3, 0.1, 1e300], "a": {"é\n": null, "d": 18446744073709551615}}"#)
            .unwrap();
    assert_eq!(canonical_json(&value), r#"{"a":{"d":18446744073709551615,"é\n":null},"b":[10,0,1000,0.1,1e+300]}"#);
    assert_eq!(digest(&json!({"lr": 10.0})), digest(&json!({"lr": 10})));
    assert_ne!(digest(&json!({"lr": 10.5})), digest(&json!({"lr": 10})));
    assert_ne!(digest(&json!({"lr": null})), digest(&json!({})));
    assert_eq!(digest(&json!({})), "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
}

/// Any JSON, with names and keys from a small set so that they meet.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Few digits, as serde_json reads some doubles of 17 digits as their neighbours.
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 1000.0)),
        "[a-c$]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from), object(inner)]
    })
}

fn object(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let keys = prop::sample::select(vec![
        "name",
        "env",
        "inputs",
        "params",
        "value",
        "valueFrom",
        "uri",
        "experiment",
        "a",
        "b/c",
        "resources",
        "limits",
        "requests",
        "podTemplate",
        "spec",
        "containers",
        "volumes",
        "$patch",
        "source",
        "git",
    ]);
    prop::collection::btree_map(keys, inner, 0..5)
        .prop_map(|map| Value::Object(map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>()))
}

/// A pod patch of the shape that pods have.
fn pod_patch() -> impl Strategy<Value = Value> {
    let scalar = || prop_oneof![Just(Value::Null), (0..4_u8).prop_map(Value::from)];
    let labels = || {
        let directive = prop::option::weighted(0.15, prop::sample::select(vec!["replace", "delete"]));
        (prop::collection::btree_map("[ab]", scalar(), 0..3), directive).prop_map(|(map, directive)| {
            let mut map: Map<String, Value> = map.into_iter().collect();
            map.extend(directive.map(|directive| ("$patch".to_owned(), directive.into())));
            Value::Object(map)
        })
    };
    let member = ("[xyz]", prop::option::of(scalar()), prop::option::of(labels()), prop::bool::weighted(0.1));
    let containers = prop::collection::vec(member, 0..4).prop_map(|members| {
        let mut seen = std::collections::BTreeSet::new();
        let distinct = members.into_iter().filter(|(name, ..)| seen.insert(name.clone()));
        let members = distinct.map(|(name, image, extra, delete)| {
            let mut member = json!({"name": name});
            if delete {
                member["$patch"] = "delete".into();
                return member;
            }
            for (key, value) in [("image", image), ("resources", extra)] {
                if let Some(value) = value {
                    member[key] = value;
                }
            }
            member
        });
        Value::Array(members.collect())
    });
    let selector = prop_oneof![4 => labels(), 1 => Just(Value::Null)];
    (prop::option::of(containers), prop::option::of(selector), prop::option::of(prop::collection::vec(scalar(), 0..2)))
        .prop_map(|(containers, selector, tolerations)| {
            let mut spec = json!({});
            let fields =
                [("containers", containers), ("nodeSelector", selector), ("tolerations", tolerations.map(Value::from))];
            for (key, value) in fields {
                if let Some(value) = value {
                    spec[key] = value;
                }
            }
            json!({"spec": spec})
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn overriding_nothing_changes_nothing(source in object(anything())) {
        prop_assert_eq!(merge_template(&source, &[], &json!({})), Ok(source.clone()));
        prop_assert_eq!(strategic_merge(&source, &json!({})), source);
    }

    #[test]
    fn a_template_over_itself_is_itself(source in object(anything())) {
        // A patch is not a template: in there, $patch means something.
        let mut source = source;
        source.as_object_mut().unwrap().remove("podTemplate");
        prop_assert_eq!(merge_template(&source, &[], &source), Ok(source));
    }

    #[test]
    fn what_is_overridden_twice_has_the_last_value(source in object(anything()), first in any::<i64>(), last in anything()) {
        let once = merge_template(&source, &[], &json!({"params": {"p": first}})).unwrap();
        let twice = merge_template(&once, &[], &json!({"params": {"p": last}})).unwrap();
        prop_assert_eq!(&twice["params"]["p"], &last);
    }

    #[test]
    fn unsetting_what_was_added_restores(source in object(anything()), value in anything()) {
        let mut source = source;
        source["params"] = json!({"kept": 1});
        source["env"] = json!([{"name": "A", "value": "1"}]);
        let added = merge_template(&source, &[], &json!({"params": {"p": value.clone()}, "env": [{"name": "N", "value": value}]})).unwrap();
        let restored = merge_template(&added, &["params.p".to_owned(), "env.N".to_owned()], &json!({}));
        prop_assert_eq!(restored, Ok(source));
    }

    #[test]
    fn a_patch_over_a_patch_is_one_after_the_other(pod in pod_patch(), first in pod_patch(), next in pod_patch()) {
        let pod = strategic_merge(&json!({"spec": {}}), &pod);
        let merged = merge_template(&json!({"podTemplate": first.clone()}), &[], &json!({"podTemplate": next.clone()})).unwrap();
        let one_by_one = strategic_merge(&strategic_merge(&pod, &first), &next);
        prop_assert_eq!(strategic_merge(&pod, &merged["podTemplate"]), one_by_one, "merged {}", merged);
    }

    #[test]
    fn nothing_panics(source in anything(), overrides in anything(), unset in prop::collection::vec("[a-z.\\[\\]\"\\\\$é]{0,12}", 0..3)) {
        let _ = merge_template(&source, &unset, &overrides);
        let _ = strategic_merge(&source, &overrides);
        let _ = digest(&source);
    }

    #[test]
    fn canonical_text_is_json_of_the_same_value(value in anything()) {
        let back: Value = serde_json::from_str(&canonical_json(&value)).unwrap();
        prop_assert_eq!(canonical_json(&back), canonical_json(&value));
    }
}
