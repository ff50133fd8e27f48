//! A Schedule: its expressions, its zone, its lengths of time and its days.

use cultivar_crds::ScheduleSpec;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Report;
use crate::decide::schedule::{self, Days, Times};
use crate::domain::cron::Cron;
use crate::domain::time;
use crate::refs::{FieldPath, scan};

/// Validates a Schedule's spec, as far as it can be without its pipeline.
#[must_use]
pub fn schedule(spec: &Value) -> Report {
    let mut report = Report::default();
    let at = FieldPath::of("spec");
    let parsed = match ScheduleSpec::deserialize(spec) {
        Ok(parsed) => parsed,
        Err(error) => {
            report.fault("spec", error);
            return report;
        }
    };
    if parsed.cron.is_empty() {
        report.fault(at.key("cron"), "a schedule has at least one expression");
    }
    for (index, cron) in parsed.cron.iter().enumerate() {
        if let Err(error) = Cron::parse(cron) {
            report.fault(at.key("cron").index(index), error);
        }
    }
    if let Some(Err(error)) = parsed.time_zone.as_deref().map(time::zone) {
        report.fault(at.key("timeZone"), error);
    }
    if let Some(Err(error)) = parsed.starting_deadline.as_deref().map(time::parse_duration) {
        report.fault(at.key("startingDeadline"), error);
    }
    literal(&parsed.params, &at.key("params"), &mut report);
    backfill(&parsed, &at.key("backfill"), &mut report);
    report
}

// The Pipeline refuses them in its runs; here they are refused when they are written.
fn literal(params: &Map<String, Value>, at: &FieldPath, report: &mut Report) {
    for (path, _) in scan(&Value::Object(params.clone()), at) {
        report.fault(
            path,
            "a schedule's parameters are values; a stage reads the time of its run itself, as in ${= date(pipeline.scheduledTime, \"%Y-%m-%d\")}",
        );
    }
}

fn backfill(spec: &ScheduleSpec, at: &FieldPath, report: &mut Report) {
    let Some(backfill) = &spec.backfill else { return };
    let mut days = true;
    for (key, text) in [("from", &backfill.from), ("to", &backfill.to)] {
        if let Err(error) = Days::day(text) {
            report.fault(at.key(key), error);
            days = false;
        }
    }
    if days && backfill.from > backfill.to {
        report.fault(at.key("to"), format!("{} is before {}", backfill.to, backfill.from));
    } else if days
        && let Ok(times) = Times::of(spec)
        && Days::of(backfill, &times).is_some_and(|days| times.within(&days).nth(schedule::MAX_BACKFILL).is_some())
    {
        let most = schedule::MAX_BACKFILL;
        report.fault(at, format!("there are more than {most} times on these days: divide them into several backfills"));
    }
}
