//! The guard of queues against an API server: whom it refuses, and that what the operator starts gets through.
//!
//! In: a cluster with the release installed, its guard on for one namespace. Out: a remark, or who was treated wrongly. Requests
//! are dry runs, which are admitted like real ones, but for two Jobs: one whose pod the cluster's own controller makes, and one that is
//! there to be changed.

use std::thread;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::exec;

const GPU: &str = "{requests: {nvidia.com/gpu: \"1\"}, limits: {nvidia.com/gpu: \"1\"}}";
const REPLICA_SETS: [&str; 4] = [
    "--as=system:serviceaccount:kube-system:replicaset-controller",
    "--as-group=system:serviceaccounts",
    "--as-group=system:serviceaccounts:kube-system",
    "--as-group=system:masters",
];
const CRON_JOBS: [&str; 4] = [
    "--as=system:serviceaccount:kube-system:cronjob-controller",
    "--as-group=system:serviceaccounts",
    "--as-group=system:serviceaccounts:kube-system",
    "--as-group=system:masters",
];

struct Guarded<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
}

/// Runs every check in a namespace that is guarded; `operator` is the user that the release's operator is.
///
/// # Errors
/// Somebody was let through or refused who should not have been.
pub fn keeps_out(cluster: &Cluster, namespace: &str, operator: &str) -> Result<String> {
    let guarded = Guarded { cluster, namespace };
    let plain = pod("plain", "{}", "", GPU);
    guarded.wait_until_refused(&plain)?;
    let (said, owned) = ("labels: {cultivar.dev/queue: research}", "cultivar.dev/queue: research");
    let set = "ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: x, uid: x, controller: true}]";
    let of_job = "ownerReferences: [{apiVersion: batch/v1, kind: Job, name: x, uid: x, controller: true}]";
    let as_operator = [&format!("--as={operator}") as &str];
    let (pods, jobs) = ("is given out by queues", "is the operator's");
    let label = "only pods of Jobs that the operator made";
    for (what, object, who, refused) in [
        ("a GPU pod", &plain, &[][..], Some(pods)),
        ("a GPU pod in an init container", &pod("init", GPU, "", "{}"), &[], Some(pods)),
        ("a pod without GPU", &pod("cpu", "{}", "", "{requests: {cpu: 10m}}"), &[], None),
        ("a pod that asks for no GPU", &pod("zero", "{}", "", "{limits: {nvidia.com/gpu: \"0\"}}"), &[], None),
        ("a person's pod that claims a queue", &pod("claims", "{}", said, GPU), &[], Some(label)),
        ("… and a Job as its owner", &pod("owned", "{}", &format!("{said}, {of_job}"), GPU), &[], Some(label)),
        (
            "a ReplicaSet's that claims one",
            &pod("set", "{}", &format!("{said}, {set}"), GPU),
            &REPLICA_SETS,
            Some(label),
        ),
        ("a person's Job", &job("mine", "", ""), &[], None),
        ("a person's Job that claims a queue", &job("claims", owned, ""), &[], Some(jobs)),
        ("a person's Job whose pods claim one", &job("claims", "", owned), &[], Some(jobs)),
        ("a CronJob's Job whose pods claim one", &job("cron", "", owned), &CRON_JOBS, Some(jobs)),
        ("the operator's Job", &job("admitted", owned, owned), &as_operator, None),
    ] {
        guarded.expect(what, object, who, refused)?;
    }
    Guarded { cluster, namespace: "default" }.expect("a GPU pod elsewhere", &plain, &[], None)?;
    guarded.starts_a_pod(&job("admitted", owned, owned), operator)?;
    guarded.keeps_labels()?;
    Ok("16 requests, and a Job whose pod came".to_owned())
}

impl Guarded<'_> {
    fn create(&self, object: &str, options: &[&str]) -> Result<String> {
        let mut command = self.cluster.kubectl_command();
        command.args(["create", "--filename=-", "--namespace", self.namespace]).args(options);
        exec::output(&mut command, Some(object))
    }

    fn dry_run(&self, object: &str, who: &[&str]) -> Result<String> {
        self.create(object, &[&["--dry-run=server"], who].concat())
    }

    // The API server takes a while to know of a new policy.
    fn wait_until_refused(&self, object: &str) -> Result<()> {
        for _ in 0..120 {
            if self.dry_run(object, &[]).is_err() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(250));
        }
        Err(Error::new("the API server lets a GPU pod of no queue through for half a minute")
            .hint("read the status of the policy: a mistake in an expression is told there"))
    }

    fn expect(&self, what: &str, object: &str, who: &[&str], refused: Option<&str>) -> Result<()> {
        match (self.dry_run(object, who), refused) {
            (Ok(_), None) => Ok(()),
            (Ok(_), Some(_)) => Err(Error::new(format!("{what} is let through"))),
            (Err(error), Some(words)) if error.to_string().contains(words) => Ok(()),
            (Err(error), Some(words)) => {
                Err(Error::new(format!("{what} is refused, but not with `{words}`")).why(error))
            }
            (Err(error), None) => Err(Error::new(format!("{what} is refused")).why(error)),
        }
    }

    fn starts_a_pod(&self, job: &str, operator: &str) -> Result<()> {
        self.create(job, &["--as", operator])?;
        let namespace = format!("--namespace={}", self.namespace);
        self.cluster.kubectl(&[
            "wait",
            "job/admitted",
            &namespace,
            "--for=jsonpath={.status.active}=1",
            "--timeout=60s",
        ])?;
        self.cluster.kubectl(&["delete", "job/admitted", &namespace]).map(drop)
    }

    // The pods of a Job that is suspended can get other labels.
    fn keeps_labels(&self) -> Result<()> {
        self.create(&job("later", "", "").replace("spec: {template", "spec: {suspend: true, template"), &[])?;
        let namespace = format!("--namespace={}", self.namespace);
        let patch = |patch: &str| {
            let patch = format!("--patch={patch}");
            self.cluster.kubectl(&["patch", "job/later", &namespace, "--dry-run=server", "--type=merge", &patch])
        };
        let pods = |labels: &str| format!(r#"{{"spec": {{"template": {{"metadata": {{"labels": {{{labels}}}}}}}}}}}"#);
        patch(&pods(r#""note": "x""#))?;
        for queue in [
            pods(r#""cultivar.dev/queue": "x""#),
            r#"{"metadata": {"labels": {"cultivar.dev/queue": "x"}}}"#.to_owned(),
        ] {
            match patch(&queue) {
                Err(error) if error.to_string().contains("is the operator's") => {}
                Err(error) => {
                    return Err(Error::new("a Job gets a queue later: refused, but not by the guard").why(error));
                }
                Ok(_) => return Err(Error::new("a person can give a Job a queue later").why(queue)),
            }
        }
        self.cluster.kubectl(&["delete", "job/later", &namespace]).map(drop)
    }
}

fn pod(name: &str, init: &str, metadata: &str, resources: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, {metadata}}}, spec: {{\
         initContainers: [{{name: init, image: \"busybox:1\", resources: {init}}}], \
         containers: [{{name: main, image: \"busybox:1\", resources: {resources}}}]}}}}"
    )
}

fn job(name: &str, labels: &str, pods: &str) -> String {
    format!(
        "{{apiVersion: batch/v1, kind: Job, metadata: {{name: {name}, labels: {{{labels}}}}}, spec: {{template: {{metadata: {{labels: {{{pods}}}}}, \
         spec: {{restartPolicy: Never, containers: [{{name: main, image: \"busybox:1\", resources: {GPU}}}]}}}}}}}}"
    )
}
