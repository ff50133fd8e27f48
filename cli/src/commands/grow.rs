//! `grow`: a pipeline from experiments that ran by hand.

use cultivar_core::domain::ExperimentRecord;
use cultivar_core::grow;
use std::collections::BTreeMap;

use crate::cluster::{Cluster, for_a_repository};
use crate::error::{Error, Result};
use crate::output::{self, plain};

/// A pipeline from experiments that ran by hand.
///
/// Who made which input becomes the edges; each experiment is a stage by its name. Run unchanged, every stage is reused.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  kubectl cultivar grow digits --from evaluate > pipeline.yaml\n  kubectl cultivar grow digits --from evaluate --apply"
)]
pub struct Grow {
    /// Name of the pipeline.
    name: String,
    /// Experiments that it ends in; what made their inputs is found by itself.
    #[arg(long, required = true, num_args = 1..)]
    from: Vec<String>,
    /// Keep values that several experiments share where they are, instead of making parameters of them.
    #[arg(long)]
    no_params: bool,
    /// Apply it, instead of printing it.
    #[arg(long)]
    apply: bool,
}

pub async fn grow(cluster: &Cluster, asked: &Grow) -> Result<()> {
    let known = cluster.experiments().await?;
    let by_name: BTreeMap<String, &ExperimentRecord> =
        known.iter().map(|record| (record.meta.name.clone(), &**record)).collect();
    let grown = grow::grow(&asked.from, &by_name, !asked.no_params);
    let grown = grown.map_err(|why| Error::refused(format!("pipeline {} does not grow", asked.name)).why(why))?;
    for note in &grown.notes {
        eprintln!("note: {note}");
    }
    for (name, value) in grown.spec["params"].as_object().into_iter().flatten() {
        eprintln!("note: parameter {name} = {} is shared by several stages", plain(value));
    }
    let manifest = for_a_repository("Pipeline", &asked.name, grown.spec);
    if asked.apply {
        cluster.apply(manifest).await?;
        println!("pipeline {} is applied, with {} stages", asked.name, grown.stages.len());
        return Ok(());
    }
    print!("{}", output::yaml(&manifest)?);
    Ok(())
}
