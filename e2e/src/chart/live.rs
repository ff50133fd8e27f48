//! The tests of the chart that need an API server: what it accepts, what an upgrade keeps, who may do what, and which
//! requests reach the webhook.
//!
//! In: a running cluster, a real node not needed. Out: a summary. No operator runs: the release has no replicas and its
//! webhook fails closed, so a request that reaches the webhook is refused, and one that does not is not. Everything is in a
//! release and a namespace of its own, watches only that namespace, and is removed in the end; definitions that are there
//! already are left as they are.

use base64::Engine as _;
use serde_json::json;

use crate::chart::{self, Summary, approver, guard};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::exec;

const RELEASE: &str = "chart-test";
const NAMESPACE: &str = "chart-test";
const WEBHOOK: &str = "validatingwebhookconfiguration/chart-test-cultivar-chart-test";
const OPERATOR: &str = "system:serviceaccount:chart-test:chart-test-cultivar-operator";

/// Verb and resource, namespace, and whether the operator may.
const RIGHTS: [(&str, &str, &str, bool); 48] = [
    ("watch", "schedules.cultivar.dev", NAMESPACE, true),
    ("update", "schedules.cultivar.dev/status", NAMESPACE, true),
    ("patch", "schedules.cultivar.dev", NAMESPACE, false),
    ("watch", "artifactstores.cultivar.dev", NAMESPACE, true),
    ("patch", "artifactstores.cultivar.dev", NAMESPACE, false),
    ("watch", "approvals.cultivar.dev", NAMESPACE, true),
    ("create", "approvals.cultivar.dev", NAMESPACE, false),
    ("watch", "queues.cultivar.dev", NAMESPACE, true),
    ("create", "queues.cultivar.dev", NAMESPACE, false),
    ("watch", "namespaces", NAMESPACE, true),
    ("patch", "namespaces", NAMESPACE, false),
    ("watch", "nodes", NAMESPACE, true),
    ("patch", "nodes", NAMESPACE, false),
    ("watch", "pods", "default", true),
    ("delete", "pods", "default", false),
    ("create", "experiments.cultivar.dev", NAMESPACE, true),
    ("patch", "experiments.cultivar.dev/status", NAMESPACE, true),
    ("update", "experiments.cultivar.dev/finalizers", NAMESPACE, true),
    ("watch", "pipelines.cultivar.dev", NAMESPACE, true),
    ("patch", "pipelines.cultivar.dev", NAMESPACE, true),
    ("update", "pipelines.cultivar.dev/status", NAMESPACE, true),
    ("delete", "pipelineruns.cultivar.dev", NAMESPACE, true),
    ("create", "jobs.batch", NAMESPACE, true),
    ("delete", "jobs.batch", NAMESPACE, true),
    ("update", "jobs.batch", NAMESPACE, false),
    ("watch", "pods", NAMESPACE, true),
    ("delete", "pods", NAMESPACE, false),
    ("create", "pods", NAMESPACE, false),
    ("get", "localqueues.kueue.x-k8s.io", NAMESPACE, true),
    ("watch", "workloads.kueue.x-k8s.io", NAMESPACE, true),
    ("patch", "workloads.kueue.x-k8s.io", NAMESPACE, false),
    ("create", "services", NAMESPACE, true),
    ("delete", "services", NAMESPACE, false),
    ("create", "events.events.k8s.io", NAMESPACE, true),
    ("patch", "configmaps", NAMESPACE, true),
    ("list", "configmaps", NAMESPACE, false),
    ("get", "secrets/chart-test-cultivar-webhook", NAMESPACE, true),
    ("get", "secrets/another", NAMESPACE, false),
    ("get", "secrets/chart-test-cultivar-store-root", NAMESPACE, true),
    ("delete", "secrets/chart-test-cultivar-store-root", NAMESPACE, false),
    ("patch", "secrets/cultivar-store", NAMESPACE, true),
    ("get", "secrets/cultivar-store", "default", false),
    ("list", "secrets", NAMESPACE, false),
    ("update", "leases.coordination.k8s.io/chart-test-cultivar-operator", NAMESPACE, true),
    ("update", "leases.coordination.k8s.io/another", NAMESPACE, false),
    ("list", "experiments.cultivar.dev", "default", false),
    ("create", "jobs.batch", "default", false),
    ("create", "secrets", "default", false),
];

/// Runs every check of the chart that needs a cluster. A failed check is part of the summary, not an error.
///
/// # Errors
/// The cluster does not answer, or Helm cannot be built.
pub fn test_on(cluster: &Cluster) -> Result<Summary> {
    let mut summary = Summary::default();
    for namespace in [NAMESPACE, "cultivar-system", "vision", "nlp"] {
        cluster.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"))?;
    }
    let definitions = !cluster.kubectl(&["get", "crd", "--output=name"])?.contains("experiments.cultivar.dev");
    for (name, file) in chart::ci_values()? {
        let manifests = chart::manifests(&[&file]).map(|text| without_monitoring(&text));
        summary.check(format!("server accepts {name}"), manifests.and_then(|text| dry_run(cluster, &text)));
    }
    summary.check("server accepts the kustomize base", base(cluster));
    match release(cluster, definitions, 1) {
        Ok(_) => {
            summary.check("an upgrade keeps the CA", upgrade_keeps_ca(cluster, definitions));
            summary.check("the webhook sees what it should", webhook_sees(cluster));
            summary.check("the operator's rights", rights(cluster));
            summary.check("an Approval is by who makes it", approver::is_who_says_so(cluster, NAMESPACE));
            summary.check("pods with GPUs are kept to queues", guard::keeps_out(cluster, NAMESPACE, OPERATOR));
        }
        Err(error) => summary.check("install", Err(error)),
    }
    summary.check("an uninstall keeps the definitions", uninstall(cluster));
    clean_up(cluster, definitions)?;
    Ok(summary)
}

/// Installs or upgrades the release; `timeout` is a value that an upgrade can change.
fn release(cluster: &Cluster, definitions: bool, timeout: u8) -> Result<String> {
    let mut helm = cluster.helm_command()?;
    helm.args(["upgrade", "--install", RELEASE]).arg(chart::chart_dir()).args(["--namespace", NAMESPACE]);
    helm.args(["--set", &format!("namespaces={{{NAMESPACE}}}"), "--set", "replicas=0"]);
    helm.args(["--set", "webhook.failurePolicy=Fail", "--set", &format!("webhook.timeoutSeconds={timeout}")]);
    helm.args(["--set", "queues.guard.enabled=true"]);
    helm.args([
        "--set",
        &format!("queues.guard.namespaceSelector.matchLabels.kubernetes\\.io/metadata\\.name={NAMESPACE}"),
    ]);
    helm.args(["--set", &format!("crds.install={definitions}"), "--set", "rbac.aggregateRoles=false"]);
    exec::output(&mut helm, None)
}

fn upgrade_keeps_ca(cluster: &Cluster, definitions: bool) -> Result<String> {
    // The API server wants a real certificate here; the cluster's own is at hand.
    let pem = cluster.kubectl(&[
        "get",
        "configmap/kube-root-ca.crt",
        "--namespace=default",
        r"--output=jsonpath={.data.ca\.crt}",
    ])?;
    let ca = base64::engine::general_purpose::STANDARD.encode(pem);
    // As the operator does: by its own account, and this field alone.
    let patch = format!(r#"[{{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "{ca}"}}]"#);
    cluster.kubectl(&["patch", WEBHOOK, "--type=json", "--patch", &patch, "--as", OPERATOR])?;
    release(cluster, definitions, 3)?;
    let after = cluster.kubectl(&[
        "get",
        WEBHOOK,
        "--output=jsonpath={.webhooks[0].timeoutSeconds} {.webhooks[0].clientConfig.caBundle}",
    ])?;
    match after.trim().split_once(' ') {
        Some(("3", kept)) if kept == ca => Ok(String::new()),
        Some(("3", _)) => {
            Err(Error::new("the upgrade wiped caBundle").hint("the chart must not name the field, not even as empty"))
        }
        _ => Err(Error::new("the upgrade did not set timeoutSeconds to 3").why(after)),
    }
}

/// The webhook's address leads nowhere and its policy is to fail: what is refused for that reason is what it would have seen.
fn webhook_sees(cluster: &Cluster) -> Result<String> {
    let namespace = format!("--namespace={NAMESPACE}");
    let object = "{apiVersion: cultivar.dev/v1alpha1, kind: Experiment, metadata: {name: seen, finalizers: [cultivar.dev/chart-test]}, \
                  spec: {image: \"busybox:1\", command: [sh], params: {a: null, b: [1, {c: d}]}}}";
    let create = |who: &[&str], namespace: &str| {
        let mut command = cluster.kubectl_command();
        command.args(["create", "--filename=-", namespace]).args(who);
        exec::output(&mut command, Some(object))
    };
    let patch = |who: &[&str], patch: &str| {
        let mut args = vec!["patch", "experiment.cultivar.dev/seen", &namespace, "--type=merge", "--patch", patch];
        args.extend(who);
        cluster.kubectl(&args)
    };
    let operator = ["--as", OPERATOR];
    let (label, spec) = (r#"{"metadata": {"labels": {"a": "b"}}}"#, r#"{"spec": {"params": {"b": 2}}}"#);
    expect(create(&[], &namespace), true, "a person creates")?;
    expect(create(&operator, &namespace), false, "the operator creates")?;
    expect(patch(&[], label), false, "a person labels")?;
    expect(patch(&[], spec), true, "a person changes the spec")?;
    expect(patch(&operator, spec), false, "the operator changes the spec")?;
    cluster.kubectl(&["delete", "experiment.cultivar.dev/seen", &namespace, "--wait=false"])?;
    let last = r#"{"metadata": {"finalizers": []}, "spec": {"params": {"b": 3}}}"#;
    expect(patch(&[], last), false, "an object on its way out loses its finalizer")?;
    expect(create(&[], "--namespace=default"), false, "a person creates in another namespace")?;
    cluster.kubectl(&[
        "patch",
        "experiment.cultivar.dev/seen",
        "--namespace=default",
        "--type=merge",
        "--patch",
        last,
    ])?;
    cluster.kubectl(&["delete", "experiment.cultivar.dev/seen", "--namespace=default"])?;
    Ok("8 requests".to_owned())
}

fn expect(answer: Result<String>, seen: bool, what: &str) -> Result<()> {
    match answer {
        Ok(_) if seen => Err(Error::new(format!("{what}: the webhook was not asked"))),
        Err(error) if !seen => Err(Error::new(format!("{what}: this should not reach the webhook")).why(error)),
        Err(error) if !error.to_string().contains("failed calling webhook") => {
            Err(Error::new(format!("{what}: refused, but not for want of the webhook")).why(error))
        }
        _ => Ok(()),
    }
}

fn rights(cluster: &Cluster) -> Result<String> {
    let mut wrong = Vec::new();
    for (verb, resource, namespace, may) in RIGHTS {
        if is_allowed(cluster, verb, resource, namespace)? != may {
            wrong.push(format!("{verb} {resource} in {namespace}: {}", if may { "refused" } else { "allowed" }));
        }
    }
    if wrong.is_empty() { Ok(format!("{} questions", RIGHTS.len())) } else { Err(Error::new(wrong.join("; "))) }
}

// As `kubectl auth can-i`, which says no of every kind that the cluster does not know, such as Kueue's.
fn is_allowed(cluster: &Cluster, verb: &str, resource: &str, namespace: &str) -> Result<bool> {
    let (kind, part) = resource.split_once('/').unwrap_or((resource, ""));
    let (name, subresource) = if ["status", "finalizers"].contains(&part) { ("", part) } else { (part, "") };
    let (resource, group) = kind.split_once('.').unwrap_or((kind, ""));
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": OPERATOR, "resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name,
            "namespace": namespace,
        }},
    });
    let mut command = cluster.kubectl_command();
    command.args(["create", "--filename=-", "--output=jsonpath={.status.allowed}"]);
    Ok(exec::output(&mut command, Some(&review.to_string()))?.trim() == "true")
}

fn uninstall(cluster: &Cluster) -> Result<String> {
    let mut helm = cluster.helm_command()?;
    exec::output(helm.args(["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"]), None)?;
    let names = definition_names()?;
    cluster.kubectl(&[&["get"], names.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat())?;
    Ok(String::new())
}

/// The definitions as kubectl names them; each file of theirs has the name of its kind.
fn definition_names() -> Result<Vec<String>> {
    let files = chart::yaml_files(&chart::repository().join(chart::DEFINITIONS))?;
    Ok(files.into_iter().map(|(kind, _)| format!("crd/{kind}.cultivar.dev")).collect())
}

fn clean_up(cluster: &Cluster, definitions: bool) -> Result<()> {
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s"])?;
    if definitions {
        let names = definition_names()?;
        // Until they are gone: who applies a definition that is still leaving finds it missing a moment later.
        let mut args = vec!["delete", "--ignore-not-found", "--timeout=60s"];
        args.extend(names.iter().map(String::as_str));
        cluster.kubectl(&args)?;
    }
    Ok(())
}

fn base(cluster: &Cluster) -> Result<String> {
    let folder = chart::repository().join(chart::BASE);
    let mut command = cluster.kubectl_command();
    command.args(["apply", "--server-side", "--dry-run=server", "--validate=strict", "--kustomize"]).arg(folder);
    // Fields that a release on this cluster owns are no mistake of the base's.
    exec::output(command.arg("--force-conflicts"), None).map(|said| format!("{} objects", said.lines().count()))
}

fn dry_run(cluster: &Cluster, manifests: &str) -> Result<String> {
    let mut command = cluster.kubectl_command();
    command.args([
        "apply",
        "--server-side",
        "--dry-run=server",
        "--validate=strict",
        "--force-conflicts",
        "--filename=-",
    ]);
    exec::output(&mut command, Some(manifests)).map(|said| format!("{} objects", said.lines().count()))
}

/// A cluster knows the kinds of the Prometheus operator only where it is installed.
fn without_monitoring(text: &str) -> String {
    let foreign = |document: &&str| !document.contains("apiVersion: monitoring.coreos.com/");
    text.split("\n---\n").filter(foreign).collect::<Vec<_>>().join("\n---\n")
}
