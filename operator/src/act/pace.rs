//! Pace: how long progress waits before it is written, from how long writes take.
//!
//! Comes in: the durations of status writes. Goes out: a wait. A busy API server is not made busier with progress that
//! is out of date when it arrives; what starts and ends things never waits for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Waits are so many times as long as a write takes: an object is being written for a twentieth of the time at most.
const SHARE: u32 = 20;
/// Progress is never older than this.
const LONGEST: Duration = Duration::from_secs(15);
/// Weight of the newest write in the average.
const NEWEST: u64 = 8;

/// The average duration of recent status writes.
#[derive(Default)]
pub struct Pace {
    micros: AtomicU64,
}

impl Pace {
    /// A write took this long.
    pub fn wrote(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // Two writes that end at once may count as one: it is an average.
        let average = self.micros.load(Ordering::Relaxed);
        self.micros.store(average.saturating_mul(NEWEST - 1).saturating_add(took) / NEWEST, Ordering::Relaxed);
    }

    /// How long progress waits now, at least `least`.
    pub fn wait(&self, least: Duration) -> Duration {
        let average = Duration::from_micros(self.micros.load(Ordering::Relaxed));
        average.saturating_mul(SHARE).min(LONGEST).max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_writes_make_progress_wait_up_to_a_limit() {
        let (pace, least) = (Pace::default(), Duration::from_secs(1));
        assert_eq!(pace.wait(least), least);
        (0..100).for_each(|_| pace.wrote(Duration::from_millis(5)));
        assert_eq!(pace.wait(least), least);
        (0..100).for_each(|_| pace.wrote(Duration::from_millis(250)));
        assert!(pace.wait(least) > Duration::from_secs(4) && pace.wait(least) <= Duration::from_secs(5));
        (0..100).for_each(|_| pace.wrote(Duration::from_secs(10)));
        assert_eq!(pace.wait(least), LONGEST);
    }
}
