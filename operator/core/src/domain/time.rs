//! Lengths of time as users write them, and moments as status carries them.

use jiff::fmt::temporal::{DateTimeParser, Pieces};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp, Zoned};
use serde_json::Value;
use std::sync::LazyLock;
use std::time::Duration;

/// Reads `90s`, `1h30m`, `250ms`, `30d`. Numbers beyond a century are cut to one.
///
/// # Errors
/// Says what was expected when the text is not such a length.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a length of time: write numbers with ms, s, m, h or d, as in 90s or 1h30m");
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let millis = match &rest[digits..unit_end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        total = total.saturating_add(Duration::from_millis(number.saturating_mul(millis)));
        rest = &rest[unit_end..];
    }
    Ok(total.min(CENTURY))
}

const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

/// `moment + length`, cut to the latest moment there is.
#[must_use]
pub fn after(moment: Timestamp, length: Duration) -> Timestamp {
    let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
    moment.checked_add(length).unwrap_or(Timestamp::MAX)
}

/// When something that has `finished` may go, if its spec says so with `ttlAfterFinished`.
#[must_use]
pub fn expiry(spec: &Value, finished: Timestamp) -> Option<Timestamp> {
    let length = parse_duration(spec.get("ttlAfterFinished")?.as_str()?).ok()?;
    Some(after(finished, length))
}

/// A moment as status carries it: RFC 3339 with milliseconds.
#[must_use]
pub fn stamp(moment: Timestamp) -> String {
    format!("{moment:.3}")
}

/// Reads what [`stamp`] wrote.
#[must_use]
pub fn read(stamp: Option<&str>) -> Option<Timestamp> {
    stamp.and_then(|text| text.parse().ok())
}

// The one that is built in: two machines must not disagree about an hour, and the operator's image has no other.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A time zone by its name in the IANA database.
///
/// # Errors
/// Says what was expected when there is none of this name.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    ZONES.get(name).map_err(|_| {
        format!("{name:?} is no time zone: write a name of the IANA database, such as Europe/Berlin, or UTC")
    })
}

/// Reads a moment that may say its zone: RFC 3339, or RFC 9557 as in `2026-11-25T02:00:00+01:00[Europe/Berlin]`.
///
/// # Errors
/// Says what was expected.
pub fn parse_moment(text: &str) -> Result<Zoned, String> {
    let wrong = |why: &dyn std::fmt::Display| {
        format!(
            "{text:?} is no moment: write it as 2026-11-25T02:00:00Z or 2026-11-25T02:00:00+01:00[Europe/Berlin] ({why})"
        )
    };
    if Pieces::parse(text).is_ok_and(|pieces| pieces.time_zone_annotation().is_some()) {
        return DateTimeParser::new().parse_zoned_with(&ZONES, text).map_err(|error| wrong(&error));
    }
    let moment: Timestamp = text.parse().map_err(|error| wrong(&error))?;
    Ok(moment.to_zoned(TimeZone::UTC))
}

/// A length for a person: `1h 2m`, `3.2s`.
#[must_use]
pub fn human(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..=9 => format!("{:.1}s", length.as_secs_f64()),
        10..=59 => format!("{seconds}s"),
        60..=3599 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_schema_allows() {
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(parse_duration("30d").unwrap(), Duration::from_secs(30 * 86_400));
        assert_eq!(parse_duration("99999999999999999d").unwrap(), CENTURY);
    }

    #[test]
    fn says_what_is_expected() {
        for wrong in ["", "5", "s", "1w", "-1s", "1.5h", "99999999999999999999999s"] {
            assert!(parse_duration(wrong).unwrap_err().contains("1h30m"), "{wrong}");
        }
    }

    #[test]
    fn a_stamp_is_read_back() {
        let moment: Timestamp = "2026-11-23T10:00:00.125Z".parse().unwrap();
        assert_eq!(stamp(moment), "2026-11-23T10:00:00.125Z");
        assert_eq!(read(Some(&stamp(moment))), Some(moment));
    }
}
