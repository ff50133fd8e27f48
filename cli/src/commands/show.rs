//! `show`: all about one experiment.

use cultivar_core::domain::{ExperimentRecord, time};
use jiff::Timestamp;
use std::fmt::Write as _;

use crate::args::Format;
use crate::cluster::{Cluster, experiment};
use crate::error::Result;
use crate::output::{self, length, number, plain};
use crate::recorded;
use crate::store::Operator;

/// All about one experiment.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  kubectl cultivar show train-7f3a")]
pub struct Show {
    /// Name of the experiment.
    id: String,
    #[command(flatten)]
    operator: Operator,
}

pub async fn show(cluster: &Cluster, format: Option<Format>, asked: &Show) -> Result<()> {
    let (object, _) = recorded::get(cluster, &asked.operator, &asked.id).await?;
    if !output::objects(format, std::slice::from_ref(&object))? {
        print!("{}", text(&experiment(&object)?, Timestamp::now()));
    }
    Ok(())
}

fn text(record: &ExperimentRecord, now: Timestamp) -> String {
    let status = &record.status;
    let template = record.template();
    let mut out = String::new();
    let mut line = |key: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "{key:<12} {value}");
        }
    };
    line("name", record.meta.name.clone());
    let reason = status.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    line("phase", format!("{}{reason}", output::phase(&status.phase.to_string())));
    line("message", status.message.clone().unwrap_or_default());
    line("age", output::ago(record.meta.created, now));
    line("ran", ran(record).unwrap_or_default());
    line("image", plain(template.get("image").unwrap_or(&serde_json::Value::String(String::new()))));
    line("clone of", status.cloned_from.as_ref().map(|from| from.name.clone()).unwrap_or_default());
    line("reused from", status.reused_from.as_ref().map(|from| from.name.clone()).unwrap_or_default());
    let cache = status.cache.as_ref().and_then(|cache| cache.message.clone());
    line("not reused", cache.unwrap_or_default());
    let list = |field: &str| template.get(field).and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let command = list("command").into_iter().chain(list("args"));
    line("command", command.map(|word| plain(&word)).collect::<Vec<_>>().join(" "));
    for (name, value) in template.get("params").and_then(serde_json::Value::as_object).into_iter().flatten() {
        line("param", format!("{name} = {}", plain(value)));
    }
    for input in &status.inputs {
        let made = input.experiment.as_ref().map(|maker| format!(" made by {maker}")).unwrap_or_default();
        line("input", format!("{} = {}{made}", input.name, input.uri));
    }
    for artifact in &status.artifacts {
        let size = artifact.size.map(|size| format!(", {size} bytes")).unwrap_or_default();
        line("artifact", format!("{} = {}{size}", artifact.name, artifact.uri));
    }
    for (name, metric) in &status.metrics {
        let range = metric.min.zip(metric.max).filter(|(min, max)| min < max);
        let range = range.map(|(min, max)| format!(" ({} to {})", number(min), number(max))).unwrap_or_default();
        line("metric", format!("{name} = {}{range}", number(metric.last)));
    }
    for attempt in &status.attempts {
        let end = attempt.reason.map_or_else(String::new, |reason| format!(": {reason}"));
        let node = attempt.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
        line("attempt", format!("{}{node}{end}", attempt.number));
    }
    out
}

// How long the program ran.
fn ran(record: &ExperimentRecord) -> Option<String> {
    let times = record.status.times.as_ref()?;
    let (began, ended) = (time::read(times.running.as_deref())?, time::read(times.finished.as_deref())?);
    Some(length(ended.duration_since(began).as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_known_is_shown_and_nothing_else() {
        let record = experiment(&json!({
            "metadata": {"name": "train", "namespace": "n", "creationTimestamp": "2026-11-25T10:00:00Z"},
            "spec": {"image": "x"},
            "status": {"phase": "Completed", "template": {"image": "x@sha256:1", "command": ["python"], "args": ["t.py"], "params": {"lr": 0.1}},
                "metrics": {"acc": {"last": 0.9, "min": 0.1, "max": 0.95}},
                "artifacts": [{"name": "model", "uri": "s3://m", "size": 7}],
                "times": {"running": "2026-11-25T10:00:00Z", "finished": "2026-11-25T10:05:00Z"}},
        }))
        .unwrap();
        let expected = "name         train\nphase        Completed\nage          1h\nran          5m\nimage        x@sha256:1\n\
            command      python t.py\nparam        lr = 0.1\nartifact     model = s3://m, 7 bytes\nmetric       acc = 0.9 (0.1 to 0.95)\n";
        let shown = text(&record, "2026-11-25T11:59:00Z".parse().unwrap());
        assert_eq!(shown, expected.replace("age          1h", "age          119m"));
    }
}
