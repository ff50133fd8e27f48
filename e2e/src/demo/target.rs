//! Where the demo runs: a cluster of this machine, or one of the user's own.
//!
//! In: the options. Out: kubectl and helm commands that speak to that cluster, and what is true of it.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};
use crate::{exec, tools};

/// The namespace that the demo's objects live in.
pub const NAMESPACE: &str = "cultivar-demo";
/// The namespace of the operator.
pub const SYSTEM: &str = "cultivar-system";

/// The cluster that the demo runs in.
#[derive(Debug, Clone)]
pub enum Target {
    /// On this machine.
    Local(Box<Cluster>),
    /// Somebody's own.
    Own {
        /// The kubectl context.
        context: String,
        /// The user's kubectl, or one built here.
        kubectl: PathBuf,
        /// The user's helm, or one built here.
        helm: PathBuf,
        /// The prefix of the images, if they were pushed somewhere.
        repository: Option<String>,
    },
}

impl Target {
    /// A cluster of the user's own.
    ///
    /// # Errors
    /// There is neither kubectl nor helm, and they cannot be built.
    pub fn own(context: &str, repository: Option<&str>) -> Result<Self> {
        Ok(Self::Own {
            context: context.to_owned(),
            kubectl: exec::find("kubectl").map_or_else(tools::kubectl, Ok)?,
            helm: exec::find("helm").map_or_else(tools::helm, Ok)?,
            repository: repository.map(|prefix| prefix.trim_end_matches('/').to_owned()),
        })
    }

    /// The cluster on this machine, if it is one.
    pub fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Local(cluster) => Some(cluster),
            Self::Own { .. } => None,
        }
    }

    /// Whether nothing but simulated nodes is there.
    pub fn simulated(&self) -> bool {
        self.cluster().is_some_and(|cluster| cluster.real_node().is_none())
    }

    /// A kubectl command, to add arguments to.
    pub fn kubectl_command(&self) -> Command {
        match self {
            Self::Local(cluster) => cluster.kubectl_command(),
            Self::Own { context, kubectl, .. } => {
                let mut command = Command::new(kubectl);
                command.args(["--context", context]);
                command
            }
        }
    }

    /// Runs kubectl in the demo's namespace.
    ///
    /// # Errors
    /// kubectl fails; the error quotes what it said.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        exec::output(self.kubectl_command().args(["--namespace", NAMESPACE]).args(args), None)
    }

    /// What kubectl answers, as JSON.
    ///
    /// # Errors
    /// kubectl fails.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let said = self.kubectl(&[&["get", "--output=json"], args].concat())?;
        serde_json::from_str(&said).doing(|| "cannot read what kubectl says")
    }

    /// Applies a manifest in the demo's namespace.
    ///
    /// # Errors
    /// The API server or a webhook refuses it.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let mut command = self.kubectl_command();
        command.args(["--namespace", NAMESPACE, "apply", "--filename=-"]);
        exec::output(&mut command, Some(manifest))
    }

    /// A helm command, to add arguments to.
    ///
    /// # Errors
    /// Helm is missing and cannot be built.
    pub fn helm_command(&self) -> Result<Command> {
        match self {
            Self::Local(cluster) => cluster.helm_command(),
            Self::Own { context, helm, .. } => {
                let mut command = Command::new(helm);
                command.args(["--kube-context", context]);
                Ok(command)
            }
        }
    }

    /// The name under which the nodes find an image of ours.
    pub fn image(&self, ours: &str) -> String {
        match self {
            Self::Own { repository: Some(prefix), .. } => {
                format!("{prefix}/{}", ours.rsplit('/').next().unwrap_or(ours))
            }
            _ => ours.to_owned(),
        }
    }

    /// GPUs that ready nodes advertise, all together.
    ///
    /// # Errors
    /// The nodes cannot be listed.
    pub fn gpus(&self) -> Result<u64> {
        let nodes = self.get(&["nodes"])?;
        let of = |node: &Value| node["status"]["allocatable"]["nvidia.com/gpu"].as_str()?.parse::<u64>().ok();
        Ok(nodes["items"].as_array().into_iter().flatten().filter_map(of).sum())
    }

    /// Fails with advice where the cluster does not answer.
    ///
    /// # Errors
    /// It does not answer.
    pub fn check(&self) -> Result<()> {
        let answer = exec::output(self.kubectl_command().args(["--request-timeout=10s", "version"]), None);
        answer.map(drop).map_err(|error| {
            let hint = match self {
                Self::Local(cluster) => format!("`cargo cluster up --name {}` repairs it", cluster.name()),
                Self::Own { .. } => "`kubectl config get-contexts` names the contexts you have".to_owned(),
            };
            Error::new("the cluster does not answer").why(error).hint(hint)
        })
    }

    /// How a person types kubectl to see the demo's objects, once their shell is set up.
    pub fn shown_kubectl(&self) -> String {
        match self {
            Self::Local(_) => format!("kubectl -n {NAMESPACE}"),
            Self::Own { context, .. } => format!("kubectl --context {context} -n {NAMESPACE}"),
        }
    }

    /// The option that names a cluster to `cargo cluster`.
    pub fn name_option(&self) -> String {
        match self.cluster().map(Cluster::name) {
            Some(name) if name != crate::cluster::DEFAULT_NAME => format!(" --name {name}"),
            _ => String::new(),
        }
    }
}
