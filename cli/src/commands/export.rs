//! `export`: a manifest that does the same in another cluster.

use cultivar_core::dry_run::sources;
use cultivar_core::export;

use crate::cluster::{Cluster, experiment, for_a_repository};
use crate::error::{Error, Result};
use crate::output;

/// A manifest that does the same in another cluster.
///
/// Templates stand in place of names, inputs with their digests; queues and stores of this cluster are left out. The
/// digests of what is run stay the same.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  kubectl cultivar export train-7f3a > train.yaml\n  kubectl cultivar export digits --inline > digits.yaml"
)]
pub struct Export {
    /// Name of an experiment; with --inline of a pipeline.
    name: String,
    /// A pipeline, whose stages become roots.
    #[arg(long)]
    inline: bool,
}

pub async fn export(cluster: &Cluster, asked: &Export) -> Result<()> {
    let failed = |why: String| Error::refused(format!("{} cannot be exported", asked.name)).why(why);
    let (kind, spec) = if asked.inline {
        let pipeline = cluster.get("Pipeline", &asked.name).await?;
        let spec = &pipeline["spec"];
        let known = cluster.experiments().await?;
        let found = sources(export::wanted(spec), &known);
        ("Pipeline", export::pipeline(&asked.name, spec, &found).map_err(failed)?)
    } else {
        let record = experiment(&cluster.get("Experiment", &asked.name).await?)?;
        ("Experiment", export::experiment(&record).map_err(failed)?)
    };
    for tag in export::tags(&spec) {
        eprintln!(
            "note: {tag} is a tag: what it stands for is looked up where this runs, and may be another image there"
        );
    }
    print!("{}", output::yaml(&for_a_repository(kind, &asked.name, spec))?);
    Ok(())
}
