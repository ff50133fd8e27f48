//! A tool that keeps a cluster as a folder of a repository says: in a loop, checks out the newest commit, asks the API server
//! whether all of it may be, and applies it, whether anything has changed or not.
//!
//! In: a repository, and a cluster. Out: what became of the newest commit, and how many rounds have been made.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::repository::{BRANCH, Repository, git};
use crate::cluster::Cluster;
use crate::error::{Context as _, Result};
use crate::exec;

/// Between two rounds: tools take minutes, and nothing here is about time.
const PAUSE: Duration = Duration::from_millis(200);

/// What a tool is to do.
#[derive(Debug, Clone)]
pub struct Follow {
    /// Its name: as field manager, and of what it remembers its objects by.
    pub name: String,
    /// The folder of the repository that it applies.
    pub folder: String,
    /// Where its objects are.
    pub namespace: String,
    /// Whether it removes what it has applied and the folder has no more.
    pub prune: bool,
}

/// How far a tool is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// The commit of the latest round.
    pub commit: String,
    /// Why it could not be applied.
    pub refused: Option<String>,
    /// Rounds so far.
    pub rounds: u64,
}

/// A running tool; it ends with its handle.
#[derive(Debug)]
pub struct Follower {
    over: Arc<AtomicBool>,
    progress: Arc<Mutex<Progress>>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Starts following.
    ///
    /// # Errors
    /// The repository cannot be cloned.
    pub fn start(repository: &Repository, cluster: &Cluster, follow: Follow) -> Result<Self> {
        let checkout = PathBuf::from(format!("{}-{}", repository.url(), follow.name));
        fs::create_dir_all(&checkout).doing(|| format!("cannot make {}", checkout.display()))?;
        git(&checkout, &["clone", "--quiet", &repository.url(), "."])?;
        let (over, progress) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Progress::default())));
        let thread = thread::spawn({
            let (over, progress, cluster) = (Arc::clone(&over), Arc::clone(&progress), cluster.clone());
            move || {
                while !over.load(Ordering::Relaxed) {
                    let (commit, done) = round(&checkout, &cluster, &follow);
                    let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
                    progress.commit = commit;
                    progress.refused = done.err().map(|error| error.to_string());
                    progress.rounds += 1;
                    drop(progress);
                    thread::sleep(PAUSE);
                }
            }
        });
        Ok(Self { over, progress, thread: Some(thread) })
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // A round that panicked has said so.
        self.thread.take().map(JoinHandle::join);
    }
}

fn round(checkout: &Path, cluster: &Cluster, follow: &Follow) -> (String, Result<()>) {
    let newest = || -> Result<String> {
        git(checkout, &["fetch", "--quiet", "origin", BRANCH])?;
        git(checkout, &["reset", "--quiet", "--hard", "FETCH_HEAD"])?;
        git(checkout, &["rev-parse", "HEAD"])
    };
    let commit = match newest() {
        Ok(commit) => commit,
        // Nothing has been pushed yet.
        Err(error) => return (String::new(), Err(error)),
    };
    let apply = |more: &[&str]| {
        let mut kubectl = cluster.kubectl_command();
        kubectl.args(["apply", "--server-side", "--field-manager", &follow.name, "--recursive", "--filename"]);
        kubectl.arg(checkout.join(&follow.folder)).args(["--namespace", &follow.namespace]).args(more);
        // Sets of applied objects are an alpha feature of kubectl.
        exec::output(kubectl.env("KUBECTL_APPLYSET", "true"), None).map(drop)
    };
    // First the whole, so that a commit is applied as one or not at all.
    let set = format!("configmap/{}", follow.name);
    let prune: &[&str] = if follow.prune { &["--prune", "--applyset", &set] } else { &[] };
    let done = apply(&["--dry-run=server"]).and_then(|()| apply(prune));
    (commit, done)
}
