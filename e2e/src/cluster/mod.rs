//! A real Kubernetes on this machine: up, down, and everything between.
//!
//! In: a name and a few settings. Out: a running cluster whose processes outlive the program that
//! started them, a kubeconfig, and the means that tests need: loading images, stopping the API server,
//! finding addresses. All state is in one folder per cluster (`$XDG_STATE_HOME/cultivar/clusters/NAME`).
//! `up` on a running cluster changes only what differs, so it is also the repair.

mod builder;
mod certs;
mod cgroup;
mod containerd;
mod control_plane;
mod dns;
mod layout;
mod network;
mod node;
mod packages;
mod process;
mod registry;
mod settings;
mod simulated;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub use self::builder::Builder;
use self::layout::Layout;
pub use self::node::GPUS as REAL_GPUS;
pub use self::process::State;
pub use self::registry::NAME as REGISTRY;
use self::settings::Settings;
pub use self::simulated::GPUS as SIMULATED_GPUS;
use crate::error::{Context as _, Error, Result};
use crate::exec;
use crate::tools;
use crate::ui::{Step, Ui};

/// The name of a person's own cluster.
pub const DEFAULT_NAME: &str = "cultivar";

/// A cluster that is up, or was.
#[derive(Debug, Clone)]
pub struct Cluster {
    layout: Layout,
    settings: Settings,
    bin: PathBuf,
}

/// A component and whether it runs.
#[derive(Debug, Clone)]
pub struct Component {
    /// The component's name, which is also its log's.
    pub name: String,
    /// Whether it runs.
    pub state: State,
    /// Its log.
    pub log: PathBuf,
}

impl Cluster {
    /// A cluster to bring up under this name.
    ///
    /// # Errors
    /// The name cannot be part of a host name.
    pub fn builder(name: &str) -> Result<Builder> {
        layout::check_name(name)?;
        Ok(Builder::new(name))
    }

    /// The cluster of this name, if `up` was ever called and `down` not since.
    ///
    /// # Errors
    /// There is none, or its tools were removed and cannot be built.
    pub fn find(name: &str) -> Result<Self> {
        layout::check_name(name)?;
        let settings = settings::load(name).ok_or_else(|| {
            Error::new(format!("there is no cluster {name:?}"))
                .hint(format!("`cargo cluster up --name {name}` starts it{}", others()))
        })?;
        Ok(Self { layout: Layout::new(name, settings.slot), settings, bin: tools::control_plane(&|_| ())? })
    }

    /// Puts an image (a tar file: OCI layout) into the real node. Simulated nodes need none. One of the registry
    /// [`REGISTRY`] is pushed to the cluster's own first, and pulled from there.
    ///
    /// # Errors
    /// There is no real node, or the file is no image.
    pub fn load_image(&self, tar: &Path) -> Result<()> {
        if !self.settings.real_node {
            return Err(Error::new(format!("cannot load {}", tar.display()))
                .why("the cluster has no real node")
                .hint("simulated nodes run any image without it; `cargo cluster up --real-node` adds a real one"));
        }
        containerd::load(&self.layout, tar)
    }

    /// The URL of the registry that answers for [`REGISTRY`] on the real node; whoever is to resolve its tags asks there.
    #[must_use]
    pub fn registry(&self) -> Option<String> {
        self.settings.real_node.then(|| format!("http://{}", self.layout.registry()))
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.layout.name
    }

    /// The folder that holds all its state and logs.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.layout.dir()
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// The folder with this cluster's kubectl and helm, to be first in `PATH`.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.layout.bin()
    }

    /// The API server's URL.
    #[must_use]
    pub fn server(&self) -> String {
        control_plane::server(&self.layout, &self.settings)
    }

    /// An address of this machine that the API server, and pods on the real node, reach its processes
    /// at: the host of a webhook's URL. The process must listen on it (or on all addresses).
    #[must_use]
    pub fn host_addr(&self) -> std::net::Ipv4Addr {
        if self.settings.real_node { self.layout.host_end() } else { std::net::Ipv4Addr::LOCALHOST }
    }

    /// How many simulated nodes the cluster has.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.settings.nodes
    }

    /// The name of the real node, if there is one.
    #[must_use]
    pub fn real_node(&self) -> Option<String> {
        self.settings.real_node.then(|| self.layout.node_name())
    }

    /// A kubectl command of this cluster, to add arguments to.
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        control_plane::kubectl_command(&self.layout, &self.bin)
    }

    /// Runs kubectl and returns what it writes.
    ///
    /// # Errors
    /// kubectl fails; the error quotes what it said.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        exec::output(self.kubectl_command().args(args), None)
    }

    /// Applies manifests (YAML or JSON).
    ///
    /// # Errors
    /// kubectl fails; the error quotes what it said.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        let mut command = self.kubectl_command();
        command.args(["apply", "--server-side", "-f", "-"]);
        exec::output(&mut command, Some(manifests))
    }

    /// Applies the CustomResourceDefinitions of a folder and waits until they are served.
    ///
    /// # Errors
    /// kubectl fails; the error quotes what it said.
    pub fn define(&self, folder: &str) -> Result<()> {
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "--filename", folder])?;
        let established =
            || self.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "--filename", folder]);
        // Of one that is so new that it has no conditions kubectl says that it cannot read them.
        let mut tries = 1..5;
        loop {
            match established() {
                Err(error) if error.to_string().contains("accessor error") && tries.next().is_some() => {
                    std::thread::sleep(Duration::from_secs(1));
                }
                done => return done.map(drop),
            }
        }
    }

    /// A helm command of this cluster, to add arguments to.
    ///
    /// # Errors
    /// Helm is missing and cannot be built.
    pub fn helm_command(&self) -> Result<Command> {
        let mut command = Command::new(tools::helm()?);
        command.env("KUBECONFIG", self.kubeconfig());
        Ok(command)
    }

    /// The components that were started, and whether they run.
    #[must_use]
    pub fn components(&self) -> Vec<Component> {
        let names = process::recorded(&self.layout);
        let component = |name: String| Component {
            state: process::state(&self.layout, &name),
            log: self.layout.logs().join(format!("{name}.log")),
            name,
        };
        names.into_iter().map(component).collect()
    }

    /// Starts a program beside the cluster, unless it runs already with this very command; one with another is
    /// replaced. It outlives us and logs to the cluster's folder, and `down` stops it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_beside(&self, name: &'static str, program: &Path, args: &[String]) -> Result<()> {
        let (program, args) = (program.to_owned(), args.to_vec());
        process::ensure(&self.layout, &process::Spec { name, program, args, netns: None, reads: Vec::new() })
    }

    /// Stops a program that `start_beside` started, if it runs.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop_beside(&self, name: &str) -> Result<()> {
        process::stop(&self.layout, name, Duration::from_secs(20))
    }

    /// Stops the API server, for tests of what happens without one.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop_api_server(&self) -> Result<()> {
        process::stop(&self.layout, "kube-apiserver", Duration::from_secs(2))
    }

    /// Starts the API server again and waits until it is ready.
    ///
    /// # Errors
    /// It does not come up; the error quotes its log.
    pub fn start_api_server(&self) -> Result<()> {
        Ui::silent().step("API server", |step: &Step| {
            control_plane::start_api_server(&self.layout, &self.settings, &self.bin, step)
        })
    }

    /// Stops everything that was started and removes all state. With no cluster of that name it does nothing.
    ///
    /// # Errors
    /// A process does not end, or something cannot be removed.
    pub fn down(name: &str, ui: &Ui) -> Result<()> {
        layout::check_name(name)?;
        let _lock = settings::lock(name)?;
        let Some(settings) = settings::load(name) else {
            return Ok(());
        };
        let layout = Layout::new(name, settings.slot);
        if settings.real_node {
            ui.step("real node", |step| node::stop(&layout, step))?;
        }
        ui.step("control plane", |step| stop_all(&layout, step))?;
        let dir = layout.dir();
        ui.step("state", |_| fs::remove_dir_all(&dir).doing(|| format!("cannot remove {}", dir.display())))
    }

    /// The names of all clusters that are up, or were and were not taken down.
    #[must_use]
    pub fn all() -> Vec<String> {
        let dirs = fs::read_dir(layout::clusters_dir()).into_iter().flatten().flatten();
        let mut names: Vec<String> = dirs
            .filter_map(|dir| dir.file_name().into_string().ok())
            .filter(|name| settings::load(name).is_some())
            .collect();
        names.sort();
        names
    }
}

/// For our own short requests: an API server that hangs must not hang us.
fn kubectl(layout: &Layout, bin: &Path, args: &[&str]) -> Result<String> {
    let mut command = control_plane::kubectl_command(layout, bin);
    exec::output(command.arg("--request-timeout=10s").args(args), None)
}

fn others() -> String {
    let names = Cluster::all();
    if names.is_empty() { String::new() } else { format!("; up: {}", names.join(", ")) }
}

/// Clients first, so that no log fills with lost connections; then what the order does not name.
fn stop_all(layout: &Layout, step: &Step) -> Result<()> {
    let order = ["kwok", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"].map(str::to_owned);
    let rest = process::recorded(layout).into_iter().filter(|name| !order.contains(name)).collect::<Vec<_>>();
    for name in rest.iter().chain(&order) {
        step.note(name);
        // The data is removed next: nobody needs to wait for connections to drain.
        process::stop(layout, name, Duration::from_secs(2))?;
    }
    Ok(())
}
