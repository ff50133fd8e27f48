//! An errand, from its first try until it is done or given up.
//!
//! Comes in: what is wanted and for how long it is tried. Goes out: how it stands, with its next step in the plan.

use cultivar_crds::ExperimentStatus;

use super::Snapshot;
use crate::decide::{Action, Plan};
use crate::domain::Errand;
use crate::domain::errand::{Patience, Step};

/// How an errand stands.
pub enum Progress<'a> {
    /// It is done; what it brought.
    Done(&'a str),
    /// It was tried for long enough; why it failed.
    GivenUp(&'a str),
    /// It is under way or tried again later; why it failed so far, if it was tried.
    Pending(Option<&'a str>),
}

/// Puts the next step of an errand into the plan: another try, or a wake-up for one.
pub fn pursue<'a>(
    snapshot: &'a Snapshot,
    plan: &mut Plan<ExperimentStatus>,
    patience: Patience,
    errand: Errand,
) -> Progress<'a> {
    match patience.step(&snapshot.errands, &errand, snapshot.now) {
        Step::Done(brought) => Progress::Done(brought),
        Step::GivenUp(why) => Progress::GivenUp(why),
        Step::Run(why) => {
            plan.actions.push(Action::Run(errand));
            Progress::Pending(why)
        }
        Step::Wait(again, why) => {
            plan.wake(again);
            Progress::Pending(Some(why))
        }
    }
}

/// What is added to the words of a wait.
pub fn so_far(why: Option<&str>) -> String {
    why.map_or_else(String::new, |why| format!("; so far: {why}"))
}
