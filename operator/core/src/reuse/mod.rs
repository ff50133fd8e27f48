//! Reuse: when two runs do the same work, and where two that do not differ first.
//!
//! Comes in: frozen templates, and what is known of their inputs' content. Goes out: the key of a run, which is what it
//! does and nothing else; its digest; whether that can be trusted; the first field in which two keys differ.

mod differ;
mod key;

pub use differ::first_difference;
pub use key::{Key, key};

use serde_json::Value;

/// The digest of a template's key where nothing more is known of its inputs.
#[must_use]
pub fn digest_of_template(template: &Value) -> String {
    key(template, |_| None).digest()
}
