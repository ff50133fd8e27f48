//! Runs the real binary in a folder of its own.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod tracking;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A run's folders, its specification, and where its result goes.
pub struct Run {
    pub root: tempfile::TempDir,
    pub spec: Value,
}

impl Run {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name).display().to_string();
        std::fs::write(root.path().join("termination"), "").unwrap();
        let spec = json!({
            "version": 1, "attempt": 1, "prefix": "ns/exp",
            "experiment": {"name": "exp", "namespace": "ns", "uid": "u-1"},
            "outputsDir": at("outputs"), "runDir": at("run"), "terminationLog": at("termination"),
        });
        Self { root, spec }
    }

    /// With a store in a folder of the run.
    pub fn stored() -> Self {
        let mut run = Self::new();
        std::fs::create_dir(run.path("store")).unwrap();
        run.spec["store"] = json!({"url": format!("file://{}", run.path("store").display())});
        run
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cultivar-runner"));
        command.arg("run").arg("--").args(words).env("CULTIVAR_RUN_SPEC", self.spec.to_string());
        command.stdin(Stdio::null()).current_dir(self.root.path());
        command
    }

    pub fn spawn(&self, words: &[&str]) -> Child {
        self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub fn sh(&self, script: &str) -> Output {
        self.command(&["sh", "-c", script]).output().unwrap()
    }

    /// What stands in the termination log.
    pub fn result(&self) -> Value {
        let text = std::fs::read_to_string(self.path("termination")).unwrap();
        assert!(text.len() <= 4096, "{} bytes", text.len());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
    }

    /// An object of the store.
    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path("store").join(key)).ok()
    }

    /// The keys in the store, sorted.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        walk(&self.path("store"), &self.path("store"), &mut keys);
        keys.sort();
        keys
    }
}

fn walk(root: &Path, folder: &Path, keys: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            walk(root, &entry.path(), keys);
        } else {
            keys.push(entry.path().strip_prefix(root).unwrap().display().to_string());
        }
    }
}

/// Waits until something holds; the test fails when it does not within ten seconds.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal by name to a process.
pub fn signal(name: &str, child: &Child) {
    assert!(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
}

/// Problems of a result, joined.
pub fn problems(result: &Value) -> String {
    result["problems"]
        .as_array()
        .map_or(String::new(), |list| list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n"))
}
