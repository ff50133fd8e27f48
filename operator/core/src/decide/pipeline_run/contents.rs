//! Artifacts whose content references read: `${stages.split.artifacts.parts.json}`.
//!
//! Comes in: the board, a stage, and what its stages have brought. Goes out: the same with the content where it is asked for;
//! until it has been read from the store, an errand and a state that says so.

use cultivar_crds::{Phase, Reason, StageStatus};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

use super::board::{Board, failed, state};
use super::{FrozenStage, values};
use crate::decide::Action;
use crate::domain::errand::{Document, Errand, Patience, Step};
use crate::refs::{Expression, Head, PathRef};

/// The field of an artifact that is its content.
pub const JSON: &str = "json";
/// Largest content, in bytes: what it becomes stands in specs.
const MAX_CONTENT: usize = 256 * 1024;
const PATIENCE: Patience = Patience { pause: Duration::from_secs(5), limit: Duration::from_secs(300) };

/// The stage and the artifact whose content a path reads.
fn content_of(path: &PathRef) -> Option<(String, String)> {
    let is_content = path.head == Head::Stages && path.key(1) == Some("artifacts") && path.key(3) == Some(JSON);
    is_content.then(|| Some((path.key(0)?.to_owned(), path.key(2)?.to_owned())))?
}

/// What a stage reads, by whatever field.
pub(super) fn uses_of(stage: &FrozenStage) -> Vec<PathRef> {
    let whole = serde_json::to_value(stage).unwrap_or_default();
    let bare = [stage.when.as_deref(), stage.repeat.as_ref().and_then(|repeat| repeat.until.as_deref())];
    let bare = bare.into_iter().flatten().filter_map(|source| Expression::parse(source).ok());
    let mut uses = values::uses(&whole);
    uses.extend(bare.flat_map(|expression| expression.uses().to_vec()));
    uses
}

impl Board<'_> {
    /// What a stage may read, with the content of artifacts that it asks for; else how it stands meanwhile.
    pub(super) fn readable_by(&mut self, stage: &FrozenStage) -> Result<Value, Box<StageStatus>> {
        let uses = uses_of(stage);
        let mut known = self.known_to(stage, &uses);
        for (from, artifact) in uses.iter().filter_map(content_of).collect::<BTreeSet<_>>() {
            let entry = &known[&from]["artifacts"][&artifact];
            let (Some(uri), digest) = (entry["uri"].as_str(), entry["digest"].as_str()) else { continue };
            let content = self.content(uri, digest);
            let place = format!("stages.{from}.artifacts.{artifact}.{JSON}");
            match content {
                Ok(Some(content)) => known[&from]["artifacts"][&artifact][JSON] = content,
                Ok(None) => {
                    let words = format!("{place} is being read from {uri}");
                    return Err(Box::new(state(&stage.name, Phase::Pending, Reason::ReadingArtifact, words)));
                }
                Err(words) => {
                    let words = format!("{place}: {words}");
                    return Err(Box::new(failed(&stage.name, Reason::ReferenceUnresolved, words)));
                }
            }
        }
        Ok(known)
    }

    // Nothing: it is being read.
    fn content(&mut self, uri: &str, digest: Option<&str>) -> Result<Option<Value>, String> {
        let Some(digest) = digest else {
            return Err(format!("the artifact at {uri} has no digest: only what the runner uploaded can be read"));
        };
        let store = self.snapshot.stores.of(uri).cloned();
        if store.is_none() {
            return Err(format!("{uri} lies in no store that the operator may read for this namespace"));
        }
        let errand = Errand::ReadResult(Document { uri: uri.to_owned(), digest: digest.to_owned(), store });
        match PATIENCE.step(&self.snapshot.errands, &errand, self.snapshot.now) {
            Step::Run(_) => self.actions.push(Action::Run(errand.clone())),
            Step::Wait(again, _) => self.wake = Some(self.wake.map_or(again, |wake| wake.min(again))),
            Step::GivenUp(why) => return Err(format!("{uri} could not be read: {why}")),
            Step::Done(text) if text.len() > MAX_CONTENT => {
                return Err(format!("{uri} has {} bytes, and {MAX_CONTENT} are read: hand on its uri", text.len()));
            }
            Step::Done(text) => {
                return serde_json::from_str(text).map(Some).map_err(|error| format!("{uri} is no JSON: {error}"));
            }
        }
        Ok(None)
    }
}
