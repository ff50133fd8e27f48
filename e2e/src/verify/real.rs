//! What only a real node can show, on the cluster that the demo has left: programs that talk to each other.
//!
//! In: the demo's cluster, with the operator and the images in it. Out: one line a check.

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::ui::seconds;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Count;

/// How long a run of seconds may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

type Check = fn(&Cluster) -> Result<()>;

/// Plays every check.
pub fn check(name: &str) -> Result<Count> {
    let cluster = Cluster::find(name)?;
    let mut count = Count::default();
    let checks: [(&str, Check); 2] = [
        ("two workers find each other, and the first reports", gang),
        ("a queue admits what fits, one after the other", queue),
    ];
    for (what, check) in checks {
        let begun = Instant::now();
        let outcome = check(&cluster);
        match &outcome {
            Ok(()) => println!("✓ {what}  {}", seconds(begun.elapsed())),
            Err(error) => println!("✗ {what}: {error}"),
        }
        count.add(Count::one(outcome.is_ok()));
    }
    Ok(count)
}

fn gang(cluster: &Cluster) -> Result<()> {
    let sample =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples/gang-experiment.yaml").display().to_string();
    cluster.kubectl(&["apply", "-f", &sample])?;
    let done = ended(cluster, "sum-of-ranks")?;
    let metrics = &done["status"]["metrics"];
    if metrics["ranks"]["last"] != 1
        || metrics["workers"]["last"] != 2
        || done["status"]["artifacts"][0]["name"] != "sum"
    {
        return Err(Error::new(format!("worker 0 reported {}", done["status"])));
    }
    Ok(())
}

const QUEUE: &str = r#"
apiVersion: cultivar.dev/v1alpha1
kind: Queue
metadata: {name: one-at-a-time}
spec: {resources: {pods: {quota: 1}}}
"#;

fn queue(cluster: &Cluster) -> Result<()> {
    cluster.apply(QUEUE)?;
    for name in ["queued-a", "queued-b"] {
        cluster.apply(&format!(
            r#"{{"apiVersion": "cultivar.dev/v1alpha1", "kind": "Experiment", "metadata": {{"name": "{name}"}}, "spec": {{
            "image": "cultivar.dev/demo/digits:1", "queue": "one-at-a-time", "command": ["python3", "-c", "import time; time.sleep(3)"]}}}}"#
        ))?;
    }
    let [first, second] = [ended(cluster, "queued-a")?, ended(cluster, "queued-b")?];
    let moment = |object: &Value, of: &str| object["status"]["attempts"][0][of].as_str().unwrap_or_default().to_owned();
    let mut turns = [&first, &second].map(|object| (moment(object, "startedAt"), moment(object, "finishedAt")));
    turns.sort();
    let [(_, ended), (started, _)] = turns;
    cluster.kubectl(&["delete", "queue", "one-at-a-time", "--timeout=60s"])?;
    if started < ended {
        return Err(Error::new(format!("the second started at {started}, before the first had ended at {ended}")));
    }
    Ok(())
}

fn ended(cluster: &Cluster, name: &str) -> Result<Value> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let object: Value = serde_json::from_str(&cluster.kubectl(&["get", "experiment", name, "-o", "json"])?)
            .map_err(|error| Error::new(format!("kubectl's answer: {error}")))?;
        match object["status"]["phase"].as_str() {
            Some("Completed") => return Ok(object),
            Some("Failed" | "Cancelled") => return Err(Error::new(format!("{name}: {}", object["status"]))),
            _ if Instant::now() > deadline => {
                return Err(Error::new(format!("{name} has not ended: {}", object["status"])));
            }
            _ => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}
