//! Python packages that the code asks for, installed with the image's own pip beside those of the image.
//!
//! Comes in: a requirements file of the source. Goes out: a folder of the run that Python looks into first.

use super::Failure;
use cultivar_protocol::{Reason, RunSpec, Source, last_bytes};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// The end of what pip says on a failure, in bytes: so much fits into a message.
const MAX_WORDS: usize = 600;

/// Packages of the run.
#[derive(Debug)]
pub struct Installed {
    /// Where they lie.
    pub folder: PathBuf,
    /// `sha256:…` of the requirements file.
    pub digest: String,
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

/// Installs what a requirements file of the source names.
pub async fn install(
    spec: &RunSpec,
    source: &Source,
    requirements: &str,
    command: &[OsString],
) -> Result<Installed, Failure> {
    let file = find(source, requirements)?;
    let bytes = std::fs::read(&file).map_err(|error| unavailable(requirements, &error.to_string()))?;
    let folder = Path::new(&spec.run_dir).join("python");
    let scratch = Path::new(&spec.run_dir).join("pip");
    std::fs::create_dir_all(&scratch)
        .map_err(|error| Failure::runner(format!("cannot make the folder {}: {error}", scratch.display())))?;
    let done = pip(&python(command), &file, &folder, &scratch).await;
    // What pip leaves there is of no use to anyone.
    let _ = std::fs::remove_dir_all(&scratch);
    done?;
    Ok(Installed { folder, digest: cultivar_data::digest_of(&bytes) })
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

async fn pip(pythons: &[OsString], file: &Path, folder: &Path, scratch: &Path) -> Result<(), Failure> {
    for python in pythons {
        let mut command = Command::new(python);
        command
            .args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir"])
            .arg("--target")
            .arg(folder)
            .arg("-r")
            .arg(file)
            .env_remove(cultivar_protocol::SPEC_ENV)
            // The image may have no other folder that can be written to.
            .env("TMPDIR", scratch)
            .stdin(Stdio::null())
            .kill_on_drop(true);
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
