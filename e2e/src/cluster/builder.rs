//! Bringing a cluster up: what is wanted, and the steps in order.
//!
//! In: a name and what a person asked for; what is not asked for stays as it was. Out: a cluster that is up.

use std::fs;
use std::path::PathBuf;

use super::layout::Layout;
use super::node::BesideNode;
use super::settings::{self, Settings};
use super::{Cluster, control_plane, kubectl, node, packages, process, simulated};
use crate::error::{Context as _, Error, Result};
use crate::tools;
use crate::ui::{Step, Ui};

/// The settings of a cluster to bring up. What is not set stays as it was, or takes its default.
#[derive(Debug, Clone)]
pub struct Builder {
    name: String,
    nodes: Option<u32>,
    real_node: Option<bool>,
    api_server_args: Option<Vec<String>>,
    controller_manager_args: Option<Vec<String>>,
}

impl Builder {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            nodes: None,
            real_node: None,
            api_server_args: None,
            controller_manager_args: None,
        }
    }

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
    pub fn controller_manager_args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.controller_manager_args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// Brings the cluster up, or to what was asked for if it is up, showing progress on `ui`.
    ///
    /// # Errors
    /// A tool cannot be built, or a component does not come up; the error quotes its log.
    pub fn up(self, ui: &Ui) -> Result<Cluster> {
        let _lock = settings::lock(&self.name)?;
        // Until the choice of addresses is written down, no other name may choose.
        let choosing = settings::lock_all()?;
        let settings = self.settings()?;
        let layout = Layout::new(&self.name, settings.slot);
        for dir in [layout.logs(), layout.run(), layout.pki(), layout.conf(), layout.bin()] {
            fs::create_dir_all(&dir).doing(|| format!("cannot make {}", dir.display()))?;
        }
        settings::save(&layout, &settings)?;
        drop(choosing);
        let tools = ui.step("programs", |step| Programs::ensure(&layout, &settings, step))?;
        let cluster = Cluster { layout, settings, bin: tools.bin.clone() };
        cluster.start(&tools, ui)?;
        Ok(cluster)
    }

    fn settings(&self) -> Result<Settings> {
        let before = settings::load(&self.name);
        let slot = match &before {
            Some(settings) => settings.slot,
            None => settings::free_slot(&self.name)?,
        };
        let before_node = before.as_ref().map(|b| b.real_node);
        let real_node = self.real_node.or(before_node).unwrap_or_else(|| node::possible().is_ok());
        if real_node && let Err(why) = node::possible() {
            return Err(Error::new("cannot add a real node").why(why).hint("`--simulated-only` leaves it out"));
        }
        let keep = |new: &Option<Vec<String>>, old: fn(&Settings) -> &Vec<String>| {
            new.clone().or_else(|| before.as_ref().map(|b| old(b).clone())).unwrap_or_default()
        };
        Ok(Settings {
            slot,
            nodes: self.nodes.or(before.as_ref().map(|b| b.nodes)).unwrap_or(4),
            real_node,
            api_server_args: keep(&self.api_server_args, |s| &s.api_server_args),
            controller_manager_args: keep(&self.controller_manager_args, |s| &s.controller_manager_args),
        })
    }
}

impl Cluster {
    fn start(&self, programs: &Programs, ui: &Ui) -> Result<()> {
        let (layout, settings, bin) = (&self.layout, &self.settings, &programs.bin);
        ui.step("certificates", |_| control_plane::prepare(layout, settings))?;
        if settings.real_node {
            ui.step("packages", |step| packages::ensure(&|line| step.say(line)))?;
            ui.step("network", |step| node::prepare(layout, step))?;
        } else if process::recorded(layout).iter().any(|name| name == "containerd") {
            ui.step("real node leaves", |step| node::stop(layout, step))?;
        }
        ui.step("control plane", |step| control_plane::start(layout, settings, bin, step))?;
        ui.step("simulated nodes", |step| simulated::start(layout, settings, bin, &programs.kwok, step))?;
        if let Some(beside) = &programs.beside_node {
            return ui.step("real node", |step| node::start(layout, bin, beside, step));
        }
        match node::possible() {
            Ok(()) => ui.say("  no real node, as asked: every pod is simulated"),
            Err(why) => ui.say(format!("  left out: the real node ({why}); every pod is simulated")),
        }
        kubectl(layout, bin, &["delete", "node", &layout.node_name(), "--ignore-not-found"]).map(|_| ())
    }
}

/// The programs of a cluster and the links to them.
struct Programs {
    bin: PathBuf,
    kwok: PathBuf,
    /// Only with a real node: a simulated pod asks for no name, and pulls nothing.
    beside_node: Option<BesideNode>,
}

impl Programs {
    fn ensure(layout: &Layout, settings: &Settings, step: &Step) -> Result<Self> {
        let note = |text: &str| step.note(text);
        let bin = tools::control_plane(&note)?;
        let kwok = tools::KWOK.ensure(&note)?;
        let helm = tools::HELM.ensure(&note)?;
        let beside_node = if settings.real_node {
            Some(BesideNode { coredns: tools::COREDNS.ensure(&note)?, crane: tools::CRANE.ensure(&note)? })
        } else {
            None
        };
        tools::link(&bin.join("kubectl"), &layout.bin().join("kubectl"))?;
        tools::link(&helm, &layout.bin().join("helm"))?;
        Ok(Self { bin, kwok, beside_node })
    }
}
