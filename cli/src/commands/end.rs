//! `cancel` and `delete`.

use serde_json::json;

use crate::cluster::Cluster;
use crate::error::Result;

/// End an experiment or a run, with its pods' grace period.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  kubectl cultivar cancel train-7f3a digits-4")]
pub struct Cancel {
    /// Names of experiments or runs.
    #[arg(required = true)]
    names: Vec<String>,
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
        cluster.patch(kind, name, &json!({"cancel": true})).await?;
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
