//! The runner as a pod would start it, with a store, and with something to upload or to fetch.
//!
//! In: its program, a store, a folder. Out: what each run took; every run's result is read and has to be good.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::NAMESPACE;
use super::files::{Folder, remove, same_size};
use super::process::{Spent, spend};
use super::store::{BUCKET, Store};
use crate::error::{Context as _, Error, Result};

const TRUE: &str = "/bin/true";

/// The runner and where it works.
pub struct Runner {
    binary: PathBuf,
    folder: PathBuf,
    store: Value,
    runs: Cell<u32>,
}

/// What one run is told, and where it leaves its result.
struct Told {
    spec: Value,
    termination: PathBuf,
}

impl Runner {
    /// The runner, to be told of a store.
    pub fn new(binary: &Path, store: &Store, folder: &Folder) -> Result<Self> {
        let secrets = folder.folder("secret")?;
        let given = Store::credentials(NAMESPACE);
        for (name, value) in
            [("aws_access_key_id", given.access_key_id), ("aws_secret_access_key", given.secret_access_key)]
        {
            fs::write(secrets.join(name), value).doing(|| "cannot write the store's credentials")?;
        }
        let options = json!({
            "aws_endpoint": store.endpoint(), "aws_region": "us-east-1",
            "aws_allow_http": "true", "aws_virtual_hosted_style_request": "false",
        });
        let store = json!({"url": format!("s3://{BUCKET}"), "options": options, "secretDir": secrets});
        Ok(Self { binary: binary.to_owned(), folder: folder.folder("runs")?, store, runs: Cell::new(0) })
    }

    /// Uploads a file or folder as the output of one run, and fetches it as the input of another.
    pub fn there_and_back(&self, what: &str, source: &Path) -> Result<(Spent, Spent)> {
        let mut told = self.told(true)?;
        told.spec["outputs"] = json!([{"name": what, "path": source}]);
        let up = spend(self.command(&told).arg(TRUE))?;
        let result = told.result()?;
        let made = &result["artifacts"][0];
        if made["uri"].is_null() || made["digest"].is_null() {
            return Err(Error::new("the runner did not say what it uploaded").why(result));
        }
        let target = self.folder.join(format!("fetched-{what}"));
        let mut told = self.told(true)?;
        told.spec["inputs"] = json!([{"name": what, "uri": made["uri"], "digest": made["digest"], "path": target}]);
        let down = spend(self.command(&told).arg(TRUE))?;
        told.result()?;
        same_size(source, &target)?;
        remove(&target)?;
        Ok((up, down))
    }

    /// A run of a program that does nothing, to be started.
    pub fn empty(&self, stored: bool) -> Result<Command> {
        let told = self.told(stored)?;
        let mut command = self.command(&told);
        command.arg(TRUE);
        Ok(command)
    }

    /// A run of a program that prints.
    pub fn logged(&self, words: &[String]) -> Result<Spent> {
        let told = self.told(true)?;
        let spent = spend(self.command(&told).args(words))?;
        let result = told.result()?;
        if result["logs"].is_null() {
            return Err(Error::new("the runner kept no logs").why(result));
        }
        Ok(spent)
    }

    fn told(&self, stored: bool) -> Result<Told> {
        self.runs.set(self.runs.get() + 1);
        let name = format!("run-{}", self.runs.get());
        let folder = self.folder.join(&name);
        fs::create_dir_all(&folder).doing(|| format!("cannot make {}", folder.display()))?;
        let termination = folder.join("termination");
        fs::write(&termination, "").doing(|| format!("cannot write {}", termination.display()))?;
        let mut spec = json!({
            "version": 1, "attempt": 1, "prefix": format!("{NAMESPACE}/{name}"),
            "experiment": {"name": name, "namespace": NAMESPACE, "uid": name},
            "outputsDir": folder.join("outputs"), "runDir": folder.join("run"), "terminationLog": termination,
        });
        if stored {
            spec["store"] = self.store.clone();
        }
        Ok(Told { spec, termination })
    }

    fn command(&self, told: &Told) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["run", "--"]).env("CULTIVAR_RUN_SPEC", told.spec.to_string()).current_dir(&self.folder);
        command
    }
}

impl Told {
    fn result(&self) -> Result<Value> {
        let text = fs::read_to_string(&self.termination).doing(|| "the runner left no result")?;
        let result: Value = serde_json::from_str(&text).doing(|| format!("the runner's result is not JSON: {text}"))?;
        let problems = result["problems"].as_array().is_some_and(|list| !list.is_empty());
        if problems { Err(Error::new("the runner had problems").why(&result["problems"])) } else { Ok(result) }
    }
}
