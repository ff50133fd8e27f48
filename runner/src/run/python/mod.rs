//! Python packages that the code asks for, installed with the image's own pip beside those of the image.
//!
//! Comes in: a requirements file of the source. Goes out: a folder of the run that Python looks into first: out of the
//! store where an earlier run has kept the same, otherwise installed, and then kept.

mod cache;
mod key;

use super::Failure;
use cache::Cache;
use cultivar_data::{Mover, Store};
use cultivar_protocol::{Reason, RunSpec, Source, last_bytes};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// The end of what pip says on a failure, in bytes: so much fits into a message.
const MAX_WORDS: usize = 600;
/// How long Python may take to say what it is.
const ANSWER: Duration = Duration::from_secs(60);

/// Packages of the run.
#[derive(Debug)]
pub struct Installed {
    /// Where they lie.
    pub folder: PathBuf,
    /// `sha256:…` of the requirements file.
    pub digest: String,
    /// Whether they were kept by an earlier run.
    pub cached: Cached,
    /// What went wrong with keeping them.
    pub problems: Vec<String>,
}

/// What the store had of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached {
    /// All: nothing was installed.
    Hit,
    /// Nothing.
    Miss,
    /// It was not asked, for this reason.
    Not(String),
}

impl Cached {
    /// For the record.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Hit => "hit".to_owned(),
            Self::Miss => "miss".to_owned(),
            Self::Not(why) => format!("not used: {why}"),
        }
    }
}

impl Installed {
    /// What makes the program find them, and the commands that they bring.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let before = |name: &str, folder: PathBuf| {
            let rest = std::env::var_os(name).filter(|value| !value.is_empty());
            let all = std::iter::once(folder).chain(rest.iter().flat_map(std::env::split_paths));
            // Only a folder with a colon in its name cannot be joined, and the run's has none.
            std::env::join_paths(all).unwrap_or_default()
        };
        vec![
            ("PYTHONPATH", before("PYTHONPATH", self.folder.clone())),
            ("PATH", before("PATH", self.folder.join("bin"))),
        ]
    }
}

/// Installs what a requirements file of the source names, or finds it installed in the store.
pub async fn install(
    spec: &RunSpec,
    source: &Source,
    requirements: &str,
    command: &[OsString],
    store: Option<&Store>,
    mover: &Mover,
) -> Result<Installed, Failure> {
    let file = find(source, requirements)?;
    let bytes = std::fs::read(&file).map_err(|error| unavailable(requirements, &error.to_string()))?;
    let folder = Path::new(&spec.run_dir).join("python");
    let scratch = Path::new(&spec.run_dir).join("pip");
    std::fs::create_dir_all(&scratch)
        .map_err(|error| Failure::runner(format!("cannot make the folder {}: {error}", scratch.display())))?;
    let pythons = python(command);
    let mut installed =
        Installed { folder, digest: cultivar_data::digest_of(&bytes), cached: Cached::Miss, problems: Vec::new() };
    let cache = match cache(source, &file, &pythons, &scratch, store, mover).await {
        Ok(cache) => Some(cache),
        Err(why) => {
            installed.cached = Cached::Not(why);
            None
        }
    };
    if let Some(cache) = &cache
        && cache.fetch(&installed.folder, &mut installed.problems).await
    {
        installed.cached = Cached::Hit;
    }
    let done = match installed.cached {
        Cached::Hit => Ok(()),
        Cached::Miss | Cached::Not(_) => pip(&pythons, &file, &installed.folder, &scratch).await,
    };
    // What pip leaves there is of no use to anyone.
    let _ = std::fs::remove_dir_all(&scratch);
    done?;
    // The first of several workers keeps them for all.
    if let Some(cache) = cache.filter(|_| installed.cached == Cached::Miss && spec.worker == 0) {
        installed.problems.extend(cache.save(&installed.folder).await);
    }
    Ok(installed)
}

// The cache of what is asked for; or why there is none.
async fn cache<'a>(
    source: &Source,
    file: &Path,
    pythons: &[OsString],
    scratch: &Path,
    store: Option<&'a Store>,
    mover: &'a Mover,
) -> Result<Cache<'a>, String> {
    let (Some(store), Some(prefix)) = (store, &source.cache) else { return Err("there is no store".to_owned()) };
    let top = Path::new(&source.path);
    for python in pythons {
        match key::key(file, top, python, scratch).await {
            Ok(key) => return Ok(Cache::of(store, mover, prefix, &key)),
            Err(Keyless::NoPython) => {}
            Err(Keyless::Why(why)) => return Err(why),
        }
    }
    Err("there is no Python".to_owned())
}

/// Why there is no key.
enum Keyless {
    NoPython,
    Why(String),
}

impl From<String> for Keyless {
    fn from(why: String) -> Self {
        Self::Why(why)
    }
}

// What a short question to Python brings.
async fn python_said(command: &mut Command) -> Result<String, Keyless> {
    let out = match timeout(ANSWER, command.output()).await {
        Ok(Ok(out)) => out,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => return Err(Keyless::NoPython),
        Ok(Err(error)) => return Err(Keyless::Why(format!("Python does not start: {error}"))),
        Err(_) => return Err(Keyless::Why(format!("Python says nothing for {} s", ANSWER.as_secs()))),
    };
    if !out.status.success() {
        let words = String::from_utf8_lossy(&out.stderr).into_owned();
        return Err(Keyless::Why(format!(
            "Python does not say what it is: {}",
            last_bytes(words.trim(), MAX_WORDS / 3)
        )));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

// A file of the source, also when links lead to it.
fn find(source: &Source, requirements: &str) -> Result<PathBuf, Failure> {
    let top = Path::new(&source.path).canonicalize().map_err(|error| unavailable(requirements, &error.to_string()))?;
    let file = top.join(requirements);
    match file.canonicalize() {
        Ok(real) if real.starts_with(&top) && real.is_file() => Ok(file),
        Ok(_) => Err(unavailable(requirements, "it is no file of the source")),
        Err(error) => Err(unavailable(requirements, &error.to_string())),
    }
}

fn unavailable(requirements: &str, why: &str) -> Failure {
    let message = format!("source.python.requirements: {requirements:?}, from the top of the source: {why}");
    Failure { reason: Reason::SourceUnavailable, message }
}

// The program's own Python where the command names one, so that the packages are for its version.
fn python(command: &[OsString]) -> Vec<OsString> {
    let is_python = |word: &&OsString| {
        let name = Path::new(word).file_name().and_then(OsStr::to_str).unwrap_or_default();
        name.strip_prefix("python").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
    };
    match command.first().filter(is_python) {
        // A path is meant from where the program starts, and pip starts elsewhere.
        Some(word) if word.as_encoded_bytes().contains(&b'/') => {
            vec![std::path::absolute(word).map_or_else(|_| word.clone(), PathBuf::into_os_string)]
        }
        Some(word) => vec![word.clone()],
        None => vec!["python3".into(), "python".into()],
    }
}

// A Python that starts as pip is to.
fn command(python: &OsStr, scratch: &Path) -> Command {
    let mut command = Command::new(python);
    command
        .env_remove(cultivar_protocol::SPEC_ENV)
        // The image may have no other folder that can be written to.
        .env("TMPDIR", scratch)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn pip(pythons: &[OsString], file: &Path, folder: &Path, scratch: &Path) -> Result<(), Failure> {
    for python in pythons {
        let mut command = command(python, scratch);
        command
            .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir"])
            .arg("--target")
            .arg(folder)
            .arg("-r")
            .arg(file);
        // Relative paths in the file are meant from where it lies.
        if let Some(parent) = file.parent() {
            command.current_dir(parent);
        }
        match command.output().await {
            Ok(out) if out.status.success() => return Ok(()),
            Ok(out) => {
                let words = [out.stdout, out.stderr].concat();
                let words = String::from_utf8_lossy(&words);
                return Err(Failure::runner(format!(
                    "source.python.requirements: {} -m pip ended with {}: {}",
                    python.display(),
                    out.status,
                    last_bytes(words.trim(), MAX_WORDS)
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::runner(format!(
                    "source.python.requirements: cannot start {}: {error}",
                    python.display()
                )));
            }
        }
    }
    let names: Vec<String> = pythons.iter().map(|python| python.display().to_string()).collect();
    Err(Failure::runner(format!(
        "source.python.requirements: the image has no {}, and its packages are installed with the image's own Python and pip",
        names.join(" and no ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_own_python_installs() {
        let of = |word: &str| python(&[OsString::from(word)]);
        for word in ["python", "python3", "python3.12", "/opt/venv/bin/python"] {
            assert_eq!(of(word), [OsString::from(word)]);
        }
        for word in ["sh", "torchrun", "python-config", "accelerate"] {
            assert_eq!(of(word), [OsString::from("python3"), OsString::from("python")]);
        }
    }
}
