//! Health checks for Argo CD.
//!
//! In: `config/gitops/argocd/health`, a check a kind. Out: the patch of Argo CD's ConfigMap that has them all.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use crate::chart::repository;
use crate::error::{Context as _, Result};

const CHECKS: &str = "config/gitops/argocd/health";
/// For Argo CD's own ConfigMap.
pub const PATCH: &str = "config/gitops/argocd/argocd-cm.yaml";

/// The checks, by kind.
///
/// # Errors
/// The folder cannot be read.
pub fn checks() -> Result<BTreeMap<String, String>> {
    let folder = repository().join(CHECKS);
    let mut checks = BTreeMap::new();
    for entry in fs::read_dir(&folder).doing(|| format!("cannot read {}", folder.display()))? {
        let path = entry.doing(|| format!("cannot read {}", folder.display()))?.path();
        let text = fs::read_to_string(&path).doing(|| format!("cannot read {}", path.display()))?;
        checks.insert(path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), text);
    }
    Ok(checks)
}

/// The patch, with the checks as they stand in their files: a YAML writer would put them on one line each.
pub(super) fn patch() -> Result<String> {
    let mut text = format!(
        "# Generated from {CHECKS}; do not edit.\n# kubectl patch configmap argocd-cm --namespace argocd --patch-file argocd-cm.yaml\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: argocd-cm\n  namespace: argocd\n  labels:\n    \
         app.kubernetes.io/name: argocd-cm\n    app.kubernetes.io/part-of: argocd\ndata:\n"
    );
    for (kind, check) in checks()? {
        let _ = writeln!(text, "  resource.customizations.health.cultivar.dev_{kind}: |");
        for line in check.lines() {
            let indent = if line.is_empty() { "" } else { "    " };
            let _ = writeln!(text, "{indent}{line}");
        }
    }
    Ok(text)
}
