//! Cron expressions, and when they come true in a time zone.
//!
//! Comes in: five fields or a word such as `@daily`, and a zone. Goes out: moments, each later than the one before.
//!
//! Where clocks change: a time of day that does not exist is the first moment after the gap, and one that comes twice is
//! the first of the two. An expression of every hour means hours that pass, not hours on the clock: it leaves out what does
//! not exist, and comes true in both hours of the same name.

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

/// An expression that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
}

/// Numbers of one field, as bits; and whether it was written as `*`, with or without a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set {
    bits: u64,
    star: bool,
}

impl Set {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.bits.checked_shr(number).is_some_and(|bits| bits & 1 == 1))
    }

    fn from(self, first: i8) -> impl Iterator<Item = i8> {
        (first..60).filter(move |number| self.has(*number))
    }
}

/// A field of an expression.
struct Field {
    name: &'static str,
    least: u8,
    most: u8,
    // Names of numbers, from the least.
    words: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", least: 0, most: 59, words: &[] },
    Field { name: "hour", least: 0, most: 23, words: &[] },
    Field { name: "day of the month", least: 1, most: 31, words: &[] },
    Field {
        name: "month",
        least: 1,
        most: 12,
        words: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    // 7 is Sunday too.
    Field { name: "day of the week", least: 0, most: 7, words: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// The longest a time can be away: 29 February over a year that has none.
const YEARS: i16 = 9;

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// Says which field is wrong, and what it may be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let plain = WORDS.iter().find(|(word, _)| *word == lower).map_or(lower.as_str(), |(_, plain)| *plain);
        if plain.starts_with('@') {
            let words = WORDS.map(|(word, _)| word).join(", ");
            return Err(format!("{:?} is not one of {words}", text.trim()));
        }
        if plain.starts_with("tz=") || plain.starts_with("cron_tz=") {
            return Err("the time zone stands in spec.timeZone, not in the expression".to_owned());
        }
        let fields: Vec<&str> = plain.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!(
                "{:?} has {} fields, not five: minute, hour, day of the month, month, day of the week, as in \"30 2 * * mon-fri\"",
                text.trim(),
                fields.len()
            ));
        };
        let mut weekdays = FIELDS[4].parse(weekdays)?;
        weekdays.bits |= weekdays.bits >> 7 & 1;
        let cron = Self {
            minutes: FIELDS[0].parse(minutes)?,
            hours: FIELDS[1].parse(hours)?,
            days: FIELDS[2].parse(days)?,
            months: FIELDS[3].parse(months)?,
            weekdays,
        };
        // 2024 has every day that any year has; where days of the week count, there is one in every month.
        let exists = |month: i8, day: i8| Date::new(2024, month, day).is_ok();
        let by_weekday = !cron.weekdays.star;
        if !by_weekday && !cron.months.from(1).any(|month| cron.days.from(1).any(|day| exists(month, day))) {
            return Err(format!("{:?} never comes: none of its months has such a day", text.trim()));
        }
        Ok(cron)
    }

    /// The first time after `after`.
    #[must_use]
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.hours.star && self.hours.bits.count_ones() == 24 {
            self.passing(after, zone)
        } else {
            self.on_the_clock(after, zone)
        }
    }

    fn is_on(&self, date: Date) -> bool {
        let weekday = self.weekdays.has(date.weekday().to_sunday_zero_offset());
        let day = self.days.has(date.day());
        // Cron's own rule: two fields that are both given mean either of them.
        let fits = if self.days.star || self.weekdays.star { day && weekday } else { day || weekday };
        fits && self.months.has(date.month())
    }

    // The first date from `date` on that fits.
    fn date(&self, date: Date) -> Option<Date> {
        let last = date.checked_add(YEARS.years()).ok()?;
        let mut date = date;
        while date <= last {
            if self.is_on(date) {
                return Some(date);
            }
            date = if self.months.has(date.month()) {
                date.tomorrow().ok()?
            } else {
                date.last_of_month().tomorrow().ok()?
            };
        }
        None
    }

    fn on_the_clock(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let begin = zone.to_datetime(after);
        let mut date = begin.date();
        // What lies behind `after` is passed over; a day has few times, and few days are like that.
        loop {
            date = self.date(date)?;
            let first = if date == begin.date() { begin.hour() } else { 0 };
            for hour in self.hours.from(first) {
                let moments = self.minutes.from(0).filter_map(|minute| moment(date.at(hour, minute, 0, 0), zone));
                if let Some(moment) = moments.into_iter().find(|moment| *moment > after) {
                    return Some(moment);
                }
            }
            date = date.tomorrow().ok()?;
        }
    }

    fn passing(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut at = minutes_later(Timestamp::from_second(after.as_second().div_euclid(60) * 60).ok()?, 1)?;
        loop {
            let here: DateTime = zone.to_datetime(at);
            let date = self.date(here.date())?;
            if date != here.date() {
                // The day begins when its first moment is there, on whatever hour that is.
                let begins = date.to_zoned(zone.clone()).ok()?.timestamp();
                at = if begins > at { begins } else { minutes_later(at, 1)? };
                continue;
            }
            if self.minutes.has(here.minute()) {
                return Some(at);
            }
            let next = self.minutes.from(here.minute()).next().unwrap_or(60);
            // A zone may change its clock within an hour: then the minute is looked at again where it stands.
            at = minutes_later(at, i64::from(next - here.minute()).max(1))?;
        }
    }
}

impl Field {
    fn parse(&self, text: &str) -> Result<Set, String> {
        let mut set = Set { bits: 0, star: text.starts_with('*') };
        for part in text.split(',') {
            let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (self.least, self.most),
                Some((first, last)) => (self.number(first)?, self.number(last)?),
                // `5/15` is every 15 from 5 on.
                None if step.is_some() => (self.number(range)?, self.most),
                None => (self.number(range)?, self.number(range)?),
            };
            if first > last {
                return Err(format!("the {} {range:?} ends before it begins", self.name));
            }
            let digits = |text: &str| {
                text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<usize>().ok()).flatten()
            };
            let step = match step.map(digits) {
                None => 1,
                Some(Some(step)) if step > 0 && step <= usize::from(self.most) => step,
                Some(_) => {
                    return Err(format!("the {} {part:?} has a step that is not within 1-{}", self.name, self.most));
                }
            };
            set.bits |= (first..=last).step_by(step).fold(0, |bits, number| bits | 1 << number);
        }
        Ok(set)
    }

    fn number(&self, text: &str) -> Result<u8, String> {
        let word = self.words.iter().position(|word| *word == text);
        let number = match word {
            Some(position) => u8::try_from(position).ok().map(|position| position + self.least),
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            None => None,
        };
        number.filter(|number| (self.least..=self.most).contains(number)).ok_or_else(|| {
            let words = match self.words {
                [first, .., last] => format!(" or {first}-{last}"),
                _ => String::new(),
            };
            format!(
                "the {} {text:?} is not within {}-{}{words}; a field has numbers, ranges as 1-5, steps as */15, and lists of them with commas",
                self.name, self.least, self.most
            )
        })
    }
}

fn minutes_later(moment: Timestamp, minutes: i64) -> Option<Timestamp> {
    moment.checked_add(SignedDuration::from_mins(minutes)).ok()
}

/// When the clock shows this: the first time it does; the first moment after a gap that it lies in.
#[must_use]
pub fn moment(time: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(time);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
        AmbiguousOffset::Gap { .. } => {
            // With the offset from before the gap, it is at or after the moment the clock was put forward.
            let later = ambiguous.later().ok()?.checked_add(SignedDuration::from_secs(1)).ok()?;
            zone.preceding(later).next().map(|transition| transition.timestamp())
        }
    }
}

#[cfg(test)]
mod tests;
