//! Pythons that have the packages of a test or a measurement, made once a machine.
//!
//! In: packages with their versions. Out: the path of a Python that has them, in the cache folder, keyed by the
//! packages.

use std::fs;
use std::path::PathBuf;

use crate::error::{Context as _, Result};
use crate::exec;
use crate::tools::{cache_dir, key_of, once};

/// Whether this machine has a Python to make others of.
#[must_use]
pub fn is_there() -> bool {
    exec::find("python3").is_some()
}

/// A Python that has these packages, as pip writes them; made first if it is missing.
///
/// # Errors
/// There is no python3 with venv, or no way to where pip gets packages from.
pub fn with(packages: &[&str]) -> Result<PathBuf> {
    let home = cache_dir().join("python").join(key_of(packages));
    let (venv, whole) = (home.join("venv"), home.join("whole"));
    let python = venv.join("bin/python");
    // The one that it was made of may be gone since.
    if whole.exists() && exec::run(&python, &["-c", ""]).is_err() {
        fs::remove_file(&whole).doing(|| format!("cannot remove {}", whole.display()))?;
    }
    let made = once(&whole, || {
        exec::run("python3", &["-m", "venv", "--clear", &venv.display().to_string()])?;
        let mut pip = vec!["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        pip.extend(packages);
        exec::run(&python, &pip)?;
        fs::write(&whole, packages.join("\n")).doing(|| format!("cannot write {}", whole.display()))
    });
    made.map_err(|error| {
        error.hint(format!(
            "python3 with venv (Debian: python3-venv) and a way to install {} with pip are needed",
            packages.join(", ")
        ))
    })?;
    Ok(python)
}
