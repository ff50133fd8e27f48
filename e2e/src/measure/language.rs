//! How long deciding about a large run takes.
//!
//! In: the compiled example `deciding` of `cultivar-core`. Out: a [`Report`], beside the goals.

use std::path::Path;

use serde_json::Value;

use super::Report;
use crate::error::{Context as _, Result};
use crate::exec;

/// Longest pass over a chain of 1,000 stages, and over a fan-out of 10,000 members.
const CHAIN_MS: f64 = 20.0;
const FAN_OUT_MS: f64 = 50.0;
/// Largest status of a run.
const STATUS_BYTES: f64 = 256.0 * 1024.0;

/// Decides about every shape.
///
/// # Errors
/// The program fails, or prints something else than it should.
pub fn run(program: &Path) -> Result<Report> {
    let text = exec::output(&mut std::process::Command::new(program), None)?;
    let measured: Value = serde_json::from_str(&text).doing(|| "cannot read what the example printed")?;
    let mut report = Report::default();
    for shape in measured["shapes"].as_array().map_or(&[][..], Vec::as_slice) {
        let name = shape["shape"].as_str().unwrap_or_default();
        let number = |key: &str| shape[key].as_f64().unwrap_or(f64::NAN);
        let most = if name.contains("members") { FAN_OUT_MS } else { CHAIN_MS };
        let kib = number("status_bytes") / 1024.0;
        report.line(
            format!("{name}: a pass, p50 / max"),
            format!("{:.1} / {:.1} ms", number("p50_ms"), number("max_ms")),
            format!("status {kib:.0} KiB"),
            if name.contains("members") { "< 50 ms, < 256 KiB" } else { "< 20 ms, < 256 KiB" },
            Some(number("p50_ms") < most && number("status_bytes") < STATUS_BYTES),
        );
    }
    report.put("decide", "shapes", measured["shapes"].clone());
    Ok(report)
}
