//! The harness itself, on a cluster of its own name beside whatever runs already. Starts a cluster (about 30 s), so it
//! stands behind the feature that all such tests need: `cargo test -p cultivar-e2e --features client --test cluster`.

use cultivar_e2e::cluster::{Cluster, SIMULATED_GPUS};
use cultivar_e2e::error::Result;
use cultivar_e2e::ui::Ui;

const JOB: &str = r#"{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "NAME"}, "spec": {
  "backoffLimit": 0, "template": {
    "metadata": {"annotations": {"sim/duration": "200ms", "sim/outcome": "OUTCOME", "sim/message": "{\"a\": 1}"}},
    "spec": {"restartPolicy": "Never", "containers": [
      {"name": "main", "image": "train:1", "resources": {"limits": {"nvidia.com/gpu": 8}}}]}}}}"#;

#[test]
fn a_cluster_comes_up_runs_jobs_survives_an_outage_and_leaves_nothing() -> Result<()> {
    let (name, ui) = ("harness-test", Ui::silent());
    let cluster = Cluster::builder(name)?.nodes(2).real_node(false).up(&ui)?;
    let checked = check(&cluster);
    let dir = cluster.dir();
    Cluster::down(name, &ui)?;
    assert!(!dir.exists(), "state left in {}", dir.display());
    assert!(!Cluster::all().contains(&name.to_owned()));
    checked
}

fn check(cluster: &Cluster) -> Result<()> {
    let gpus = cluster.kubectl(&["get", "nodes", "-o", r"jsonpath={.items[*].status.allocatable.nvidia\.com/gpu}"])?;
    assert_eq!(gpus, format!("{SIMULATED_GPUS} {SIMULATED_GPUS}"));

    cluster.apply(&JOB.replace("NAME", "good").replace("OUTCOME", "succeed"))?;
    cluster.apply(&JOB.replace("NAME", "bad").replace("OUTCOME", "oom"))?;
    cluster.kubectl(&["wait", "--for=condition=Complete", "job/good", "--timeout=30s"])?;
    cluster.kubectl(&["wait", "--for=condition=Failed", "job/bad", "--timeout=30s"])?;
    let path = "jsonpath={.items[0].status.containerStatuses[0].state.terminated.message}";
    assert_eq!(cluster.kubectl(&["get", "pods", "-l", "job-name=good", "-o", path])?, r#"{"a": 1}"#);
    let path = "jsonpath={.items[0].status.containerStatuses[0].state.terminated.reason}";
    assert_eq!(cluster.kubectl(&["get", "pods", "-l", "job-name=bad", "-o", path])?, "OOMKilled");

    cluster.stop_api_server()?;
    assert!(cluster.kubectl(&["get", "nodes", "--request-timeout=2s"]).is_err());
    cluster.start_api_server()?;
    cluster.apply(&JOB.replace("NAME", "after").replace("OUTCOME", "succeed"))?;
    cluster.kubectl(&["wait", "--for=condition=Complete", "job/after", "--timeout=60s"])?;

    // A second `up` repairs and changes only what differs.
    let same = Cluster::builder(cluster.name())?.nodes(1).up(&Ui::silent())?;
    assert_eq!(same.server(), cluster.server());
    let names = cluster.kubectl(&["get", "nodes", "-o", "name"])?;
    assert_eq!(names.trim(), "node/sim-0");
    Ok(())
}
