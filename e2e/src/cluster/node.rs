//! The real node: containerd, kubelet and kube-proxy in a network namespace of their own.
//!
//! In: the layout and the folder of the binaries; root on Linux. Out: a Ready node that runs containers,
//! reaches services by name, and advertises two GPUs that it does not have (Kubernetes' own way to add an
//! extended resource). `stop` undoes all of it: processes, mounts, namespace, cgroup.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::certs::{kubeconfig, write};
use super::containerd::{self, SOCKET_LIMIT};
use super::layout::Layout;
use super::process::{self, Spec};
use super::{cgroup, dns, kubectl, network, registry};
use crate::error::{Context as _, Result};
use crate::ui::Step;

/// The GPUs that the real node advertises.
pub const GPUS: u32 = 2;
const LIMIT: Duration = Duration::from_secs(60);

/// Programs on the host that the real node needs.
pub(crate) struct BesideNode {
    /// Its name server.
    pub coredns: PathBuf,
    /// Its registry.
    pub crane: PathBuf,
}

/// Whether this machine can have a real node; if not, why.
pub(crate) fn possible() -> std::result::Result<(), &'static str> {
    if !cfg!(target_os = "linux") {
        return Err("a real node needs Linux");
    }
    if !rustix::process::geteuid().is_root() {
        return Err("a real node needs root");
    }
    Ok(())
}

/// What must stand before the API server starts: it listens on the host's end of the pair.
pub(crate) fn prepare(layout: &Layout, step: &Step) -> Result<()> {
    step.note("network namespace");
    network::ensure(layout)?;
    cgroup::ensure(&layout.cgroup())
}

/// Brings the node up, and waits until it is Ready with its GPUs.
pub(crate) fn start(layout: &Layout, bin: &Path, beside: &BesideNode, step: &Step) -> Result<()> {
    step.note("name server");
    dns::start(layout, &beside.coredns)?;
    step.note("registry");
    registry::start(layout, &beside.crane)?;
    step.note("containerd");
    containerd::start(layout, step)?;
    step.note("kubelet");
    process::ensure(layout, &kubelet(layout, bin)?)?;
    process::ensure(layout, &kube_proxy(layout, bin)?)?;
    let name = layout.node_name();
    let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    process::wait(layout, "kubelet", LIMIT, || {
        kubectl(layout, bin, &["get", "node", &name, "-o", path]).is_ok_and(|ready| ready == "True")
    })?;
    step.note("GPUs");
    advertise(layout, bin)
}

/// Stops the node and removes what it left on the machine; its files stay in the cluster's folder.
pub(crate) fn stop(layout: &Layout, step: &Step) -> Result<()> {
    for name in ["kube-proxy", "kubelet", "coredns", "registry"] {
        step.note(name);
        process::stop(layout, name, Duration::from_secs(5))?;
    }
    step.note("pods");
    cgroup::remove(&layout.cgroup())?;
    step.note("containerd");
    containerd::stop(layout)?;
    step.note("mounts and network");
    containerd::unmount(&layout.dir())?;
    network::remove(layout)?;
    // The kubelet links every log here, wherever its folder is.
    for link in fs::read_dir("/var/log/containers").into_iter().flatten().flatten() {
        if fs::read_link(link.path()).is_ok_and(|target| target.starts_with(layout.dir())) {
            let _ = fs::remove_file(link.path());
        }
    }
    Ok(())
}

/// "Advertise extended resources for a node": the kubelet keeps what it finds in its node's capacity.
/// It copies that to allocatable within ten seconds; written here too, the GPUs count at once.
fn advertise(layout: &Layout, bin: &Path) -> Result<()> {
    let value = GPUS.to_string();
    let patch = serde_json::json!([
        {"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": value},
        {"op": "add", "path": "/status/allocatable/nvidia.com~1gpu", "value": value},
    ]);
    let name = layout.node_name();
    let patch = patch.to_string();
    kubectl(layout, bin, &["patch", "node", &name, "--subresource=status", "--type=json", "--patch", &patch])
        .map(|_| ())
}

fn kubelet(layout: &Layout, bin: &Path) -> Result<Spec> {
    let pki = |file: &str| layout.pki().join(file).display().to_string();
    let root = layout.dir().join("kubelet");
    let logs = layout.dir().join("pods");
    fs::create_dir_all(&logs).doing(|| format!("cannot make {}", logs.display()))?;
    let config = layout.conf().join("kubelet.yaml");
    let text = format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {ca}}}
authorization: {{mode: Webhook}}
tlsCertFile: {cert}
tlsPrivateKeyFile: {key}
containerRuntimeEndpoint: unix://{socket}
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
failCgroupV1: false
failSwapOn: false
clusterDNS: [{dns}]
clusterDomain: {domain}
resolvConf: \"\"
podLogsDir: {logs}
serializeImagePulls: false
# Where CAP_SYS_RESOURCE is missing a lower score is refused.
oomScoreAdj: 0
# A machine for development is often fuller than a node should be.
imageGCHighThresholdPercent: 100
evictionHard: {{memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}}
",
        ca = pki("ca.crt"),
        cert = pki("kubelet-serving.crt"),
        key = pki("kubelet-serving.key"),
        socket = layout.containerd_socket().display(),
        cgroup = layout.cgroup(),
        dns = layout.host_end(),
        domain = dns::DOMAIN,
        logs = logs.display(),
    );
    write(&config, &text)?;
    let client = kubeconfig(layout, "kubelet");
    let args = vec![
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", client.display()),
        format!("--root-dir={}", root.display()),
        format!("--cert-dir={}", root.join("pki").display()),
        format!("--hostname-override={}", layout.node_name()),
        format!("--node-ip={}", layout.node_end()),
        "--node-labels=cultivar.dev/node=real".to_owned(),
    ];
    Ok(inside(layout, "kubelet", bin.join("kubelet"), args, vec![config, client]))
}

fn kube_proxy(layout: &Layout, bin: &Path) -> Result<Spec> {
    let config = layout.conf().join("kube-proxy.yaml");
    let client = kubeconfig(layout, "kube-proxy");
    let text = format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {{kubeconfig: {client}}}
mode: iptables
hostnameOverride: {name}
detectLocalMode: ClusterCIDR
clusterCIDR: {pods}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
oomScoreAdj: 0
# These limits belong to the whole machine and cannot be set from within a namespace.
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
",
        client = client.display(),
        name = layout.node_name(),
        pods = layout.pods(),
    );
    write(&config, &text)?;
    let args = vec![format!("--config={}", config.display())];
    Ok(inside(layout, "kube-proxy", bin.join("kube-proxy"), args, vec![config, client]))
}

/// A process in the node's network namespace.
pub(crate) fn inside(
    layout: &Layout,
    name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    reads: Vec<PathBuf>,
) -> Spec {
    debug_assert!(layout.containerd_socket().as_os_str().len() < SOCKET_LIMIT);
    Spec { name, program, args, netns: Some(layout.netns()), reads }
}
