//! Cloning: an experiment's template from that of another one, and the JSON it takes to do so.
//!
//! In: templates, overrides and patches as stored JSON, never through typed structs (what is absent stays absent, null is
//! a value). Out: the merged JSON, its canonical text, its digest.

mod canonical;
mod merge;
mod strategic;
mod union;
mod unset;

pub use canonical::{canonical_json, digest};
pub use merge::merge_template;
pub use strategic::strategic_merge;

/// Why a template cannot be cloned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloneError {
    /// An `unset` path that cannot be read.
    #[error("unset {path}: {problem}")]
    Path {
        /// The path as it was given.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An `unset` path that leads nowhere: most likely a typo, which silence would hide.
    #[error("unset {path}: {place} has no {missing}; it has: {existing}")]
    Missing {
        /// The path as it was given.
        path: String,
        /// How far it leads.
        place: String,
        /// The name that is not there.
        missing: String,
        /// The names that are.
        existing: String,
    },
    /// The template or the overrides are not an object.
    #[error("{0} is not an object")]
    NotAnObject(&'static str),
}
