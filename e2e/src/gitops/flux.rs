//! The controller of Flux that applies: its own program, beside the cluster.
//!
//! In: a repository, and a namespace. Out: a Kustomization that keeps the namespace as the latest published commit says. What
//! fetches commits is another controller of Flux; here the commit is packed and offered as that one would.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::repository::Repository;
use crate::cluster::Cluster;
use crate::error::{Context as _, Result};
use crate::operator::free_port;
use crate::{exec, tools};

/// The name of all that it has in the namespace.
pub const NAME: &str = "flux";
const SOURCES: (&str, &str) = ("github.com/fluxcd/source-controller", "v1.9.6");

/// A running controller; it ends with its handle.
#[derive(Debug)]
pub struct Flux {
    child: Child,
    cluster: Cluster,
    namespace: String,
    archive: Arc<Mutex<Vec<u8>>>,
    offered: SocketAddr,
}

impl Flux {
    /// Starts it, for one namespace and the folder `path` of the repository.
    ///
    /// # Errors
    /// It cannot be built or started, or its definitions are refused.
    pub fn start(repository: &Repository, cluster: &Cluster, namespace: &str, path: &str) -> Result<Self> {
        let program = tools::KUSTOMIZE_CONTROLLER.ensure(&|_| ())?;
        let own = (tools::KUSTOMIZE_CONTROLLER.package, tools::KUSTOMIZE_CONTROLLER.version);
        for (module, version) in [own, SOURCES] {
            let definitions = tools::module_folder(module, version)?.join("config/crd/bases").display().to_string();
            cluster.define(&definitions)?;
        }
        let log = cluster.dir().join("logs").join(format!("{NAME}-{namespace}.log"));
        let log = File::create(&log).doing(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(program)
            .args(["--enable-leader-election=false", "--watch-all-namespaces=false"])
            .args(["--metrics-addr", &free_port()?.to_string(), "--health-addr", &free_port()?.to_string()])
            .env("KUBECONFIG", cluster.kubeconfig())
            .env("RUNTIME_NAMESPACE", namespace)
            .env("TMPDIR", repository.home())
            .stdin(Stdio::null())
            .stdout(log.try_clone().doing(|| "cannot share the log")?)
            .stderr(log)
            .spawn()
            .doing(|| "cannot start Flux's controller")?;
        let (archive, listener) = (Arc::default(), TcpListener::bind("127.0.0.1:0").doing(|| "no free port")?);
        let offered = listener.local_addr().doing(|| "no free port")?;
        thread::spawn({
            let archive = Arc::clone(&archive);
            move || listener.incoming().flatten().for_each(|caller| answer(caller, &archive))
        });
        let flux = Self { child, cluster: cluster.clone(), namespace: namespace.to_owned(), archive, offered };
        flux.apply(
            "kustomize",
            "Kustomization",
            &json!({
                "interval": "2s", "retryInterval": "2s", "timeout": "1m", "path": path, "prune": true, "wait": true,
                "targetNamespace": namespace, "sourceRef": {"kind": "GitRepository", "name": NAME},
            }),
        )?;
        Ok(flux)
    }

    /// Offers the latest commit, as what fetches commits would.
    ///
    /// # Errors
    /// There is none, or the API server refuses what is said of it.
    pub fn publish(&self, repository: &Repository, commit: &str) -> Result<()> {
        let packed = repository.archive()?;
        let digest: String = Sha256::digest(&packed).iter().map(|byte| format!("{byte:02x}")).collect();
        let (size, now) = (packed.len(), jiff::Timestamp::now().to_string());
        *self.archive.lock().unwrap_or_else(PoisonError::into_inner) = packed;
        let spec = json!({"interval": "1h", "url": "http://127.0.0.1/unused", "ref": {"branch": "main"}});
        let generation = self.apply("source", "GitRepository", &spec)?;
        let ready = json!({"type": "Ready", "status": "True", "reason": "Succeeded", "message": commit, "lastTransitionTime": now});
        let artifact = json!({
            "path": "archive.tar.gz", "url": format!("http://{}/{commit}.tar.gz", self.offered), "size": size,
            "revision": revision(commit), "digest": format!("sha256:{digest}"), "lastUpdateTime": now,
        });
        let status = json!({"status": {"observedGeneration": generation, "artifact": artifact, "conditions": [ready]}});
        let mut patch = self.cluster.kubectl_command();
        patch.args(["patch", "gitrepository", NAME, "--namespace", &self.namespace, "--subresource=status"]);
        exec::output(patch.args(["--type=merge", "--patch", &status.to_string()]), None).map(drop)
    }

    // Returns the generation.
    fn apply(&self, part: &str, kind: &str, spec: &serde_json::Value) -> Result<i64> {
        let manifest = json!({
            "apiVersion": format!("{part}.toolkit.fluxcd.io/v1"), "kind": kind,
            "metadata": {"name": NAME, "namespace": self.namespace}, "spec": spec,
        });
        let mut kubectl = self.cluster.kubectl_command();
        kubectl.args(["apply", "--server-side", "--output", "jsonpath={.metadata.generation}", "--filename", "-"]);
        let said = exec::output(&mut kubectl, Some(&manifest.to_string()))?;
        said.trim().parse().doing(|| format!("{kind} {NAME} has no generation"))
    }
}

/// A commit as Flux writes it.
#[must_use]
pub fn revision(commit: &str) -> String {
    format!("main@sha1:{commit}")
}

impl Drop for Flux {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// One that hangs up is no concern of ours: the controller asks again.
fn answer(mut caller: TcpStream, archive: &Mutex<Vec<u8>>) {
    let (mut request, mut part) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match caller.read(&mut part) {
            Ok(read) if read > 0 => request.extend_from_slice(&part[..read]),
            _ => return,
        }
    }
    let archive = archive.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", archive.len());
    let _ = caller.write_all(head.as_bytes()).and_then(|()| caller.write_all(&archive));
}
