//! The rungs, from the fastest to the slowest.

use std::path::Path;
use std::process::Command;

use super::clients::clients;
use super::dependencies::dependencies;
use super::run::{cargo, check, tests};
use super::{Count, Outcome};
use crate::chart;
use crate::cluster::Cluster;
use crate::error::{Context as _, Result};
use crate::gitops;
use crate::operator::install_definitions;
use crate::python;
use crate::ui::Ui;

/// What a rung needs beside a Rust toolchain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// Python with venv, for clients that are not ours.
    Python,
    /// Go, for Helm and the control plane.
    Go,
    /// Root on Linux, for a real node.
    Root,
}

impl Needs {
    /// What this machine lacks of it, and the rung is left out for. Go is no such thing: without it the rung fails.
    #[must_use]
    pub fn lacking(self) -> Option<&'static str> {
        let (there, what) = match self {
            Self::Nothing | Self::Go => (true, ""),
            Self::Python => (python::is_there(), "python3"),
            Self::Root => (cfg!(target_os = "linux") && rustix::process::geteuid().is_root(), "root on Linux"),
        };
        (!there).then_some(what)
    }
}

/// A rung of the ladder.
pub struct Rung {
    /// For `--only`.
    pub name: &'static str,
    /// What it proves.
    pub what: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// Runs it.
    pub run: fn() -> Outcome,
}

/// The cluster of the tests: never a person's.
const CLUSTER: &str = "verify";

/// Every rung.
#[must_use]
pub fn all() -> Vec<Rung> {
    vec![
        Rung { name: "format", what: "every file as rustfmt writes it", needs: Needs::Nothing, run: format },
        Rung { name: "lint", what: "clippy without a warning", needs: Needs::Nothing, run: lint },
        Rung {
            name: "dependencies",
            what: "licences, sources and doubles of what is depended on",
            needs: Needs::Nothing,
            run: dependencies,
        },
        Rung {
            name: "generated",
            what: "committed definitions match the types, and what GitOps tools read matches those",
            needs: Needs::Nothing,
            run: generated,
        },
        Rung { name: "unit", what: "units, tables, properties, replay", needs: Needs::Nothing, run: unit },
        Rung {
            name: "clients",
            what: "boto3, aws and MLflow against what we serve, the runner against another S3 and Azure's emulator",
            needs: Needs::Python,
            run: clients,
        },
        Rung { name: "chart", what: "the chart's templates, values and docs", needs: Needs::Go, run: chart_tests },
        Rung {
            name: "api",
            what: "definitions, samples, rights and the chart against an API server",
            needs: Needs::Go,
            run: api,
        },
        Rung {
            name: "simulated",
            what: "the operator on simulated nodes: cases, faults, load",
            needs: Needs::Go,
            run: simulated,
        },
        Rung { name: "real", what: "the main job on a real node, from the chart", needs: Needs::Root, run: real },
    ]
}

fn format() -> Outcome {
    check(cargo(&["fmt", "--all", "--check"]))
}

fn lint() -> Outcome {
    check(cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--all-features", "--", "--deny", "warnings"]))
}

fn generated() -> Outcome {
    let scratch = std::env::temp_dir().join(format!("cultivar-crds-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).doing(|| format!("cannot make {}", scratch.display()))?;
    let scratch_text = scratch.display().to_string();
    let mut count =
        check(cargo(&["run", "--quiet", "-p", "cultivar-crds", "--bin", "crdgen", "--", "--write", &scratch_text]))?;
    // The page to read lies beside the definitions, and is no part of the chart.
    for (committed, except) in [("crds/generated", "nothing"), ("charts/cultivar/files/crds", "reference.md")] {
        let mut diff = Command::new("diff");
        diff.args(["-ru", "--exclude", except, &scratch_text, committed]).current_dir(chart::repository());
        let same = check(diff)?;
        if same.failed > 0 {
            println!(
                "{committed} is not what the types say: run `cargo run -p cultivar-crds --bin crdgen -- --write crds/generated` and `cargo run -p cultivar-e2e --bin chart -- generate`, and commit"
            );
        }
        count.add(same);
    }
    std::fs::remove_dir_all(&scratch).doing(|| format!("cannot remove {}", scratch.display()))?;
    count.add(for_gitops()?);
    Ok(count)
}

// What tools are given that keep a cluster as a repository says.
fn for_gitops() -> Outcome {
    let mut count = Count::default();
    for (path, same) in gitops::check()? {
        if !same {
            println!("{path} is not what it is made of: run `cargo run -p cultivar-e2e --bin gitops`, and commit");
        }
        count.add(Count::one(same));
    }
    Ok(count)
}

fn unit() -> Outcome {
    tests(cargo(&["test", "--workspace", "--no-fail-fast"]))
}

fn chart_tests() -> Outcome {
    summed(&chart::test_chart()?)
}

fn summed(summary: &chart::Summary) -> Outcome {
    println!("{summary}");
    Ok(Count { passed: summary.passed(), failed: summary.failed() })
}

fn api() -> Outcome {
    with_cluster("verify-api", |cluster| {
        let mut count = summed(&chart::test_on(cluster)?)?;
        count.add(samples(cluster)?);
        Ok(count)
    })
}

// Every sample is taken by an API server that has our definitions, with unknown fields refused.
fn samples(cluster: &Cluster) -> Outcome {
    let root = chart::repository();
    install_definitions(cluster)?;
    let mut count = Count::default();
    for sample in yaml_files(&root.join("config/samples"))? {
        let taken =
            cluster.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-n", "default", "-f", &sample]);
        match &taken {
            Ok(_) => println!("ok     {sample}"),
            Err(error) => println!("FAILED {sample}: {error}"),
        }
        count.add(Count::one(taken.is_ok()));
    }
    Ok(count)
}

fn yaml_files(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).doing(|| format!("cannot read {}", dir.display()))?;
    let mut files: Vec<String> = entries
        .filter_map(|entry| entry.ok())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| path.display().to_string())
        .collect();
    files.sort();
    Ok(files)
}

// A cluster of simulated nodes for one rung, taken down whatever comes.
fn with_cluster(name: &str, work: impl FnOnce(&Cluster) -> Outcome) -> Outcome {
    let ui = Ui::new(name);
    let cluster = Cluster::builder(name)?.real_node(false).up(&ui)?;
    let outcome = work(&cluster);
    let down = Cluster::down(name, &ui);
    let mut count = outcome?;
    count.add(Count::one(down.is_ok()));
    if let Err(error) = down {
        println!("{error}");
    }
    Ok(count)
}

fn simulated() -> Outcome {
    tests(cargo(&["test", "-p", "cultivar-e2e", "--features", "client", "--no-fail-fast", "--test", "*"]))
}

fn real() -> Outcome {
    let told = check(cargo(&["run", "--quiet", "-p", "cultivar-e2e", "--bin", "demo", "--", "--name", CLUSTER]));
    let count = told.and_then(|mut count| {
        count.add(super::real::check(CLUSTER)?);
        Ok(count)
    });
    let down = Cluster::down(CLUSTER, &Ui::new(CLUSTER));
    let mut count = count?;
    count.add(Count::one(down.is_ok()));
    Ok(count)
}
