//! Fan-out: one stage, many experiments, one for each combination of values.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::schema::free_object;

/// Most members of one fan-out.
pub const MAX_MEMBERS: u32 = 10_000;

/// The combinations of values that a stage is run for. Each member finds its own as `${matrix.<axis>}`, and as a param of
/// the axis' name unless the stage gives that param itself.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Matrix {
    /// Lists by name: every value of each is combined with every value of the others. A list is written out, or is one
    /// reference to a list: `${pipeline.params.rates}`, `${= range(5)}`, `${stages.split.metrics.auc.max}`. Members are
    /// numbered with the axes in alphabetical order, the last one going fastest. At most 10,000 members.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "free_object")]
    pub axes: Map<String, Value>,

    /// Objects, as a list or one reference to a list. One that agrees with combinations on all of its axes adds its other
    /// values to them; one that agrees with none becomes a member of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any")]
    pub include: Option<Value>,

    /// Objects, as a list or one reference to a list: combinations that have all values of one of them are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any")]
    pub exclude: Option<Value>,
}

fn any(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// A number, or a reference to one.
pub fn number_or_reference(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
    })
}

/// How the members of a fan-out stand: counted, never listed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MembersStatus {
    /// How many there are.
    pub total: u32,
    /// Members below this index have been started, skipped or given up.
    #[serde(default)]
    pub started: u32,
    /// How many have an experiment that has not ended.
    #[serde(default)]
    pub live: u32,
    /// How many completed.
    #[serde(default)]
    pub completed: u32,
    /// How many failed.
    #[serde(default)]
    pub failed: u32,
    /// How many were cancelled.
    #[serde(default)]
    pub cancelled: u32,
    /// How many were skipped by `when`.
    #[serde(default)]
    pub skipped: u32,
    /// Which members have ended how.
    #[serde(default)]
    pub ends: MemberEnds,
    /// Why the first member whose experiment could not be made has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Which members of a fan-out have ended how: indexes and ranges of them, as in `0-41,43`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MemberEnds {
    /// Those that completed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub completed: String,
    /// Those that failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failed: String,
    /// Those that were cancelled.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cancelled: String,
    /// Those that were skipped.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub skipped: String,
}
