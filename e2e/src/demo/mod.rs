//! `cargo demo`: five steps from programs that work to a pipeline, on a real Kubernetes, with real data.
//!
//! In: the options, `config/samples`, and this work tree, which the operator and the images are built from. Out: a
//! cluster with the operator in it, three recorded experiments, the pipeline that clones them, two runs of it, and on
//! standard output what happened while it happened. Nothing is taken down; a second run removes what the first one made.

mod images;
mod install;
mod paint;
mod samples;
mod story;
mod table;
mod target;
mod tree;
mod volume;
mod watch;

use clap::Parser;

use crate::cluster::DEFAULT_NAME;
use crate::error::Result;

/// From three experiments that work to a pipeline, on a real Kubernetes on this machine.
#[derive(Parser, Debug, Clone)]
#[command(name = "demo", bin_name = "cargo demo")]
pub struct Options {
    /// The name of the cluster to start or to use.
    #[arg(long, env = "CULTIVAR_CLUSTER", default_value = DEFAULT_NAME)]
    pub name: String,

    /// Only simulated nodes, which play the same samples: no administrator's rights needed.
    #[arg(long, conflicts_with = "context")]
    pub simulated: bool,

    /// A cluster of your own instead, by its kubectl context.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,

    /// With --context: the registry and path that you pushed the images to, such as `registry.example.com/me`.
    #[arg(long, value_name = "PREFIX", requires = "context")]
    pub image_repository: Option<String>,

    /// With --context: the images are on the nodes already (kind, k3d, minikube and others can load a file).
    #[arg(long, requires = "context", conflicts_with = "image_repository")]
    pub images_loaded: bool,

    /// Take everything down that the demo made.
    #[arg(long)]
    pub down: bool,
}

/// Runs the demo, or takes it down.
///
/// # Errors
/// Something fails; the error says what to do.
pub fn run(options: &Options) -> Result<()> {
    if options.down {
        return install::down(options);
    }
    if options.context.is_some() && options.image_repository.is_none() && !options.images_loaded {
        return images::how_to_push(options);
    }
    let target = install::install(options)?;
    story::Story::new(&target)?.tell()
}
