//! The cgroup that all pods of the real node run below, in every hierarchy the machine has.
//!
//! In: the cgroup's name. Out: its folders made (the kubelet refuses to start without them); and at the
//! end every process below them ended and the folders removed. What is below our own cgroup was started
//! by our own kubelet, whatever its parent is by now.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::process::kill;
use crate::error::{Context as _, Error, Result};

/// Makes the cgroup in every hierarchy.
pub(crate) fn ensure(name: &str) -> Result<()> {
    for root in hierarchies() {
        // In version 2 a cgroup has only the controllers that its parent hands down. What the machine's
        // own manager has handed down already is enough, so a refusal says nothing.
        for controller in ["cpuset", "cpu", "io", "memory", "pids", "hugetlb"] {
            let _ = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        let dir = root.join(name);
        fs::create_dir_all(&dir).doing(|| format!("cannot make the cgroup {}", dir.display()))?;
        // In version 1 a cpuset is born empty, and an empty one takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if fs::read_to_string(dir.join(file)).is_ok_and(|text| text.trim().is_empty())
                && let Ok(all) = fs::read_to_string(root.join(file))
            {
                let _ = fs::write(dir.join(file), all);
            }
        }
    }
    Ok(())
}

/// Ends every process below the cgroup and removes it.
pub(crate) fn remove(name: &str) -> Result<()> {
    let dirs: Vec<PathBuf> = hierarchies().iter().map(|root| root.join(name)).filter(|dir| dir.exists()).collect();
    let begun = Instant::now();
    loop {
        let mut left = BTreeSet::new();
        dirs.iter().for_each(|dir| processes(dir, &mut left));
        left.iter().for_each(|pid| kill(*pid));
        let removed = dirs.iter().all(|dir| remove_tree(dir).is_ok());
        if removed {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(10) {
            return Err(Error::new(format!("cannot remove the cgroup {name}"))
                .why(format!("processes left: {left:?}"))
                .hint("run `down` again; a process that hangs in the kernel keeps its cgroup"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn processes(dir: &Path, found: &mut BTreeSet<i32>) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 1));
    children(dir).iter().for_each(|child| processes(child, found));
}

/// A cgroup's folder is removed as such: the files in it are the kernel's.
fn remove_tree(dir: &Path) -> std::io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    children(dir).iter().try_for_each(|child| remove_tree(child))?;
    fs::remove_dir(dir)
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// The mount point of every cgroup hierarchy, each once.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (point, kind) = (words.nth(1)?, words.next()?);
        (kind == "cgroup" || kind == "cgroup2").then(|| PathBuf::from(point))
    });
    points.collect::<BTreeSet<_>>().into_iter().collect()
}
