//! Observing: one watch per kind in a task of its own, slim records in an index of ours, wake-ups.
//!
//! Comes in: watch events and the answers to our own writes. Goes out: snapshots for deciding, and the
//! keys of every object that a change touches.

mod approvals;
pub mod convert;
mod errands;
mod groups;
mod identical;
pub mod index;
mod links;
mod outsiders;
mod packed;
pub mod raw;
mod schedules;
mod slot;
pub mod snapshot;
mod state;
mod store;
pub mod watch;
mod work;
mod workloads;

pub use index::{DataPlane, Index, Key, Kind};
pub use state::Stored;
pub use store::Turn;
