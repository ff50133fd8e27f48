//! Tests the Helm chart (`test`, or `test-on CLUSTER` with an API server), or writes what is generated from it (`generate`).

use std::process::ExitCode;

use cultivar_e2e::chart;
use cultivar_e2e::cluster::Cluster;
use cultivar_e2e::error::Result;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let done = match (args.next().as_deref(), args.next()) {
        (Some("test"), None) => chart::test_chart().map(show),
        (Some("test-on"), Some(name)) => Cluster::find(&name).and_then(|cluster| chart::test_on(&cluster)).map(show),
        (Some("generate"), None) => generate(),
        _ => {
            eprintln!("usage: chart test|test-on CLUSTER|generate");
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

fn show(summary: chart::Summary) -> ExitCode {
    println!("{summary}");
    if summary.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn generate() -> Result<ExitCode> {
    for file in chart::generate()? {
        println!("wrote {}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}
