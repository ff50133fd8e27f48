//! Kind Schedule: makes runs of a Pipeline at times of the day.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ConcurrencyPolicy;
use crate::schema::{self, object_name};

/// Longest name of a Schedule: with the time after it, it is the name of a run.
pub const MAX_SCHEDULE: usize = 39;

/// Makes runs of a Pipeline at times of the day, and for times in the past that are asked for.
#[derive(CustomResource, Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "cultivar.dev",
    version = "v1alpha1",
    kind = "Schedule",
    plural = "schedules",
    shortname = "cvsched",
    category = "cultivar",
    namespaced,
    status = "ScheduleStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Makes runs of a Pipeline at times of the day, and for times in the past that are asked for.",
    printcolumn(name = "Pipeline", type_ = "string", json_path = ".spec.pipeline"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Last", type_ = "date", json_path = ".status.lastTime"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.next[0]"),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.activeCount"),
    printcolumn(name = "Missed", type_ = "integer", json_path = ".status.missed", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = object_name(MAX_SCHEDULE),
)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleSpec {
    /// Name of the Pipeline, in the same namespace. One that starts no runs by itself has `runOn: Demand`.
    #[schemars(schema_with = "schema::label_name")]
    pub pipeline: String,

    /// When: five fields (minute, hour, day of the month, month, day of the week), or `@hourly`, `@daily`, `@weekly`,
    /// `@monthly`, `@yearly`. Several mean all their times. Where clocks change, a time that does not exist runs at the
    /// first moment after the gap, and one that comes twice runs once, the first time; with `*` for the hour, hours that
    /// pass count, not those on the clock.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 128)))]
    pub cron: Vec<String>,

    /// Whose clock: a name of the IANA database such as Europe/Berlin; UTC by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,

    /// Parameters of the runs that differ from the Pipeline's defaults.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::free_object")]
    pub params: Map<String, Value>,

    /// What becomes of a run while an earlier one of this schedule has not ended: Queue (default) leaves that to the
    /// Pipeline's own concurrencyPolicy, Allow lets them run side by side whatever it says, Forbid makes no run, and
    /// Replace cancels the earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_policy: Option<ConcurrencyPolicy>,

    /// How late a run may be made; 10m by default. What could not be made by then is missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub starting_deadline: Option<String>,

    /// Whether missed times are made up for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<CatchUp>,

    /// Days in the past to make runs for, one for each time that the schedule has on them, oldest first. Another value asks
    /// for another backfill; a time that has a run already gets no second one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<Backfill>,

    /// True makes no runs until it is false again; times that pass meanwhile are not made up for. Runs that exist go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// Whether missed times are made up for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct CatchUp {
    /// How many of the times that were missed, since the operator or the Pipeline was not there, get a run later, the
    /// newest ones; 1 by default.
    #[schemars(range(min = 0, max = 100))]
    pub limit: u32,
}

/// Days in the past to make runs for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Backfill {
    /// The first day, as in 2026-11-01.
    #[schemars(schema_with = "day")]
    pub from: String,
    /// The last day, which is part of it. Times that are still to come when the backfill begins are not.
    #[schemars(schema_with = "day")]
    pub to: String,
    /// How many of its runs there are at once that have not ended; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_parallel: Option<u32>,
}

fn day(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 10, "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"})
}

/// Where a schedule stands.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted: the spec is valid. Ready: runs are made at their times. Stalled: nothing happens without a change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// What is to be said about it, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The next three times; none while it is suspended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
    /// The latest time that a run was made for; a backfill does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub last_time: Option<String>,
    /// The run of that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<String>,
    /// Runs that have not ended, the oldest twenty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active: Vec<String>,
    /// How many have not ended.
    #[serde(default)]
    pub active_count: u32,
    /// How many times got no run: the operator or the Pipeline was not there in time, or concurrencyPolicy did not let it.
    #[serde(default)]
    pub missed: u64,
    /// Times up to this one have had their run or were missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub considered_until: Option<String>,
    /// The expressions and the zone that are in force. Times of others, before they changed, are not made up for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<String>,
    /// Whether it was suspended when it was looked at last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspended: bool,
    /// How far the backfill is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<BackfillStatus>,
}

/// How far a backfill is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackfillStatus {
    /// Its first and last day.
    pub range: String,
    /// It has the times before this moment.
    #[schemars(schema_with = "schema::moment")]
    pub until: String,
    /// The latest of its times that has a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::moment")]
    pub last_time: Option<String>,
    /// How many of its times have had a run.
    #[serde(default)]
    pub made: u32,
    /// Whether all have.
    #[serde(default)]
    pub done: bool,
}
