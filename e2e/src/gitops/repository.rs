//! A repository of manifests, as people push to it.
//!
//! In: files, and what they are to say. Out: commits in a bare repository on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Context as _, Error, Result};
use crate::exec;

/// The branch that is followed.
pub const BRANCH: &str = "main";

/// A bare repository, and a clone of it to write in.
#[derive(Debug)]
pub struct Repository {
    home: PathBuf,
}

/// Git, in a folder, as nobody in particular: what this machine's user has set up is none of its concern.
pub(super) fn git(folder: &Path, args: &[&str]) -> Result<String> {
    let program = exec::find("git").ok_or_else(|| {
        Error::new("cannot follow a repository")
            .why("there is no `git` in PATH")
            .hint("install git, and run this again")
    })?;
    let mut git = Command::new(program);
    git.arg("-C").arg(folder).args(args);
    for who in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{who}_NAME"), "cultivar").env(format!("GIT_{who}_EMAIL"), "e2e@cultivar.dev");
    }
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    exec::output(&mut git, None).map(|said| said.trim().to_owned())
}

impl Repository {
    /// An empty one in a folder of its own.
    ///
    /// # Errors
    /// There is no git, or the folder cannot be written.
    pub fn create(home: PathBuf) -> Result<Self> {
        fs::create_dir_all(&home).doing(|| format!("cannot make {}", home.display()))?;
        git(&home, &["init", "--quiet", "--bare", "--initial-branch", BRANCH, "bare.git"])?;
        git(&home, &["clone", "--quiet", "bare.git", "writer"])?;
        Ok(Self { home })
    }

    /// Where it is cloned from.
    #[must_use]
    pub fn url(&self) -> String {
        self.home.join("bare.git").display().to_string()
    }

    /// Writes files, those with nothing in them away, and pushes; returns the commit.
    ///
    /// # Errors
    /// A file cannot be written, or nothing has changed.
    pub fn commit(&self, message: &str, files: &[(&str, Option<String>)]) -> Result<String> {
        for (name, text) in files {
            let path = self.writer().join(name);
            fs::create_dir_all(path.parent().unwrap_or(&path)).doing(|| format!("cannot make room for {name}"))?;
            match text {
                Some(text) => fs::write(&path, text).doing(|| format!("cannot write {name}"))?,
                None => fs::remove_file(&path).doing(|| format!("cannot remove {name}"))?,
            }
        }
        git(&self.writer(), &["add", "--all"])?;
        git(&self.writer(), &["commit", "--quiet", "--message", message])?;
        self.push()
    }

    /// Takes the latest commit back by another one, as people do; returns that.
    ///
    /// # Errors
    /// There is none to take back.
    pub fn revert(&self) -> Result<String> {
        git(&self.writer(), &["revert", "--no-edit", "HEAD"])?;
        self.push()
    }

    /// The files of the latest commit as a packed archive.
    ///
    /// # Errors
    /// There is no commit.
    pub fn archive(&self) -> Result<Vec<u8>> {
        let file = self.home.join("archive.tar.gz");
        git(&self.writer(), &["archive", "--format=tar.gz", "--output", &file.display().to_string(), "HEAD"])?;
        fs::read(&file).doing(|| format!("cannot read {}", file.display()))
    }

    /// Where a tool may keep what it works with; it goes with the repository.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    fn writer(&self) -> PathBuf {
        self.home.join("writer")
    }

    fn push(&self) -> Result<String> {
        git(&self.writer(), &["push", "--quiet", "origin", &format!("HEAD:{BRANCH}")])?;
        git(&self.writer(), &["rev-parse", "HEAD"])
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        // It lies in the cluster's folder, which goes with the cluster.
        let _ = fs::remove_dir_all(&self.home);
    }
}
