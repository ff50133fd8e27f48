//! Functions for fan-outs: lists of numbers, numbers as text, the best of several members.
//!
//! In: values as JSON. Out: values as JSON, or what is wrong with them.

use cultivar_crds::{Best, Goal, MAX_MEMBERS, MetricUse};
use serde::Deserialize;
use serde_json::Value;

use super::path::kind;

/// `range(end)`, `range(start, end)` or `range(start, end, step)`: the end is not part of it, and a negative step counts
/// down.
pub(super) fn range(args: &[Value]) -> Result<Value, String> {
    let whole = |value: &Value| {
        let number = value
            .as_i64()
            .or_else(|| value.as_f64().filter(|n| n.fract() == 0.0).and_then(|n| format!("{n:.0}").parse().ok()));
        number.ok_or_else(|| format!("range() wants whole numbers, not {value}"))
    };
    let numbers: Vec<i64> = args.iter().map(whole).collect::<Result<_, _>>()?;
    let (start, end, step) = match numbers[..] {
        [end] => (0, end, 1),
        [start, end] => (start, end, 1),
        [start, end, step] => (start, end, step),
        _ => return Err("range() takes one to three numbers".to_owned()),
    };
    if step == 0 {
        return Err("range() with a step of 0 never ends".to_owned());
    }
    let mut list: Vec<Value> = Vec::new();
    let mut at = Some(start);
    while let Some(number) = at.filter(|number| if step > 0 { *number < end } else { *number > end }) {
        if list.len() == MAX_MEMBERS as usize {
            return Err(format!("range() gives more than {MAX_MEMBERS} numbers"));
        }
        list.push(number.into());
        at = number.checked_add(step);
    }
    Ok(Value::Array(list))
}

/// `format("part-%03d", 7)`: `%d`, `%x`, `%X`, `%f`, `%.3f`, `%s`, with a width and leading zeros where they are given.
pub(super) fn format(pattern: &Value, value: Option<&Value>) -> Result<Value, String> {
    let (Some(pattern), Some(value)) = (pattern.as_str(), value) else {
        return Err("format() wants a text and a value".to_owned());
    };
    let bad =
        || format!("format() wants one of %d, %x, %X, %f, %.3f and %s, such as %03d, in {}", Value::from(pattern));
    let (before, rest) = pattern.split_once('%').ok_or_else(bad)?;
    let end = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(bad)?;
    let (how, after) = (&rest[..end], &rest[end + 1..]);
    let (width, digits) = how.split_once('.').map_or((how, None), |(width, digits)| (width, Some(digits)));
    let fill = if width.starts_with('0') { '0' } else { ' ' };
    let number = |text: &str| {
        if text.is_empty() { Ok(0) } else { text.parse().ok().filter(|n: &usize| *n <= 64).ok_or_else(bad) }
    };
    let (width, digits) = (number(width)?, digits.map(number).transpose()?);
    let whole = || {
        value
            .as_i64()
            .ok_or_else(|| format!("format() with {how}{} wants a whole number, not {value}", &rest[end..=end]))
    };
    let text = match &rest[end..=end] {
        "d" => whole()?.to_string(),
        "x" => format!("{:x}", whole()?),
        "X" => format!("{:X}", whole()?),
        "f" => {
            let number = value.as_f64().ok_or_else(|| format!("format() with %f wants a number, not {value}"))?;
            format!("{number:.*}", digits.unwrap_or(6))
        }
        "s" => super::resolve::as_text(value),
        _ => return Err(bad()),
    };
    let missing = width.saturating_sub(text.chars().count());
    let filled = match (fill, text.strip_prefix('-')) {
        ('0', Some(digits)) => format!("-{}{digits}", "0".repeat(missing)),
        _ => format!("{}{text}", fill.to_string().repeat(missing)),
    };
    Ok(Value::String(format!("{before}{filled}{after}")))
}

/// `best(stages.train, {"metric": "val/acc", "goal": "Maximize", "use": "Max"})`: the member that completed with the best
/// value; of equals the first. Its words are those of `from.selector.best`.
pub(super) fn best(stage: &Value, how: &Value) -> Result<Value, String> {
    let members = stage.get("members").unwrap_or(stage);
    let Value::Array(members) = members else {
        return Err(format!("best() wants a stage that fans out, or a list of members, not {}", kind(stage)));
    };
    let best = Best::deserialize(how).map_err(|error| {
        format!("best() wants {{\"metric\": …, \"goal\": \"Maximize\" or \"Minimize\", \"use\": \"Last\", \"Min\" or \"Max\"}}: {error}")
    })?;
    let use_ = match best.use_.unwrap_or_default() {
        MetricUse::Last => "last",
        MetricUse::Min => "min",
        MetricUse::Max => "max",
    };
    let score = |member: &Value| {
        let metric = member.get("metrics")?.get(&best.metric)?;
        let value = metric.get(use_).or_else(|| metric.get("last"))?.as_f64()?;
        (member.get("phase").and_then(Value::as_str) == Some("Completed")).then_some(
            match best.goal.unwrap_or_default() {
                Goal::Maximize => value,
                Goal::Minimize => -value,
            },
        )
    };
    let scored = members.iter().rev().filter_map(|member| Some((score(member)?, member)));
    let found = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
    found.map(|(_, member)| member.clone()).ok_or_else(|| {
        format!(
            "best(): none of the {} members completed with a metric {}",
            members.len(),
            Value::from(best.metric.as_str())
        )
    })
}
