//! Making a result fit into a termination message.

use crate::metric::Metric;
use crate::result::{Reason, RunResult, SourceUsed};
use crate::{cut, last_bytes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the kubelet cuts a container's termination message to, in bytes.
pub const MAX_TERMINATION_MESSAGE: usize = 4096;

/// What stands in the termination message when the result does not fit: where all of it lies, and the most telling
/// parts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pointer {
    /// [`crate::VERSION`].
    #[serde(default = "crate::version")]
    pub version: u32,
    /// The object that is the full [`RunResult`]; absent when there is no store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<ManifestAt>,
    /// As in the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// As in the result, cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// As in the result, cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<String>,
    /// As in the result: which code ran must never be lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceUsed>,
    /// What is not here, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_note: Option<String>,
    /// As many as fit, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, Metric>,
    /// As many as fit, where there is no store to hold the full result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<crate::Artifact>,
    /// As many as fit, where there is no store to hold the full result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// An object and what it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestAt {
    /// Where it lies.
    pub uri: String,
    /// `sha256:…` of its bytes.
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

/// The termination message: the result itself when it fits, otherwise a [`Pointer`] with `manifest`.
#[must_use]
pub fn fit(result: &RunResult, manifest: Option<ManifestAt>) -> String {
    let whole = serde_json::to_string(result).unwrap_or_default();
    if whole.len() <= MAX_TERMINATION_MESSAGE && !whole.is_empty() {
        return whole;
    }
    let stored = manifest.is_some();
    let mut pointer = Pointer {
        version: crate::VERSION,
        manifest,
        reason: result.reason,
        message: result.message.as_deref().map(|text| cut(text, 512)),
        tail: result.tail.as_deref().map(|text| last_bytes(text, 768).to_owned()),
        source: result.source.clone(),
        exit_note: Some(if stored {
            "the result is larger than a termination message; all of it is at manifest.uri".to_owned()
        } else {
            "the result is larger than a termination message and there is no store to hold it; a part is left out"
                .to_owned()
        }),
        ..Pointer::default()
    };
    // Control characters grow sixfold in JSON: give up the tail rather than the pointer.
    if size(&pointer) > MAX_TERMINATION_MESSAGE / 2 {
        pointer.tail = pointer.tail.map(|text| last_bytes(&text, 128).to_owned());
        pointer.message = pointer.message.map(|text| cut(&text, 128));
    }
    if !stored {
        pack(&mut pointer, &result.artifacts, |pointer, artifact| pointer.artifacts.push(artifact.clone()));
    }
    pack(&mut pointer, result.metrics.iter(), |pointer, (name, metric)| {
        pointer.metrics.insert(name.clone(), *metric);
    });
    if !stored {
        pack(&mut pointer, &result.problems, |pointer, problem| pointer.problems.push(problem.clone()));
    }
    serde_json::to_string(&pointer).unwrap_or_default()
}

// Adds items while they fit; one that does not is skipped, for a later one may.
fn pack<T>(pointer: &mut Pointer, items: impl IntoIterator<Item = T>, add: impl Fn(&mut Pointer, T)) {
    let mut skipped = 0;
    for item in items {
        let mut next = pointer.clone();
        add(&mut next, item);
        if size(&next) <= MAX_TERMINATION_MESSAGE {
            *pointer = next;
        } else {
            skipped += 1;
            if skipped > 16 {
                return;
            }
        }
    }
}

fn size(pointer: &Pointer) -> usize {
    serde_json::to_string(pointer).map_or(usize::MAX, |text| text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large() -> RunResult {
        let mut result = RunResult::new();
        result.metrics = (0..500).map(|n| (format!("metric-{n:03}"), Metric::of(f64::from(n), Some(7)))).collect();
        result.tail = Some("\u{1}".repeat(2048));
        result.message = Some("ü".repeat(3000));
        result.source = Some(SourceUsed { commit: "c".repeat(40) });
        result
    }

    #[test]
    fn a_small_result_is_itself() {
        let mut result = RunResult::new();
        result.metrics.insert("a".into(), Metric::of(1.0, None));
        assert_eq!(serde_json::from_str::<RunResult>(&fit(&result, None)).unwrap(), result);
    }

    #[test]
    fn a_large_one_points_to_itself_and_keeps_metrics() {
        let at = ManifestAt { uri: "s3://b/k".into(), digest: "sha256:0".into(), size: 9 };
        let text = fit(&large(), Some(at.clone()));
        assert!(text.len() <= MAX_TERMINATION_MESSAGE, "{}", text.len());
        let pointer: Pointer = serde_json::from_str(&text).unwrap();
        assert_eq!(pointer.manifest, Some(at));
        assert_eq!(pointer.source, large().source);
        assert!(pointer.metrics.len() > 10, "{}", pointer.metrics.len());
        assert!(fit(&large(), None).contains("no store"));
    }
}
