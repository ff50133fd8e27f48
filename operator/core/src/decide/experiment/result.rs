//! The result message: what a program, or the runner around it, reports by writing JSON to the termination log.
//!
//! Comes in: the text as the kubelet hands it on, and the declared outputs. Goes out: metrics and
//! artifacts within the limits, and every problem in words. Nothing here fails a run by itself.

use cultivar_crds::schema::{MAX_ARTIFACTS, MAX_METRICS};
use cultivar_crds::{Artifact, InputUsed, Metric, Output, Reason, RecordAt};
use cultivar_protocol::ManifestAt;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

use super::runner;

/// What the kubelet cuts a container's termination message to, in bytes.
const MAX_TERMINATION_MESSAGE: usize = 4096;

/// Longest uri that a status carries, in bytes.
pub const MAX_URI: usize = 2048;

/// A result message, understood as far as possible.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunResult {
    /// By name.
    pub metrics: BTreeMap<String, Metric>,
    /// By name, in the order reported.
    pub artifacts: Vec<Artifact>,
    /// What was not used, and why.
    pub problems: Vec<String>,
    /// Whether there was a message at all.
    pub reported: bool,
    /// Whether the runner wrote it.
    pub by_runner: bool,
    /// Why the runner failed the run, and in its words.
    pub failure: Option<(Reason, String)>,
    /// The end of a failed program's log, as the runner saw it.
    pub tail: Option<String>,
    /// What was fetched.
    pub inputs: Vec<InputUsed>,
    /// The commit that was checked out.
    pub commit: Option<String>,
    /// What the program logged as its parameters.
    pub logged_params: BTreeMap<String, Value>,
    /// What the run was like.
    pub environment: BTreeMap<String, Value>,
    /// Where the log lies.
    pub logs: Option<String>,
    /// Where the record lies.
    pub record: Option<RecordAt>,
    /// Where all of the result lies, where this is only a part of it.
    pub manifest: Option<ManifestAt>,
}

/// Reads a result message.
#[must_use]
pub fn parse(message: &str, outputs: &[Output]) -> RunResult {
    let mut result = RunResult::default();
    let text = message.trim();
    if text.is_empty() {
        return result;
    }
    result.reported = true;
    let document = match serde_json::from_str::<Unique>(text) {
        Ok(Unique(Value::Object(document), repeated)) => {
            result
                .problems
                .extend(repeated.into_iter().map(|name| format!("{name:?} is written twice; the last one counts")));
            document
        }
        Ok(_) => {
            result.problems.push("the result message is not a JSON object".to_owned());
            return result;
        }
        Err(error) => {
            let cut =
                if message.len() >= MAX_TERMINATION_MESSAGE { " (it is cut: at most 4096 bytes arrive)" } else { "" };
            result.problems.push(format!("the result message is not JSON{cut}: {error}"));
            return result;
        }
    };
    result.by_runner = document.contains_key("version");
    for (key, value) in document {
        match (key.as_str(), value) {
            (key, value) if result.by_runner && runner::FIELDS.contains(&key) => runner::read(key, value, &mut result),
            ("metrics", Value::Object(metrics)) => read_metrics(metrics, &mut result),
            ("artifacts", Value::Array(artifacts)) => read_artifacts(artifacts, outputs, &mut result),
            ("metrics", _) => result.problems.push("metrics is not an object".to_owned()),
            ("artifacts", _) => result.problems.push("artifacts is not a list".to_owned()),
            _ => result.problems.push(format!("{key:?} is unknown; a result has metrics and artifacts")),
        }
    }
    result
}

fn read_metrics(metrics: Map<String, Value>, result: &mut RunResult) {
    for (name, value) in metrics {
        if name.is_empty() || name.len() > 256 {
            result.problems.push("a metric's name has 1 to 256 bytes".to_owned());
        } else if result.metrics.len() >= MAX_METRICS {
            result.problems.push(format!("more than {MAX_METRICS} metrics; {name:?} and those after it are left out"));
            return;
        } else if let Some(metric) = read_metric(&value) {
            result.metrics.insert(name, metric);
        } else {
            result.problems.push(format!("metric {name:?} is neither a number nor {{last, min, max, step}}"));
        }
    }
}

fn read_metric(value: &Value) -> Option<Metric> {
    if let Some(last) = value.as_f64() {
        return Some(Metric { last, min: Some(last), max: Some(last), step: None });
    }
    let object = value.as_object()?;
    let known = ["last", "min", "max", "step"];
    let sound = object.iter().all(|(key, value)| known.contains(&key.as_str()) && value.is_number());
    let last = object.get("last")?.as_f64()?;
    let number = |key: &str| object.get(key).and_then(Value::as_f64);
    sound.then(|| Metric {
        last,
        min: number("min").or(Some(last)),
        max: number("max").or(Some(last)),
        step: object.get("step").and_then(Value::as_i64),
    })
}

fn read_artifacts(artifacts: Vec<Value>, outputs: &[Output], result: &mut RunResult) {
    for (index, value) in artifacts.into_iter().enumerate() {
        let mut artifact: Artifact = match serde_json::from_value(value) {
            Ok(artifact) => artifact,
            Err(error) => {
                result.problems.push(format!("artifacts[{index}]: {error}"));
                continue;
            }
        };
        if let Some(problem) = unsound(&artifact) {
            result.problems.push(format!("artifacts[{index}]: {problem}"));
        } else if result.artifacts.iter().any(|other| other.name == artifact.name) {
            result.problems.push(format!("artifact {:?} is reported twice; the first one counts", artifact.name));
        } else if result.artifacts.len() >= MAX_ARTIFACTS {
            result.problems.push(format!("more than {MAX_ARTIFACTS} artifacts; the rest is left out"));
            return;
        } else {
            if artifact.type_.is_none() {
                artifact.type_ =
                    outputs.iter().find(|output| output.name == artifact.name).and_then(|o| o.type_.clone());
            }
            result.artifacts.push(artifact);
        }
    }
}

fn unsound(artifact: &Artifact) -> Option<&'static str> {
    if artifact.name.is_empty() || artifact.name.len() > 256 {
        Some("a name has 1 to 256 bytes")
    } else if artifact.uri.is_empty() || artifact.uri.len() > MAX_URI {
        Some("a uri has 1 to 2048 bytes")
    } else if artifact.digest.as_ref().is_some_and(|digest| digest.len() > 128) {
        Some("a digest has at most 128 bytes")
    } else if artifact.type_.as_ref().is_some_and(|kind| kind.len() > 63) {
        Some("a type has at most 63 bytes")
    } else if artifact.size.is_some_and(|size| size < 0) {
        Some("size is negative")
    } else {
        None
    }
}

/// Declared outputs that are neither optional nor reported.
#[must_use]
pub fn missing(outputs: &[Output], result: &RunResult) -> Vec<String> {
    outputs
        .iter()
        .filter(|output| output.optional != Some(true))
        .filter(|output| !result.artifacts.iter().any(|artifact| artifact.name == output.name))
        .map(|output| output.name.clone())
        .collect()
}

// JSON with a note of the keys that an object writes twice, which serde_json's own map swallows.
struct Unique(Value, Vec<String>);

impl<'de> serde::Deserialize<'de> for Unique {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Unique;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut access: A) -> Result<Unique, A::Error> {
                let (mut map, mut repeated) = (Map::new(), Vec::new());
                while let Some((key, Unique(value, mut inner))) = access.next_entry::<String, Unique>()? {
                    repeated.append(&mut inner);
                    if map.insert(key.clone(), value).is_some() {
                        repeated.push(key);
                    }
                }
                Ok(Unique(Value::Object(map), repeated))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut access: A) -> Result<Unique, A::Error> {
                let (mut list, mut repeated) = (Vec::new(), Vec::new());
                while let Some(Unique(value, mut inner)) = access.next_element()? {
                    repeated.append(&mut inner);
                    list.push(value);
                }
                Ok(Unique(Value::Array(list), repeated))
            }
            fn visit_bool<E>(self, v: bool) -> Result<Unique, E> {
                Ok(Unique(v.into(), Vec::new()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Unique, E> {
                Ok(Unique(v.into(), Vec::new()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Unique, E> {
                Ok(Unique(v.into(), Vec::new()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Unique, E> {
                Ok(Unique(v.into(), Vec::new()))
            }
            fn visit_str<E>(self, v: &str) -> Result<Unique, E> {
                Ok(Unique(v.into(), Vec::new()))
            }
            fn visit_unit<E>(self) -> Result<Unique, E> {
                Ok(Unique(Value::Null, Vec::new()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_last_value() {
        let result = parse(r#"{"metrics": {"acc": 0.93, "loss": {"last": 1, "min": 0.5, "step": 7}}}"#, &[]);
        assert_eq!(result.metrics["acc"].last, 0.93);
        assert_eq!(result.metrics["loss"], Metric { last: 1.0, min: Some(0.5), max: Some(1.0), step: Some(7) });
        assert!(result.problems.is_empty(), "{:?}", result.problems);
    }

    #[test]
    fn what_is_wrong_is_named_and_the_rest_is_kept() {
        let text = r#"{"metrics": {"a": "x", "b": 2, "b": 3}, "artifacts": [{"name": "m", "uri": "s3://a"},
            {"name": "m", "uri": "s3://b"}, {"name": "n"}, {"name": "o", "uri": ""}], "extra": 1}"#;
        let result = parse(text, &[Output { name: "m".into(), type_: Some("Model".into()), ..Output::default() }]);
        assert_eq!(result.metrics["b"].last, 3.0);
        assert_eq!(result.artifacts.len(), 1);
        assert_eq!(result.artifacts[0].type_.as_deref(), Some("Model"));
        assert_eq!(result.problems.len(), 6, "{:?}", result.problems);
    }

    #[test]
    fn garbage_is_a_problem_and_never_a_panic() {
        for text in ["[1]", "{", "nonsense", "\"a\"", "{\"metrics\": 3, \"artifacts\": {}}"] {
            assert!(!parse(text, &[]).problems.is_empty(), "{text}");
        }
        assert!(parse(&format!("{{\"metrics\": {{\"a\": \"{}", "x".repeat(4096)), &[]).problems[0].contains("4096"));
        assert_eq!(parse("  ", &[]), RunResult::default());
    }

    #[test]
    fn limits_hold() {
        let metrics: Map<String, Value> = (0..400).map(|n| (format!("m{n}"), n.into())).collect();
        let result = parse(&serde_json::json!({"metrics": metrics}).to_string(), &[]);
        assert_eq!(result.metrics.len(), MAX_METRICS);
        assert_eq!(result.problems.len(), 1);
    }
}
