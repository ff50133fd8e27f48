//! What came out: from the runner to the operator.

use crate::metric::Metric;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Everything that is known about one attempt when it has ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunResult {
    /// [`crate::VERSION`].
    #[serde(default = "crate::version")]
    pub version: u32,
    /// By name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, Metric>,
    /// In the order of declaration, then by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// What the program logged as its parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, Value>,
    /// What was fetched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputUsed>,
    /// The code that was checked out of a repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceUsed>,
    /// What the run was like: CPU seconds, peak memory, packages, GPU.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, Value>,
    /// Where the log lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<LogsAt>,
    /// Where the record lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordAt>,
    /// Why the runner failed the run; absent when the program's own exit code says all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The reason in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The last 2 KiB of a failed program's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<String>,
    /// What went wrong without failing the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// Why the runner failed a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// An input's bytes are not those its digest names, or an archive is hostile or broken.
    InputCorrupt,
    /// A declared output is not there.
    OutputMissing,
    /// The store did not answer for a minute or more.
    StoreUnavailable,
    /// An input is not there, or may not be read.
    InputUnavailable,
    /// The source code could not be fetched.
    SourceUnavailable,
    /// Anything else of the runner's own: a bad specification, a full disk, a command that cannot be started.
    RunnerError,
}

/// Something the run left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Its name.
    pub name: String,
    /// Where it lies; a directory's ends in `/`.
    pub uri: String,
    /// `sha256:…` of the file, or of the directory's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// In bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// What it is.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
}

/// Something the run was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InputUsed {
    /// Its name.
    pub name: String,
    /// Where it came from, without credentials.
    pub uri: String,
    /// `sha256:…` of what was fetched: of the file, or of the directory's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// In bytes.
    pub size: u64,
    /// The ETag or version that every byte was read under; absent when the server gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// The code that was checked out of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceUsed {
    /// Its commit, in full.
    pub commit: String,
}

/// Where the log lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogsAt {
    /// A prefix with numbered gzip chunks; joined in order they are one gzip file.
    pub uri: String,
}

/// Where the record lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordAt {
    /// The document.
    pub uri: String,
    /// `sha256:…` of its bytes.
    pub digest: String,
}

impl RunResult {
    /// An empty result of this version.
    #[must_use]
    pub fn new() -> Self {
        Self { version: crate::VERSION, ..Self::default() }
    }
}
