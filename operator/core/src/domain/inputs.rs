//! Inputs as they are fetched: one that has several uris is a folder of as many, by their number.
//!
//! Comes in: a template. Goes out: its inputs, each with one uri, and its folders.

use serde_json::{Value, json};

/// The inputs of a spec or template, as they are written there.
pub fn written(spec: &Value) -> impl Iterator<Item = &Value> {
    spec.get("inputs").and_then(Value::as_array).into_iter().flatten()
}

/// Every single thing that is fetched: of an input `models` with `uris` these are `models/0`, `models/1` and so on, each found
/// below the folder's path.
#[must_use]
pub fn each(template: &Value) -> Vec<Value> {
    written(template).flat_map(members).collect()
}

/// The inputs that are folders of several.
pub fn folders(template: &Value) -> impl Iterator<Item = &Value> {
    written(template).filter(|input| uris(input).is_some())
}

/// The uris of an input that is a folder.
#[must_use]
pub fn uris(input: &Value) -> Option<&[Value]> {
    input.get("uris").and_then(Value::as_array).map(Vec::as_slice)
}

/// What one input consists of: itself, unless it is a folder.
#[must_use]
pub fn members(input: &Value) -> Vec<Value> {
    let Some(uris) = uris(input) else { return vec![input.clone()] };
    let word = |key: &str| input.get(key).and_then(Value::as_str);
    let name = word("name").unwrap_or_default();
    let member = |(number, uri): (usize, &Value)| {
        let mut member = json!({"name": format!("{name}/{number}"), "uri": uri});
        if let Some(path) = word("path") {
            member["path"] = format!("{}/{number}", path.trim_end_matches('/')).into();
        }
        if let Some(unpack) = input.get("unpack") {
            member["unpack"] = unpack.clone();
        }
        member
    };
    uris.iter().enumerate().map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_its_members_by_number() {
        let template = json!({"inputs": [
            {"name": "data", "uri": "s3://b/d", "digest": "sha256:d"},
            {"name": "models", "uris": ["s3://b/x", "s3://b/y"]},
            {"name": "parts", "uris": ["s3://b/z"], "path": "/data/", "unpack": true},
            {"name": "none", "uris": []},
        ]});
        let wanted = json!([
            {"name": "data", "uri": "s3://b/d", "digest": "sha256:d"},
            {"name": "models/0", "uri": "s3://b/x"},
            {"name": "models/1", "uri": "s3://b/y"},
            {"name": "parts/0", "uri": "s3://b/z", "path": "/data/0", "unpack": true},
        ]);
        assert_eq!(Value::Array(each(&template)), wanted);
        let names: Vec<_> = folders(&template).map(|folder| folder["name"].clone()).collect();
        assert_eq!(names, ["models", "parts", "none"]);
    }
}
