//! The graph of a pipeline's stages: which stage waits for which.
//!
//! In: the `stages` of a pipeline as JSON. Out: for each stage those it needs, found in its references, its `when` and its
//! `after`; an order in which they can run; and what is wrong with the whole, with the field.

mod graph;
mod infer;

pub use graph::{Dag, DagError};
pub use infer::{Fault, Need, Stage, all, faults, infer, needs};
