//! `kubectl cultivar`: experiments and pipelines from the command line.
//!
//! Comes in: arguments, a kubeconfig, files. Goes out: tables, manifests, requests to the API server, and an exit code. What
//! is decided is decided by `cultivar-core`, as in the operator; here it is asked for and shown.

mod args;
mod cluster;
mod commands;
mod error;
mod files;
mod forward;
mod output;
mod recorded;
mod rows;
mod store;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use args::Args;

// It is called what its file is called: `kubectl cultivar`, or `cultivar`.
fn parsed() -> Args {
    let called = std::env::args_os().next().map(std::path::PathBuf::from);
    let alone = called.as_ref().and_then(|path| path.file_stem()).is_some_and(|name| name == "cultivar");
    let command = if alone { Args::command().name("cultivar").bin_name("cultivar") } else { Args::command() };
    let matches = command.get_matches();
    Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn main() -> ExitCode {
    // Which provider the TLS of the API server's connection uses; it is in no other program of this process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = parsed();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(args)),
        Err(error) => Err(error::Error::new("no runtime").why(error)),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            error.code()
        }
    }
}
