use super::*;
use crate::domain::time::zone;
use proptest::prelude::*;

fn times(cron: &str, name: &str, after: &str, count: usize) -> Vec<String> {
    let (cron, zone) = (Cron::parse(cron).unwrap(), zone(name).unwrap());
    let mut at: Timestamp = after.parse().unwrap();
    let mut found = Vec::new();
    for _ in 0..count {
        at = cron.next(at, &zone).unwrap();
        found.push(at.to_zoned(zone.clone()).strftime("%m-%d %H:%M %:z").to_string());
    }
    found
}

#[test]
fn a_time_that_does_not_exist_is_the_first_moment_after_the_gap() {
    assert_eq!(
        times("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3),
        ["03-28 02:30 +01:00", "03-29 03:00 +02:00", "03-30 02:30 +02:00"]
    );
    assert_eq!(
        times("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", 2),
        ["03-08 03:00 -04:00", "03-09 02:30 -04:00"]
    );
    // Twelve times in the gap are one moment, and 03:00 itself is no other.
    assert_eq!(
        times("*/5 2,3 * * *", "Europe/Berlin", "2026-03-29T00:59:00Z", 2),
        ["03-29 03:00 +02:00", "03-29 03:05 +02:00"]
    );
}

#[test]
fn a_time_that_comes_twice_is_the_first() {
    assert_eq!(
        times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
        ["10-25 02:30 +02:00", "10-26 02:30 +01:00"]
    );
    assert_eq!(
        times("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 2),
        ["11-01 01:30 -04:00", "11-02 01:30 -05:00"]
    );
    // Asked between the two.
    assert_eq!(times("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), ["10-26 02:30 +01:00"]);
}

#[test]
fn every_hour_means_hours_that_pass() {
    assert_eq!(
        times("30 * * * *", "Europe/Berlin", "2026-03-28T23:45:00Z", 3),
        ["03-29 01:30 +01:00", "03-29 03:30 +02:00", "03-29 04:30 +02:00"]
    );
    assert_eq!(
        times("@hourly", "America/New_York", "2026-11-01T04:30:00Z", 3),
        ["11-01 01:00 -04:00", "11-01 01:00 -05:00", "11-01 02:00 -05:00"]
    );
    // Put forward by half an hour.
    assert_eq!(
        times("15 * * * *", "Australia/Lord_Howe", "2026-10-03T14:50:00Z", 2),
        ["10-04 03:15 +11:00", "10-04 04:15 +11:00"]
    );
}

#[test]
fn fields_are_what_cron_has() {
    let utc = |cron, count| times(cron, "UTC", "2026-11-25T10:07:30Z", count);
    assert_eq!(utc("*/15 9-10 * * *", 3), ["11-25 10:15 +00:00", "11-25 10:30 +00:00", "11-25 10:45 +00:00"]);
    assert_eq!(utc("5/25 * * * *", 2), ["11-25 10:30 +00:00", "11-25 10:55 +00:00"]);
    assert_eq!(utc("0 0 * * MON-Wed", 2), ["11-30 00:00 +00:00", "12-01 00:00 +00:00"]);
    assert_eq!(utc("0 0 * * 7", 1), utc("0 0 * * sun", 1));
    // Either of them.
    assert_eq!(utc("0 0 1 * fri", 2), ["11-27 00:00 +00:00", "12-01 00:00 +00:00"]);
    assert_eq!(utc("0 12 31 feb,dec *", 1), ["12-31 12:00 +00:00"]);
    assert_eq!(times("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 1), ["02-29 00:00 +00:00"]);
    for (word, plain) in WORDS {
        assert_eq!(utc(word, 2), utc(plain, 2));
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (text, part) in [
        ("", "0 fields, not five"),
        ("* * * * * *", "6 fields, not five"),
        ("60 * * * *", "the minute \"60\" is not within 0-59"),
        ("* 24 * * *", "the hour \"24\" is not within 0-23"),
        ("* * 0 * *", "the day of the month \"0\" is not within 1-31"),
        ("* * * janu *", "the month \"janu\" is not within 1-12 or jan-dec"),
        ("* * * * 8", "the day of the week \"8\" is not within 0-7 or sun-sat"),
        ("30-10 * * * *", "ends before it begins"),
        ("*/0 * * * *", "has a step that is not within 1-59"),
        ("*/+5 * * * *", "has a step"),
        ("+5 * * * *", "the minute \"+5\""),
        ("1,,2 * * * *", "the minute \"\""),
        ("0 0 30 2 *", "never comes"),
        ("@often", "is not one of @yearly"),
        ("TZ=UTC * * * * *", "stands in spec.timeZone"),
        ("0 0 L * *", "the day of the month \"l\""),
    ] {
        let error = Cron::parse(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

fn expression() -> impl Strategy<Value = String> {
    let field = |least: u8, most: u8| {
        prop_oneof![
            Just("*".to_owned()),
            (1..=most).prop_map(|step| format!("*/{step}")),
            (least..=most, least..=most).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            proptest::collection::vec(least..=most, 1..4).prop_map(|list| list
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(",")),
        ]
    };
    (field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 7))
        .prop_map(|(a, b, c, d, e)| format!("{a} {b} {c} {d} {e}"))
}

const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Pacific/Apia"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    // Minute by minute over some days, nothing is left out and nothing is there too much.
    #[test]
    fn the_next_time_is_the_first_that_the_clock_shows(
        text in expression(), name in proptest::sample::select(&ZONES[..]), hour in 0_i64..(16 * 8760),
    ) {
        let (cron, zone) = (Cron::parse(&text).unwrap(), zone(name).unwrap());
        let begin = Timestamp::from_second(1_262_304_000 + hour * 3600).unwrap();
        let end = begin.checked_add(SignedDuration::from_hours(36)).unwrap();
        let mut found = Vec::new();
        let mut at = begin;
        while let Some(next) = cron.next(at, &zone).filter(|next| *next <= end) {
            prop_assert!(next > at);
            found.push(next);
            at = next;
        }
        let shows = |moment: Timestamp| {
            let here = zone.to_datetime(moment);
            cron.is_on(here.date()) && cron.hours.has(here.hour()) && cron.minutes.has(here.minute())
        };
        let all = (1..=36 * 60).filter_map(|minute| minutes_later(begin, minute));
        let on_the_clock = cron.hours.bits.count_ones() < 24;
        // The clock shows it for the first time.
        let first = |at: &Timestamp| !on_the_clock || moment(zone.to_datetime(*at), &zone) == Some(*at);
        let wanted: Vec<Timestamp> = all.filter(|at| shows(*at) && first(at)).collect();
        for at in &wanted {
            prop_assert!(found.contains(at), "{text} {name} leaves out {at}");
        }
        // What else there is comes right after a gap.
        for at in found.iter().filter(|at| !wanted.contains(at)) {
            let before = at.checked_sub(SignedDuration::from_secs(1)).unwrap();
            prop_assert!(on_the_clock && zone.to_offset(*at) > zone.to_offset(before), "{text} {name} has {at}");
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[0-9a-z@*/,\\- ]{0,24}") {
        let _ = Cron::parse(&text);
    }
}
