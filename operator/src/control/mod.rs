//! Control: one short function per kind, and the loop that calls them.
//!
//! Comes in: keys from the queue. Each function takes one snapshot, calls `decide`, hands the plan to
//! [`crate::act`], and returns the next wake-up.

mod experiment;
mod pipeline;
mod pipeline_run;
pub mod queue;
mod run_loop;

pub use run_loop::{Context, run};
