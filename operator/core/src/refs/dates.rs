//! The function `date`: a moment as text, as it is or some time before or after.
//!
//! In: values as JSON. Out: a value as JSON, or what is wrong with them.

use jiff::{Span, Zoned};
use serde_json::Value;

use super::error::quote;
use super::path::kind;
use crate::domain::time::parse_moment;

/// `date(pipeline.scheduledTime, "%Y-%m-%d", "-1d")`: in the moment's own zone, by the words of strftime. A day is one of the
/// calendar, also where it has 23 hours.
pub(super) fn date(args: &[Value]) -> Result<Value, String> {
    let [moment, pattern, rest @ ..] = args else {
        return Err("date() takes a moment and a format, such as \"%Y-%m-%d\"".to_owned());
    };
    let moment = parse_moment(text(moment, "a moment")?).map_err(|error| format!("date(): {error}"))?;
    let moment = match rest.first() {
        None => moment,
        Some(offset) => shift(&moment, text(offset, "an offset")?)?,
    };
    let pattern = text(pattern, "a format")?;
    let shown = jiff::fmt::strtime::format(pattern, &moment).map_err(|error| {
        let pattern = Value::from(quote(pattern));
        format!("date() wants a format of strftime, such as \"%Y-%m-%d\", not {pattern}: {error}")
    })?;
    Ok(Value::String(shown))
}

fn text<'a>(value: &'a Value, what: &str) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("date() wants {what} as text, not {}", kind(value)))
}

// `-1d`, `+6h`, `-1d12h`, `90m`.
fn shift(moment: &Zoned, offset: &str) -> Result<Zoned, String> {
    let bad = || {
        format!(
            "date() wants an offset of numbers with d, h or m, such as \"-1d\" or \"+1d12h\", not {}",
            Value::from(quote(offset))
        )
    };
    let (back, mut rest) = match offset.as_bytes().first() {
        Some(b'-') => (true, &offset[1..]),
        Some(b'+') => (false, &offset[1..]),
        _ => (false, offset),
    };
    let mut span = Span::new();
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: i64 = rest[..digits].parse().map_err(|_| bad())?;
        let longer = match rest.as_bytes().get(digits) {
            Some(b'd') => span.try_days(number),
            Some(b'h') => span.try_hours(number),
            Some(b'm') => span.try_minutes(number),
            _ => return Err(bad()),
        };
        span = longer.map_err(|_| bad())?;
        rest = &rest[digits + 1..];
    }
    let moved = if back { moment.checked_sub(span) } else { moment.checked_add(span) };
    moved.map_err(|_| format!("date(): {moment} cannot be moved by {}", Value::from(quote(offset))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn given(args: &[&str]) -> Result<String, String> {
        let args: Vec<Value> = args.iter().map(|arg| json!(arg)).collect();
        date(&args).map(|value| value.as_str().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_moment_is_shown_in_its_own_zone() {
        let night = "2026-11-25T00:30:00+01:00[Europe/Berlin]";
        assert_eq!(given(&[night, "%Y-%m-%d"]).unwrap(), "2026-11-25");
        assert_eq!(given(&["2026-11-24T23:30:00Z", "%Y-%m-%d"]).unwrap(), "2026-11-24");
        assert_eq!(given(&[night, "%Y/%j %H%M", "-1d"]).unwrap(), "2026/328 0030");
        assert_eq!(given(&[night, "%F %T", "+1d12h30m"]).unwrap(), "2026-11-26 13:00:00");
        assert_eq!(given(&[night, "%F %H:%M", "90m"]).unwrap(), "2026-11-25 02:00");
    }

    #[test]
    fn a_day_is_one_of_the_calendar_and_hours_pass() {
        // The clock is put forward at 02:00 on 29 March.
        let noon = "2026-03-29T12:00:00+02:00[Europe/Berlin]";
        assert_eq!(given(&[noon, "%F %H:%M", "-1d"]).unwrap(), "2026-03-28 12:00");
        assert_eq!(given(&[noon, "%F %H:%M", "-24h"]).unwrap(), "2026-03-28 11:00");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (args, part) in [
            (&["yesterday", "%F"][..], "\"yesterday\" is no moment: write it as"),
            (&["2026-11-25T00:30:00+01:00[Europe/Bonn]", "%F"], "is no moment"),
            (&["2026-11-25T02:00:00Z", "%!"], "wants a format of strftime"),
            (&["2026-11-25T02:00:00Z", "%"], "wants a format of strftime"),
            (&["2026-11-25T02:00:00Z", "%F", "-1w"], "numbers with d, h or m"),
            (&["2026-11-25T02:00:00Z", "%F", "-"], "numbers with d, h or m"),
            (&["2026-11-25T02:00:00Z", "%F", ""], "numbers with d, h or m"),
            (&["2026-11-25T02:00:00Z", "%F", "7000000d"], "cannot be moved"),
            (&["2026-11-25T02:00:00Z", "%F", "99999999999999999999d"], "numbers with d, h or m"),
        ] {
            let error = given(args).unwrap_err();
            assert!(error.contains(part), "{args:?}: {error}");
        }
        let error = date(&[json!(5), json!("%F")]).unwrap_err();
        assert!(error.contains("a moment as text, not a number"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_shown_or_refused(moment in "[-0-9TZ:+\\[\\]A-z/]{0,40}", pattern in ".{0,12}", offset in "[-+0-9dhmé]{0,8}") {
            let _ = given(&[&moment, &pattern, &offset]);
            let _ = given(&["2026-11-25T02:00:00Z", &pattern, &offset]);
        }
    }
}
