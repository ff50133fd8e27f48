//! Rendering: from an action to the manifest that carries it out. Pure; golden YAML tests.

mod experiment;
mod gang;
mod job;
mod pod;
mod requests;
mod run;
mod runner;
mod source;

pub use experiment::stage;
pub use gang::service;
pub use job::{amounts, job};
pub use pod::MAIN;
pub use requests::of_pod;
pub use run::{nested, run, scheduled};
pub use runner::{RUNNER, STORE_SECRET};

use cultivar_crds::{GROUP, Reason, VERSION};
use serde_json::{Value, json};

use crate::domain::Meta;

/// Why a manifest cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RenderError {
    /// InvalidTemplate or ReferenceUnresolved.
    pub reason: Reason,
    /// The particulars, with field paths.
    pub message: String,
}

/// `cultivar.dev/v1alpha1`.
#[must_use]
pub fn api_version() -> String {
    format!("{GROUP}/{VERSION}")
}

fn controller_reference(kind: &str, owner: &Meta) -> Value {
    json!([{
        "apiVersion": api_version(),
        "kind": kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    }])
}
