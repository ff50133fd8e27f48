//! `lineage`: what an experiment was made from, and what was made from it.

use cultivar_core::decide::inputs::uris;
use cultivar_core::domain::ExperimentRecord;
use cultivar_core::dry_run::producers;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::error::{Error, Result};

/// What an experiment was made from, and what was made from it.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  kubectl cultivar lineage train-7f3a\n  kubectl cultivar lineage train-7f3a --dot | dot -Tsvg > lineage.svg"
)]
pub struct Lineage {
    /// Name of the experiment.
    id: String,
    /// For Graphviz.
    #[arg(long)]
    dot: bool,
}

/// Who, what of it, for whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: String,
    what: String,
    to: String,
}

pub async fn lineage(cluster: &Cluster, asked: &Lineage) -> Result<()> {
    let known = cluster.experiments().await?;
    if !known.iter().any(|record| record.meta.name == asked.id) {
        return Err(Error::not_found(format!(
            "there is no experiment {} in namespace {}",
            asked.id, cluster.namespace
        )));
    }
    let edges = edges(&known);
    print!("{}", if asked.dot { dot(&asked.id, &edges) } else { tree(&asked.id, &edges) });
    Ok(())
}

fn edges(known: &[Arc<ExperimentRecord>]) -> Vec<Edge> {
    let mut edges = BTreeSet::new();
    let producers = producers(known);
    for record in known {
        let (status, to) = (&record.status, record.meta.name.clone());
        for input in &status.inputs {
            if let (Some(from), Some(artifact)) = (&input.experiment, &input.artifact) {
                edges.insert(Edge { from: from.clone(), what: artifact.clone(), to: to.clone() });
            }
        }
        // What has not ended, or ran without the runner, has told of no inputs.
        for uri in status.template.as_deref().into_iter().flat_map(uris) {
            if let Some(maker) = producers.get(uri).filter(|maker| maker.experiment != to) {
                edges.insert(Edge { from: maker.experiment.clone(), what: maker.artifact.clone(), to: to.clone() });
            }
        }
        if let Some(from) = &status.cloned_from {
            edges.insert(Edge { from: from.name.clone(), what: "clone".to_owned(), to: to.clone() });
        }
        if let Some(from) = &status.reused_from {
            edges.insert(Edge { from: from.name.clone(), what: "reuse".to_owned(), to });
        }
    }
    edges.into_iter().collect()
}

fn tree(id: &str, edges: &[Edge]) -> String {
    let mut out = String::new();
    let makers = |name: &str| {
        edges
            .iter()
            .filter(|edge| edge.to == name)
            .map(|edge| (edge.from.clone(), edge.what.clone()))
            .collect::<Vec<_>>()
    };
    let users = |name: &str| {
        edges
            .iter()
            .filter(|edge| edge.from == name)
            .map(|edge| (edge.to.clone(), edge.what.clone()))
            .collect::<Vec<_>>()
    };
    let _ = writeln!(out, "{id} was made from");
    branch(&mut out, id, 1, &mut BTreeSet::from([id.to_owned()]), &makers);
    let _ = writeln!(out, "from {id} was made");
    branch(&mut out, id, 1, &mut BTreeSet::from([id.to_owned()]), &users);
    out
}

fn branch(
    out: &mut String,
    name: &str,
    depth: usize,
    seen: &mut BTreeSet<String>,
    next: &dyn Fn(&str) -> Vec<(String, String)>,
) {
    let found = next(name);
    if found.is_empty() && depth == 1 {
        out.push_str("  nothing\n");
    }
    for (other, what) in found {
        // What two share is written out once.
        let new = seen.insert(other.clone());
        let _ = writeln!(out, "{}{other} ({what}){}", "  ".repeat(depth), if new { "" } else { " …" });
        if new {
            branch(out, &other, depth + 1, seen, next);
        }
    }
}

// Everything that hangs together with it.
fn dot(id: &str, edges: &[Edge]) -> String {
    let mut by_name: BTreeMap<&str, Vec<&Edge>> = BTreeMap::new();
    for edge in edges {
        by_name.entry(&edge.from).or_default().push(edge);
        by_name.entry(&edge.to).or_default().push(edge);
    }
    let mut reached = BTreeSet::from([id]);
    let mut open = vec![id];
    while let Some(name) = open.pop() {
        for edge in by_name.get(name).into_iter().flatten() {
            open.extend([edge.from.as_str(), edge.to.as_str()].into_iter().filter(|other| reached.insert(other)));
        }
    }
    let mut out = format!("digraph lineage {{\n  rankdir = LR;\n  {id:?} [style = bold];\n");
    for edge in edges.iter().filter(|edge| reached.contains(edge.from.as_str())) {
        let style = if matches!(edge.what.as_str(), "clone" | "reuse") { ", style = dashed" } else { "" };
        let _ = writeln!(out, "  {:?} -> {:?} [label = {:?}{style}];", edge.from, edge.to, edge.what);
    }
    out + "}\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, what: &str, to: &str) -> Edge {
        Edge { from: from.into(), what: what.into(), to: to.into() }
    }

    #[test]
    fn both_directions_and_nothing_twice() {
        let edges = [
            edge("prepare", "data", "evaluate"),
            edge("prepare", "data", "train"),
            edge("root", "clone", "train"),
            edge("train", "model", "evaluate"),
            edge("other", "x", "another"),
        ];
        let expected =
            "train was made from\n  prepare (data)\n  root (clone)\nfrom train was made\n  evaluate (model)\n";
        assert_eq!(tree("train", &edges), expected);
        let all = tree("evaluate", &edges);
        assert!(all.contains("  prepare (data)\n  train (model)\n    prepare (data) …\n    root (clone)\n"), "{all}");
        let graph = dot("train", &edges);
        assert!(
            graph.contains("\"root\" -> \"train\" [label = \"clone\", style = dashed]") && !graph.contains("other"),
            "{graph}"
        );
    }
}
