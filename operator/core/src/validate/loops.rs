//! A stage that is a loop: its condition, and what its turns may read.

use serde_json::Value;

use super::fan_out::fans_out;
use super::{Report, check_condition};
use crate::refs::{Expression, FieldPath, Head, Known};

/// What a turn finds under `repeat`.
const TURN: [&str; 2] = ["index", "last"];

fn loop_of(stage: &Value) -> Option<&Value> {
    stage.get("repeat").filter(|repeat| !repeat.is_null())
}

/// Adds to what a stage may refer to what its turns find.
pub fn turns(stage: &Value, known: Known) -> Known {
    if loop_of(stage).is_some() { known.allow(Head::Repeat, TURN) } else { known }
}

/// Checks a stage's loop; `outer` is what it may refer to.
pub fn check(stage: &Value, at: &FieldPath, outer: &Known, report: &mut Report) {
    let Some(repeat) = loop_of(stage) else { return };
    let at = at.key("repeat");
    if fans_out(stage) {
        report.fault(
            &at,
            "a stage either fans out or repeats: let it run another pipeline that does the one, and do the other here",
        );
    }
    let Some(until) = repeat.get("until").and_then(Value::as_str) else { return };
    let at = at.key("until");
    match Expression::parse(until) {
        Err(error) => report.fault(at, error),
        Ok(expression) if expression.uses().iter().all(|path| path.head != Head::Repeat) => {
            report.fault(at, "says the same after every turn: ask for what the turn brought, as in repeat.last.metrics.acc.last > 0.9");
        }
        Ok(expression) => check_condition(&expression, &at, &outer.clone().allow(Head::Repeat, TURN), report),
    }
}
