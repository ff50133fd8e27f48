//! The command line: one struct per command, beside it in `commands/`.

use clap::{Parser, Subcommand, ValueEnum};

use crate::commands::{
    approve, artifacts, clone, compare, completion, debug, end, export, grow, lineage, list, logs, metrics, plan,
    queues, resume, run, show, submit, sweep, tree, why,
};

/// Experiments and pipelines on Kubernetes.
///
/// An experiment that completed is an id: clone it, compare it, grow a pipeline from it.
///
/// Exit codes: 0 done; 1 it failed, or what was followed did not complete; 2 wrong arguments; 3 there is no such object; 4
/// refused.
#[derive(Parser)]
#[command(name = "kubectl-cultivar", bin_name = "kubectl cultivar", version)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(clap::Args)]
pub struct Global {
    /// Namespace; the context's own by default.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// Context of the kubeconfig.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Kubeconfig file.
    #[arg(long, global = true, env = "KUBECONFIG", hide_env_values = true)]
    pub kubeconfig: Option<std::path::PathBuf>,
    /// How to print.
    #[arg(short, long, global = true, value_enum)]
    pub output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table with more columns.
    Wide,
    Json,
    Yaml,
    /// Names only, for other programs.
    Name,
}

#[derive(Subcommand)]
pub enum Command {
    /// Experiments, filtered and sorted.
    List(list::List),
    /// All about one experiment.
    Show(show::Show),
    /// The log of an experiment's newest attempt.
    Logs(logs::Logs),
    /// What an experiment left, and fetching it.
    Artifacts(artifacts::Artifacts),
    /// A shell where an experiment ran.
    Debug(debug::Debug),
    /// The metrics of an experiment.
    Metrics(metrics::Metrics),
    /// In what experiments, or two runs, differ.
    Compare(compare::Compare),
    /// What an experiment was made from, and what was made from it.
    Lineage(lineage::Lineage),
    /// Why an experiment or a run stands where it does.
    Why(why::Why),
    /// Run a command of this folder in the cluster.
    Submit(submit::Submit),
    /// A copy of an experiment, with changes.
    Clone(clone::Clone),
    /// End an experiment or a run, with its pods' grace period.
    Cancel(end::Cancel),
    /// Delete experiments; their artifacts stay unless the experiment says otherwise.
    Delete(end::Delete),
    /// A pipeline from experiments that ran by hand.
    Grow(grow::Grow),
    /// A fan-out over parameters of an experiment.
    Sweep(sweep::Sweep),
    /// What a pipeline would do now: what is reused, what runs, and why.
    Plan(plan::Plan),
    /// Run a pipeline.
    Run(run::Run),
    /// The stages of a run.
    Tree(tree::Tree),
    /// Go on where a run failed.
    Resume(resume::Resume),
    /// Answer at a gate.
    Approve(approve::Approve),
    /// Queues: what they have, what is used, who waits.
    Queues(queues::Queues),
    /// A manifest that does the same in another cluster.
    Export(export::Export),
    /// A completion script for a shell.
    Completion(completion::Completion),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn no_two_arguments_of_a_command_have_the_same_name() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_follows_two_dashes_is_the_command_whatever_it_looks_like() {
        let words = ["x", "submit", "--image", "a", "--", "python", "t.py", "--namespace", "b", "-o", "json"];
        let args = Args::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
        assert!(args.global.namespace.is_none() && args.global.output.is_none());
    }
}
