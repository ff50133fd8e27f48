//! What a cluster consists of, as its folder remembers it, and the choice of its addresses.
//!
//! In: a cluster's name. Out: its settings, its lock, and for a new cluster a slot that nobody else has.

use std::fs::{self, File};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Cluster;
use super::layout::{self, Layout};
use crate::error::{Context as _, Error, Result};
use crate::exec;

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

fn settings_file(name: &str) -> PathBuf {
    layout::clusters_dir().join(name).join("cluster.json")
}

/// The settings of the cluster of that name, if there is one.
pub(crate) fn load(name: &str) -> Option<Settings> {
    serde_json::from_str(&fs::read_to_string(settings_file(name)).ok()?).ok()
}

/// Keeps the settings in the cluster's folder.
pub(crate) fn save(layout: &Layout, settings: &Settings) -> Result<()> {
    let text = serde_json::to_string_pretty(settings).doing(|| "cannot write the settings")?;
    let file = settings_file(&layout.name);
    fs::write(&file, text).doing(|| format!("cannot write {}", file.display()))
}

/// One `up` or `down` at a time for a name; another waits.
pub(crate) fn lock(name: &str) -> Result<File> {
    lock_file(&format!(".{name}.lock"))
}

/// One choice of addresses at a time, whatever the name.
pub(crate) fn lock_all() -> Result<File> {
    lock_file(".lock")
}

fn lock_file(name: &str) -> Result<File> {
    let dir = layout::clusters_dir();
    fs::create_dir_all(&dir).doing(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join(name);
    let failed = || format!("cannot lock {}", path.display());
    let file = File::create(&path).doing(failed)?;
    file.lock().doing(failed)?;
    Ok(file)
}

/// The first slot of the name's own order that no other cluster, route or listener has.
pub(crate) fn free_slot(name: &str) -> Result<u8> {
    let taken: Vec<u8> = Cluster::all().iter().filter_map(|other| load(other)).map(|settings| settings.slot).collect();
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
