//! `queues`: what each has, what is used, who waits.

use cultivar_core::domain::Record;
use cultivar_crds::QueueStatus;
use cultivar_crds::queue::Usage;
use serde_json::Value;

use crate::args::Format;
use crate::cluster::{Cluster, record};
use crate::error::Result;
use crate::output;

/// Queues: what they have, what is used, who waits.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  kubectl cultivar queues")]
pub struct Queues {}

pub async fn queues(cluster: &Cluster, format: Option<Format>, _: &Queues) -> Result<()> {
    let queues = cluster.list("Queue", None).await?;
    if output::objects(format, &queues)? {
        return Ok(());
    }
    if queues.is_empty() {
        eprintln!("the cluster has no queues: everything just runs");
        return Ok(());
    }
    let head = ["QUEUE", "COHORT", "RESOURCE", "USED", "QUOTA", "BORROWED", "RUNNING", "WAITING"];
    let rows = queues.iter().map(record::<QueueStatus>).collect::<Result<Vec<_>>>()?;
    print!("{}", output::table(&head, rows.iter().flat_map(rows_of).collect()));
    Ok(())
}

// One line for each resource of each flavor.
fn rows_of(queue: &Record<QueueStatus>) -> Vec<Vec<String>> {
    let status = &queue.status;
    let cohort = queue.spec.get("cohort").and_then(Value::as_str).unwrap_or_default();
    let row = |usage: &Usage| {
        let flavor = usage.flavor.as_ref().map(|flavor| format!("{flavor}: ")).unwrap_or_default();
        vec![
            queue.meta.name.clone(),
            cohort.to_owned(),
            format!("{flavor}{}", usage.resource),
            usage.used.clone(),
            usage.quota.clone(),
            usage.borrowed.clone(),
            status.admitted.to_string(),
            status.waiting.to_string(),
        ]
    };
    status.usage.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_resource_has_a_line() {
        let usage = json!([
            {"flavor": "a100", "resource": "nvidia.com/gpu", "quota": "8", "used": "10", "borrowed": "2", "lent": "0"},
            {"flavor": "t4", "resource": "nvidia.com/gpu", "quota": "4", "used": "0", "borrowed": "0", "lent": "0"},
        ]);
        let queue = json!({"metadata": {"name": "research"}, "spec": {"cohort": "gpus"}, "status": {"waiting": 3, "admitted": 10, "outside": 0, "usage": usage}});
        let rows = rows_of(&record(&queue).unwrap());
        assert_eq!(rows[0], ["research", "gpus", "a100: nvidia.com/gpu", "10", "8", "2", "10", "3"]);
        assert_eq!(rows.len(), 2);
    }
}
