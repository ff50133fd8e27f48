//! Pieces of schema that several kinds share.

use kube::core::Rule;
use schemars::{Schema, SchemaGenerator, json_schema};

/// Longest message that a status carries, in bytes.
pub const MAX_MESSAGE: usize = 1024;
/// Most stages of a pipeline.
pub const MAX_STAGES: usize = 100;
/// Largest template (an effective spec), as canonical JSON, in bytes.
pub const MAX_TEMPLATE: usize = 256 * 1024;
/// Largest frozen pipeline, as canonical JSON, in bytes.
pub const MAX_FROZEN_PIPELINE: usize = 768 * 1024;
/// Most metrics that a status carries.
pub const MAX_METRICS: usize = 256;
/// Most artifacts that a status carries.
pub const MAX_ARTIFACTS: usize = 128;
/// Most attempts that a status remembers.
pub const MAX_ATTEMPTS: usize = 10;

/// A JSON object with any content; numbers, booleans and null keep their type.
pub fn free_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A name that is a DNS label and starts with a letter, at most 40 characters.
pub fn label_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 40, "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"})
}

/// A name within an experiment (input, output, metric): starts with a letter, at most 63 characters.
pub fn part_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[A-Za-z]([-_.A-Za-z0-9]*[A-Za-z0-9])?$"})
}

/// A length of time: numbers with the units ms, s, m, h and d, as in `90s` or `1h30m`.
pub fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 32, "pattern": "^([0-9]+(ms|s|m|h|d))+$"})
}

/// A duration, or in a stage a reference to one: `${pipeline.params.limit}`.
pub fn duration_or_reference(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 256, "pattern": "^([0-9]+(ms|s|m|h|d))+$|^\\$\\{.*\\}$"})
}

/// A key of a ConfigMap.
pub fn config_key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[-._a-zA-Z0-9]+$"})
}

/// A path in the program's container: absolute, at most 1024 characters.
pub fn path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[/$]"})
}

/// `sha256:` and 64 hex digits.
pub fn digest(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 71, "pattern": "^sha256:[0-9a-f]{64}$"})
}

/// The same, or in a stage a reference to one: `${stages.prepare.artifacts.data.digest}`.
pub fn digest_or_reference(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 256, "pattern": "^sha256:[0-9a-f]{64}$|^\\$\\{.*\\}$"})
}

/// Moment in RFC 3339.
pub fn moment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// The rule that keeps a field of an Experiment's spec as it was once the experiment has started.
///
/// It needs the status, so it stands at the root of the object, one rule per field: a single rule
/// over the whole spec exceeds the API server's cost limit. It is asked at every write of the status
/// too, so what is nearly always true comes first.
pub fn frozen(field: &str) -> Rule {
    let path = escape(field);
    Rule::new(format!(
        "(has(self.spec.{path}) == has(oldSelf.spec.{path}) && (!has(self.spec.{path}) || self.spec.{path} == oldSelf.spec.{path})) || \
         !has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase == 'Pending'"
    ))
    .message(&*format!(
        "spec.{field} cannot change once the experiment has started: clone it with from.experiment and override the field there"
    ))
    .field_path(format!(".spec.{field}"))
}

/// The rule that keeps a field of a PipelineRun's spec as it was made.
pub fn stays(field: &str) -> Rule {
    Rule::new(format!(
        "has(self.spec.{field}) == has(oldSelf.spec.{field}) && (!has(self.spec.{field}) || self.spec.{field} == oldSelf.spec.{field})"
    ))
    .message(&*format!("spec.{field} of a run is frozen: make another PipelineRun"))
    .field_path(format!(".spec.{field}"))
}

/// The rule that lets `cancel` go from false to true only.
pub fn cancel_is_final() -> Rule {
    Rule::new("!has(oldSelf.spec.cancel) || !oldSelf.spec.cancel || (has(self.spec.cancel) && self.spec.cancel)")
        .message("cancel is final: once true it stays true; start again with a clone or a new run")
        .field_path(".spec.cancel")
}

/// The rule for the object's own name; a rule's field path cannot point into the metadata.
pub fn object_name(max: usize) -> Rule {
    Rule::new(format!(
        "self.metadata.name.size() <= {max} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
    ))
    .message(&*format!(
        "metadata.name must be a DNS label (a-z, 0-9 and -) that starts with a letter, at most {max} characters"
    ))
}

// CEL cannot name a field after one of its reserved words.
fn escape(field: &str) -> String {
    match field {
        "in" | "true" | "false" | "null" | "as" | "import" | "namespace" | "package" | "var" | "if" | "else"
        | "for" | "while" | "loop" | "const" | "break" | "continue" | "function" | "let" | "return" | "void" => {
            format!("__{field}__")
        }
        other => other.to_owned(),
    }
}
