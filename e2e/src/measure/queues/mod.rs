//! How fast admission is: the engine alone, in virtual time, under the loads of Kueue's own performance tests; and four
//! queues that share a cluster of simulated nodes.
//!
//! In: the compiled example `admission` of `cultivar-core`, and a session. Out: a [`Report`], beside the goals.

pub mod load;
pub mod shares;

use std::path::Path;

use serde_json::Value;

use super::Report;
use super::report::seconds;
use crate::error::{Context as _, Result};
use crate::exec;

/// Longest pass over 50,000 that wait, when one of those that run has ended.
const PASS_MS: f64 = 10.0;
/// Most memory of all of it.
const MEGABYTES: f64 = 100.0;

/// Runs the engine under every load.
///
/// # Errors
/// The program fails, or prints something else than it should.
pub fn run(program: &Path) -> Result<Report> {
    let text = exec::output(&mut std::process::Command::new(program), None)?;
    let measured: Value = serde_json::from_str(&text).doing(|| "cannot read what the engine's example printed")?;
    let mut report = Report::default();
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    for load in measured["loads"].as_array().map_or(&[][..], Vec::as_slice) {
        let name = load["load"].as_str().unwrap_or_default();
        let name = format!("{name}, {} workloads", load["workloads"]);
        let ideal = number(&load["ideal_seconds"]);
        report.line(
            format!("{name}: virtual time until all have run"),
            seconds(number(&load["virtual_seconds"])),
            format!("capacity-bound ideal {}", seconds(ideal)),
            "",
            None,
        );
        for (class, waits) in load["seconds_to_admission"].as_object().into_iter().flatten() {
            let [mean, p99] = ["mean", "p99"].map(|key| seconds(number(&waits[key])));
            report.line(
                format!("{name}: time to admission, {class}, mean / p99"),
                format!("{mean} / {p99}"),
                String::new(),
                "",
                None,
            );
        }
        report.line(
            format!("{name}: CPU a workload"),
            format!("{:.3} ms", number(&load["cpu_ms_per_workload"])),
            format!("{} stopped for others", load["preempted"]),
            "",
            None,
        );
    }
    let waiting = &measured["waiting"];
    let pass = &waiting["pass_after_release_ms"];
    report.line(
        format!("a pass over {} that wait, when one has ended, p50 / max", waiting["waiting"]),
        format!("{:.2} / {:.2} ms", number(&pass["p50"]), number(&pass["max"])),
        format!("the first, which tells all of them, {:.0} ms", number(&waiting["first_pass_ms"])),
        "< 10 ms",
        Some(number(&pass["max"]) < PASS_MS),
    );
    let peak = number(&measured["peak_megabytes"]);
    report.line("memory of all of it", format!("{peak:.0} MB"), String::new(), "< 100 MB", Some(peak < MEGABYTES));
    report.put("engine", "loads", measured["loads"].clone());
    report.put("engine", "waiting", waiting.clone());
    report.put("engine", "peak_megabytes", measured["peak_megabytes"].clone());
    Ok(report)
}
