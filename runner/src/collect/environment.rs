//! What the run was like: processor time, memory, traffic, Python packages, GPU.
//!
//! Everything is read after the program has ended, within a time limit, and nothing here fails a run.

use cultivar_data::Mover;
use cultivar_protocol::PACKAGES;
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(3);
/// More packages than this are not listed.
const MAX_PACKAGES: usize = 3000;

/// The environment of a run; `python` is a folder of packages beside those of the image.
pub async fn collect(mover: &Mover, python: Option<PathBuf>) -> BTreeMap<String, Value> {
    let mut facts = BTreeMap::new();
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) {
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        let total = seconds(usage.user_time()) + seconds(usage.system_time());
        facts.insert("cpuSeconds".to_owned(), json!((total * 1000.0).round() / 1000.0));
        // In KiB, of the largest process.
        facts.insert("peakProcessBytes".to_owned(), json!(usage.max_rss().saturating_mul(1024)));
    }
    if let Some(peak) = container_peak() {
        facts.insert("peakMemoryBytes".to_owned(), json!(peak));
    }
    facts.insert("bytesIn".to_owned(), json!(mover.bytes_in()));
    facts.insert("bytesOut".to_owned(), json!(mover.bytes_out()));
    let slow = tokio::task::spawn_blocking(move || (packages(python), gpus()));
    if let Ok(Ok((packages, gpus))) = tokio::time::timeout(LIMIT, slow).await {
        if !packages.is_empty() {
            facts.insert(PACKAGES.to_owned(), json!(packages));
        }
        if !gpus.is_empty() {
            facts.insert("gpus".to_owned(), Value::Array(gpus));
        }
    }
    facts
}

// The container's own cgroup, version 2 or 1; absent outside a container.
fn container_peak() -> Option<u64> {
    ["/sys/fs/cgroup/memory.peak", "/sys/fs/cgroup/memory/memory.max_usage_in_bytes"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
}

fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = names.iter().flat_map(|name| std::env::split_paths(&path).map(move |folder| folder.join(name)));
    found.into_iter().find(|path| path.is_file())
}

/// What `pip freeze` would say, read from the folders that packages are installed to.
fn packages(beside: Option<PathBuf>) -> BTreeMap<String, String> {
    let mut packages = BTreeMap::new();
    let Some(python) = on_path(&["python3", "python"]) else { return packages };
    let mut folders: Vec<PathBuf> = beside.into_iter().collect();
    folders.extend(std::env::var_os("PYTHONPATH").iter().flat_map(std::env::split_paths));
    let mut prefixes = vec![python.parent().and_then(Path::parent).map(Path::to_owned)];
    let in_venv = prefixes[0].as_ref().is_some_and(|prefix| prefix.join("pyvenv.cfg").exists());
    if !in_venv {
        prefixes.push(fs::canonicalize(&python).ok().and_then(|real| Some(real.parent()?.parent()?.to_owned())));
    }
    for prefix in prefixes.into_iter().flatten() {
        for lib in [prefix.join("lib"), prefix.join("local/lib")] {
            let versions = fs::read_dir(lib).into_iter().flatten().flatten().map(|entry| entry.path());
            let versions = versions
                .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3")));
            folders.extend(versions.flat_map(|path| [path.join("site-packages"), path.join("dist-packages")]));
        }
    }
    for folder in folders {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let stem = name.strip_suffix(".dist-info").or_else(|| name.strip_suffix(".egg-info"));
            // An egg's version is followed by the Python's.
            let stem = stem.map(|stem| stem.split_once("-py").map_or(stem, |(stem, _)| stem));
            if let Some((package, version)) = stem.and_then(|stem| stem.split_once('-'))
                && packages.len() < MAX_PACKAGES
            {
                // The first folder is the one that is imported from.
                packages.entry(package.replace('_', "-").to_lowercase()).or_insert_with(|| version.to_owned());
            }
        }
    }
    packages
}

fn gpus() -> Vec<Value> {
    let Some(tool) = on_path(&["nvidia-smi"]) else { return Vec::new() };
    let query = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"];
    let child =
        Command::new(tool).args(query).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = child else { return Vec::new() };
    let until = Instant::now() + LIMIT.mul_f64(0.8);
    // A driver that hangs must not hold up the end of the run.
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > until {
            let _ = child.kill();
            return Vec::new();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        let _ = std::io::Read::read_to_string(&mut out, &mut text);
    }
    text.lines()
        .filter_map(|line| {
            let mut parts = line.split(',').map(str::trim);
            Some(json!({"name": parts.next()?, "driver": parts.next()?, "memory": parts.next()?}))
        })
        .collect()
}
