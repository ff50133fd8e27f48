//! `resume`: go on where a run failed.

use serde_json::json;
use std::process::ExitCode;

use super::run::begin;
use super::{fresh, set_params};
use crate::args::Format;
use crate::cluster::{Cluster, run};
use crate::error::{Error, Result};

/// Go on where a run failed: what completed is taken over, the rest runs again.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  kubectl cultivar resume digits-4 -p epochs=20 --follow")]
pub struct Resume {
    /// Name of the run that has ended.
    run: String,
    /// A parameter in place of the old run's, name=value.
    #[arg(short, long = "param")]
    params: Vec<String>,
    /// Wait until it has ended; the exit code says how.
    #[arg(short, long)]
    follow: bool,
}

pub async fn resume(cluster: &Cluster, format: Option<Format>, asked: &Resume) -> Result<ExitCode> {
    let old = run(&cluster.get("PipelineRun", &asked.run).await?)?;
    if !old.status.phase.is_terminal() {
        // Held, and not at an end: it goes on by itself once it is not.
        if old.spec.get("suspend").and_then(serde_json::Value::as_bool) == Some(true) {
            cluster.patch("PipelineRun", &asked.run, &json!({"suspend": false})).await?;
            println!("run {} goes on", asked.run);
            return Ok(ExitCode::SUCCESS);
        }
        return Err(Error::refused(format!("run {} is {}: it has not ended", asked.run, old.status.phase)));
    }
    let mut spec = json!({"pipeline": old.spec["pipeline"], "resumeOf": asked.run});
    set_params(&mut spec, &asked.params)?;
    begin(cluster, format, fresh(&asked.run, 52), spec, asked.follow).await
}
