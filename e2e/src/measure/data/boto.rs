//! boto3, as people use it: the yardstick for moving bytes.
//!
//! In: a store, and files. Out: what its transfers took: the clock starts in Python, when boto3 has been imported and
//! the client been made, so that its start is not held against it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::NAMESPACE;
use super::files::{Folder, remove, same_size};
use super::process::{Spent, listen};
use super::store::{BUCKET, Store};
use crate::error::{Context as _, Result};
use crate::exec;

const WANTED: &str = "boto3==1.40.*";
const SCRIPT: &str = include_str!("boto.py");

/// A Python that has boto3.
pub struct Boto {
    python: PathBuf,
    version: String,
}

impl Boto {
    /// Makes it in the cache folder, unless it is there.
    pub fn install() -> Result<Self> {
        let python = crate::python::with(&[WANTED])?;
        let version = exec::run(&python, &["-c", "import boto3; print(boto3.__version__)"])?;
        Ok(Self { version: version.trim().to_owned(), python })
    }

    /// The version of boto3.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Uploads a file (`big`) or a folder (`many`), and downloads it again.
    pub fn there_and_back(&self, store: &Store, folder: &Folder, what: &str, source: &Path) -> Result<(Spent, Spent)> {
        let target = folder.at(&format!("downloaded-{what}"));
        let up = self.play(store, &[&format!("up-{what}"), &source.display().to_string()])?;
        let down = self.play(store, &[&format!("down-{what}"), &target.display().to_string()])?;
        same_size(source, &target)?;
        remove(&target)?;
        Ok((up, down))
    }

    /// Deletes all that the namespace has in the store.
    pub fn clear(&self, store: &Store) -> Result<()> {
        self.play(store, &["clear"]).map(drop)
    }

    fn play(&self, store: &Store, words: &[&str]) -> Result<Spent> {
        let given = Store::credentials(NAMESPACE);
        let mut command = Command::new(&self.python);
        // Nothing of the user's own configuration of AWS.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("AWS_")) {
                command.env_remove(name);
            }
        }
        command
            .args(["-c", SCRIPT, &store.endpoint(), BUCKET, NAMESPACE])
            .args(words)
            .env("AWS_ACCESS_KEY_ID", given.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", given.secret_access_key)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .stdout(std::process::Stdio::piped());
        let (spent, said) = listen(&mut command)?;
        let seconds = said.trim().parse().doing(|| format!("boto3's time is not a number: {said:?}"))?;
        Ok(Spent { seconds, ..spent })
    }
}
