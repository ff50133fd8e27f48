//! `cache`: whether a run may take over the result of an identical one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Whether a run may take over the result of one that did the same work in this namespace.
///
/// The same work is: the image by its digest, command, args, params, env, code by its commit or digest, inputs by their
/// digests, outputs, workers, and the pod template but for where the pod is placed. A clone takes over what its source says
/// here about the program (`ignoreEnv`, `considerResources`), and neither `mode` nor `maxAge`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// Use looks for a result and takes it over; Refresh runs, for others to take over; Never runs. By default a stage
    /// says Use, and a stage of `finally`, and an Experiment made by hand, Never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<CacheMode>,
    /// How old a result may be, e.g. `30d`; any age by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub max_age: Option<String>,
    /// Names of environment variables that change nothing about the result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub ignore_env: Vec<String>,
    /// True where `resources` change the result, such as a batch size that follows the memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consider_resources: Option<bool>,
}

/// Whether results are taken over.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheMode {
    /// Take over the result of an identical run, or wait for one that is under way.
    Use,
    /// Run, whatever there is.
    Refresh,
    /// Run, and look for nothing.
    Never,
}

/// The run whose result was taken over.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReusedFrom {
    /// Name of its Experiment: of the one that ran, however often it was taken over.
    pub name: String,
    /// Its uid.
    #[serde(default)]
    pub uid: String,
    /// When it ended: that is how old its result is, however often it was taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
}

/// What came of looking for a result.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CacheStatus {
    /// Hit: there was one. Miss: there was none. Unpinned: what the run does is not known well enough to tell.
    pub result: CacheResult,
    /// Why; for a Miss the first field that differs from the run that comes nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What came of looking for a result.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheResult {
    /// A result was taken over.
    Hit,
    /// There was none.
    Miss,
    /// A tag, a branch or an input without a digest: the same name may mean something else.
    Unpinned,
}
