//! `list`: experiments, filtered and sorted.

mod listed;
mod wanted;

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::HashMap;

use self::listed::Listed;
use self::wanted::Wanted;
use crate::args::Format;
use crate::cluster::{Cluster, text};
use crate::error::Result;
use crate::store::Operator;
use crate::{output, recorded};

/// So many are read one by one where whole objects are asked for; more are read together with all others.
const ONE_BY_ONE: usize = 100;
/// Requests in flight.
const AT_A_TIME: usize = 16;

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
    /// Only those of which this holds: `params.NAME`, `metrics.NAME` (its last value) or `pipeline`, with =, !=, <, >, <= or >=.
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
    /// Those too whose object is gone, as their records in the store tell of them; a record has no labels.
    #[arg(long, conflicts_with_all = ["all_namespaces", "selector"])]
    recorded: bool,
    #[command(flatten)]
    operator: Operator,
}

pub async fn list(cluster: &Cluster, format: Option<Format>, asked: &List) -> Result<()> {
    let now = Timestamp::now();
    let wanted = Wanted::of(asked, now)?;
    let rows = cluster.rows(asked.selector.as_deref(), asked.all_namespaces, listed::COLUMNS).await?;
    let mut found = rows.iter().map(Listed::of).collect::<Result<Vec<_>>>()?;
    if asked.recorded {
        let there = found.iter().map(|listed| listed.name.clone()).collect();
        let gone = recorded::gone(cluster, &asked.operator, &there).await?;
        found.extend(gone.into_iter().map(Listed::recorded).collect::<Result<Vec<_>>>()?);
    }
    found.retain(|listed| wanted.holds(listed));
    found.sort_by(|one, other| wanted.order(one, other));
    found.truncate(asked.limit.unwrap_or(usize::MAX));
    let objects = match format {
        None | Some(Format::Wide) => Vec::new(),
        Some(Format::Name) => found.iter().map(Listed::named).collect(),
        Some(Format::Json | Format::Yaml) => whole(cluster, asked, &found).await?,
    };
    if output::objects(format, &objects)? {
        return Ok(());
    }
    if found.is_empty() {
        let place =
            if asked.all_namespaces { "any namespace".to_owned() } else { format!("namespace {}", cluster.namespace) };
        eprintln!("no experiments in {place} that this asks for");
        return Ok(());
    }
    let shown = Shown { columns: wanted.columns(), everywhere: asked.all_namespaces, wide: format.is_some() };
    print!("{}", shown.table(&found, now));
    Ok(())
}

// The objects behind the lines, in their order; what is gone meanwhile is left out.
async fn whole(cluster: &Cluster, asked: &List, found: &[Listed]) -> Result<Vec<Value>> {
    if found.len() <= ONE_BY_ONE {
        let read = futures::stream::iter(found).map(|listed| async move {
            match &listed.recorded {
                Some(object) => Ok(Some(object.clone())),
                None => cluster.find_in(&listed.namespace, "Experiment", &listed.name).await,
            }
        });
        let read: Vec<_> = read.buffered(AT_A_TIME).try_collect().await?;
        return Ok(read.into_iter().flatten().collect());
    }
    let labels = asked.selector.as_deref();
    let all = match asked.all_namespaces {
        true => cluster.list_everywhere("Experiment", labels).await?,
        false => cluster.list("Experiment", labels).await?,
    };
    let place = |object: &Value| (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    let mut all: HashMap<_, _> = all.into_iter().map(|object| (place(&object), object)).collect();
    let object = |listed: &Listed| {
        let there = all.remove(&(listed.namespace.clone(), listed.name.clone()));
        listed.recorded.clone().or(there)
    };
    Ok(found.iter().filter_map(object).collect())
}

/// What a table has, beside names and phases.
struct Shown {
    columns: Vec<String>,
    everywhere: bool,
    wide: bool,
}

impl Shown {
    fn table(&self, found: &[Listed], now: Timestamp) -> String {
        let mut head: Vec<&str> = vec!["NAME", "PHASE", "REASON", "AGE"];
        if self.everywhere {
            head.insert(0, "NAMESPACE");
        }
        head.extend(self.columns.iter().map(String::as_str));
        if self.wide {
            head.extend(["PIPELINE", "STAGE", "FROM", "PARAMS"]);
        }
        output::table(&head, found.iter().map(|listed| self.row(listed, now)).collect())
    }

    fn row(&self, listed: &Listed, now: Timestamp) -> Vec<String> {
        let mut row: Vec<String> = self.everywhere.then(|| listed.namespace.clone()).into_iter().collect();
        row.extend([listed.name.clone(), output::phase(&listed.phase), listed.reason.clone()]);
        row.push(output::ago(listed.created, now));
        row.extend(self.columns.iter().map(|column| match column.split_once('.') {
            Some(("params", name)) => listed.params.get(name).map(output::plain).unwrap_or_default(),
            Some((_, name)) => listed.metrics.get(name).copied().map(output::number).unwrap_or_default(),
            None => String::new(),
        }));
        if self.wide {
            let params = listed.params.iter().map(|(name, value)| format!("{name}={}", output::plain(value)));
            let params = params.collect::<Vec<_>>().join(" ");
            row.extend([listed.pipeline.clone(), listed.stage.clone(), listed.from.clone(), params]);
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_has_a_column() {
        let now = "2026-11-25T10:30:00Z".parse().unwrap();
        let listed = Listed {
            name: "c".to_owned(),
            created: "2026-11-25T10:00:00Z".parse().ok(),
            phase: "Completed".to_owned(),
            metrics: [("acc".to_owned(), 0.9)].into(),
            ..Listed::default()
        };
        let shown = Shown { columns: vec!["metrics.acc".to_owned()], everywhere: false, wide: false };
        let text = shown.table(&[listed], now);
        assert_eq!(text, "NAME   PHASE       REASON   AGE   metrics.acc\nc      Completed            30m   0.9\n");
    }
}
