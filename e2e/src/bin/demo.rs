//! `cargo demo`: see `cultivar_e2e::demo`.
//!
//! In: the command line. Out: the demo on standard output, progress and errors on standard error.

use std::process::ExitCode;

use clap::Parser as _;
use cultivar_e2e::demo::{self, Options};

fn main() -> ExitCode {
    match demo::run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
