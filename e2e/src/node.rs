//! Packages of npm that a test needs, installed once a machine.
//!
//! In: a package with its version, as npm writes it. Out: its folder, in the cache folder.

use std::fs;
use std::path::PathBuf;

use crate::error::{Context as _, Result};
use crate::exec;
use crate::tools::{cache_dir, key_of, once};

/// Whether this machine can install and run such packages.
#[must_use]
pub fn is_there() -> bool {
    exec::find("node").is_some() && exec::find("npm").is_some()
}

/// The folder of a package; it is installed first if it is missing.
///
/// # Errors
/// There is no npm, or no way to where it gets packages from.
pub fn package(name: &str, version: &str) -> Result<PathBuf> {
    let home = cache_dir().join("node").join(key_of(&[name, version]));
    let whole = home.join("whole");
    let made = once(&whole, || {
        let spec = format!("{name}@{version}");
        // No package may run a script of its own here.
        let words =
            ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", &home.display().to_string(), &spec];
        exec::run("npm", &words)?;
        fs::write(&whole, spec).doing(|| format!("cannot write {}", whole.display()))
    });
    made.map_err(|error| error.hint(format!("node, npm and a way to install {name} with npm are needed")))?;
    Ok(home.join("node_modules").join(name))
}
