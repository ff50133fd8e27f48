//! `source` of a template as stored JSON: which of its fields hold text, and what it must have.

use serde_json::Value;

/// The fields that hold text, as pointers into a template.
pub const TEXTS: [&str; 6] = [
    "/source/path",
    "/source/subdirectory",
    "/source/packed/uri",
    "/source/packed/digest",
    "/source/packed/remote",
    "/source/packed/commit",
];

/// What a complete template's source lacks, in words. A clone's own spec may lack it: its source has it.
#[must_use]
pub fn lacks(template: &Value) -> Option<&'static str> {
    let source = template.get("source")?;
    let has = |arm: &str| source.get(arm).is_some_and(|value| !value.is_null());
    (!has("packed")).then_some("it does not say where the code comes from: set packed")
}
