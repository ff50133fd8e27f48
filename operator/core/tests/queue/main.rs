//! Queues: tables of who is admitted, who waits and why, and what holds whatever happens in any order.

#[path = "../support/mod.rs"]
mod support;

mod model;
mod readings;
mod tables;
mod world;
