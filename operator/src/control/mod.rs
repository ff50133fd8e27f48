//! Control: one short function per kind, and the loop that calls them.
//!
//! Comes in: keys to look at, from the wake-ups. Each function takes one snapshot, calls `decide`, hands the plan to
//! [`crate::act`], and returns the next wake-up.

mod experiment;
mod pipeline;
mod pipeline_run;
mod run_loop;
mod schedule;
pub mod wakeups;

pub use run_loop::{Context, run};
