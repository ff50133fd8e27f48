//! What is read and written when the program has ended.

pub mod environment;
pub mod outputs;
pub mod record;
pub mod series;
pub mod tensorboard;
pub mod termination;

use cultivar_protocol::RunSpec;

/// A key of this experiment.
#[must_use]
pub fn key(spec: &RunSpec, rest: &str) -> String {
    if spec.prefix.is_empty() { rest.to_owned() } else { format!("{}/{rest}", spec.prefix) }
}
