//! The times of a schedule: of all its expressions together, and those on the days of a backfill.

use cultivar_crds::ScheduleSpec;
use cultivar_crds::schedule::Backfill;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;

use crate::domain::cron::{Cron, moment};
use crate::domain::time;

/// Where no zone is given.
const UTC: &str = "UTC";
/// Past times that are gone through one by one; of more, only the newest are looked at.
const MOST: u64 = 10_000;

/// When a schedule comes true.
#[derive(Clone, Debug)]
pub struct Times {
    crons: Vec<Cron>,
    zone: TimeZone,
}

/// Days as moments: from the first on, to before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days {
    /// When the first day begins.
    pub first: Timestamp,
    /// When the day after the last begins.
    pub end: Timestamp,
}

/// Times that have passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The newest of them, oldest first.
    pub newest: Vec<Timestamp>,
    /// How many there are; of more than ten thousand, at least so many.
    pub count: u64,
}

impl Times {
    /// Those of a spec.
    ///
    /// # Errors
    /// Says what is wrong with an expression or the zone.
    pub fn of(spec: &ScheduleSpec) -> Result<Self, String> {
        let crons = spec.cron.iter().map(|cron| Cron::parse(cron)).collect::<Result<_, _>>()?;
        Ok(Self { crons, zone: time::zone(spec.time_zone.as_deref().unwrap_or(UTC))? })
    }

    /// What says the same to everybody: two with the same words have the same times.
    #[must_use]
    pub fn words(spec: &ScheduleSpec) -> String {
        format!("{} ({})", spec.cron.join("; "), spec.time_zone.as_deref().unwrap_or(UTC))
    }

    /// The times after a moment.
    pub fn after(&self, moment: Timestamp) -> impl Iterator<Item = Timestamp> {
        let next = |after: &Timestamp| self.crons.iter().filter_map(|cron| cron.next(*after, &self.zone)).min();
        std::iter::successors(next(&moment), next)
    }

    /// The times on these days.
    pub fn within(&self, days: &Days) -> impl Iterator<Item = Timestamp> {
        let end = days.end;
        self.after(before(days.first)).take_while(move |time| *time < end)
    }

    /// The times after `since`, up to `now`, the newest `keep` of them by themselves.
    #[must_use]
    pub fn passed(&self, since: Timestamp, now: Timestamp, keep: usize) -> Passed {
        let mut newest = VecDeque::with_capacity(keep + 1);
        let mut take = |since: Timestamp| {
            let mut count = 0;
            for time in
                self.after(since).take_while(|time| *time <= now).take(usize::try_from(MOST).unwrap_or(usize::MAX))
            {
                newest.push_back(time);
                if newest.len() > keep {
                    newest.pop_front();
                }
                count += 1;
            }
            count
        };
        let count: u64 = take(since);
        if count == MOST {
            // They are at least a minute apart: as many minutes before now have no more of them.
            let minutes = SignedDuration::from_mins(i64::try_from(MOST).unwrap_or(i64::MAX));
            let late = now.checked_sub(minutes).unwrap_or(since).max(since);
            take(late);
        }
        let mut newest = Vec::from(newest);
        newest.sort_unstable();
        newest.dedup();
        Passed { newest, count }
    }

    /// A moment with the schedule's zone.
    #[must_use]
    pub fn text(&self, moment: Timestamp) -> String {
        moment.to_zoned(self.zone.clone()).to_string()
    }
}

impl Days {
    /// Reads a day.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn day(text: &str) -> Result<Date, String> {
        text.parse().map_err(|_| format!("{text:?} is no day of the calendar: write it as 2026-11-25"))
    }

    /// Those of a backfill, on the clock of the schedule.
    #[must_use]
    pub fn of(backfill: &Backfill, times: &Times) -> Option<Self> {
        let begins = |day: Date| moment(day.at(0, 0, 0, 0), &times.zone);
        let (from, to) = (Self::day(&backfill.from).ok()?, Self::day(&backfill.to).ok()?);
        Some(Self { first: begins(from)?, end: begins(to.tomorrow().ok()?)? })
    }
}

/// Just before a moment.
#[must_use]
pub fn before(moment: Timestamp) -> Timestamp {
    moment.checked_sub(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MIN)
}
