//! What the runner reports beside metrics and artifacts, within the limits of a status.

use cultivar_crds::{InputUsed, Reason, RecordAt};
use cultivar_protocol as protocol;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;

use super::result::{MAX_URI, RunResult};
use crate::domain::text;

/// The fields of the runner's result that are its own.
pub const FIELDS: [&str; 12] = [
    "source",
    "version",
    "params",
    "inputs",
    "environment",
    "logs",
    "record",
    "reason",
    "message",
    "tail",
    "problems",
    "manifest",
];
/// Also the runner's: said in words when it had to leave something out.
const MAX_PARAMS: usize = 256;
const MAX_INPUTS: usize = 64;
/// Most bytes of logged parameters, and of the environment, as JSON.
const MAX_BYTES: usize = 16 * 1024;

/// Takes in one field.
pub fn read(key: &str, value: Value, result: &mut RunResult) {
    match key {
        "params" => take(value, result, "params").into_iter().for_each(|params| {
            let (params, left_out) = bounded(params);
            result.logged_params = params;
            note(left_out, "logged parameters", result);
        }),
        "environment" => take(value, result, "environment").into_iter().for_each(|environment| {
            // What is left out stands in the record.
            result.environment = bounded(environment).0;
        }),
        "inputs" => {
            let inputs: Vec<protocol::InputUsed> = take(value, result, "inputs").unwrap_or_default();
            let fits = |input: &protocol::InputUsed| {
                let short = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= 256);
                input.name.len() <= 256 && input.uri.len() <= MAX_URI && short(&input.digest) && short(&input.version)
            };
            result.inputs = inputs.into_iter().filter(fits).take(MAX_INPUTS).map(input).collect();
        }
        "source" => {
            let used: Option<protocol::SourceUsed> = take(value, result, "source");
            result.commit = used.map(|used| used.commit);
        }
        "logs" => {
            result.logs =
                take::<protocol::LogsAt>(value, result, "logs").map(|logs| logs.uri).filter(|uri| uri.len() <= MAX_URI)
        }
        "record" => {
            let record: Option<protocol::RecordAt> = take(value, result, "record");
            let record = record.map(|record| RecordAt { uri: record.uri, digest: record.digest });
            result.record = record.filter(|record| record.uri.len() <= MAX_URI && record.digest.len() <= 128);
        }
        "reason" => {
            let words = result.failure.take().map(|(_, words)| words).unwrap_or_default();
            result.failure = take(value, result, "reason").map(|named| (reason(named), words));
        }
        "message" => {
            let words = value.as_str().unwrap_or_default().to_owned();
            let known = result.failure.take().map_or(Reason::RunnerFailed, |(known, _)| known);
            result.failure = Some((known, text::message(words)));
        }
        "tail" => result.tail = value.as_str().map(str::to_owned),
        "problems" => {
            let problems: Vec<String> = take(value, result, "problems").unwrap_or_default();
            result.problems.extend(problems);
        }
        "manifest" => result.manifest = take(value, result, "manifest"),
        _ => {}
    }
}

fn take<T: DeserializeOwned>(value: Value, result: &mut RunResult, field: &str) -> Option<T> {
    match T::deserialize(value) {
        Ok(read) => Some(read),
        Err(error) => {
            result.problems.push(format!("{field}: {error}"));
            None
        }
    }
}

fn note(left_out: usize, what: &str, result: &mut RunResult) {
    if left_out > 0 {
        result
            .problems
            .push(format!("{left_out} {what} are left out here: a status holds {MAX_PARAMS}, and {MAX_BYTES} bytes"));
    }
}

// As many as fit, by name.
fn bounded(all: BTreeMap<String, Value>) -> (BTreeMap<String, Value>, usize) {
    let (mut kept, mut bytes, count) = (BTreeMap::new(), 0, all.len());
    for (name, value) in all {
        let more = name.len() + value.to_string().len();
        if kept.len() < MAX_PARAMS && bytes + more <= MAX_BYTES {
            bytes += more;
            kept.insert(name, value);
        }
    }
    let left_out = count - kept.len();
    (kept, left_out)
}

fn input(used: protocol::InputUsed) -> InputUsed {
    InputUsed {
        name: used.name,
        uri: used.uri,
        digest: used.digest,
        size: i64::try_from(used.size).ok(),
        version: used.version,
        ..InputUsed::default()
    }
}

fn reason(named: protocol::Reason) -> Reason {
    match named {
        protocol::Reason::InputCorrupt => Reason::InputCorrupt,
        protocol::Reason::InputUnavailable | protocol::Reason::SourceUnavailable => Reason::InputUnavailable,
        protocol::Reason::OutputMissing => Reason::OutputMissing,
        protocol::Reason::StoreUnavailable => Reason::StoreUnavailable,
        protocol::Reason::RunnerError => Reason::RunnerFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::parse;
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_runner_says_beside_metrics_is_kept() {
        let said = json!({
            "version": 1, "metrics": {"acc": {"last": 0.9}}, "params": {"C": 10},
            "inputs": [{"name": "data", "uri": "s3://b/d", "digest": "sha256:d", "size": 5}],
            "environment": {"cpuSeconds": 1.5}, "logs": {"uri": "s3://b/logs/"}, "record": {"uri": "s3://b/r", "digest": "sha256:r"},
            "message": "input data is not what it was", "reason": "InputCorrupt", "tail": "last words", "problems": ["odd"],
        });
        let result = parse(&said.to_string(), &[]);
        assert_eq!(result.failure, Some((Reason::InputCorrupt, "input data is not what it was".to_owned())));
        assert_eq!((result.inputs[0].size, result.inputs[0].digest.as_deref()), (Some(5), Some("sha256:d")));
        assert_eq!((result.logs.as_deref(), result.tail.as_deref()), (Some("s3://b/logs/"), Some("last words")));
        assert_eq!((&result.logged_params["C"], result.problems.as_slice()), (&json!(10), &["odd".to_owned()][..]));
    }

    #[test]
    fn a_status_holds_so_much_and_no_more() {
        let params: BTreeMap<String, Value> = (0..400).map(|n| (format!("p{n}"), "x".repeat(100).into())).collect();
        let result = parse(&json!({"version": 1, "params": params, "reason": "Nonsense"}).to_string(), &[]);
        assert!(result.logged_params.len() < 200 && result.problems.iter().any(|problem| problem.contains("left out")));
        assert_eq!(result.failure, None);
    }
}
