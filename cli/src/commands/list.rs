//! `list`: experiments, filtered and sorted.

use cultivar_core::domain::{ExperimentRecord, time};
use jiff::Timestamp;

use crate::args::Format;
use crate::cluster::{Cluster, experiment};
use crate::error::{Error, Result};
use crate::output;

/// Experiments, filtered and sorted.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  kubectl cultivar list --phase Completed --sort metric:val/acc --limit 10\n  kubectl cultivar list -l team=vision --where 'params.lr=0.1' --where 'metrics.val/acc>0.9'"
)]
pub struct List {
    /// Only those with these labels, as for kubectl.
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Those of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only those in this phase.
    #[arg(long)]
    phase: Option<String>,
    /// Only those of which this holds: `params.NAME`, `metrics.NAME` or `pipeline`, with =, !=, <, >, <= or >=.
    #[arg(long = "where")]
    conditions: Vec<String>,
    /// Only those that were made within this time, such as 2h or 7d.
    #[arg(long)]
    since: Option<String>,
    /// `age` (the newest first, the default), `name`, `metric:NAME` (the largest first) or `metric:-NAME`.
    #[arg(long, default_value = "age")]
    sort: String,
    /// At most so many.
    #[arg(long)]
    limit: Option<usize>,
}

pub async fn list(cluster: &Cluster, format: Option<Format>, asked: &List) -> Result<()> {
    let wanted = Wanted::of(asked, Timestamp::now())?;
    let labels = asked.selector.as_deref();
    let objects = match asked.all_namespaces {
        true => cluster.list_everywhere("Experiment", labels).await?,
        false => cluster.list("Experiment", labels).await?,
    };
    let mut found = Vec::new();
    for object in objects {
        let record = experiment(&object)?;
        if wanted.holds(&record) {
            found.push((object, record));
        }
    }
    found.sort_by(|(_, one), (_, other)| wanted.order(one, other));
    found.truncate(asked.limit.unwrap_or(usize::MAX));
    let (objects, records): (Vec<_>, Vec<_>) = found.into_iter().unzip();
    if output::objects(format, &objects)? {
        return Ok(());
    }
    if records.is_empty() {
        let place =
            if asked.all_namespaces { "any namespace".to_owned() } else { format!("namespace {}", cluster.namespace) };
        eprintln!("no experiments in {place} that this asks for");
        return Ok(());
    }
    print!("{}", wanted.table(&records, format == Some(Format::Wide), Timestamp::now()));
    Ok(())
}

/// What is compared with what.
#[derive(Debug, PartialEq)]
struct Condition {
    field: Field,
    operator: &'static str,
    value: String,
}

#[derive(Debug, PartialEq)]
enum Field {
    Param(String),
    Metric(String),
    Pipeline,
}

struct Wanted {
    phase: Option<String>,
    conditions: Vec<Condition>,
    since: Option<Timestamp>,
    sort: Sort,
    everywhere: bool,
}

#[derive(Debug, PartialEq)]
enum Sort {
    Age,
    Name,
    Metric { name: String, smallest: bool },
}

impl Wanted {
    fn of(asked: &List, now: Timestamp) -> Result<Self> {
        let since = asked.since.as_deref().map(|since| {
            let length = time::parse_duration(since);
            let length = length.map_err(|why| Error::refused(format!("--since {since}")).why(why))?;
            now.checked_sub(length).map_err(|error| Error::refused(format!("--since {since}")).why(error))
        });
        let sort = match asked.sort.split_once(':') {
            None if asked.sort == "age" => Sort::Age,
            None if asked.sort == "name" => Sort::Name,
            Some(("metric", name)) if !name.is_empty() => {
                let smallest = name.starts_with('-');
                Sort::Metric { name: name.trim_start_matches('-').to_owned(), smallest }
            }
            _ => {
                let words = format!("--sort {}: there are age, name, metric:NAME and metric:-NAME", asked.sort);
                return Err(Error::refused(words));
            }
        };
        Ok(Self {
            phase: asked.phase.clone(),
            conditions: asked.conditions.iter().map(|text| condition(text)).collect::<Result<_>>()?,
            since: since.transpose()?,
            sort,
            everywhere: asked.all_namespaces,
        })
    }

    fn holds(&self, record: &ExperimentRecord) -> bool {
        let phase = record.status.phase.to_string();
        self.phase.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(&phase))
            && self.since.is_none_or(|since| record.meta.created.is_some_and(|created| created >= since))
            && self.conditions.iter().all(|condition| condition.holds(record))
    }

    fn order(&self, one: &ExperimentRecord, other: &ExperimentRecord) -> std::cmp::Ordering {
        let by_name = || (&one.meta.name, &one.meta.namespace).cmp(&(&other.meta.name, &other.meta.namespace));
        match &self.sort {
            Sort::Age => other.meta.created.cmp(&one.meta.created).then_with(by_name),
            Sort::Name => by_name(),
            Sort::Metric { name, smallest } => {
                // One without the metric comes last.
                let score = |record: &ExperimentRecord| {
                    let last = record.status.metrics.get(name).map(|metric| metric.last);
                    last.map_or(f64::INFINITY, |last| if *smallest { last } else { -last })
                };
                score(one).total_cmp(&score(other)).then_with(by_name)
            }
        }
    }

    fn table(&self, records: &[ExperimentRecord], wide: bool, now: Timestamp) -> String {
        let mut columns: Vec<String> = self
            .conditions
            .iter()
            .filter_map(|condition| match &condition.field {
                Field::Param(name) => Some(format!("params.{name}")),
                Field::Metric(name) => Some(format!("metrics.{name}")),
                Field::Pipeline => None,
            })
            .collect();
        if let Sort::Metric { name, .. } = &self.sort {
            columns.push(format!("metrics.{name}"));
        }
        columns.sort();
        columns.dedup();
        let mut head: Vec<&str> = vec!["NAME", "PHASE", "REASON", "AGE"];
        if self.everywhere {
            head.insert(0, "NAMESPACE");
        }
        head.extend(columns.iter().map(String::as_str));
        if wide {
            head.extend(["PIPELINE", "STAGE", "FROM", "PARAMS"]);
        }
        let rows = records.iter().map(|record| {
            let place = self.everywhere.then(|| record.meta.namespace.clone());
            place.into_iter().chain(row(record, &columns, wide, now)).collect()
        });
        output::table(&head, rows.collect())
    }
}

fn row(record: &ExperimentRecord, columns: &[String], wide: bool, now: Timestamp) -> Vec<String> {
    let status = &record.status;
    let reused = status.reused_from.as_ref().map(|_| "Reused".to_owned());
    let reason = status.reason.map(|reason| reason.to_string()).or(reused).unwrap_or_default();
    let mut row = vec![
        record.meta.name.clone(),
        output::phase(&status.phase.to_string()),
        reason,
        output::ago(record.meta.created, now),
    ];
    for column in columns {
        row.push(match column.split_once('.') {
            Some(("params", name)) => param(record, name).map(output::plain).unwrap_or_default(),
            Some((_, name)) => status.metrics.get(name).map(|metric| output::number(metric.last)).unwrap_or_default(),
            None => String::new(),
        });
    }
    if wide {
        let label = |key: &str| record.meta.label(key).unwrap_or_default().to_owned();
        let params = params(record).into_iter().flatten();
        row.push(label(cultivar_crds::labels::PIPELINE));
        row.push(label(cultivar_crds::labels::STAGE));
        row.push(status.cloned_from.as_ref().map(|from| from.name.clone()).unwrap_or_default());
        row.push(params.map(|(name, value)| format!("{name}={}", output::plain(value))).collect::<Vec<_>>().join(" "));
    }
    row
}

fn params(record: &ExperimentRecord) -> Option<&serde_json::Map<String, serde_json::Value>> {
    record.template().get("params")?.as_object()
}

fn param<'r>(record: &'r ExperimentRecord, name: &str) -> Option<&'r serde_json::Value> {
    params(record)?.get(name)
}

fn condition(text: &str) -> Result<Condition> {
    // The longer ones first, so that <= is not read as <.
    for operator in ["!=", "<=", ">=", "=", "<", ">"] {
        let Some((field, value)) = text.split_once(operator) else { continue };
        let field = match field.trim().split_once('.') {
            Some(("params", name)) => Field::Param(name.to_owned()),
            Some(("metrics", name)) => Field::Metric(name.to_owned()),
            None if field.trim() == "pipeline" => Field::Pipeline,
            _ => {
                let words = format!("--where {text}: there are params.NAME, metrics.NAME and pipeline");
                return Err(Error::refused(words));
            }
        };
        return Ok(Condition { field, operator, value: value.trim().to_owned() });
    }
    Err(Error::refused(format!("--where {text}: it compares nothing")).hint("such as params.lr=0.1 or metrics.acc>0.9"))
}

impl Condition {
    fn holds(&self, record: &ExperimentRecord) -> bool {
        let found = match &self.field {
            Field::Param(name) => param(record, name).map(output::plain),
            Field::Metric(name) => record.status.metrics.get(name).map(|metric| metric.last.to_string()),
            Field::Pipeline => record.meta.label(cultivar_crds::labels::PIPELINE).map(str::to_owned),
        };
        let Some(found) = found else { return self.operator == "!=" };
        let order = match (found.parse::<f64>(), self.value.parse::<f64>()) {
            (Ok(found), Ok(value)) => found.total_cmp(&value),
            _ => found.cmp(&self.value),
        };
        match self.operator {
            "=" => order.is_eq(),
            "!=" => order.is_ne(),
            "<" => order.is_lt(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            _ => order.is_ge(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(name: &str, lr: f64, acc: Option<f64>) -> ExperimentRecord {
        let metrics = acc.map(|acc| json!({"acc": {"last": acc}})).unwrap_or_else(|| json!({}));
        experiment(&json!({
            "metadata": {"name": name, "namespace": "n", "creationTimestamp": "2026-11-25T10:00:00Z"},
            "spec": {"params": {"lr": lr}}, "status": {"phase": "Completed", "metrics": metrics},
        }))
        .unwrap()
    }

    fn wanted(conditions: &[&str], sort: &str) -> Wanted {
        let asked = List {
            selector: None,
            all_namespaces: false,
            phase: Some("completed".into()),
            conditions: conditions.iter().map(|text| (*text).to_owned()).collect(),
            since: Some("1h".into()),
            sort: sort.into(),
            limit: None,
        };
        Wanted::of(&asked, "2026-11-25T10:30:00Z".parse().unwrap()).unwrap()
    }

    #[test]
    fn conditions_compare_numbers_as_numbers() {
        let record = record("a", 0.1, Some(0.95));
        for (text, holds) in [
            ("params.lr=0.10", true),
            ("params.lr!=0.1", false),
            ("metrics.acc>0.9", true),
            ("metrics.acc<=0.9", false),
            ("metrics.other>0", false),
            ("pipeline!=digits", true),
        ] {
            assert_eq!(wanted(&[text], "age").holds(&record), holds, "{text}");
        }
        assert!(condition("params.lr").is_err() && condition("lr=1").is_err());
    }

    #[test]
    fn the_best_comes_first_and_what_lacks_the_metric_last() {
        let mut all = [record("a", 0.1, Some(0.5)), record("b", 0.2, None), record("c", 0.3, Some(0.9))];
        let sorted = wanted(&[], "metric:acc");
        all.sort_by(|one, other| sorted.order(one, other));
        assert_eq!(all.each_ref().map(|record| record.meta.name.as_str()), ["c", "a", "b"]);
        let text = sorted.table(&all, false, "2026-11-25T10:30:00Z".parse().unwrap());
        assert!(
            text.starts_with("NAME   PHASE       REASON   AGE   metrics.acc\nc      Completed            30m   0.9\n"),
            "{text}"
        );
        let smallest = wanted(&[], "metric:-acc");
        all.sort_by(|one, other| smallest.order(one, other));
        assert_eq!(all.each_ref().map(|record| record.meta.name.as_str()), ["a", "c", "b"]);
    }
}
