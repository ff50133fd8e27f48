//! `approve`: a word on a gate.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Api, PostParams};
use serde_json::json;

use super::{assignments, fresh};
use crate::cluster::Cluster;
use crate::error::{Error, Result};

/// Answer at a gate.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  kubectl cultivar approve digits-4 ask --comment 'looks good' --value share=0.1")]
pub struct Approve {
    /// Name of the run.
    run: String,
    /// Name of the stage.
    stage: String,
    /// Say no.
    #[arg(long)]
    reject: bool,
    /// Why.
    #[arg(long)]
    comment: Option<String>,
    /// A value that the gate asks for, name=value.
    #[arg(long = "value")]
    values: Vec<String>,
}

pub async fn approve(cluster: &Cluster, asked: &Approve) -> Result<()> {
    let run = cluster.get("PipelineRun", &asked.run).await?;
    let frozen = run.pointer("/status/pipelineSpec/stages").and_then(serde_json::Value::as_array);
    if let Some(stages) = frozen
        && !stages.iter().any(|stage| stage["name"] == asked.stage.as_str() && stage.get("gate").is_some())
    {
        let gates: Vec<&str> = stages
            .iter()
            .filter(|stage| stage.get("gate").is_some())
            .filter_map(|stage| stage["name"].as_str())
            .collect();
        let words = format!("run {} has no gate {}; it has: {}", asked.run, asked.stage, gates.join(", "));
        return Err(Error::not_found(words));
    }
    // The API server holds `by` to whoever makes the Approval.
    let reviews: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
    let me = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let me = me.map_err(|error| Error::of_server("the cluster does not say who this is", error))?;
    let by = me.status.and_then(|status| status.user_info).and_then(|user| user.username).unwrap_or_default();
    let verdict = if asked.reject { "Reject" } else { "Approve" };
    let mut spec = json!({"run": asked.run, "stage": asked.stage, "verdict": verdict, "by": by});
    if let Some(comment) = &asked.comment {
        spec["comment"] = comment.clone().into();
    }
    if !asked.values.is_empty() {
        spec["values"] = assignments(&asked.values)?.into();
    }
    let name = fresh(&format!("{}-{}", asked.run, asked.stage), 63);
    cluster.create(&cluster.manifest("Approval", json!({"name": name}), spec)).await?;
    println!("{by} said {verdict} at gate {} of run {}", asked.stage, asked.run);
    Ok(())
}
