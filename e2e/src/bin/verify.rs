//! `cargo verify`: the whole test ladder. `--only RUNG` runs some, `--except RUNG` leaves some out, `--list` names them.

use std::process::ExitCode;

use clap::Parser;
use cultivar_e2e::verify::{Rung, all, climb};

/// Runs the test ladder; the last line counts what passed and what failed.
#[derive(Parser)]
#[command(name = "cargo verify", bin_name = "cargo verify")]
struct Args {
    /// Only these rungs.
    #[arg(long, value_name = "RUNG", value_delimiter = ',')]
    only: Vec<String>,
    /// Not these rungs.
    #[arg(long, value_name = "RUNG", value_delimiter = ',')]
    except: Vec<String>,
    /// Name the rungs.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let rungs = all();
    let known = |name: &String| rungs.iter().any(|rung| rung.name == name);
    if let Some(unknown) = args.only.iter().chain(&args.except).find(|name| !known(name)) {
        let names: Vec<&str> = rungs.iter().map(|rung| rung.name).collect();
        eprintln!("there is no rung {unknown:?}; there are: {}", names.join(", "));
        return ExitCode::from(2);
    }
    if args.list {
        rungs.iter().for_each(|rung| println!("{:<12} {}", rung.name, rung.what));
        return ExitCode::SUCCESS;
    }
    let (chosen, left_out): (Vec<Rung>, Vec<Rung>) = rungs.into_iter().partition(|rung| {
        let wanted = args.only.is_empty() || args.only.iter().any(|name| name == rung.name);
        wanted && !args.except.iter().any(|name| name == rung.name) && rung.needs.lacking().is_none()
    });
    for rung in &left_out {
        if let Some(lacking) = rung.needs.lacking() {
            println!("left out: {} ({}): it needs {lacking}", rung.name, rung.what);
        }
    }
    if climb(&chosen) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
