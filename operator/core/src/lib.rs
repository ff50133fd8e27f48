//! The pure middle of Cultivar: what to do next, decided from a snapshot and a time.
//!
//! Nothing here has a client, a clock or randomness: `now` is an argument, and the same snapshot
//! gives the same bytes. The shell (crate `cultivar-operator`) observes the cluster into records
//! ([`domain`]), asks [`decide`] for a plan, turns its actions into manifests ([`render`]) and acts.
#![warn(missing_docs)]

pub mod clone;
pub mod dag;
pub mod decide;
pub mod domain;
pub mod dry_run;
pub mod export;
pub mod grow;
pub mod refs;
pub mod render;
pub mod reuse;
pub mod validate;
