//! Manifests from files, read as kubectl reads them.

use serde_json::Value;
use std::io::Read as _;

use crate::error::{Error, Result};

/// The documents of a file, or of the input with `-`.
pub fn read(path: &str) -> Result<Vec<Value>> {
    let text = if path == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Error::new("the input cannot be read").why(error))?;
        text
    } else {
        std::fs::read_to_string(path).map_err(|error| Error::new(format!("{path} cannot be read")).why(error))?
    };
    for warning in yaml_1_1(&text) {
        eprintln!("warning: {path}: {warning}");
    }
    documents(&text).map_err(|error| error.hint(format!("in {path}")))
}

fn documents(text: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = <Value as serde::Deserialize>::deserialize(document);
        let value = value.map_err(|error| Error::refused("it is no YAML").why(error))?;
        if !value.is_null() {
            found.push(value);
        }
    }
    Ok(found)
}

/// The document of a kind in a file.
pub fn of_kind(path: &str, kind: &str) -> Result<Value> {
    let all = read(path)?;
    let mut wanted = all.into_iter().filter(|document| document["kind"] == kind);
    match (wanted.next(), wanted.next()) {
        (Some(document), None) => Ok(document),
        (None, _) => Err(Error::refused(format!("there is no {kind} in {path}"))),
        (Some(_), Some(_)) => Err(Error::refused(format!("there is more than one {kind} in {path}"))),
    }
}

// What kubectl and the API server read as a boolean, and a reader of YAML 1.2 as text.
fn yaml_1_1(text: &str) -> Vec<String> {
    let boolean = |word: &str| matches!(word.to_lowercase().as_str(), "on" | "off" | "yes" | "no" | "y" | "n");
    let mut found = Vec::new();
    for (line, content) in text.lines().enumerate() {
        let content = content.split(" #").next().unwrap_or_default();
        // Keys and values, also of the short form.
        let words = content.split(['{', '}', '[', ']', ',']).flat_map(|part| part.splitn(2, ": "));
        let words = words.map(|word| word.trim().trim_start_matches("- ").trim_end_matches(':').trim());
        for word in words.filter(|word| boolean(word)) {
            found.push(format!("line {}: kubectl reads {word} as a boolean; quote it to mean the text", line + 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_words_that_kubectl_takes_for_booleans_are_named() {
        let warnings = yaml_1_1(
            "params:\n  augment: on\n  y: 3\n  note: \"no\"\n  city: Oslo # no\nlist:\n- off\nflow: {a: 1, b: yes}\nsaid: he said no\n",
        );
        let lines: Vec<&str> = warnings.iter().map(|warning| warning.split(':').next().unwrap()).collect();
        assert_eq!(lines, ["line 2", "line 3", "line 7", "line 8"]);
    }

    #[test]
    fn several_documents_are_read_and_empty_ones_left_out() {
        let read = documents("---\na: 1\n---\n---\nb: 2\n").unwrap();
        assert_eq!(read, [serde_json::json!({"a": 1}), serde_json::json!({"b": 2})]);
        assert!(documents("a: [").is_err());
    }
}
