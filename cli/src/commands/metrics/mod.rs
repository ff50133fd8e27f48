//! `metrics`: the metrics of an experiment, as a table or CSV; of each what a status has, or every value.

mod series;

use cultivar_core::domain::ExperimentRecord;

use crate::args::Format;
use crate::cluster::{Cluster, experiment, text};
use crate::error::{Error, Result};
use crate::output::{self, number};
use crate::recorded;
use crate::store::{self, Operator};

/// The metrics of an experiment.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  kubectl cultivar metrics train-7f3a --csv > metrics.csv\n  kubectl cultivar metrics train-7f3a --series"
)]
pub struct Metrics {
    /// Name of the experiment.
    id: String,
    /// Comma-separated, every digit kept.
    #[arg(long)]
    csv: bool,
    /// Every value, from the store, in place of the last, least and greatest.
    #[arg(long)]
    series: bool,
    #[command(flatten)]
    operator: Operator,
}

pub async fn metrics(cluster: &Cluster, format: Option<Format>, asked: &Metrics) -> Result<()> {
    let (object, _) = recorded::get(cluster, &asked.operator, &asked.id).await?;
    if asked.series {
        return all(cluster, format, asked, &text(&object, "/status/environment/metricSeries")).await;
    }
    let record = experiment(&object)?;
    if asked.csv {
        print!("{}", csv(&record));
    } else if format == Some(Format::Json) {
        println!("{:#}", object["status"]["metrics"]);
    } else {
        print!("{}", table(&record));
    }
    Ok(())
}

async fn all(cluster: &Cluster, format: Option<Format>, asked: &Metrics, uri: &str) -> Result<()> {
    if uri.is_empty() {
        let hint = "the runner stores them when a run with metrics has ended; without --series is what the status has";
        return Err(Error::not_found(format!("{} has no series of metrics in a store", asked.id)).hint(hint));
    }
    let reached = store::reach(cluster, &asked.operator).await?;
    let series = series::fetch(&reached, uri).await?;
    if asked.csv {
        print!("{}", series::csv(&series));
    } else if format == Some(Format::Json) {
        println!("{:#}", series::json(&series));
    } else {
        print!("{}", series::table(&series));
    }
    Ok(())
}

fn table(record: &ExperimentRecord) -> String {
    let rows = record.status.metrics.iter().map(|(name, metric)| {
        let shown = |value: Option<f64>| value.map(number).unwrap_or_default();
        let step = metric.step.map(|step| step.to_string()).unwrap_or_default();
        vec![name.clone(), number(metric.last), shown(metric.min), shown(metric.max), step]
    });
    output::table(&["METRIC", "LAST", "MIN", "MAX", "STEP"], rows.collect())
}

fn csv(record: &ExperimentRecord) -> String {
    let mut out = "metric,last,min,max,step\n".to_owned();
    for (name, metric) in &record.status.metrics {
        let shown = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let step = metric.step.map(|step| step.to_string()).unwrap_or_default();
        let line = [quoted(name), metric.last.to_string(), shown(metric.min), shown(metric.max), step];
        out += &(line.join(",") + "\n");
    }
    out
}

fn quoted(name: &str) -> String {
    let needs = name.contains([',', '"', '\n']);
    if needs { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn csv_keeps_every_digit_and_quotes_names() {
        let metrics = json!({"a,b": {"last": 0.300_000_000_000_000_04}, "loss": {"last": 1.0, "min": 0.5, "max": 2.0, "step": 9}});
        let record = experiment(&json!({"metadata": {"name": "e"}, "status": {"metrics": metrics}})).unwrap();
        assert_eq!(csv(&record), "metric,last,min,max,step\n\"a,b\",0.30000000000000004,,,\nloss,1,0.5,2,9\n");
        assert!(table(&record).starts_with("METRIC   LAST   MIN   MAX   STEP\n"), "{}", table(&record));
    }
}
