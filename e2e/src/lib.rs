//! The harness around Cultivar: a real Kubernetes on this machine, and what tests, the demo and the
//! measurements need of it.
//!
//! In: nothing but this machine's Go and, for a real node, its Debian packages. Out: a [`cluster::Cluster`].

pub mod chart;
pub mod cluster;
pub mod error;
pub mod exec;
pub mod image;
pub mod tools;
pub mod ui;
