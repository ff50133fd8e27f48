//! Before the program starts: folders, the store, and what it needs.

use super::after::Facts;
use super::{Ended, Failure, inputs, python, source};
use crate::checkpoint;
use crate::supervise::Signals;
use cultivar_data::Store;
use cultivar_protocol::RunSpec;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The metrics file of a run.
pub fn metrics_file(spec: &RunSpec) -> PathBuf {
    Path::new(&spec.run_dir).join("metrics.jsonl")
}

/// Makes everything ready. A signal that asks for an end ends it at once.
pub async fn prepare(
    spec: &RunSpec,
    command: &[OsString],
    signals: &mut Signals,
    facts: &mut Facts,
) -> Result<(), Ended> {
    folders(spec).map_err(Ended::Failed)?;
    tokio::select! {
        biased;
        signal = signals.stop() => Err(Ended::Stopped(signal as i32)),
        done = fetch(spec, command, facts) => done.map_err(Ended::Failed),
    }
}

async fn fetch(spec: &RunSpec, command: &[OsString], facts: &mut Facts) -> Result<(), Failure> {
    if let Some(store) = &spec.store {
        facts.store = Some(Store::open(store).map_err(|error| Failure::runner(error.to_string()))?);
    }
    // First: an input may belong into a folder of the code.
    if let Some(source) = &spec.source {
        facts.source = source::fetch(spec, source, &facts.mover).await?;
        facts.problems.append(&mut facts.source.problems);
        if let Some(requirements) = &source.requirements {
            let (store, mover) = (facts.store.as_ref(), &facts.mover);
            let mut installed = python::install(spec, source, requirements, command, store, mover).await?;
            facts.problems.append(&mut installed.problems);
            facts.python = Some(installed);
        }
    }
    facts.inputs = inputs::fetch(spec, &facts.mover).await?;
    if let (Some(checkpoint), Some(store)) = (&spec.checkpoint, &facts.store) {
        let restored = checkpoint::restore(spec, checkpoint, store, &facts.mover).await;
        facts.restored = restored
            .map_err(|error| Failure { reason: inputs::reason(&error), message: format!("checkpoint: {error}") })?;
    }
    Ok(())
}

fn folders(spec: &RunSpec) -> Result<(), Failure> {
    for folder in [&spec.run_dir, &spec.outputs_dir] {
        std::fs::create_dir_all(folder).map_err(|error| {
            Failure::runner(format!("cannot make the folder {folder}: {error}; the run needs a writable volume there"))
        })?;
    }
    let metrics = metrics_file(spec);
    std::fs::OpenOptions::new().create(true).append(true).open(&metrics).map(drop).map_err(|error| {
        Failure::runner(format!(
            "cannot write {}: {error}; the folder must be writable for this uid",
            metrics.display()
        ))
    })
}
