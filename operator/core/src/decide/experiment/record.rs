//! An experiment that is made from the record of a run that is over: it becomes what the record says and never runs.
//!
//! Comes in: the record as it was read, its artifacts checked. Goes out: a completed status.

use cultivar_crds::experiment::{RecordAt, RecordSource};
use cultivar_crds::{ExperimentStatus, Output, Phase, Reason};
use cultivar_protocol::{PACKAGES, Record};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

use super::pursue::{Progress, pursue, so_far};
use super::{Snapshot, attempts, end, fail, report, result, reuse, times, wait};
use crate::decide::Plan;
use crate::domain::Errand;
use crate::domain::errand::{Document, Patience};
use crate::domain::text;

/// How long a store may be away, or a record be missing in it.
const PATIENCE: Patience = Patience { pause: Duration::from_secs(30), limit: Duration::from_secs(1800) };

/// A record, and what was found when its artifacts were checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckedRecord {
    /// The record.
    pub record: Value,
    /// What is not what its digest says, or is gone, in words.
    pub corrupt: Vec<String>,
    /// Names of artifacts without a digest, or in another store.
    pub unchecked: Vec<String>,
}

impl CheckedRecord {
    /// What reading it brought.
    ///
    /// # Errors
    /// It is not what an errand brings.
    pub fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The record, and what its run reported: as a status has it, without the packages that stand in the record only.
    ///
    /// # Errors
    /// It is no record that this operator knows.
    pub fn open(&self) -> Result<(Record, result::RunResult), String> {
        let record = Record::deserialize(&self.record).map_err(|error| format!("it is no record: {error}"))?;
        if record.version != cultivar_protocol::VERSION {
            return Err(format!("it has version {}, and this operator knows 1", record.version));
        }
        let declared = record.template.get("outputs").and_then(|outputs| Vec::<Output>::deserialize(outputs).ok());
        let mut reported = result::parse(&self.record["result"].to_string(), &declared.unwrap_or_default());
        reported.environment.remove(PACKAGES);
        Ok((record, reported))
    }
}

/// Makes the experiment what its record says.
pub fn adopt(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, source: &RecordSource) {
    let store = snapshot.stores.of(&source.uri).cloned();
    let errand = Errand::ReadRecord(Document { uri: source.uri.clone(), digest: source.digest.clone(), store });
    let why = match pursue(snapshot, plan, PATIENCE, errand) {
        Progress::Done(text) => return read(snapshot, plan, source, text),
        Progress::GivenUp(why) => {
            return fail(snapshot, plan, Reason::InputUnavailable, format!("spec.record.uri: {}: {why}", source.uri));
        }
        Progress::Pending(why) => why,
    };
    plan.status.phase = Phase::Pending;
    let so_far = so_far(why);
    wait(plan, Reason::ReadingRecord, format!("the record is being read, and its artifacts checked{so_far}"));
}

fn read(snapshot: &Snapshot, plan: &mut Plan<ExperimentStatus>, source: &RecordSource, text: &str) {
    let corrupt = |plan: &mut Plan<ExperimentStatus>, why: String| {
        fail(snapshot, plan, Reason::InputCorrupt, format!("spec.record: {}: {why}", source.uri));
    };
    let found = match CheckedRecord::read(text) {
        Ok(found) => found,
        Err(why) => return corrupt(plan, why),
    };
    if !found.corrupt.is_empty() {
        return corrupt(plan, text::some_of(&found.corrupt, 4));
    }
    let (record, mut reported) = match found.open() {
        Ok(opened) => opened,
        Err(why) => return corrupt(plan, why),
    };
    if record.exit_code != 0 || record.result.reason.is_some() {
        let words = format!(
            "spec.record: it is of attempt {} of {}, which failed (exit code {}); only what completed can be adopted",
            record.attempt, record.experiment.name, record.exit_code
        );
        return fail(snapshot, plan, Reason::TemplateNotCompleted, words);
    }
    if !record.template.is_object() {
        return corrupt(plan, "it has no template: it was left out for its size when the run was started".to_owned());
    }
    if !found.unchecked.is_empty() {
        let names = text::some_of(&found.unchecked, 8);
        reported
            .problems
            .push(format!("artifacts that were not checked, without a digest or in another store: {names}"));
    }
    plan.status.template = Some(Arc::new(record.template));
    attempts::pin_source(&mut plan.status, &reported);
    report::keep(snapshot, plan, reported);
    reuse::digest_now(snapshot, plan);
    plan.status.record = Some(RecordAt { uri: source.uri.clone(), digest: source.digest.clone() });
    let words = format!("adopted from the record of {}/{}", record.experiment.namespace, record.experiment.name);
    end(snapshot, plan, Phase::Completed, None, words);
    let times = times(plan);
    times.running = Some(record.started_at);
    // What is over was over then, also for ttlAfterFinished.
    times.finished = Some(record.finished_at);
}
