//! `run`: run a pipeline; and following what runs until it has ended.

use cultivar_core::validate;
use cultivar_crds::Phase;
use futures::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use kube_runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

use super::{fresh, set_params, valid};
use crate::args::Format;
use crate::cluster::{Cluster, text};
use crate::error::{Error, Result};
use crate::output;

/// Run a pipeline.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  kubectl cultivar run digits -p lr=0.2 --follow\n  kubectl cultivar run digits --only train --refresh"
)]
pub struct Run {
    /// Name of the pipeline.
    pipeline: String,
    /// A parameter, name=value.
    #[arg(short, long = "param")]
    params: Vec<String>,
    /// Only this stage and what it needs; several times for several.
    #[arg(long)]
    only: Vec<String>,
    /// The time that it is for, as pipeline.scheduledTime.
    #[arg(long)]
    date: Option<String>,
    /// Reuse nothing.
    #[arg(long)]
    refresh: bool,
    /// Name of the run; one is made up by default.
    #[arg(long)]
    name: Option<String>,
    /// Wait until it has ended; the exit code says how.
    #[arg(short, long)]
    follow: bool,
}

pub async fn run(cluster: &Cluster, format: Option<Format>, asked: &Run) -> Result<ExitCode> {
    cluster.get("Pipeline", &asked.pipeline).await?;
    let mut spec = json!({"pipeline": asked.pipeline});
    set_params(&mut spec, &asked.params)?;
    if !asked.only.is_empty() {
        spec["only"] = json!(asked.only);
    }
    if let Some(date) = &asked.date {
        spec["scheduledTime"] = date.clone().into();
    }
    if asked.refresh {
        spec["cache"] = "Refresh".into();
    }
    begin(cluster, format, asked.name.clone().unwrap_or_else(|| fresh(&asked.pipeline, 52)), spec, asked.follow).await
}

/// Makes a run, and follows it where that is asked for.
pub async fn begin(
    cluster: &Cluster,
    format: Option<Format>,
    name: String,
    spec: Value,
    follow: bool,
) -> Result<ExitCode> {
    valid("the run", &validate::pipeline_run(&spec))?;
    let manifest = cluster.manifest("PipelineRun", json!({"name": name}), spec);
    make(cluster, format, &manifest, &format!("run {name} is made"), follow).await
}

/// Makes an experiment or a run, tells it, and follows it where that is asked for.
pub async fn make(
    cluster: &Cluster,
    format: Option<Format>,
    manifest: &Value,
    told: &str,
    follow: bool,
) -> Result<ExitCode> {
    let made = cluster.create(manifest).await?;
    if !output::objects(format, &[made])? {
        println!("{told}");
    }
    if !follow {
        return Ok(ExitCode::SUCCESS);
    }
    until_ended(cluster, &text(manifest, "/kind"), &text(manifest, "/metadata/name")).await
}

// Success where it completed.
async fn until_ended(cluster: &Cluster, kind: &str, name: &str) -> Result<ExitCode> {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut watch = std::pin::pin!(watcher::watch_object(cluster.api(kind), name).default_backoff());
    let mut seen = false;
    loop {
        // A watch that breaks is set up again.
        let Ok(next) = watch.try_next().await else { continue };
        let Some(object) = next.flatten() else {
            if seen {
                bar.finish_and_clear();
                return Err(Error::not_found(format!("{kind} {name} was deleted")));
            }
            continue;
        };
        seen = true;
        let object = serde_json::to_value(object).unwrap_or_default();
        let (phase, told) = standing(&object);
        bar.set_message(told.clone());
        if phase.is_terminal() {
            bar.finish_and_clear();
            println!("{name}: {told}");
            return Ok(if phase == Phase::Completed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
}

fn standing(object: &Value) -> (Phase, String) {
    let phase = serde_json::from_value(object["status"]["phase"].clone()).unwrap_or_default();
    let mut told = output::phase(&Phase::to_string(&phase));
    for pointer in ["/status/progress", "/status/reason", "/status/message"] {
        let more = text(object, pointer);
        if !more.is_empty() {
            told = format!("{told}  {more}");
        }
    }
    (phase, told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_followed_is_told_in_a_line() {
        let object = json!({"status": {"phase": "Running", "progress": "1/3", "reason": "Finishing"}});
        assert_eq!(standing(&object), (Phase::Running, "Running  1/3  Finishing".to_owned()));
        assert_eq!(standing(&json!({})).0, Phase::default());
    }
}
