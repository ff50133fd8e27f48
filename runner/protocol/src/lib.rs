//! What the operator and the runner in a user's pod tell each other, as JSON.
//!
//! Goes in: a [`RunSpec`], in the environment variable [`SPEC_ENV`] of the container. Comes out: a [`RunResult`], as the
//! container's termination message; when that does not fit, a [`Pointer`] to it. In the store stay a
//! [`DirectoryManifest`] for each directory and one [`Record`] per attempt.
//!
//! The rules of every document: camelCase, `version: 1`, unknown fields are ignored (a newer side may say more), absent
//! fields have the defaults that their docs name. Nothing here does I/O, so that the operator's pure core can use it.
#![warn(missing_docs)]

mod duration;
mod fit;
mod manifest;
mod metric;
mod record;
mod reported;
mod result;
mod source;
mod spec;

pub use duration::{BadDuration, Span};
pub use fit::{MAX_TERMINATION_MESSAGE, ManifestAt, Pointer, fit};
pub use manifest::{BadManifest, DirectoryManifest, ManifestFile, is_safe_relative};
pub use metric::Metric;
pub use record::Record;
pub use reported::{Reported, merge_reported};
pub use result::{Artifact, InputUsed, LogsAt, Reason, RecordAt, RunResult, SourceUsed};
pub use source::{Git, Origin, Packed, Source};
pub use spec::{BadSpec, Checkpoint, ExperimentRef, Input, Output, RunSpec, StoreSpec};

/// The version of every document that this crate writes.
pub const VERSION: u32 = 1;
/// The object in an experiment's folder that names its newest whole checkpoint.
pub const CHECKPOINT_POINTER: &str = "checkpoint.json";
/// The environment variable that carries the [`RunSpec`]; the runner removes it before it starts the program.
pub const SPEC_ENV: &str = "CULTIVAR_RUN_SPEC";
/// Where the runner lies in a pod.
pub const RUNNER: &str = "/cultivar/bin/cultivar-runner";
/// The key of the packages among the facts about a run's environment, which stand in the [`Record`] only: they would fill a
/// termination message.
pub const PACKAGES: &str = "packages";
/// Where a pod of an Indexed Job finds its number.
pub const WORKER_ENV: &str = "JOB_COMPLETION_INDEX";
/// How the runner itself ends when it, and not the program, is what failed.
pub const RUNNER_FAILED: i32 = 125;
/// The longest tail of a failed program's output that a result keeps, in bytes.
pub const MAX_TAIL: usize = 2048;

pub(crate) fn version() -> u32 {
    VERSION
}

/// The text, cut to at most `most` bytes at a character's border; a cut shows as `…`.
#[must_use]
pub fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// The last `most` bytes of a text, from a character's border on.
#[must_use]
pub fn last_bytes(text: &str, most: usize) -> &str {
    let mut start = text.len().saturating_sub(most);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
