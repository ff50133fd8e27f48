//! What was measured about moving bytes, beside its goals.
//!
//! In: every round of both players. Out: a [`Report`] with the median rounds, and the highest peak of memory.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::report::{Report, rounded, seconds};
use super::super::stats::median;
use super::files::Sizes;
use super::process::Spent;
use super::{EMPTY_RUNS, Player};

/// The runner's goals: what it may add to a run, and what it may hold.
const ADDED: f64 = 0.050;
const MEMORY: u64 = 64 << 20;

/// Every round so far.
pub struct Measured {
    sizes: Sizes,
    boto3: String,
    moved: BTreeMap<(Player, &'static str, &'static str), Vec<Spent>>,
    empty: Empty,
    logs: Vec<(u64, f64, Spent)>,
}

/// An empty run: seconds with no runner, with it, with it and a store; and its memory.
#[derive(Default)]
struct Empty {
    without: f64,
    local: f64,
    stored: f64,
    peak_memory: u64,
}

impl Measured {
    /// Nothing yet.
    pub fn new(sizes: Sizes, boto3: String) -> Self {
        Self { sizes, boto3, moved: BTreeMap::new(), empty: Empty::default(), logs: Vec::new() }
    }

    /// One round of one player.
    pub fn moved(&mut self, player: Player, what: &'static str, up: Spent, down: Spent) {
        self.moved.entry((player, what, "upload")).or_default().push(up);
        self.moved.entry((player, what, "download")).or_default().push(down);
    }

    /// The median seconds of empty runs.
    pub fn empty(&mut self, without: f64, local: f64, stored: f64) {
        self.empty = Empty { without, local, stored, ..self.empty };
    }

    /// The most memory of an empty run.
    pub fn empty_memory(&mut self, peak: u64) {
        self.empty.peak_memory = peak;
    }

    /// One round of the program that prints.
    pub fn logged(&mut self, bytes: u64, without: f64, with: Spent) {
        self.logs.push((bytes, without, with));
    }

    /// All of it.
    pub fn report(&self) -> Report {
        let mut report = Report::default();
        for what in ["big", "many"] {
            for way in ["upload", "download"] {
                self.transfer(&mut report, what, way);
            }
        }
        self.added(&mut report);
        self.throughput(&mut report);
        report.about(BTreeMap::from([
            ("boto3", json!(self.boto3)),
            ("big_bytes", json!(self.sizes.big)),
            ("many_files", json!(self.sizes.many.0)),
            ("many_file_bytes", json!(self.sizes.many.1)),
            ("empty_runs", json!(EMPTY_RUNS)),
        ]));
        report
    }

    fn transfer(&self, report: &mut Report, what: &'static str, way: &'static str) {
        let of = |player| self.moved.get(&(player, what, way)).map_or(&[][..], Vec::as_slice);
        let (ours, theirs) = (of(Player::Runner), of(Player::Boto));
        let (took, beside) = (middle(ours), middle(theirs));
        let (memory, their_memory) = (peak(ours), peak(theirs));
        let (files, each) = self.sizes.many;
        let (load, bytes) = match what {
            "big" => (format!("1 × {} GiB", self.sizes.big >> 30), self.sizes.big),
            _ => (format!("{files} × {} KiB", each >> 10), files * each),
        };
        let rate = |seconds: f64| match what {
            "big" => format!("{:.0} MB/s", number(bytes) / 1e6 / seconds.max(1e-9)),
            _ => format!("{:.0} files/s", number(files) / seconds.max(1e-9)),
        };
        report.line(
            format!("{way} of {load}"),
            format!("{} ({})", seconds(took), rate(took)),
            format!("boto3 {} ({})", seconds(beside), rate(beside)),
            "faster than boto3",
            Some(took < beside),
        );
        held(report, &format!("runner memory, peak, {way} of {load}"), memory, format!("boto3 {}", mib(their_memory)));
        let section = format!("{way}_{what}");
        for (key, value) in [("seconds", took), ("boto3_seconds", beside)] {
            report.put(&section, key, rounded(value));
        }
        report.put(&section, "peak_memory_bytes", json!(memory));
        report.put(&section, "boto3_peak_memory_bytes", json!(their_memory));
        let every = |rounds: &[Spent]| json!(rounds.iter().map(|round| rounded(round.seconds)).collect::<Vec<_>>());
        report.put(&section, "rounds_seconds", every(ours));
        report.put(&section, "boto3_rounds_seconds", every(theirs));
    }

    fn added(&self, report: &mut Report) {
        let Empty { without, local, stored, peak_memory } = self.empty;
        for (title, key, with) in [
            ("added to an empty run, no store", "added_seconds", local),
            ("added to an empty run, with the store", "added_with_store_seconds", stored),
        ] {
            let added = with - without;
            let beside = format!("/bin/true alone {:.1} ms", without * 1e3);
            report.line(title, format!("{:.1} ms", added * 1e3), beside, "< 50 ms", Some(added < ADDED));
            report.put("empty_run", key, rounded(added));
        }
        report.put("empty_run", "bare_seconds", rounded(without));
        report.put("empty_run", "peak_memory_bytes", json!(peak_memory));
        held(report, "runner memory, peak, empty run", peak_memory, String::new());
    }

    fn throughput(&self, report: &mut Report) {
        let bytes = self.logs.first().map_or(0, |(bytes, _, _)| *bytes);
        let with: Vec<Spent> = self.logs.iter().map(|(_, _, with)| *with).collect();
        let without = median(&self.logs.iter().map(|(_, without, _)| *without).collect::<Vec<_>>()).unwrap_or(0.0);
        let took = middle(&with);
        let rate = number(bytes) / 1e6 / took.max(1e-9);
        report.line(
            "a program prints 1 GiB of lines",
            format!("{} ({rate:.0} MB/s)", seconds(took)),
            format!("to /dev/null {}", seconds(without)),
            "",
            None,
        );
        held(report, "runner memory, peak, printing 1 GiB", peak(&with), String::new());
        report.put("logs", "bytes", json!(bytes));
        report.put("logs", "seconds", rounded(took));
        report.put("logs", "bare_seconds", rounded(without));
        report.put("logs", "bytes_per_second", rounded(rate * 1e6));
        report.put("logs", "peak_memory_bytes", json!(peak(&with)));
    }
}

fn held(report: &mut Report, what: &str, peak: u64, beside: String) {
    report.line(what, mib(peak), beside, "< 64 MiB", Some(peak < MEMORY));
}

fn middle(rounds: &[Spent]) -> f64 {
    median(&rounds.iter().map(|round| round.seconds).collect::<Vec<_>>()).unwrap_or(0.0)
}

fn peak(rounds: &[Spent]) -> u64 {
    rounds.iter().map(|round| round.peak_memory).max().unwrap_or(0)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", number(bytes) / number(1 << 20))
}

#[allow(clippy::cast_precision_loss)]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_round_and_the_highest_peak_are_kept_and_judged() {
        let mut measured = Measured::new(Sizes::of(2), "1.40.0".to_owned());
        let spent = |seconds, peak: u64| Spent { seconds, peak_memory: peak << 20 };
        for round in [1.0, 9.0, 2.0] {
            for what in ["big", "many"] {
                measured.moved(Player::Runner, what, spent(round, 30), spent(round, 31));
                measured.moved(Player::Boto, what, spent(4.0, 200), spent(1.5, 200));
            }
        }
        measured.moved(Player::Runner, "many", spent(2.0, 65), spent(2.0, 20));
        measured.empty(0.001, 0.011, 0.061);
        measured.empty_memory(20 << 20);
        measured.logged(1 << 30, 0.5, spent(4.0, 40));
        let text = measured.report().to_string();
        for line in [
            "✓ upload of 1 × 2 GiB ",
            "✗ download of 1 × 2 GiB ",
            "✓ runner memory, peak, download of 1 × 2 GiB ",
            "✗ runner memory, peak, upload of 10000 × 10 KiB ",
            "✓ added to an empty run, no store ",
            "✗ added to an empty run, with the store ",
            "  a program prints 1 GiB of lines ",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert!(text.contains("2.00 s (1074 MB/s)"), "{text}");
    }
}
