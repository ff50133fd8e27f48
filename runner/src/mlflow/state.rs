//! What the tracking server remembers: runs, models, and where their files go.

use super::CallError;
use cultivar_data::digest_of;
use cultivar_protocol::{RunSpec, is_safe_relative};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The one MLflow experiment, whatever the program calls it: the client insists that the run it resumes is in it.
pub const EXPERIMENT: &str = "0";
/// Params, tags or datasets beyond this are not kept.
const MOST: usize = 2000;
/// The longest value that is kept.
const LONGEST: usize = 6000;

/// What was logged beside metrics and artifacts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logged {
    /// By name; those of runs beside the main one as `run/name`.
    pub params: BTreeMap<String, Value>,
    /// The tags that the program set itself.
    pub tags: BTreeMap<String, Value>,
    /// Names and digests of datasets.
    pub datasets: Vec<Value>,
    /// What was not understood.
    pub problems: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Run {
    pub id: String,
    pub name: String,
    pub status: String,
    pub start: i64,
    pub end: Option<i64>,
    pub user: String,
    /// By key: value, timestamp, step of the latest.
    pub metrics: BTreeMap<String, (f64, i64, i64)>,
    pub params: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    pub datasets: Vec<Value>,
    pub models: Vec<Value>,
}

#[derive(Debug)]
pub struct Model {
    pub id: String,
    /// Its folder's name in the outputs folder.
    pub folder: String,
    /// As the API gives it.
    pub json: Value,
}

#[derive(Debug)]
pub struct State {
    pub main: String,
    pub experiment_name: String,
    pub runs: BTreeMap<String, Run>,
    pub models: Vec<Model>,
    pub outputs: PathBuf,
    pub metrics_path: PathBuf,
    metrics: File,
    next: u64,
    seed: String,
    problems: Vec<String>,
}

pub fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl State {
    pub fn new(spec: &RunSpec, metrics: &Path) -> io::Result<Self> {
        let seed = format!("{}/{}", spec.experiment.uid, spec.attempt);
        let main = id(&seed);
        let run = Run {
            id: main.clone(),
            name: spec.experiment.name.clone(),
            status: "RUNNING".to_owned(),
            start: now(),
            user: spec.experiment.namespace.clone(),
            tags: BTreeMap::from([("mlflow.runName".to_owned(), spec.experiment.name.clone())]),
            ..Run::default()
        };
        Ok(Self {
            runs: BTreeMap::from([(main.clone(), run)]),
            main,
            experiment_name: spec.experiment.name.clone(),
            models: Vec::new(),
            outputs: PathBuf::from(&spec.outputs_dir),
            metrics_path: metrics.to_owned(),
            metrics: File::options().append(true).create(true).open(metrics)?,
            next: 0,
            seed,
            problems: Vec::new(),
        })
    }

    /// A new id, unlike any other of this attempt.
    pub fn fresh(&mut self) -> String {
        self.next += 1;
        id(&format!("{}/{}", self.seed, self.next))
    }

    pub fn run(&mut self, id: &str) -> Result<&mut Run, CallError> {
        self.runs.get_mut(id).ok_or_else(|| CallError::missing(format!("Run with id={id} not found")))
    }

    pub fn problem(&mut self, text: String) {
        if self.problems.len() < 20 && !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }

    /// How a name of a run appears in the experiment's own.
    pub fn scoped(&self, run: &str, name: &str) -> String {
        match self.runs.get(run) {
            Some(other) if run != self.main => format!("{}/{name}", other.name),
            _ => name.to_owned(),
        }
    }

    /// Appends to the metrics file.
    pub fn metric(&mut self, run: &str, key: &str, value: f64, timestamp: i64, step: i64) -> Result<(), CallError> {
        let name = self.scoped(run, key);
        self.run(run)?.metrics.insert(key.to_owned(), (value, timestamp, step));
        if !value.is_finite() {
            self.problem(format!("metric {name:?} had a value that is no finite number; it is left out"));
            return Ok(());
        }
        let line = json!({"name": name, "value": value, "step": step, "timestamp": timestamp});
        // One write, so that lines of several processes do not mix.
        self.metrics.write_all(format!("{line}\n").as_bytes()).map_err(|error| CallError::internal(&error))
    }

    /// The folder of a run's artifacts.
    pub fn run_folder(&self, run: &str) -> Option<PathBuf> {
        let found = self.runs.get(run)?;
        if run == self.main {
            return Some(self.outputs.clone());
        }
        let name = if plain(&found.name) { &found.name } else { &found.id };
        Some(self.outputs.join("runs").join(name))
    }

    /// A folder for a model. The newest of a name has the name itself; an older one steps aside.
    pub fn model_folder(&mut self, name: &str, id: &str) -> String {
        let folder = if plain(name) { name } else { id };
        if let Some(index) = self.models.iter().position(|model| model.folder == folder) {
            let aside = format!("{folder}-{}", &self.models[index].id[2..10]);
            // A model without files has no folder yet.
            let _ = std::fs::rename(self.outputs.join(folder), self.outputs.join(&aside));
            self.models[index].folder = aside;
        }
        folder.to_owned()
    }

    pub fn logged(&self) -> Logged {
        let mut logged = Logged { problems: self.problems.clone(), ..Logged::default() };
        for (id, run) in &self.runs {
            for (name, value) in &run.params {
                logged.params.insert(self.scoped(id, name), Value::String(cultivar_protocol::cut(value, LONGEST)));
            }
            for (name, value) in run.tags.iter().filter(|(name, _)| !name.starts_with("mlflow.")) {
                logged.tags.insert(self.scoped(id, name), Value::String(cultivar_protocol::cut(value, LONGEST)));
            }
            logged.datasets.extend(run.datasets.iter().cloned());
        }
        let too_many = logged.params.len() > MOST || logged.tags.len() > MOST || logged.datasets.len() > MOST;
        if too_many {
            logged
                .problems
                .push(format!("at most {MOST} logged params, tags and datasets are kept; the rest is left out"));
            logged.params = logged.params.into_iter().take(MOST).collect();
            logged.tags = logged.tags.into_iter().take(MOST).collect();
            logged.datasets.truncate(MOST);
        }
        logged
    }
}

// A name that can be a folder of its own.
fn plain(name: &str) -> bool {
    is_safe_relative(name) && !name.contains('/') && !name.contains(char::is_control) && name.len() <= 150
}

// 32 hex digits, as MLflow's own.
fn id(seed: &str) -> String {
    digest_of(seed.as_bytes()).trim_start_matches("sha256:").chars().take(32).collect()
}
