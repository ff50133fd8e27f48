//! The numbers beside their goals: a table for people, JSON for what comes after.
//!
//! In: every round of both players. Out: [`Report`]. Gaps are pooled over the rounds, totals are the median round's.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::scenario::Played;
use super::stats::{median, percentile};
use super::{CHAINS_5, CHAINS_200, RUNS_300, Rounds, Shape};
use crate::error::{Context as _, Result};

/// What was measured, ready to be shown and kept.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<Line>,
    json: Map<String, Value>,
}

/// A number beside what it is to be.
#[derive(Debug)]
struct Line {
    what: String,
    value: String,
    beside: String,
    goal: String,
    /// Nothing where there is no goal.
    met: Option<bool>,
}

/// One kind of gap of a round.
type Gaps = fn(&Played) -> &Vec<f64>;

/// One shape as both players played it.
struct Pair<'a> {
    ours: &'a [Played],
    bare: &'a [Played],
}

impl Pair<'_> {
    fn pooled(rounds: &[Played], of: Gaps, share: f64) -> Option<f64> {
        let all: Vec<f64> = rounds.iter().flat_map(|round| of(round).iter().copied()).collect();
        percentile(&all, share)
    }

    fn total(rounds: &[Played], of: impl Fn(&Played) -> f64) -> f64 {
        median(&rounds.iter().map(of).collect::<Vec<_>>()).unwrap_or(0.0)
    }
}

impl Report {
    pub(super) fn new(rounds: &Rounds) -> Self {
        let mut report = Self::default();
        let pair = |shape: Shape| {
            Some(Pair { ours: rounds.ours.get(&shape)?.as_slice(), bare: rounds.bare.get(&shape)?.as_slice() })
        };
        for (name, shape) in [("chains_5", CHAINS_5), ("chains_200", CHAINS_200)] {
            if let Some(pair) = pair(shape) {
                report.gaps(name, shape, &pair);
            }
        }
        if let Some(pair) = pair(CHAINS_200) {
            report.chains_total(&pair);
            report.writes(CHAINS_200, &pair);
        }
        if let Some(pair) = pair(RUNS_300) {
            report.throughput(&pair);
            report.cost(&pair);
        }
        report
    }

    pub(super) fn line(
        &mut self,
        what: impl Into<String>,
        value: String,
        beside: String,
        goal: &str,
        met: Option<bool>,
    ) {
        self.lines.push(Line { what: what.into(), value, beside, goal: goal.to_owned(), met });
    }

    pub(super) fn put(&mut self, section: &str, key: &str, value: Value) {
        let entry = self.json.entry(section).or_insert_with(|| json!({}));
        entry[key] = value;
    }

    fn gaps(&mut self, name: &str, shape: Shape, pair: &Pair<'_>) {
        let kinds: [(&str, &str, Gaps); 2] =
            [("Pod", "gap_seconds", |round| &round.pod_gaps), ("Job", "gap_to_job_seconds", |round| &round.job_gaps)];
        for (kind, section, of) in kinds {
            let mut value = json!({});
            for (key, share) in [("p50", 0.5), ("p99", 0.99)] {
                let ours = Pair::pooled(pair.ours, of, share).unwrap_or(0.0);
                let bare = Pair::pooled(pair.bare, of, share).unwrap_or(0.0);
                value[key] = rounded(ours);
                value[format!("bare_{key}")] = rounded(bare);
                let what =
                    format!("{} chains of {}: pod ends → next {kind} created, {key}", shape.chains, shape.stages);
                // With hundreds of chains the Job controller is what a Pod waits for: that row is judged by its total.
                let judged = shape == CHAINS_5 || kind == "Job";
                let met = judged.then_some(ours <= 1.5 * bare);
                let goal = if judged { format!("≤ {} (1.5 × bare)", seconds(1.5 * bare)) } else { String::new() };
                self.line(what, seconds(ours), format!("bare loop {}", seconds(bare)), &goal, met);
            }
            self.put(section, name, value);
        }
    }

    fn chains_total(&mut self, pair: &Pair<'_>) {
        let ours = Pair::total(pair.ours, |round| round.total_seconds);
        let bare = Pair::total(pair.bare, |round| round.total_seconds);
        let pods = (Pair::total(pair.ours, |r| r.pods_seconds), Pair::total(pair.bare, |r| r.pods_seconds));
        self.json.insert(
            "chains_200_seconds".to_owned(),
            json!({"total": rounded(ours), "bare_total": rounded(bare), "pods_ended": rounded(pods.0), "bare_pods_ended": rounded(pods.1)}),
        );
        let goal = format!("≤ {:.1} s (1.2 × bare)", 1.2 * bare);
        let beside = format!("bare loop {bare:.1} s");
        self.line(
            "200 runs of 5 stages, until all have ended",
            format!("{ours:.1} s"),
            beside,
            &goal,
            Some(ours <= 1.2 * bare),
        );
    }

    fn writes(&mut self, shape: Shape, pair: &Pair<'_>) {
        let Some(round) = pair.ours.last() else { return };
        let runs = number(shape.chains);
        let stages = number(shape.chains * shape.stages);
        let of = |names: &[&str]| -> f64 {
            let ours = |name: &str| names.iter().any(|kind| name.starts_with(&format!("{kind} ")));
            round.writes.iter().filter(|(name, _)| ours(name)).map(|(_, count)| count).sum()
        };
        let per_run = of(&["Pipeline", "PipelineRun"]) / runs;
        let per_stage = (round.writes.values().sum::<f64>() - of(&["Pipeline", "PipelineRun"])) / stages;
        let detail = |per: f64, kinds: &[&str]| {
            let matching =
                round.writes.iter().filter(|(name, _)| kinds.iter().any(|kind| name.starts_with(&format!("{kind} "))));
            matching.map(|(name, count)| format!("{name} {:.2}", count / per)).collect::<Vec<_>>().join(", ")
        };
        self.line(
            "our writes per stage",
            format!("{per_stage:.2}"),
            detail(stages, &["Experiment", "Job", "Event"]),
            "≤ 5",
            Some(per_stage <= 5.0),
        );
        self.line(
            "our writes per run, beside its stages",
            format!("{per_run:.2}"),
            detail(runs, &["Pipeline", "PipelineRun"]),
            "≤ 4",
            Some(per_run <= 4.0),
        );
        self.json.insert("writes_per_stage".to_owned(), rounded(per_stage));
        self.json.insert("writes_per_run".to_owned(), rounded(per_run));
        self.json.insert("writes".to_owned(), json!(round.writes));
        if let Some(gap) = round.own_gap {
            self.json.insert("operator_reported_gap_mean_seconds".to_owned(), rounded(gap));
        }
    }

    fn throughput(&mut self, pair: &Pair<'_>) {
        let rate = |seconds: f64| if seconds > 0.0 { number(RUNS_300.chains) * 60.0 / seconds } else { 0.0 };
        let ours = rate(Pair::total(pair.ours, |round| round.total_seconds));
        let bare = rate(Pair::total(pair.bare, |round| round.total_seconds));
        self.json.insert("runs_per_minute".to_owned(), rounded(ours));
        self.json.insert("raw_jobs_per_minute".to_owned(), rounded(bare));
        let beside = format!("raw Jobs {bare:.0} a minute");
        let share = 100.0 * ours / bare.max(1.0);
        let goal = format!("≥ {:.0} (60 % of raw Jobs)", 0.6 * bare);
        self.line(
            "300 runs of one stage at once",
            format!("{ours:.0} a minute ({share:.0} %)"),
            beside,
            &goal,
            Some(ours >= 0.6 * bare),
        );
    }

    fn cost(&mut self, pair: &Pair<'_>) {
        let cpu = Pair::total(pair.ours, |round| round.cpu_seconds) / number(RUNS_300.chains);
        let peak = pair.ours.iter().map(|round| round.peak_memory).max().unwrap_or(0);
        self.json.insert("cpu_seconds_per_run".to_owned(), rounded(cpu));
        self.json.insert("peak_memory_bytes".to_owned(), peak.into());
        self.line(
            "operator CPU per one-stage run",
            format!("{:.2} ms", cpu * 1e3),
            String::new(),
            "< 3 ms",
            Some(cpu < 0.003),
        );
        #[allow(clippy::cast_precision_loss)]
        let megabytes = peak as f64 / 1e6;
        self.line(
            "operator memory, peak, at 300 runs",
            format!("{megabytes:.1} MB"),
            String::new(),
            "< 40 MB",
            Some(megabytes < 40.0),
        );
    }

    /// Adds facts about the session: when, where, how often.
    pub fn about(&mut self, facts: BTreeMap<&str, Value>) {
        self.json.extend(facts.into_iter().map(|(key, value)| (key.to_owned(), value)));
    }

    /// Whether every goal is met.
    #[must_use]
    pub fn all_met(&self) -> bool {
        self.lines.iter().all(|line| line.met != Some(false))
    }

    /// Writes the JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let failed = || format!("cannot write {}", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).doing(failed)?;
        }
        let text = serde_json::to_string_pretty(&self.json).doing(failed)?;
        std::fs::write(path, text + "\n").doing(failed)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width =
            |of: fn(&Line) -> &String| self.lines.iter().map(|line| of(line).chars().count()).max().unwrap_or(0);
        let (what, value, goal) = (width(|l| &l.what), width(|l| &l.value), width(|l| &l.goal));
        for line in &self.lines {
            let mark = match line.met {
                Some(true) => "✓",
                Some(false) => "✗",
                None => " ",
            };
            writeln!(f, "{mark} {:<what$}  {:>value$}  {:<goal$}  {}", line.what, line.value, line.goal, line.beside)?;
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss)]
fn number(count: usize) -> f64 {
    count as f64
}

pub(super) fn rounded(value: f64) -> Value {
    json!((value * 1e6).round() / 1e6)
}

pub(super) fn seconds(value: f64) -> String {
    if value < 1.0 { format!("{:.0} ms", value * 1e3) } else { format!("{value:.2} s") }
}
