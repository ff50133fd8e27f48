//! Pace: progress shares a budget of writes, so that a busy API server is not made busier.
//!
//! Comes in: when a status that can wait would be written. Goes out: when it is. What starts and ends things never waits
//! for a turn; progress that has not been written by then is written with the end.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Writes of progress a second, over all objects.
const RATE: f64 = 10.0;
/// So many wait for nothing.
const BURST: f64 = 20.0;
/// Progress never waits longer for its turn.
const LONGEST: Duration = Duration::from_secs(30);

/// The budget: a bucket that leaks.
#[derive(Default)]
pub struct Pace {
    bucket: Mutex<Bucket>,
}

#[derive(Default)]
struct Bucket {
    level: f64,
    at: Option<Instant>,
}

impl Pace {
    /// The turn of a write that could be made at `earliest`, asked for at `now`.
    pub fn turn(&self, earliest: Instant, now: Instant) -> Instant {
        // Nothing in here panics half way.
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let leaked = bucket.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64() * RATE);
        // Never fuller than the longest wait: turns beyond it are not waited for, so they are not counted either.
        bucket.level = ((bucket.level - leaked).max(0.0) + 1.0).min(BURST + RATE * LONGEST.as_secs_f64());
        bucket.at = Some(now);
        let wait = Duration::from_secs_f64((bucket.level - BURST).max(0.0) / RATE);
        earliest + wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_do_not_wait_and_many_take_turns_up_to_a_limit() {
        let (pace, now) = (Pace::default(), Instant::now());
        let earliest = now + Duration::from_secs(1);
        let turns: Vec<Duration> = (0..500).map(|_| pace.turn(earliest, now) - earliest).collect();
        assert!(turns[..20].iter().all(Duration::is_zero));
        assert!(turns[119].abs_diff(Duration::from_secs(10)) < Duration::from_millis(1));
        assert_eq!(turns[499], LONGEST);
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.turn(later, later), later);
    }
}
