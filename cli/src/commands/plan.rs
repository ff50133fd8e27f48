//! `plan`: what a pipeline would do now.

use cultivar_core::domain::PipelineRecord;
use cultivar_core::dry_run::{Outcome, Planned, dry_run};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::set_params;
use crate::args::Format;
use crate::cluster::{Cluster, pipeline, text};
use crate::error::{Error, Result};
use crate::files;
use crate::output;

/// What a pipeline would do now: what is reused, what runs, and why.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  kubectl cultivar plan -f pipeline.yaml\n  kubectl cultivar plan digits --param lr=0.2"
)]
pub struct Plan {
    /// Name of a pipeline in the cluster.
    #[arg(required_unless_present = "file")]
    pipeline: Option<String>,
    /// A file with a pipeline instead; - is the input.
    #[arg(short, long, conflicts_with = "pipeline")]
    file: Option<String>,
    /// A parameter of the run, name=value.
    #[arg(short, long = "param")]
    params: Vec<String>,
    /// As a run that reuses nothing.
    #[arg(long)]
    refresh: bool,
}

pub async fn plan(cluster: &Cluster, format: Option<Format>, asked: &Plan) -> Result<()> {
    let record = wanted(cluster, asked).await?;
    let mut run = json!({});
    set_params(&mut run, &asked.params)?;
    if asked.refresh {
        run["cache"] = "Refresh".into();
    }
    let known = cluster.experiments().await?;
    let planned = dry_run(&record, &run, &known, Timestamp::now());
    let planned =
        planned.map_err(|why| Error::refused(format!("pipeline {} would not run", record.meta.name)).why(why))?;
    if format == Some(Format::Json) {
        println!("{:#}", Value::Array(planned.iter().map(as_json).collect()));
    } else {
        print!("{}", table(&planned));
    }
    Ok(())
}

// That of the file, with what the cluster knows of the one that it will replace.
async fn wanted(cluster: &Cluster, asked: &Plan) -> Result<PipelineRecord> {
    let Some(file) = &asked.file else {
        return pipeline(&cluster.get("Pipeline", asked.pipeline.as_deref().unwrap_or_default()).await?);
    };
    let document = files::of_kind(file, "Pipeline")?;
    let name = text(&document, "/metadata/name");
    let there = cluster.find("Pipeline", &name).await?;
    let mut object = there.unwrap_or_else(|| cluster.manifest("Pipeline", json!({"name": name}), json!({})));
    object["spec"] = document["spec"].clone();
    pipeline(&object)
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Reused => "Reused",
        Outcome::Runs => "Runs",
        Outcome::Follows => "Follows",
        Outcome::Skipped => "Skipped",
        Outcome::Waits => "Waits",
        Outcome::Fails => "Fails",
    }
}

fn as_json(planned: &Planned) -> Value {
    let mut json = json!({"stage": planned.stage, "outcome": word(planned.outcome), "why": planned.why});
    if let Some((reused, total)) = planned.members {
        json["members"] = json!({"reused": reused, "total": total});
    }
    json
}

fn table(planned: &[Planned]) -> String {
    let rows = planned.iter().map(|planned| {
        let members =
            planned.members.map(|(reused, total)| format!("{reused} of {total} reused; ")).unwrap_or_default();
        vec![planned.stage.clone(), output::phase(word(planned.outcome)), members + &planned.why]
    });
    let runs = planned.iter().filter(|planned| planned.outcome == Outcome::Runs).count();
    let reused = planned.iter().filter(|planned| planned.outcome == Outcome::Reused).count();
    let follows = planned.iter().filter(|planned| planned.outcome == Outcome::Follows).count();
    let table = output::table(&["STAGE", "OUTCOME", "WHY"], rows.collect());
    format!("{table}\n{reused} reused, {runs} to run, {follows} to follow\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_a_table_with_a_sum() {
        let planned = |stage: &str, outcome, why: &str, members| Planned {
            stage: stage.into(),
            outcome,
            why: why.into(),
            members,
        };
        let text = table(&[
            planned("prepare", Outcome::Reused, "from digits-1-prepare", None),
            planned("train", Outcome::Runs, "params.lr: 0.2 here, 0.1 in t", Some((3, 5))),
        ]);
        let expected = "STAGE     OUTCOME   WHY\nprepare   Reused    from digits-1-prepare\ntrain     Runs      3 of 5 reused; params.lr: 0.2 here, 0.1 in t\n\n1 reused, 1 to run, 0 to follow\n";
        assert_eq!(text, expected);
    }
}
