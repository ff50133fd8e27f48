//! `kubectl cultivar`, as a person would call it.
//!
//! In: a cluster, a namespace, words. Out: what it prints, and its exit code.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Context as _, Error, Result};

/// The command line for one namespace of a cluster.
#[derive(Debug, Clone)]
pub struct Cli {
    binary: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
    folder: Option<PathBuf>,
    tools: Option<PathBuf>,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub out: String,
    /// What it said beside.
    pub err: String,
}

impl Cli {
    /// The command line of a binary.
    #[must_use]
    pub fn new(binary: &Path, kubeconfig: &Path, namespace: &str) -> Self {
        let [binary, kubeconfig] = [binary, kubeconfig].map(Path::to_owned);
        Self { binary, kubeconfig, namespace: namespace.to_owned(), folder: None, tools: None }
    }

    /// Called in a folder.
    #[must_use]
    pub fn within(self, folder: &Path) -> Self {
        Self { folder: Some(folder.to_owned()), ..self }
    }

    /// With the programs of a folder, such as kubectl, on its path.
    #[must_use]
    pub fn with_tools(self, tools: &Path) -> Self {
        Self { tools: Some(tools.to_owned()), ..self }
    }

    /// Runs a command, whatever its end.
    ///
    /// # Errors
    /// It does not start.
    pub fn call(&self, words: &[&str]) -> Result<Ended> {
        let mut command = Command::new(&self.binary);
        command.args(["--namespace", &self.namespace]).args(words).env("KUBECONFIG", &self.kubeconfig);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        if let Some(tools) = &self.tools {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let all = std::iter::once(tools.clone()).chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(all).doing(|| "no PATH")?);
        }
        let ended = command.stdin(Stdio::null()).output().doing(|| "kubectl-cultivar does not start")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ended { code: ended.status.code().unwrap_or(-1), out: text(&ended.stdout), err: text(&ended.stderr) })
    }

    /// Runs a command that ends well, and returns what it printed.
    ///
    /// # Errors
    /// It does not.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let ended = self.call(words)?;
        if ended.code == 0 {
            return Ok(ended.out);
        }
        let why = format!("exit code {}", ended.code);
        Err(Error::new(format!("kubectl cultivar {}", words.join(" "))).why(why).log(ended.out + &ended.err))
    }
}
