//! `cargo cluster up|down|env|status|list`: a real Kubernetes on this machine.
//!
//! In: the command line. Out: a cluster (see `cultivar_e2e::cluster`), or what there is to know of one.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cultivar_e2e::cluster::{Cluster, DEFAULT_NAME, State};
use cultivar_e2e::error::Result;
use cultivar_e2e::ui::{Ui, seconds};

/// A real Kubernetes on this machine, with simulated GPU nodes and, on Linux as root, a real node.
#[derive(Parser)]
#[command(name = "cluster", bin_name = "cargo cluster")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the cluster; on one that is up, repair it or change what is asked for.
    Up {
        #[command(flatten)]
        name: Name,
        /// The number of simulated nodes with 8 GPUs each [default: as before, or 4].
        #[arg(long)]
        nodes: Option<u32>,
        /// Only simulated nodes, even where a real one is possible.
        #[arg(long, conflicts_with = "real_node")]
        simulated_only: bool,
        /// A real node; fails where it is not possible.
        #[arg(long)]
        real_node: bool,
    },
    /// Stop it and remove everything it left on this machine.
    Down {
        #[command(flatten)]
        name: Name,
    },
    /// Print shell lines that point kubectl and helm to it: eval "$(cargo cluster env)".
    Env {
        #[command(flatten)]
        name: Name,
    },
    /// Show its components and nodes.
    Status {
        #[command(flatten)]
        name: Name,
    },
    /// Name all clusters of this user.
    List,
}

#[derive(clap::Args)]
struct Name {
    /// The cluster's name; ports, addresses and folders derive from it.
    #[arg(long, env = "CULTIVAR_CLUSTER", default_value = DEFAULT_NAME)]
    name: String,
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up { name, nodes, simulated_only, real_node } => up(&name.name, nodes, simulated_only, real_node)?,
        Command::Down { name } => {
            Cluster::down(&name.name, &Ui::new("cluster down"))?;
            eprintln!("{} is down", name.name);
        }
        Command::Env { name } => env(&Cluster::find(&name.name)?),
        Command::Status { name } => return status(&Cluster::find(&name.name)?),
        Command::List => Cluster::all().iter().for_each(|name| println!("{name}")),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(name: &str, nodes: Option<u32>, simulated_only: bool, real_node: bool) -> Result<()> {
    let mut builder = Cluster::builder(name)?;
    if let Some(nodes) = nodes {
        builder = builder.nodes(nodes);
    }
    if simulated_only || real_node {
        builder = builder.real_node(real_node);
    }
    // A repair is over in a second or two: its times would make those of a start look wrong.
    let runs = Cluster::find(name)
        .is_ok_and(|cluster| cluster.components().iter().any(|component| matches!(component.state, State::Running(_))));
    let ui = Ui::new(if runs { "cluster repair" } else { "cluster up" });
    let cluster = builder.up(&ui)?;
    let flag = if name == DEFAULT_NAME { String::new() } else { format!(" --name {name}") };
    eprintln!("{name} is up after {}: {}", seconds(ui.elapsed()), cluster.server());
    eprintln!("  eval \"$(cargo cluster env{flag})\"   then kubectl and helm speak to it");
    Ok(())
}

fn env(cluster: &Cluster) {
    println!("export KUBECONFIG={}", quoted(&cluster.kubeconfig().display().to_string()));
    println!("export PATH={}:\"$PATH\"", quoted(&cluster.bin().display().to_string()));
}

/// In single quotes, as a shell reads them back.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn status(cluster: &Cluster) -> Result<ExitCode> {
    let mut whole = true;
    for component in cluster.components() {
        let state = match component.state {
            State::Running(pid) => format!("running, process {pid}"),
            State::Dead => format!("ended; see {}", component.log.display()),
            State::Stopped => "stopped".to_owned(),
        };
        whole &= matches!(component.state, State::Running(_));
        println!("{:<26}{state}", component.name);
    }
    if !whole {
        println!("\nsome components do not run: `cargo cluster up --name {}` repairs it", cluster.name());
        return Ok(ExitCode::FAILURE);
    }
    let columns = "custom-columns=NODE:.metadata.name,GPUS:.status.allocatable.nvidia\\.com/gpu,READY:.status.conditions[?(@.type==\"Ready\")].status,KUBELET:.status.nodeInfo.kubeletVersion";
    print!("\n{}", cluster.kubectl(&["get", "nodes", "-o", columns])?);
    Ok(ExitCode::SUCCESS)
}
