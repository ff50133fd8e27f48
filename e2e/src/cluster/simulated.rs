//! Simulated nodes with eight GPUs each, and the pods on them, played by KWOK.
//!
//! In: how many nodes, and whether there is a real one. Out: a KWOK process with the stages of
//! `e2e/sim/kwok.yaml`, and Node objects `sim-0`, `sim-1`, …. They are labelled `type: kwok`. Only when
//! the cluster has a real node too do they carry the taint `kwok.x-k8s.io/node=fake:NoSchedule`: then a
//! workload runs for real unless it tolerates them; in a cluster of simulated nodes everything runs there.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::certs::{kubeconfig, write};
use super::control_plane::kubectl_command;
use super::layout::{Layout, Port};
use super::process::{self, Spec};
use super::{Settings, kubectl};
use crate::error::Result;
use crate::exec;
use crate::ui::Step;

/// The GPUs of one simulated node.
pub const GPUS: u32 = 8;
const STAGES: &str = include_str!("../../sim/kwok.yaml");
const MARK: &str = "kwok.x-k8s.io/node";

/// Starts KWOK and brings the simulated nodes to the wanted number.
pub(crate) fn start(layout: &Layout, settings: &Settings, bin: &Path, kwok: &Path, step: &Step) -> Result<()> {
    step.note("KWOK");
    let stages = layout.conf().join("kwok.yaml");
    write(&stages, STAGES)?;
    let client = kubeconfig(layout, "kwok");
    let args = vec![
        format!("--kubeconfig={}", client.display()),
        format!("--config={}", stages.display()),
        format!("--manage-nodes-with-annotation-selector={MARK}=fake"),
        format!("--cidr={}", layout.simulated_pods()),
        format!("--node-ip={}", layout.host_end()),
        format!("--server-address=127.0.0.1:{}", layout.port(Port::Kwok)),
    ];
    let spec = Spec { name: "kwok", program: kwok.to_owned(), args, netns: None, reads: vec![stages, client] };
    if !process::runs(layout, &spec) {
        process::stop(layout, spec.name, Duration::from_secs(3))?;
        release(layout, bin)?;
    }
    process::ensure(layout, &spec)?;
    step.note(format!("{} simulated nodes", settings.nodes));
    remove_surplus(layout, settings, bin)?;
    if settings.nodes == 0 {
        return Ok(());
    }
    let items: Vec<Value> = (0..settings.nodes).map(|index| node(index, settings.real_node)).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let mut apply = kubectl_command(layout, bin);
    apply.args(["apply", "--server-side", "--force-conflicts", "--field-manager=cultivar-cluster", "-f", "-"]);
    exec::output(&mut apply, Some(&list))?;
    let wanted = usize::try_from(settings.nodes).unwrap_or(usize::MAX);
    process::wait(layout, "kwok", Duration::from_secs(60), || ready(layout, bin) >= wanted)
}

/// Removes the leases of the simulated nodes. A new KWOK has a new identity, and would leave the nodes
/// that the one before held alone until their leases expire: 40 seconds in which no pod is played.
fn release(layout: &Layout, bin: &Path) -> Result<()> {
    let namespace = "--namespace=kube-node-lease";
    let leases = kubectl(layout, bin, &["get", "leases", namespace, "-o", "name"])?;
    let held: Vec<&str> = leases.lines().filter(|name| name.contains("/sim-")).collect();
    if held.is_empty() {
        return Ok(());
    }
    kubectl(layout, bin, &[&["delete", namespace, "--ignore-not-found"], held.as_slice()].concat()).map(|_| ())
}

fn ready(layout: &Layout, bin: &Path) -> usize {
    let path = r#"jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
    let answer = kubectl(layout, bin, &["get", "nodes", "--selector=type=kwok", "-o", path]);
    answer.map_or(0, |text| text.lines().filter(|line| line.trim() == "True").count())
}

fn remove_surplus(layout: &Layout, settings: &Settings, bin: &Path) -> Result<()> {
    let names = kubectl(layout, bin, &["get", "nodes", "--selector=type=kwok", "-o", "name"])?;
    let surplus: Vec<&str> = names
        .lines()
        .filter(|name| name.rsplit('-').next().and_then(|n| n.parse().ok()).is_none_or(|n: u32| n >= settings.nodes))
        .collect();
    if surplus.is_empty() {
        return Ok(());
    }
    let mut args = vec!["delete", "--wait=false"];
    args.extend(surplus);
    kubectl(layout, bin, &args).map(|_| ())
}

fn node(index: u32, tainted: bool) -> Value {
    let name = format!("sim-{index}");
    let taints = if tainted { json!([{"key": MARK, "value": "fake", "effect": "NoSchedule"}]) } else { json!([]) };
    let size = json!({"cpu": "128", "memory": "1Ti", "ephemeral-storage": "1Ti", "pods": "1000", "nvidia.com/gpu": GPUS.to_string()});
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {MARK: "fake"},
            "labels": {
                "type": "kwok",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
            },
        },
        "spec": {"providerID": format!("kwok://{name}"), "taints": taints},
        // KWOK keeps what it finds here; without it, it would invent a node with no GPU.
        "status": {"capacity": size, "allocatable": size},
    })
}
