//! Pace: progress shares a budget of writes, so that a busy API server is not made busier; and all writes share another, where
//! somebody has set a limit.
//!
//! Comes in: when a status that can wait would be written. Goes out: when it is. What starts and ends things never waits
//! for that turn; progress that has not been written by then is written with the end.

use std::num::NonZeroU16;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Writes of progress a second, over all objects.
const RATE: f64 = 10.0;
/// So many wait for nothing.
const BURST: f64 = 20.0;
/// Progress never waits longer for its turn.
const LONGEST: Duration = Duration::from_secs(30);
/// Nor does other news of what waits in a queue already. It is told to all that are alike at once, thousands of them, and
/// when it is their turn another thing may be true.
const LONGEST_OF_A_CROWD: Duration = Duration::from_secs(300);

/// The budgets: buckets that leak.
#[derive(Default)]
pub struct Pace {
    progress: Mutex<Bucket>,
    crowd: Mutex<Bucket>,
}

#[derive(Default)]
struct Bucket {
    level: f64,
    at: Option<Instant>,
}

impl Pace {
    /// The turn of a write of progress that could be made at `earliest`, asked for at `now`.
    pub fn turn(&self, earliest: Instant, now: Instant) -> Instant {
        earliest + take(&self.progress, LONGEST, now)
    }

    /// The same, of what waits in a queue and goes on waiting: a budget of its own.
    pub fn turn_in_a_crowd(&self, earliest: Instant, now: Instant) -> Instant {
        earliest + take(&self.crowd, LONGEST_OF_A_CROWD, now)
    }
}

// How long who comes now waits for a turn.
fn take(bucket: &Mutex<Bucket>, longest: Duration, now: Instant) -> Duration {
    // Nothing in here panics half way.
    let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
    let leaked = bucket.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64() * RATE);
    // Never fuller than the longest wait: turns beyond it are not waited for, so they are not counted either.
    bucket.level = ((bucket.level - leaked).max(0.0) + 1.0).min(BURST + RATE * longest.as_secs_f64());
    bucket.at = Some(now);
    Duration::from_secs_f64((bucket.level - BURST).max(0.0) / RATE)
}

/// At most so many writes a second, of whatever kind; those of one second may come together.
pub struct WriteLimit {
    every: Duration,
    next: Mutex<Option<Instant>>,
}

impl WriteLimit {
    pub fn new(a_second: NonZeroU16) -> Self {
        Self { every: Duration::from_secs(1) / u32::from(a_second.get()), next: Mutex::default() }
    }

    /// Waits for a turn.
    pub async fn turn(&self) {
        let at = self.take(Instant::now());
        tokio::time::sleep_until(at.into()).await;
    }

    fn take(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        // Turns that nobody took are kept for a second.
        let kept = now.checked_sub(Duration::from_secs(1)).unwrap_or(now) + self.every;
        let at = next.map_or(kept, |next| next.max(kept));
        *next = Some(at + self.every);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_writes_and_no_more() {
        let limit = WriteLimit::new(NonZeroU16::new(50).unwrap());
        let now = Instant::now();
        let turns: Vec<Instant> = (0..200).map(|_| limit.take(now)).collect();
        let within = |seconds: u64| turns.iter().filter(|at| **at <= now + Duration::from_secs(seconds)).count();
        assert_eq!([within(0), within(1), within(2)], [50, 100, 150]);
        let later = now + Duration::from_secs(60);
        let after_a_pause = (0..60).filter(|_| limit.take(later) <= later).count();
        assert_eq!(after_a_pause, 50);
    }

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
        // A crowd has turns of its own, and more patience.
        let turns: Vec<Duration> = (0..4_000).map(|_| pace.turn_in_a_crowd(earliest, now) - earliest).collect();
        assert!(turns[..20].iter().all(Duration::is_zero));
        assert_eq!((turns[499], turns[3_999]), (Duration::from_secs(48), LONGEST_OF_A_CROWD));
    }
}
