//! What the operator costs and how fast it is, beside the same work without it.
//!
//! In: a cluster of simulated nodes and the operator's binary. Out: a [`report::Report`]: gaps between stages, runs a
//! minute, writes, CPU and memory. Every scenario has a namespace and, where it needs one, an operator of its own; each
//! is played twice in one session, by the operator and by plain Jobs, so that a slow or busy machine slows both.

mod bare;
pub mod data;
pub mod history;
pub mod language;
pub mod observe;
pub mod queues;
mod report;
mod scenario;
mod stats;

use std::collections::BTreeMap;

pub use self::report::Report;
use self::scenario::Played;
pub use self::scenario::Session;
use crate::error::Result;
use crate::ui::Ui;

/// A load: so many chains at once, each of so many stages of one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Chains at once.
    pub chains: usize,
    /// Stages of each.
    pub stages: usize,
}

/// Few chains: the machine is idle, so the gap is the operator's own.
pub const CHAINS_5: Shape = Shape { chains: 5, stages: 5 };
/// Many chains: throughput of the whole control plane.
pub const CHAINS_200: Shape = Shape { chains: 200, stages: 5 };
/// Many runs of one stage.
pub const RUNS_300: Shape = Shape { chains: 300, stages: 1 };

/// What was measured: per shape, every round of both players.
#[derive(Debug, Default)]
pub struct Rounds {
    /// With the operator: pipelines.
    pub ours: BTreeMap<Shape, Vec<Played>>,
    /// Without: Jobs created by a loop in this process.
    pub bare: BTreeMap<Shape, Vec<Played>>,
}

/// Plays every shape `rounds` times.
///
/// # Errors
/// The cluster or the operator fails, or a run does not complete.
pub fn run(session: &Session, shapes: &[Shape], rounds: usize, ui: &Ui) -> Result<Report> {
    let mut played = Rounds::default();
    // The first Jobs of a new cluster are slower than all that follow.
    ui.step("warm-up", |_| session.bare(Shape { chains: 20, stages: 2 }))?;
    for round in 1..=rounds {
        for shape in shapes {
            let name = |what: &str| format!("{} × {} {what} {round}/{rounds}", shape.chains, shape.stages);
            let bare = ui.step(&name("plain"), |_| session.bare(*shape))?;
            played.bare.entry(*shape).or_default().push(bare);
            let ours = ui.step(&name("pipelines"), |_| session.pipelines(*shape))?;
            played.ours.entry(*shape).or_default().push(ours);
        }
    }
    Ok(Report::new(&played))
}
