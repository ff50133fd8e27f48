//! The runner inside the user's pod: fetches inputs, runs the command, collects what came out.
//!
//! Comes in: a [`cultivar_protocol::RunSpec`] in the environment, and a command. Goes out: the program's own output and
//! exit code, unchanged; artifacts, logs and a record in the store; a result in the termination log. [`run`] is the
//! order of things, [`supervise`] the process, [`collect`] what is read when it has ended.
#![warn(missing_docs)]

pub mod checkpoint;
pub mod collect;
pub mod git;
pub mod install;
pub mod log;
pub mod logs;
pub mod metrics;
pub mod mlflow;
pub mod run;
pub mod supervise;
