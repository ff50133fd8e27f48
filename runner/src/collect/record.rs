//! The record, and the result where it is too large for a termination message.

use cultivar_data::{DataError, Store};
use cultivar_protocol::{ManifestAt, Record, RecordAt, RunResult, RunSpec, VERSION};

/// Stores the record of an attempt.
///
/// # Errors
/// When the store does not take it.
pub async fn store_record(
    spec: &RunSpec,
    store: &Store,
    command: &[String],
    started_at: jiff::Timestamp,
    exit_code: i32,
    result: &RunResult,
) -> Result<RecordAt, DataError> {
    let record = Record {
        version: VERSION,
        experiment: spec.experiment.clone(),
        attempt: spec.attempt,
        pipeline: spec.pipeline.clone(),
        pipeline_run: spec.pipeline_run.clone(),
        stage: spec.stage.clone(),
        template: spec.template.clone(),
        params: spec.params.clone(),
        command: command.to_vec(),
        started_at: started_at.to_string(),
        finished_at: jiff::Timestamp::now().to_string(),
        exit_code,
        checkpoint: spec.checkpoint.clone(),
        result: RunResult { record: None, ..result.clone() },
    };
    let key = super::key(spec, &format!("record-{}.json", spec.attempt));
    let digest = store.put(&key, json(&record)?).await?;
    Ok(RecordAt { uri: store.uri(&key), digest })
}

/// Stores a whole result.
///
/// # Errors
/// When the store does not take it.
pub async fn store_result(spec: &RunSpec, store: &Store, result: &RunResult) -> Result<ManifestAt, DataError> {
    let key = super::key(spec, &format!("result-{}.json", spec.attempt));
    let bytes = json(result)?;
    let size = bytes.len() as u64;
    let digest = store.put(&key, bytes).await?;
    Ok(ManifestAt { uri: store.uri(&key), digest, size })
}

fn json(document: &impl serde::Serialize) -> Result<Vec<u8>, DataError> {
    serde_json::to_vec(document).map_err(|error| DataError::Invalid(format!("a document cannot be written: {error}")))
}
