//! How fast the runner moves bytes, and what it costs a run, beside boto3 and beside no runner at all.
//!
//! In: compiled programs (runner and store), sizes, a number of rounds. Out: a [`Report`]. Both players use one store on
//! this machine, with the credentials of one namespace, and take turns; what they upload is made once, before the clock.

mod boto;
mod files;
mod process;
mod rows;
mod runner;
mod store;

use std::path::PathBuf;
use std::process::Command;

use self::boto::Boto;
use self::files::{Folder, Sizes};
use self::process::{bare, spend};
use self::rows::Measured;
use self::runner::Runner;
use self::store::Store;
use super::Report;
use super::stats::median;
use crate::error::{Context as _, Result};
use crate::ui::Ui;

/// How often an empty run is started to find what it adds.
const EMPTY_RUNS: usize = 50;
/// The namespace whose credentials both players use.
const NAMESPACE: &str = "measure";

/// What is measured, and how much of it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The compiled `cultivar-runner`.
    pub runner: PathBuf,
    /// The compiled `cultivar-store`.
    pub store: PathBuf,
    /// The size of the large file, in GiB.
    pub gib: u64,
    /// How often everything is moved; the median is kept.
    pub rounds: usize,
}

/// Measures everything of the plan.
///
/// # Errors
/// A program fails, boto3 cannot be installed, or the temporary folder has no room.
pub fn run(plan: &Plan, ui: &Ui) -> Result<Report> {
    let boto = ui.step("a Python with boto3", |_| Boto::install())?;
    let sizes = Sizes::of(plan.gib);
    let folder = Folder::make()?;
    let made = ui.step("make the files", |_| files::make(&folder, sizes))?;
    let store = Store::start(&plan.store, &folder)?;
    let runner = Runner::new(&plan.runner, &store, &folder)?;
    let mut measured = Measured::new(sizes, boto.version().to_owned());
    for round in 1..=plan.rounds {
        for (what, source) in [("big", &made.big), ("many", &made.many)] {
            let title = |step: &str| format!("{what} {step} {round}/{}", plan.rounds);
            // Who goes first changes from round to round: a disk that still writes back slows whoever comes next.
            let mut turns = [Player::Runner, Player::Boto];
            turns.rotate_left((round - 1) % 2);
            for player in turns {
                settle()?;
                let (up, down) = match player {
                    Player::Runner => ui.step(&title("runner"), |_| runner.there_and_back(what, source))?,
                    Player::Boto => ui.step(&title("boto3"), |_| boto.there_and_back(&store, &folder, what, source))?,
                };
                measured.moved(player, what, up, down);
                boto.clear(&store)?;
            }
        }
    }
    ui.step("empty runs", |_| empty_runs(&runner, &mut measured))?;
    for round in 1..=plan.rounds {
        ui.step(&format!("logs {round}/{}", plan.rounds), |_| logs(&runner, &made.log, &mut measured))?;
        boto.clear(&store)?;
    }
    Ok(measured.report())
}

/// Who moves the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Player {
    Runner,
    Boto,
}

// What one player left to be written to the disk is not to slow the other.
fn settle() -> Result<()> {
    crate::exec::output(&mut Command::new("sync"), None).map(drop)
}

fn empty_runs(runner: &Runner, measured: &mut Measured) -> Result<()> {
    let (mut without, mut local, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..EMPTY_RUNS {
        without.push(bare(&mut Command::new("/bin/true"))?);
        local.push(bare(&mut runner.empty(false)?)?);
        stored.push(bare(&mut runner.empty(true)?)?);
    }
    let of = |sample: &[f64]| median(sample).unwrap_or(0.0);
    measured.empty(of(&without), of(&local), of(&stored));
    // Its memory is read while it runs, which would disturb the clock.
    let mut peak = 0;
    for _ in 0..5 {
        peak = peak.max(spend(&mut runner.empty(true)?)?.peak_memory);
    }
    measured.empty_memory(peak);
    Ok(())
}

fn logs(runner: &Runner, log: &files::Log, measured: &mut Measured) -> Result<()> {
    let [program, arguments @ ..] = log.command.as_slice() else { return Ok(()) };
    let without = spend(Command::new(program).args(arguments))?;
    let with = runner.logged(&log.command).doing(|| "the program that prints, under the runner")?;
    measured.logged(log.bytes, without.seconds, with);
    Ok(())
}
