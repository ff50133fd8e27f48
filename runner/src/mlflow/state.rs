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
    /// The user's own server, without credentials, where there is one.
    pub server: Option<String>,
    /// The run of that server that this one is there.
    pub run: Option<String>,
}

#[derive(Debug, Default)]
pub struct Run {
    pub id: String,
    pub name: String,
    pub status: String,
    pub start: i64,
    pub end: Option<i64>,
    pub user: String,
    /// What the addresses of its artifacts begin with; none where they do not pass here.
    pub artifacts: Option<String>,
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
    /// What the addresses of its files begin with; none where they do not pass here.
    pub artifacts: Option<String>,
    /// As the API gives it.
    pub json: Value,
}

/// A run of the user's server that the program has looked at.
#[derive(Debug)]
struct Met {
    name: String,
    uri: String,
}

#[derive(Debug)]
pub struct State {
    /// The run whose names are the experiment's own; empty until the program opens one on a server of the user's.
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
    met: BTreeMap<String, Met>,
}

pub fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl State {
    /// Of the one run that the runner itself is the server of.
    pub fn new(spec: &RunSpec, metrics: &Path) -> io::Result<Self> {
        let mut state = Self::empty(spec, metrics)?;
        let id = id(&state.seed);
        state.add(Run {
            artifacts: Some(format!("{EXPERIMENT}/{id}/artifacts")),
            id,
            name: spec.experiment.name.clone(),
            status: "RUNNING".to_owned(),
            start: now(),
            user: spec.experiment.namespace.clone(),
            ..Run::default()
        });
        Ok(state)
    }

    /// Of runs that another server has.
    pub fn empty(spec: &RunSpec, metrics: &Path) -> io::Result<Self> {
        Ok(Self {
            runs: BTreeMap::new(),
            main: String::new(),
            experiment_name: spec.experiment.name.clone(),
            models: Vec::new(),
            outputs: PathBuf::from(&spec.outputs_dir),
            metrics_path: metrics.to_owned(),
            metrics: File::options().append(true).create(true).open(metrics)?,
            next: 0,
            seed: format!("{}/{}", spec.experiment.uid, spec.attempt),
            problems: Vec::new(),
            met: BTreeMap::new(),
        })
    }

    /// Adds a run; the first is the main one.
    pub fn add(&mut self, mut run: Run) -> &mut Run {
        if self.main.is_empty() {
            self.main.clone_from(&run.id);
        }
        if run.name.is_empty() {
            run.name = format!("run-{}", short(&run.id));
        }
        // Two runs of one name would share their metrics' names.
        if self.runs.values().any(|other| other.name == run.name && other.id != run.id) {
            run.name = format!("{}-{}", run.name, short(&run.id));
        }
        run.tags.insert("mlflow.runName".to_owned(), run.name.clone());
        let id = run.id.clone();
        self.runs.insert(id.clone(), run);
        self.runs.entry(id).or_default()
    }

    /// A run that another server told of: nothing is recorded of it before the program writes to it.
    pub fn meet(&mut self, id: &str, name: &str, uri: &str) {
        if self.met.len() < MOST || self.met.contains_key(id) {
            self.met.insert(id.to_owned(), Met { name: name.to_owned(), uri: uri.to_owned() });
        }
    }

    /// Makes a run of another server one of this experiment's: the program writes to it.
    pub fn adopt(&mut self, id: &str) {
        if id.is_empty() || self.runs.contains_key(id) {
            return;
        }
        let (name, uri) = self.met.remove(id).map_or_else(Default::default, |met| (met.name, met.uri));
        let artifacts = self.passing(&uri, &format!("run {id}"));
        self.add(Run { id: id.to_owned(), name, artifacts, start: now(), ..Run::default() });
    }

    /// As [`State::adopt`], of the run that the address of an artifact belongs to.
    pub fn adopt_owner(&mut self, path: &str) {
        let owns = |met: &Met| root(&met.uri).is_some_and(|root| below(&root, path).is_some());
        if let Some(id) = self.met.iter().find(|(_, met)| owns(met)).map(|(id, _)| id.clone()) {
            self.adopt(&id);
        }
    }

    /// What the addresses of files below this one begin with, if they pass here; that they do not is said.
    pub fn passing(&mut self, uri: &str, whose: &str) -> Option<String> {
        let root = root(uri);
        if root.is_none() && !uri.is_empty() {
            self.problem(format!(
                "MLflow's client writes the artifacts of {whose} straight to {}; they are not kept here as well",
                cultivar_data::public(uri)
            ));
        }
        root
    }

    /// The folder of the run or model that the address of an artifact belongs to, and the rest of the address.
    pub fn owner<'a>(&self, path: &'a str) -> Option<(PathBuf, &'a str)> {
        let of = |root: &Option<String>| root.as_deref().and_then(|root| below(root, path));
        let model =
            self.models.iter().find_map(|model| Some((self.outputs.join(&model.folder), of(&model.artifacts)?)));
        model.or_else(|| self.runs.values().find_map(|run| Some((self.run_folder(&run.id)?, of(&run.artifacts)?))))
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
        let name = if plain(&found.name) { found.name.clone() } else { short(&found.id) };
        Some(self.outputs.join("runs").join(name))
    }

    /// A folder for a model. The newest of a name has the name itself; an older one steps aside.
    pub fn model_folder(&mut self, name: &str, id: &str) -> String {
        let own = short(id.trim_start_matches("m-"));
        let folder = if plain(name) { name } else { &own };
        if let Some(index) = self.models.iter().position(|model| model.folder == folder) {
            let aside = format!("{folder}-{}", short(self.models[index].id.trim_start_matches("m-")));
            // A model without files has no folder yet.
            let _ = std::fs::rename(self.outputs.join(folder), self.outputs.join(&aside));
            self.models[index].folder = aside;
        }
        folder.to_owned()
    }

    pub fn logged(&self) -> Logged {
        let mut logged = Logged { problems: self.problems.clone(), ..Logged::default() };
        logged.run = Some(self.main.clone()).filter(|main| !main.is_empty());
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

/// The first of an id, whoever made it.
pub fn short(id: &str) -> String {
    id.chars().filter(|c| c.is_ascii_alphanumeric()).take(8).collect()
}

// `mlflow-artifacts:/a/b` is what the client asks its tracking server for; any other address it goes to by itself.
fn root(uri: &str) -> Option<String> {
    let path = uri.strip_prefix("mlflow-artifacts:")?;
    let path = path.strip_prefix("//").map_or(Some(path), |rest| rest.starts_with('/').then_some(rest))?;
    Some(path.trim_matches('/').to_owned()).filter(|path| !path.is_empty())
}

fn below<'a>(root: &str, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(root)?;
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_start_matches('/'))
}

// A name that can be a folder of its own.
fn plain(name: &str) -> bool {
    is_safe_relative(name) && !name.contains('/') && !name.contains(char::is_control) && name.len() <= 150
}

// 32 hex digits, as MLflow's own.
fn id(seed: &str) -> String {
    digest_of(seed.as_bytes()).trim_start_matches("sha256:").chars().take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_tracking_server_hands_on_passes_here() {
        for (uri, expected) in [
            ("mlflow-artifacts:/1/ab/artifacts", Some("1/ab/artifacts")),
            ("mlflow-artifacts:///1/ab/artifacts/", Some("1/ab/artifacts")),
            ("mlflow-artifacts://other:5000/1/ab/artifacts", None),
            ("mlflow-artifacts:/", None),
            ("s3://bucket/1/ab/artifacts", None),
            ("/mnt/mlruns/1/ab/artifacts", None),
        ] {
            assert_eq!(root(uri).as_deref(), expected, "{uri}");
        }
        assert_eq!(below("1/ab", "1/ab/c d"), Some("c d"));
        assert_eq!(below("1/ab", "1/ab"), Some(""));
        assert_eq!(below("1/ab", "1/abc/d"), None);
    }
}
