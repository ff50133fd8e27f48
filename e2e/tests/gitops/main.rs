//! What GitOps tools make of our objects, by their own code: kustomize, the Lua of Argo CD, and Flux's kstatus.
//!
//! The first run builds the programs for it, so this stands behind the feature that all such tests need:
//! `cargo test -p cultivar-e2e --features client --test gitops`.

mod health;
mod kustomize;
