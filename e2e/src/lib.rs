//! The harness around Cultivar: a real Kubernetes on this machine, and what tests, the demo and the
//! measurements need of it.
//!
//! In: nothing but this machine's Go and, for a real node, its Debian packages. Out: a [`cluster::Cluster`].

#[cfg(feature = "client")]
pub mod api;
pub mod chart;
pub mod cli;
pub mod cluster;
pub mod demo;
pub mod error;
pub mod exec;
pub mod gitops;
pub mod image;
#[cfg(feature = "client")]
pub mod measure;
pub mod node;
pub mod operator;
pub mod python;
pub mod tools;
pub mod ui;
pub mod verify;
