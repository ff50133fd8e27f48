//! What GitOps tools are given: the keys by which lists merge, for kustomize, and health checks for Argo CD; and such tools
//! for tests.
//!
//! In: the API types, and the checks in `config/gitops/argocd/health`, one a kind. Out: `config/gitops` as it is committed.

pub mod argocd;
pub mod flux;
pub mod follower;
pub mod repository;

use std::fs;
use std::path::PathBuf;

use crate::chart::repository;
use crate::error::{Context as _, Result};
use crate::exec;

/// For `openapi: {path: …}` in a kustomization.
pub const OPENAPI: &str = "config/gitops/kustomize/openapi.json";

/// Writes what is generated and returns the files that changed.
///
/// # Errors
/// The types do not compile, or a file cannot be read or written.
pub fn generate() -> Result<Vec<PathBuf>> {
    let root = repository();
    let mut changed = Vec::new();
    for (path, text) in generated()? {
        let file = root.join(path);
        if fs::read_to_string(&file).is_ok_and(|old| old == text) {
            continue;
        }
        fs::write(&file, text).doing(|| format!("cannot write {}", file.display()))?;
        changed.push(file);
    }
    Ok(changed)
}

/// Every generated file that is committed, and whether it is what it is made of.
///
/// # Errors
/// The types do not compile, or a check cannot be read.
pub fn check() -> Result<Vec<(&'static str, bool)>> {
    let root = repository();
    let same = |path: &str, text: String| fs::read_to_string(root.join(path)).is_ok_and(|old| old == text);
    Ok(generated()?.into_iter().map(|(path, text)| (path, same(path, text))).collect())
}

fn generated() -> Result<Vec<(&'static str, String)>> {
    Ok(vec![(OPENAPI, openapi()?), (argocd::PATCH, argocd::patch()?)])
}

// The types are compiled by those who ask: the harness itself does without them.
fn openapi() -> Result<String> {
    let scratch = std::env::temp_dir().join(format!("cultivar-openapi-{}.json", std::process::id()));
    let mut cargo = exec::cargo();
    cargo.args(["run", "--quiet", "-p", "cultivar-crds", "--bin", "crdgen", "--", "--openapi"]).arg(&scratch);
    exec::output(cargo.current_dir(repository()), None)?;
    let text = fs::read_to_string(&scratch).doing(|| format!("cannot read {}", scratch.display()));
    // What is left lies where the machine clears away by itself.
    let _ = fs::remove_file(&scratch);
    text
}
