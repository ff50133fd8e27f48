//! `cargo measure [pipelines]`: how fast pipelines are and what they cost, beside plain Jobs.
//!
//! In: the command line. Out: a table with the goals beside the numbers, and `target/measure/pipelines.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use cultivar_e2e::cluster::Cluster;
use cultivar_e2e::error::Result;
use cultivar_e2e::image::{Build, compile_operator};
use cultivar_e2e::measure::{self, CHAINS_5, CHAINS_200, RUNS_300, Session, Shape};
use cultivar_e2e::operator;
use cultivar_e2e::ui::Ui;
use serde_json::{Value, json};

const NODES: u32 = 60;

/// How fast pipelines are and what they cost, on a cluster of simulated nodes of its own.
#[derive(Parser)]
#[command(name = "measure", bin_name = "cargo measure")]
struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum What {
    /// Gaps between stages, runs a minute, writes, CPU and memory (the default).
    Pipelines,
}

#[derive(clap::Args)]
struct Options {
    /// How often each load is played; totals are those of the median round.
    #[arg(long, default_value_t = 1, global = true)]
    rounds: usize,
    /// Only these loads.
    #[arg(long, value_enum, value_delimiter = ',', global = true)]
    only: Vec<Load>,
    /// Name of the cluster; one that is up already is used and left up.
    #[arg(long, default_value = "measure", global = true)]
    name: String,
    /// A compiled operator; by default it is compiled from this work tree as for its image.
    #[arg(long, global = true)]
    operator: Option<PathBuf>,
    /// What the operator logs.
    #[arg(long, default_value = "warn", global = true)]
    log_filter: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Load {
    /// 5 chains of 5 stages.
    Chains5,
    /// 200 chains of 5 stages.
    Chains200,
    /// 300 runs of one stage.
    Runs300,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let What::Pipelines = args.what.unwrap_or(What::Pipelines);
    match pipelines(&args.options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn pipelines(options: &Options) -> Result<()> {
    let ui = Ui::new("measure");
    let binary = match &options.operator {
        Some(binary) => binary.clone(),
        None => ui.step("compile the operator", |_| compile_operator(Build::Static))?,
    };
    let was_up = Cluster::find(&options.name).is_ok();
    let measured = Cluster::builder(&options.name)?
        .nodes(NODES)
        .real_node(false)
        .up(&ui)
        .and_then(|cluster| measured(&cluster, binary, options, &ui));
    if !was_up {
        Cluster::down(&options.name, &ui)?;
    }
    measured
}

fn measured(cluster: &Cluster, binary: PathBuf, options: &Options, ui: &Ui) -> Result<()> {
    operator::install_definitions(cluster)?;
    let all = [(Load::Chains5, CHAINS_5), (Load::Runs300, RUNS_300), (Load::Chains200, CHAINS_200)];
    let wanted = |load: Load| options.only.is_empty() || options.only.contains(&load);
    let shapes: Vec<Shape> = all.into_iter().filter(|(load, _)| wanted(*load)).map(|(_, shape)| shape).collect();
    let session = Session::new(cluster, binary, &options.log_filter)?;
    let load_before = load_average();
    let mut report = measure::run(&session, &shapes, options.rounds, ui)?;
    report.about(BTreeMap::from([
        ("rounds", json!(options.rounds)),
        ("nodes", json!(NODES)),
        ("cpus", json!(std::thread::available_parallelism().map_or(0, usize::from))),
        ("load_average_before", load_before),
        ("measured", json!("arrival of watch events in the measuring process; an end is the pod's phase, a creation the first event of a name; totals run until every PipelineRun is terminal, or every plain Job Complete")),
    ]));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/measure/pipelines.json");
    report.save(&file)?;
    println!("\n{report}");
    println!(
        "Times are those of watch events arriving in the measuring process. Our Jobs are deleted an hour later, which is not counted."
    );
    println!("kept in target/measure/pipelines.json");
    Ok(())
}

// Other work on the machine makes times longer; whoever reads the numbers should know.
fn load_average() -> Value {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!(text.split_whitespace().next().and_then(|number| number.parse::<f64>().ok()))
}
