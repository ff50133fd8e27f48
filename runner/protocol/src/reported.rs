//! What a program itself wrote to the termination log, and how it joins what the runner found.

use crate::metric::Metric;
use crate::result::{Artifact, RunResult};
use serde_json::Value;

/// A program's own message, understood as far as possible.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    /// Whether it was a result, so a JSON object with `metrics` or `artifacts`.
    pub understood: bool,
    /// Text that was no result; kept as the message.
    pub text: Option<String>,
}

/// Merges the program's message into the result: for a metric or artifact of the same name the program's word wins.
/// What cannot be read is a problem; a text that is no JSON object is handed back, never lost.
pub fn merge_reported(message: &str, result: &mut RunResult) -> Reported {
    let text = message.trim();
    if text.is_empty() {
        return Reported::default();
    }
    let Ok(Value::Object(document)) = serde_json::from_str::<Value>(text) else {
        return Reported { understood: false, text: Some(text.to_owned()) };
    };
    for (key, value) in document {
        match (key.as_str(), value) {
            ("metrics", Value::Object(metrics)) => {
                for (name, value) in metrics {
                    match serde_json::from_value::<Metric>(value) {
                        Ok(metric) => drop(result.metrics.insert(name, metric)),
                        Err(error) => result.problems.push(format!("the program's metric {name:?}: {error}")),
                    }
                }
            }
            ("artifacts", Value::Array(artifacts)) => {
                for (index, value) in artifacts.into_iter().enumerate() {
                    match serde_json::from_value::<Artifact>(value) {
                        Ok(artifact) if !artifact.uri.is_empty() && !artifact.name.is_empty() => {
                            put(artifact, &mut result.artifacts);
                        }
                        Ok(_) => {
                            result.problems.push(format!("the program's artifacts[{index}]: name or uri is empty"))
                        }
                        Err(error) => result.problems.push(format!("the program's artifacts[{index}]: {error}")),
                    }
                }
            }
            ("params", Value::Object(params)) => result.params.extend(params),
            (key, _) => result.problems.push(format!("the program's result has {key:?}, which is not used")),
        }
    }
    Reported { understood: true, text: None }
}

fn put(artifact: Artifact, artifacts: &mut Vec<Artifact>) {
    match artifacts.iter_mut().find(|other| other.name == artifact.name) {
        Some(other) => *other = artifact,
        None => artifacts.push(artifact),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_words_win_and_the_rest_stays() {
        let mut result = RunResult::new();
        result.metrics.insert("acc".into(), Metric::of(0.1, Some(3)));
        result.metrics.insert("loss".into(), Metric::of(2.0, None));
        let text =
            r#"{"metrics": {"acc": 0.9, "bad": "x"}, "artifacts": [{"name": "m", "uri": "s3://a"}, {"name": "n"}]}"#;
        assert!(merge_reported(text, &mut result).understood);
        assert_eq!(result.metrics["acc"], Metric::of(0.9, None));
        assert_eq!(result.metrics["loss"].last, 2.0);
        assert_eq!(result.artifacts.len(), 1);
        assert_eq!(result.problems.len(), 2, "{:?}", result.problems);
    }

    #[test]
    fn text_is_handed_back() {
        let mut result = RunResult::new();
        assert_eq!(merge_reported(" out of paper \n", &mut result).text.as_deref(), Some("out of paper"));
        assert_eq!(merge_reported("", &mut result), Reported::default());
        assert_eq!(result, RunResult::new());
    }
}
