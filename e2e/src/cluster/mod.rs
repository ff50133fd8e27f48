//! A real Kubernetes on this machine: up, down, and everything between.
//!
//! In: a name and a few settings. Out: a running cluster whose processes outlive the program that
//! started them, a kubeconfig, and the means that tests need: loading images, stopping the API server,
//! finding addresses. All state is in one folder per cluster (`$XDG_STATE_HOME/cultivar/clusters/NAME`).
//! `up` on a running cluster changes only what differs, so it is also the repair.

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
mod simulated;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::layout::Layout;
pub use self::node::GPUS as REAL_GPUS;
pub use self::process::State;
pub use self::simulated::GPUS as SIMULATED_GPUS;
use crate::error::{Context as _, Error, Result};
use crate::exec;
use crate::tools;
use crate::ui::{Step, Ui};

/// The name of a person's own cluster.
pub const DEFAULT_NAME: &str = "cultivar";

/// What a cluster consists of; kept in its folder, so that `up` without options repairs what was there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub slot: u8,
    pub nodes: u32,
    pub real_node: bool,
    #[serde(default)]
    pub api_server_args: Vec<String>,
    #[serde(default)]
    pub controller_manager_args: Vec<String>,
}

/// A cluster that is up, or was.
#[derive(Debug, Clone)]
pub struct Cluster {
    layout: Layout,
    settings: Settings,
    bin: PathBuf,
}

/// The settings of a cluster to bring up. What is not set stays as it was, or takes its default.
#[derive(Debug, Clone)]
pub struct Builder {
    name: String,
    nodes: Option<u32>,
    real_node: Option<bool>,
    api_server_args: Option<Vec<String>>,
    controller_manager_args: Option<Vec<String>>,
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

impl Builder {
    /// How many simulated nodes; 4 unless said otherwise.
    #[must_use]
    pub fn nodes(mut self, count: u32) -> Self {
        self.nodes = Some(count);
        self
    }

    /// Whether to add a real node; by default wherever that is possible (Linux, root).
    #[must_use]
    pub fn real_node(mut self, wanted: bool) -> Self {
        self.real_node = Some(wanted);
        self
    }

    /// Further arguments of the API server.
    #[must_use]
    pub fn api_server_args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.api_server_args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// Further arguments of the controller manager, such as `--concurrent-job-syncs=20`.
    #[must_use]
    pub fn controller_manager_args(
        mut self,
        args: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.controller_manager_args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// Brings the cluster up, or to what was asked for if it is up, showing progress on `ui`.
    ///
    /// # Errors
    /// A tool cannot be built, or a component does not come up; the error quotes its log.
    pub fn up(self, ui: &Ui) -> Result<Cluster> {
        let _lock = lock(&self.name)?;
        let settings = self.settings()?;
        let layout = Layout::new(&self.name, settings.slot);
        for dir in [
            layout.logs(),
            layout.run(),
            layout.pki(),
            layout.conf(),
            layout.bin(),
        ] {
            fs::create_dir_all(&dir).doing(|| format!("cannot make {}", dir.display()))?;
        }
        save(&layout, &settings)?;
        let tools = ui.step("programs", |step| {
            Programs::ensure(&layout, &settings, step)
        })?;
        let cluster = Cluster {
            layout,
            settings,
            bin: tools.bin.clone(),
        };
        cluster.start(&tools, ui)?;
        Ok(cluster)
    }

    fn settings(&self) -> Result<Settings> {
        let before = load(&self.name);
        let slot = match &before {
            Some(settings) => settings.slot,
            None => free_slot(&self.name)?,
        };
        let before_node = before.as_ref().map(|b| b.real_node);
        let real_node = self
            .real_node
            .or(before_node)
            .unwrap_or_else(|| node::possible().is_ok());
        if real_node && let Err(why) = node::possible() {
            return Err(Error::new("cannot add a real node")
                .why(why)
                .hint("`--simulated-only` leaves it out"));
        }
        let keep = |new: &Option<Vec<String>>, old: fn(&Settings) -> &Vec<String>| {
            new.clone()
                .or_else(|| before.as_ref().map(|b| old(b).clone()))
                .unwrap_or_default()
        };
        Ok(Settings {
            slot,
            nodes: self.nodes.or(before.as_ref().map(|b| b.nodes)).unwrap_or(4),
            real_node,
            api_server_args: keep(&self.api_server_args, |s| &s.api_server_args),
            controller_manager_args: keep(&self.controller_manager_args, |s| {
                &s.controller_manager_args
            }),
        })
    }
}

impl Cluster {
    /// A cluster to bring up under this name.
    ///
    /// # Errors
    /// The name cannot be part of a host name.
    pub fn builder(name: &str) -> Result<Builder> {
        layout::check_name(name)?;
        Ok(Builder {
            name: name.to_owned(),
            nodes: None,
            real_node: None,
            api_server_args: None,
            controller_manager_args: None,
        })
    }

    /// The cluster of this name, if `up` was ever called and `down` not since.
    ///
    /// # Errors
    /// There is none, or its tools were removed and cannot be built.
    pub fn find(name: &str) -> Result<Self> {
        layout::check_name(name)?;
        let settings = load(name).ok_or_else(|| {
            Error::new(format!("there is no cluster {name:?}")).hint(format!(
                "`cargo cluster up --name {name}` starts it{}",
                others()
            ))
        })?;
        Ok(Self {
            layout: Layout::new(name, settings.slot),
            settings,
            bin: tools::control_plane(&|_| ())?,
        })
    }

    fn start(&self, programs: &Programs, ui: &Ui) -> Result<()> {
        let (layout, settings, bin) = (&self.layout, &self.settings, &programs.bin);
        ui.step("certificates", |_| control_plane::prepare(layout, settings))?;
        if settings.real_node {
            ui.step("packages", |step| packages::ensure(&|line| step.say(line)))?;
            ui.step("network", |step| node::prepare(layout, step))?;
        } else if process::recorded(layout)
            .iter()
            .any(|name| name == "containerd")
        {
            ui.step("real node leaves", |step| node::stop(layout, step))?;
        }
        ui.step("control plane", |step| {
            control_plane::start(layout, settings, bin, step)
        })?;
        ui.step("simulated nodes", |step| {
            simulated::start(layout, settings, bin, &programs.kwok, step)
        })?;
        if let Some(coredns) = &programs.coredns {
            return ui.step("real node", |step| node::start(layout, bin, coredns, step));
        }
        match node::possible() {
            Ok(()) => ui.say("  no real node, as asked: every pod is simulated"),
            Err(why) => ui.say(format!(
                "  left out: the real node ({why}); every pod is simulated"
            )),
        }
        kubectl(
            layout,
            bin,
            &["delete", "node", &layout.node_name(), "--ignore-not-found"],
        )
        .map(|_| ())
    }

    /// Imports an image (a tar file: OCI layout, or `docker save`) into the real node. Simulated nodes need none.
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
        if self.settings.real_node {
            self.layout.host_end()
        } else {
            std::net::Ipv4Addr::LOCALHOST
        }
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
        let _lock = lock(name)?;
        let Some(settings) = load(name) else {
            return Ok(());
        };
        let layout = Layout::new(name, settings.slot);
        if settings.real_node {
            ui.step("real node", |step| node::stop(&layout, step))?;
        }
        ui.step("control plane", |step| stop_all(&layout, step))?;
        let dir = layout.dir();
        ui.step("state", |_| {
            fs::remove_dir_all(&dir).doing(|| format!("cannot remove {}", dir.display()))
        })
    }

    /// The names of all clusters that are up, or were and were not taken down.
    #[must_use]
    pub fn all() -> Vec<String> {
        let dirs = fs::read_dir(layout::clusters_dir())
            .into_iter()
            .flatten()
            .flatten();
        let mut names: Vec<String> = dirs
            .filter_map(|dir| dir.file_name().into_string().ok())
            .filter(|name| load(name).is_some())
            .collect();
        names.sort();
        names
    }
}

/// Clients first, so that no log fills with lost connections; then what the order does not name.
fn stop_all(layout: &Layout, step: &Step) -> Result<()> {
    let order = [
        "kwok",
        "kube-scheduler",
        "kube-controller-manager",
        "kube-apiserver",
        "etcd",
    ]
    .map(str::to_owned);
    let rest = process::recorded(layout)
        .into_iter()
        .filter(|name| !order.contains(name))
        .collect::<Vec<_>>();
    for name in rest.iter().chain(&order) {
        step.note(name);
        // The data is removed next: nobody needs to wait for connections to drain.
        process::stop(layout, name, Duration::from_secs(2))?;
    }
    Ok(())
}

/// The programs of a cluster and the links to them.
struct Programs {
    bin: PathBuf,
    kwok: PathBuf,
    /// Only with a real node: a simulated pod asks for no name.
    coredns: Option<PathBuf>,
}

impl Programs {
    fn ensure(layout: &Layout, settings: &Settings, step: &Step) -> Result<Self> {
        let note = |text: &str| step.note(text);
        let bin = tools::control_plane(&note)?;
        let kwok = tools::KWOK.ensure(&note)?;
        let helm = tools::HELM.ensure(&note)?;
        let coredns = settings
            .real_node
            .then(|| tools::COREDNS.ensure(&note))
            .transpose()?;
        tools::link(&bin.join("kubectl"), &layout.bin().join("kubectl"))?;
        tools::link(&helm, &layout.bin().join("helm"))?;
        Ok(Self { bin, kwok, coredns })
    }
}

/// For our own short requests: an API server that hangs must not hang us.
fn kubectl(layout: &Layout, bin: &Path, args: &[&str]) -> Result<String> {
    let mut command = control_plane::kubectl_command(layout, bin);
    exec::output(command.arg("--request-timeout=10s").args(args), None)
}

fn settings_file(name: &str) -> PathBuf {
    layout::clusters_dir().join(name).join("cluster.json")
}

fn load(name: &str) -> Option<Settings> {
    serde_json::from_str(&fs::read_to_string(settings_file(name)).ok()?).ok()
}

fn save(layout: &Layout, settings: &Settings) -> Result<()> {
    let text = serde_json::to_string_pretty(settings).doing(|| "cannot write the settings")?;
    let file = settings_file(&layout.name);
    fs::write(&file, text).doing(|| format!("cannot write {}", file.display()))
}

/// One `up` or `down` at a time for a name; another waits.
fn lock(name: &str) -> Result<File> {
    let dir = layout::clusters_dir();
    fs::create_dir_all(&dir).doing(|| format!("cannot make {}", dir.display()))?;
    let failed = || format!("cannot lock the cluster {name}");
    let file = File::create(dir.join(format!(".{name}.lock"))).doing(failed)?;
    file.lock().doing(failed)?;
    Ok(file)
}

fn others() -> String {
    let names = Cluster::all();
    if names.is_empty() {
        String::new()
    } else {
        format!("; up: {}", names.join(", "))
    }
}

/// The first slot of the name's own order that no other cluster, route or listener has.
fn free_slot(name: &str) -> Result<u8> {
    let taken: Vec<u8> = Cluster::all()
        .iter()
        .filter_map(|other| load(other))
        .map(|settings| settings.slot)
        .collect();
    let routes = exec::run("ip", &["-4", "route", "show", "table", "all"]).unwrap_or_default();
    let free = |slot: &u8| {
        let layout = Layout::new(name, *slot);
        let port = ([127, 0, 0, 1], layout.port(layout::Port::ApiServer));
        !taken.contains(slot)
            && !routes.contains(&format!(" {}", layout.prefix()))
            && !routes.starts_with(&layout.prefix())
            && !routes.contains(&format!("\n{}", layout.prefix()))
            && std::net::TcpListener::bind(std::net::SocketAddr::from(port)).is_ok()
    };
    layout::slots(name).find(free).ok_or_else(|| {
        Error::new("no address range is free for another cluster")
            .hint("`cargo cluster list` names those that are up; take one down")
    })
}
