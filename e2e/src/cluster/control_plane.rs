//! etcd, the API server, the controller manager and the scheduler.
//!
//! In: the layout, whether there is a real node, and the folder of the binaries. Out: the command line
//! of each component; `start` runs them in order and returns when pods can be created.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::certs::{self, kubeconfig};
use super::layout::{Layout, Port};
use super::process::{self, Spec};
use super::{Settings, kubectl};
use crate::error::Result;
use crate::ui::Step;

const LIMIT: Duration = Duration::from_secs(60);

/// Starts what does not run yet, and waits until pods can be created.
pub(crate) fn start(layout: &Layout, settings: &Settings, bin: &Path, step: &Step) -> Result<()> {
    step.note("etcd");
    process::ensure(layout, &etcd(layout, bin))?;
    wait_port(layout, "etcd", Port::EtcdClient)?;
    start_api_server(layout, settings, bin, step)?;
    step.note("controller manager and scheduler");
    process::ensure(layout, &controller_manager(layout, settings, bin))?;
    process::ensure(layout, &scheduler(layout, bin))?;
    wait_port(layout, "kube-controller-manager", Port::ControllerManager)?;
    wait_port(layout, "kube-scheduler", Port::Scheduler)?;
    step.note("the default service account");
    // Admission refuses every pod of a namespace until its service account is there.
    process::wait(layout, "kube-controller-manager", LIMIT, || {
        kubectl(layout, bin, &["get", "serviceaccount", "default", "--namespace=default"]).is_ok()
    })
}

/// Starts the API server, if it does not run, and waits until it is ready.
pub(crate) fn start_api_server(layout: &Layout, settings: &Settings, bin: &Path, step: &Step) -> Result<()> {
    step.note("the API server");
    process::ensure(layout, &api_server(layout, settings, bin))?;
    process::wait(layout, "kube-apiserver", LIMIT, || {
        kubectl(layout, bin, &["get", "--raw=/readyz"]).is_ok_and(|answer| answer.trim() == "ok")
    })
}

/// The address that clients on this machine and pods on the real node reach the API server at.
pub(crate) fn server(layout: &Layout, settings: &Settings) -> String {
    let host = if settings.real_node { layout.host_end().to_string() } else { "127.0.0.1".to_owned() };
    format!("https://{host}:{}", layout.port(Port::ApiServer))
}

fn wait_port(layout: &Layout, name: &str, port: Port) -> Result<()> {
    let address = ([127, 0, 0, 1], layout.port(port)).into();
    process::wait(layout, name, LIMIT, || {
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
    })
}

fn pem(layout: &Layout, file: &str) -> String {
    layout.pki().join(file).display().to_string()
}

fn spec(name: &'static str, bin: &Path, args: Vec<String>, reads: Vec<PathBuf>) -> Spec {
    Spec { name, program: bin.join(name), args, netns: None, reads }
}

fn etcd(layout: &Layout, bin: &Path) -> Spec {
    let client = format!("https://127.0.0.1:{}", layout.port(Port::EtcdClient));
    let peer = format!("https://127.0.0.1:{}", layout.port(Port::EtcdPeer));
    let (cert, key, ca) = (pem(layout, "etcd.crt"), pem(layout, "etcd.key"), pem(layout, "ca.crt"));
    let args = vec![
        "--name=cultivar".to_owned(),
        format!("--data-dir={}", layout.dir().join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=cultivar={peer}"),
        format!("--cert-file={cert}"),
        format!("--key-file={key}"),
        "--client-cert-auth=true".to_owned(),
        format!("--trusted-ca-file={ca}"),
        format!("--peer-cert-file={cert}"),
        format!("--peer-key-file={key}"),
        "--peer-client-cert-auth=true".to_owned(),
        format!("--peer-trusted-ca-file={ca}"),
        // A cluster for tests: a power cut may lose it, and a slow disk does not slow it.
        "--unsafe-no-fsync=true".to_owned(),
        "--quota-backend-bytes=4294967296".to_owned(),
        "--auto-compaction-retention=5m".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    spec("etcd", bin, args, vec![layout.pki().join("ca.crt")])
}

fn api_server(layout: &Layout, settings: &Settings, bin: &Path) -> Spec {
    // With a real node, pods come in over the veth pair; without one nothing but this machine does.
    // The advertised address must not be a loopback one, and need not exist while nobody dials it.
    let bind = if settings.real_node { layout.host_end().to_string() } else { "127.0.0.1".to_owned() };
    let mut args = vec![
        format!("--bind-address={bind}"),
        format!("--secure-port={}", layout.port(Port::ApiServer)),
        format!("--advertise-address={}", layout.host_end()),
        format!("--etcd-servers=https://127.0.0.1:{}", layout.port(Port::EtcdClient)),
        format!("--etcd-cafile={}", pem(layout, "ca.crt")),
        format!("--etcd-certfile={}", pem(layout, "etcd.crt")),
        format!("--etcd-keyfile={}", pem(layout, "etcd.key")),
        format!("--tls-cert-file={}", pem(layout, "apiserver.crt")),
        format!("--tls-private-key-file={}", pem(layout, "apiserver.key")),
        format!("--client-ca-file={}", pem(layout, "ca.crt")),
        format!("--kubelet-client-certificate={}", pem(layout, "apiserver-kubelet.crt")),
        format!("--kubelet-client-key={}", pem(layout, "apiserver-kubelet.key")),
        format!("--kubelet-certificate-authority={}", pem(layout, "ca.crt")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        // OpenShift and hardened clusters have it on: an operator must have the finalizers right.
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement".to_owned(),
        "--allow-privileged=true".to_owned(),
        format!("--service-cluster-ip-range={}", layout.services()),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", pem(layout, "service-accounts.pub")),
        format!("--service-account-signing-key-file={}", pem(layout, "service-accounts.key")),
        "--endpoint-reconciler-type=lease".to_owned(),
    ];
    args.extend(settings.api_server_args.iter().cloned());
    spec("kube-apiserver", bin, args, vec![layout.pki().join("apiserver.crt")])
}

fn controller_manager(layout: &Layout, settings: &Settings, bin: &Path) -> Spec {
    let file = kubeconfig(layout, "controller-manager");
    let mut args = vec![
        format!("--kubeconfig={}", file.display()),
        format!("--authentication-kubeconfig={}", file.display()),
        format!("--authorization-kubeconfig={}", file.display()),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", layout.port(Port::ControllerManager)),
        format!("--cert-dir={}", layout.run().join("kube-controller-manager").display()),
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        format!("--service-account-private-key-file={}", pem(layout, "service-accounts.key")),
        format!("--root-ca-file={}", pem(layout, "ca.crt")),
        format!("--cluster-signing-cert-file={}", pem(layout, "ca.crt")),
        format!("--cluster-signing-key-file={}", pem(layout, "ca.key")),
        // The real node has a fixed range and KWOK one of its own: nothing is left to allocate.
        "--allocate-node-cidrs=false".to_owned(),
        "--controllers=*,-nodeipam,-node-route-controller".to_owned(),
    ];
    args.extend(load_flags());
    args.extend(settings.controller_manager_args.iter().cloned());
    spec("kube-controller-manager", bin, args, vec![file])
}

fn scheduler(layout: &Layout, bin: &Path) -> Spec {
    let file = kubeconfig(layout, "scheduler");
    let mut args = vec![
        format!("--kubeconfig={}", file.display()),
        format!("--authentication-kubeconfig={}", file.display()),
        format!("--authorization-kubeconfig={}", file.display()),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", layout.port(Port::Scheduler)),
        format!("--cert-dir={}", layout.run().join("kube-scheduler").display()),
        "--leader-elect=false".to_owned(),
    ];
    args.extend(load_flags());
    spec("kube-scheduler", bin, args, vec![file])
}

/// The limits that clients put on themselves are far below what measurements ask for.
fn load_flags() -> [String; 2] {
    ["--kube-api-qps=1000".to_owned(), "--kube-api-burst=2000".to_owned()]
}

/// Certificates and kubeconfigs, before anything starts.
pub(crate) fn prepare(layout: &Layout, settings: &Settings) -> Result<()> {
    certs::ensure(layout)?;
    certs::kubeconfigs(layout, &server(layout, settings))
}

/// A kubectl command of this cluster, as its administrator.
pub(crate) fn kubectl_command(layout: &Layout, bin: &Path) -> Command {
    let mut command = Command::new(bin.join("kubectl"));
    command.env("KUBECONFIG", layout.kubeconfig());
    command
}
