//! `cargo measure [pipelines|data|queues|language|history]`: how fast pipelines are and what they cost, beside plain Jobs; how fast
//! data moves, beside boto3; how fast runs are admitted; how long deciding about a large run takes; what a long history costs.
//!
//! In: the command line. Out: a table with the goals beside the numbers, and `target/measure/{pipelines,data,queues,language,history}.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use cultivar_e2e::cluster::Cluster;
use cultivar_e2e::error::{Error, Result};
use cultivar_e2e::image::{Build, compile_cli, compile_data, compile_example, compile_operator};
use cultivar_e2e::measure::{self, CHAINS_5, CHAINS_200, RUNS_300, Report, Session, Shape, data};
use cultivar_e2e::operator;
use cultivar_e2e::ui::Ui;
use serde_json::{Value, json};

const NODES: u32 = 60;
/// What an operator logs that is measured.
const QUIET: &str = "warn";

/// How fast pipelines are and what they cost, on a cluster of simulated nodes of its own; or how fast data moves.
#[derive(Parser)]
#[command(name = "measure", bin_name = "cargo measure", args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum What {
    /// Gaps between stages, runs a minute, writes, CPU and memory (the default).
    Pipelines(Options),
    /// Uploads and downloads, logs, the time that a run takes longer: the runner and the built-in store beside boto3.
    Data(DataOptions),
    /// The admission engine alone, in virtual time, under the loads of Kueue's own tests; and four queues that share a
    /// cluster of simulated nodes.
    Queues(QueueOptions),
    /// How long one pass over a large run takes: fan-outs of 10,000 members, chains of 1,000 stages; no cluster.
    Language,
    /// The operator's memory beside tens of thousands of finished experiments.
    History(HistoryOptions),
}

#[derive(clap::Args)]
struct HistoryOptions {
    /// How many have finished.
    #[arg(long, default_value_t = measure::history::FINISHED)]
    finished: usize,
    /// Name of the cluster, which must not be up yet.
    #[arg(long, default_value = "measure")]
    name: String,
    /// A compiled operator; by default it is compiled from this work tree as for its image.
    #[arg(long)]
    operator: Option<PathBuf>,
}

#[derive(clap::Args)]
struct QueueOptions {
    /// Only these parts; the engine needs no cluster.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<QueuePart>,
    /// How many experiments Kueue's load has on the cluster; the whole has 15,000.
    #[arg(long, default_value_t = measure::queues::load::EXPERIMENTS)]
    experiments: usize,
    /// Writes a second that the operator has in Kueue's load.
    #[arg(long, value_delimiter = ',', default_values_t = measure::queues::load::LIMITS)]
    writes: Vec<u16>,
    /// Without the plays in which something happens half way.
    #[arg(long)]
    undisturbed: bool,
    /// Jobs that the controller manager works on at a time; Kubernetes' own choice is 5.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    job_syncs: Option<u16>,
    /// Name of the cluster; one that is up already is used and left up.
    #[arg(long, default_value = "measure")]
    name: String,
    /// A compiled operator; by default it is compiled from this work tree as for its image.
    #[arg(long)]
    operator: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum QueuePart {
    /// The engine alone, in virtual time.
    Engine,
    /// Four queues that share a cluster.
    Shares,
    /// Kueue's load as plain Jobs, without an operator.
    Jobs,
    /// Kueue's load as experiments.
    Load,
}

impl QueueOptions {
    fn wants(&self, part: QueuePart) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

#[derive(clap::Args)]
struct DataOptions {
    /// How often everything is moved; the median is kept.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Size of the large file in GiB; the temporary folder needs room for three of it, and one to spare.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1024))]
    gib: u64,
    /// A compiled runner; by default it is compiled from this work tree as for its image.
    #[arg(long)]
    runner: Option<PathBuf>,
    /// A compiled store; by default it is compiled from this work tree as for its image.
    #[arg(long)]
    store: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Options {
    /// How often each load is played; totals are those of the median round.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Only these loads.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Load>,
    /// Name of the cluster; one that is up already is used and left up.
    #[arg(long, default_value = "measure")]
    name: String,
    /// A compiled operator; by default it is compiled from this work tree as for its image.
    #[arg(long)]
    operator: Option<PathBuf>,
    /// What the operator logs.
    #[arg(long, default_value = "warn")]
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
    let done = match args.what.unwrap_or(What::Pipelines(args.options)) {
        What::Pipelines(options) => pipelines(&options),
        What::Data(options) => moved(options),
        What::Queues(options) => admitted(&options),
        What::Language => decided(),
        What::History(options) => remembered(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn pipelines(options: &Options) -> Result<()> {
    let ui = Ui::new("measure");
    let (operator, log_filter) = (options.operator.as_ref(), options.log_filter.as_str());
    on_cluster(On { name: &options.name, operator, log_filter, controllers: None }, &ui, |session| {
        measured(session, options, &ui)
    })
}

fn measured(session: &Session, options: &Options, ui: &Ui) -> Result<()> {
    let all = [(Load::Chains5, CHAINS_5), (Load::Runs300, RUNS_300), (Load::Chains200, CHAINS_200)];
    let wanted = |load: Load| options.only.is_empty() || options.only.contains(&load);
    let shapes: Vec<Shape> = all.into_iter().filter(|(load, _)| wanted(*load)).map(|(_, shape)| shape).collect();
    let load_before = load_average();
    let mut report = measure::run(session, &shapes, options.rounds, ui)?;
    report.about(BTreeMap::from([
        ("rounds", json!(options.rounds)),
        ("nodes", json!(NODES)),
        ("cpus", json!(std::thread::available_parallelism().map_or(0, usize::from))),
        ("load_average_before", load_before),
        ("measured", json!("arrival of watch events in the measuring process; an end is the pod's phase, a creation the first event of a name; totals run until every PipelineRun is terminal, or every plain Job Complete")),
    ]));
    let note = "Times are those of watch events arriving in the measuring process. Our Jobs are deleted an hour later, which is not counted.";
    keep(&report, "pipelines", note)
}

fn moved(options: DataOptions) -> Result<()> {
    let ui = Ui::new("measure-data");
    let (runner, store) = match (options.runner, options.store) {
        (Some(runner), Some(store)) => (runner, store),
        (runner, store) => {
            let [made_runner, made_store] = ui.step("compile runner and store", |_| compile_data())?;
            (runner.unwrap_or(made_runner), store.unwrap_or(made_store))
        }
    };
    let plan = data::Plan { runner, store, gib: options.gib, rounds: usize::from(options.rounds) };
    let load_before = load_average();
    let mut report = data::run(&plan, &ui)?;
    report.about(BTreeMap::from([
        ("rounds", json!(plan.rounds)),
        ("cpus", json!(std::thread::available_parallelism().map_or(0, usize::from))),
        ("load_average_before", load_before),
        ("measured", json!("the runner: its process from start to end, hashing and the record included; boto3: the transfer alone, without Python's start; median rounds, highest peaks")),
    ]));
    let note = "The runner's times are those of its whole process, hashing included; boto3's those of the transfer alone, once it has started.";
    keep(&report, "data", note)
}

fn admitted(options: &QueueOptions) -> Result<()> {
    let ui = Ui::new("measure-queues");
    let load_before = load_average();
    let mut report = Report::default();
    if options.wants(QueuePart::Engine) {
        let program = ui.step("compile the engine", |_| compile_example("admission"))?;
        report = ui.step("play the loads", |_| measure::queues::run(&program))?;
    }
    if [QueuePart::Shares, QueuePart::Jobs, QueuePart::Load].into_iter().any(|part| options.wants(part)) {
        shared(options, &mut report, &ui)?;
    }
    report.about(BTreeMap::from([
        ("cpus", json!(std::thread::available_parallelism().map_or(0, usize::from))),
        ("load_average_before", load_before),
        ("measured", json!("the engine in one process, without an API server: virtual times are those of the loads, what is stopped for others starts from the beginning; passes and CPU are real. The cluster: watch events as they arrive; a GPU is held from the Job's creation to the pod's end")),
    ]));
    keep(
        &report,
        "queues",
        "The engine's times are those of the loads, its passes and CPU are real; no API server takes part in them.",
    )
}

fn decided() -> Result<()> {
    let ui = Ui::new("measure-language");
    let program = ui.step("compile the core", |_| compile_example("deciding"))?;
    let load_before = load_average();
    let mut report = ui.step("decide", |_| measure::language::run(&program))?;
    report.about(BTreeMap::from([("load_average_before", load_before)]));
    keep(&report, "language", "Passes of the pure core in one process, 30 of each; no API server takes part in them.")
}

fn remembered(options: &HistoryOptions) -> Result<()> {
    let ui = Ui::new("measure-history");
    if Cluster::find(&options.name).is_ok() {
        let what = format!("the cluster {} is up, and history needs one that goes with it", options.name);
        return Err(Error::new(what)
            .hint(format!("take it down, or give another name: cargo cluster down --name {}", options.name)));
    }
    let cli = ui.step("compile the command line", |_| compile_cli(Build::Static))?;
    let load_before = load_average();
    let on = On { name: &options.name, operator: options.operator.as_ref(), log_filter: QUIET, controllers: None };
    let played = on_cluster(on, &ui, |session| {
        ui.step(&format!("{} finished experiments", options.finished), |_| {
            measure::history::play(session, &cli, options.finished)
        })
    });
    let mut report = measure::history::report(&played?);
    report.about(BTreeMap::from([("load_average_before", load_before)]));
    keep(&report, "history", "The operator begins anew beside each number of finished experiments.")
}

fn shared(options: &QueueOptions, report: &mut Report, ui: &Ui) -> Result<()> {
    let controllers = options.job_syncs.map(|syncs| format!("--concurrent-job-syncs={syncs}"));
    let on = On { name: &options.name, operator: options.operator.as_ref(), log_filter: QUIET, controllers };
    on_cluster(on, ui, |session| {
        if options.wants(QueuePart::Shares) {
            let played = ui.step("four queues share 480 GPUs", |_| measure::queues::shares::play(session))?;
            measure::queues::shares::report(report, &played);
        }
        if options.wants(QueuePart::Jobs) {
            let bare =
                ui.step("Kueue's load as plain Jobs", |_| measure::queues::load::bare(session, options.experiments))?;
            measure::queues::load::report_bare(report, &bare);
        }
        if !options.wants(QueuePart::Load) {
            return Ok(());
        }
        for plan in measure::queues::load::plans(options.experiments, &options.writes, options.undisturbed) {
            let played = ui.step(&plan.to_string(), |_| measure::queues::load::play(session, &plan))?;
            measure::queues::load::report(report, &plan, &played);
        }
        Ok(())
    })
}

/// What is measured, and where.
struct On<'a> {
    name: &'a str,
    operator: Option<&'a PathBuf>,
    log_filter: &'a str,
    /// A further argument of the controller manager.
    controllers: Option<String>,
}

// On simulated nodes; the cluster goes again unless it was up before.
fn on_cluster<T>(on: On<'_>, ui: &Ui, play: impl FnOnce(&Session) -> Result<T>) -> Result<T> {
    let On { name, operator, log_filter, controllers } = on;
    let binary = match operator {
        Some(binary) => binary.clone(),
        None => ui.step("compile the operator", |_| compile_operator(Build::Static))?,
    };
    let was_up = Cluster::find(name).is_ok();
    let cluster = Cluster::builder(name)?.nodes(NODES).real_node(false).controller_manager_args(controllers);
    let played = cluster.up(ui).and_then(|cluster| {
        operator::install_definitions(&cluster)?;
        play(&Session::new(&cluster, binary, log_filter)?)
    });
    if !was_up {
        Cluster::down(name, ui)?;
    }
    played
}

fn keep(report: &Report, name: &str, note: &str) -> Result<()> {
    report.save(&Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/measure/{name}.json")))?;
    println!("\n{report}\n{note}\nkept in target/measure/{name}.json");
    Ok(())
}

// Other work on the machine makes times longer; whoever reads the numbers should know.
fn load_average() -> Value {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!(text.split_whitespace().next().and_then(|number| number.parse::<f64>().ok()))
}
