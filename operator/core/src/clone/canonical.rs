//! One text per value, whatever wrote it.
//!
//! In: JSON. Out: compact JSON with sorted keys, in which 10 and 10.0 are the same, and its digest.

use serde_json::{Number, Value};
use sha2::{Digest, Sha256};

/// Integers beyond this are not exact as doubles.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Compact JSON with sorted keys. A double that is a whole number within ±2^53 prints as an integer: YAML and the API
/// server turn one into the other.
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

/// `sha256:` and the digest of [`canonical_json`] in hex.
#[must_use]
pub fn digest(value: &Value) -> String {
    let hash = Sha256::digest(canonical_json(value).as_bytes());
    hash.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => out.push_str(&canonical_number(number)),
        Value::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            // Sorted here as well: another crate in the build could ask serde_json to keep the order of insertion.
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (position, (key, value)) in entries.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
fn canonical_number(number: &Number) -> String {
    match number.as_f64() {
        Some(double) if number.is_f64() && double.fract() == 0.0 && double.abs() <= EXACT => {
            (double as i64).to_string()
        }
        _ => number.to_string(),
    }
}
