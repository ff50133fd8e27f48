//! Writes `config/gitops` from the API types and the health checks.

use std::process::ExitCode;

use cultivar_e2e::gitops;

fn main() -> ExitCode {
    match gitops::generate() {
        Ok(changed) => {
            changed.iter().for_each(|file| println!("wrote {}", file.display()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
