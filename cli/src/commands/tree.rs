//! `tree`: the stages of a run, once or as they go.

use cultivar_core::domain::{RunRecord, time};
use cultivar_crds::StageStatus;
use jiff::Timestamp;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use crate::args::Format;
use crate::cluster::{Cluster, run};
use crate::error::Result;
use crate::output;

/// How often what is watched is drawn anew.
const EVERY: Duration = Duration::from_secs(1);

/// The stages of a run.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  kubectl cultivar tree digits-4 -w")]
pub struct Tree {
    /// Name of the run.
    run: String,
    /// Draw it until it has ended; the exit code says how.
    #[arg(short, long)]
    watch: bool,
}

pub async fn tree(cluster: &Cluster, format: Option<Format>, asked: &Tree) -> Result<ExitCode> {
    let mut drawn = 0;
    loop {
        let object = cluster.get("PipelineRun", &asked.run).await?;
        if output::objects(format, std::slice::from_ref(&object))? {
            return Ok(ExitCode::SUCCESS);
        }
        let record = run(&object)?;
        let text = text(&record, Timestamp::now());
        let ended = record.status.phase.is_terminal();
        let terminal = std::io::stdout().is_terminal();
        if drawn > 0 && terminal {
            // Over what was drawn before.
            print!("\x1b[{drawn}A\x1b[J");
        }
        if !asked.watch || terminal || ended {
            print!("{text}");
            drawn = text.lines().count();
        }
        if !asked.watch {
            return Ok(ExitCode::SUCCESS);
        }
        if ended {
            let completed = record.status.phase == cultivar_crds::Phase::Completed;
            return Ok(if completed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn text(record: &RunRecord, now: Timestamp) -> String {
    let status = &record.status;
    let progress = status.progress.clone().unwrap_or_default();
    let began = time::read(status.started_at.as_deref());
    let ended = time::read(status.finished_at.as_deref()).unwrap_or(now);
    let took = began.map(|began| output::length(ended.duration_since(began).as_secs())).unwrap_or_default();
    let phase = output::phase(&status.phase.to_string());
    let mut out = format!("{} {phase} {progress} {took}\n", record.meta.name);
    for (index, stage) in status.stages.iter().enumerate() {
        let branch = if index + 1 == status.stages.len() { "└" } else { "├" };
        let _ = writeln!(out, "{branch} {}", line(stage));
    }
    out
}

fn line(stage: &StageStatus) -> String {
    let phase = output::phase(if stage.reused_from.is_some() { "Reused" } else { stage.phase.as_str() });
    let mut line = format!("{:<24} {phase}", stage.name);
    if let Some(members) = &stage.members {
        let _ = write!(line, "  {} of {} started", members.started, members.total);
    }
    if let Some(turn) = stage.turn {
        let _ = write!(line, "  turn {turn}");
    }
    if let Some(child) = stage.experiment.as_ref().or(stage.run.as_ref()) {
        let _ = write!(line, "  {child}");
    }
    if let Some(from) = &stage.reused_from {
        let _ = write!(line, "  from {from}");
    } else if let Some(reason) = stage.reason {
        let _ = write!(line, "  {reason}: {}", stage.message.as_deref().unwrap_or_default());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_run_is_drawn_with_its_stages() {
        let record = run(&json!({
            "metadata": {"name": "digits-4"},
            "status": {"phase": "Running", "progress": "1/3", "startedAt": "2026-11-25T10:00:00Z", "stages": [
                {"name": "prepare", "phase": "Completed", "experiment": "p4", "reusedFrom": "p1", "message": "reused from p1"},
                {"name": "train", "phase": "Running", "members": {"total": 9, "started": 4}},
                {"name": "ask", "phase": "Pending", "reason": "WaitingForApproval", "message": "Ship it?"},
            ]},
        }))
        .unwrap();
        let expected = "digits-4 Running 1/3 90s\n\
            ├ prepare                  Reused  p4  from p1\n\
            ├ train                    Running  4 of 9 started\n\
            └ ask                      Pending  WaitingForApproval: Ship it?\n";
        assert_eq!(text(&record, "2026-11-25T10:01:30Z".parse().unwrap()), expected);
    }
}
