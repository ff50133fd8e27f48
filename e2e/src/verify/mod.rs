//! The test ladder: thousands at the top, few at the bottom; one closing summary line per rung.
//!
//! In: the checkout. Out: the output of every test runner as it comes, and whether everything passed. A rung that
//! cannot run fails; nothing is skipped in silence.

mod clients;
mod dependencies;
mod files;
mod laptop;
mod real;
mod run;
mod rungs;

pub use rungs::{Needs, Rung, all};

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::ui::seconds;

/// What a rung came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Checks that passed.
    pub passed: usize,
    /// Checks that failed.
    pub failed: usize,
}

impl Count {
    /// One check.
    #[must_use]
    pub fn one(passed: bool) -> Self {
        Self { passed: usize::from(passed), failed: usize::from(!passed) }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs rungs in order; goes on after one that failed, so that one look shows everything.
pub fn climb(rungs: &[Rung]) -> bool {
    let mut lines = Vec::new();
    let mut total = Count::default();
    for rung in rungs {
        println!("\n━━ {} — {}", rung.name, rung.what);
        let begun = Instant::now();
        let count = (rung.run)().unwrap_or_else(|error| {
            eprintln!("{error}");
            Count::one(false)
        });
        // A rung that ran nothing proves nothing.
        let count = if count.passed + count.failed == 0 { Count::one(false) } else { count };
        total.add(count);
        lines.push(line(rung, count, begun.elapsed()));
        println!("{}", lines[lines.len() - 1]);
    }
    println!("\n━━ summary");
    lines.iter().for_each(|line| println!("{line}"));
    println!("\n{} passed, {} failed", total.passed, total.failed);
    total.failed == 0
}

fn line(rung: &Rung, count: Count, took: Duration) -> String {
    let verdict = if count.failed == 0 { "ok    " } else { "FAILED" };
    format!("{verdict} {:<12} {:>5} passed, {:>3} failed  {:>9}", rung.name, count.passed, count.failed, seconds(took))
}

/// Keeps the result type of rungs in one place.
pub type Outcome = Result<Count>;
