//! Where two keys differ first, in words.

use serde_json::Value;

use crate::domain::text;
use crate::refs::FieldPath;

/// Order in which fields are compared: what people change most often first.
const ORDER: [&str; 13] = [
    "params",
    "args",
    "command",
    "image",
    "source",
    "inputs",
    "env",
    "envFrom",
    "outputs",
    "workers",
    "resources",
    "tensorboard",
    "podTemplate",
];

/// How much of a value is shown, in bytes.
const SHOWN: usize = 80;

/// The first field in which `ours` differs from `theirs`, with both values, such as `params.lr: 0.1 here, 0.01 there`.
#[must_use]
pub fn first_difference(ours: &Value, theirs: &Value, there: &str) -> Option<String> {
    let rest = ours.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
    let rest = rest.chain(theirs.as_object().into_iter().flatten().map(|(field, _)| field.as_str()));
    let mut fields: Vec<&str> = ORDER.to_vec();
    fields.extend(rest.filter(|field| !ORDER.contains(field)));
    fields.into_iter().find_map(|field| {
        let (at, here, other) = differs(FieldPath::of(field), ours.get(field), theirs.get(field))?;
        Some(format!("{at}: {} here, {} in {there}", shown(here), shown(other)))
    })
}

type Difference<'v> = (FieldPath, Option<&'v Value>, Option<&'v Value>);

fn differs<'v>(at: FieldPath, ours: Option<&'v Value>, theirs: Option<&'v Value>) -> Option<Difference<'v>> {
    match (ours, theirs) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            keys.into_iter().find_map(|key| differs(at.key(key), a.get(key), b.get(key)))
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            let length = a.len().max(b.len());
            (0..length).find_map(|index| {
                let name = a.get(index).or_else(|| b.get(index)).and_then(|item| item.get("name")?.as_str());
                let at = name.map_or_else(|| at.index(index), |name| at.key(name));
                differs(at, a.get(index), b.get(index))
            })
        }
        (Some(a), Some(b)) if same(a, b) => None,
        (None, None) => None,
        _ => Some((at, ours, theirs)),
    }
}

// As the digest sees it: 10 and 10.0 are the same.
fn same(a: &Value, b: &Value) -> bool {
    a == b || crate::clone::canonical_json(a) == crate::clone::canonical_json(b)
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| text::short(value.to_string(), SHOWN))
}
