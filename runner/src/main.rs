//! `cultivar-runner install DIR | run -- COMMAND … | sleep SECONDS | log NAME=VALUE …`

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs a program inside an experiment's pod and records what it leaves.
#[derive(Debug, Parser)]
#[command(name = "cultivar-runner", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Puts this program into DIR, and the folders that a run needs beside it
    Install {
        /// Usually /cultivar/bin
        dir: PathBuf,
    },
    /// Runs a command as CULTIVAR_RUN_SPEC says
    Run {
        /// The program and its arguments
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// Sleeps: for a look into a pod whose image has no program for that
    Sleep {
        /// How long
        seconds: u64,
    },
    /// Appends values to the run's metrics
    Log {
        /// name=value, as many as you like
        #[arg(required = true)]
        values: Vec<String>,
        /// The step that the values belong to
        #[arg(long, allow_negative_numbers = true)]
        step: Option<i64>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run { command } => return cultivar_runner::run::main(command),
        Command::Install { dir } => cultivar_runner::install::install(&dir).map_err(|error| error.to_string()),
        Command::Sleep { seconds } => {
            std::thread::sleep(std::time::Duration::from_secs(seconds));
            Ok(())
        }
        Command::Log { values, step } => cultivar_runner::log::log(&values, step).map_err(|error| error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cultivar-runner: {error}");
            ExitCode::FAILURE
        }
    }
}
