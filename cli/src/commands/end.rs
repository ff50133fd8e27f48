//! `cancel` and `delete`.

use cultivar_crds::CancelMode;
use serde_json::json;

use crate::cluster::Cluster;
use crate::error::{Error, Result};

/// End an experiment or a run, with its pods' grace period.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  kubectl cultivar cancel train-7f3a digits-4\n  kubectl cultivar cancel digits-4 --finish-running"
)]
pub struct Cancel {
    /// Names of experiments or runs.
    #[arg(required = true)]
    names: Vec<String>,
    /// Of a run: what runs goes on to its end, and nothing more starts but `finally`.
    #[arg(long, conflicts_with = "skip_finally")]
    finish_running: bool,
    /// Of a run: all of it is stopped, and `finally` does not run.
    #[arg(long)]
    skip_finally: bool,
}

impl Cancel {
    fn mode(&self) -> Option<CancelMode> {
        match (self.finish_running, self.skip_finally) {
            (true, _) => Some(CancelMode::FinishRunning),
            (_, true) => Some(CancelMode::SkipFinally),
            _ => None,
        }
    }
}

/// Delete experiments; their artifacts stay unless the experiment says otherwise.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  kubectl cultivar delete train-7f3a")]
pub struct Delete {
    /// Names of experiments.
    #[arg(required = true)]
    names: Vec<String>,
}

pub async fn cancel(cluster: &Cluster, asked: &Cancel) -> Result<()> {
    for name in &asked.names {
        let kind = match cluster.find("Experiment", name).await? {
            Some(_) => "Experiment",
            None => "PipelineRun",
        };
        let mut patch = json!({"cancel": true});
        if let Some(mode) = asked.mode() {
            if kind == "Experiment" {
                return Err(Error::refused(format!(
                    "{name} is an experiment: --finish-running and --skip-finally are for runs"
                )));
            }
            patch["cancelMode"] = json!(mode);
        }
        cluster.patch(kind, name, &patch).await?;
        println!("{} {name} ends", kind.to_lowercase());
    }
    Ok(())
}

pub async fn delete(cluster: &Cluster, asked: &Delete) -> Result<()> {
    for name in &asked.names {
        cluster.delete("Experiment", name).await?;
        println!("experiment {name} is deleted");
    }
    Ok(())
}
