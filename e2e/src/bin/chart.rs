//! Tests the Helm chart (`test`), or writes what is generated from it (`generate`).

use std::process::ExitCode;

use cultivar_e2e::chart;
use cultivar_e2e::error::Result;

fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        Some("test") => test(),
        Some("generate") => generate(),
        _ => {
            eprintln!("usage: chart test|generate");
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

fn test() -> Result<ExitCode> {
    let summary = chart::test_chart()?;
    println!("{summary}");
    Ok(if summary.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn generate() -> Result<ExitCode> {
    for file in chart::generate()? {
        println!("wrote {}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}
