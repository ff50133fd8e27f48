//! `completion`: a script for a shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Args;

/// A completion script for a shell.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  source <(kubectl-cultivar completion bash)")]
pub struct Completion {
    shell: Shell,
}

pub fn print(asked: &Completion) {
    clap_complete::generate(asked.shell, &mut Args::command(), "kubectl-cultivar", &mut std::io::stdout());
}
