//! Randomness for delays and names; nothing secret is made of it.
//!
//! Comes in: nothing, or the delay to vary. Goes out: a number, or a delay a little shorter than asked.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// A random number. The standard library seeds each `RandomState` differently, from the system's randomness.
#[must_use]
pub fn number() -> u64 {
    RandomState::new().hash_one(0_u8)
}

/// Between three quarters of `delay` and all of it, so that replicas do not act in step. Never longer, so a delay
/// that is also a limit stays one.
#[must_use]
pub fn jitter(delay: Duration) -> Duration {
    let part = u32::try_from(number() % 250).unwrap_or(0); // always fits: it is below 250
    delay * (1000 - part) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_shortens_by_a_quarter_at_most() {
        let second = Duration::from_secs(1);
        let delays: Vec<_> = (0..200).map(|_| jitter(second)).collect();
        assert!(delays.iter().all(|delay| (Duration::from_millis(750)..=second).contains(delay)));
        assert!(delays.iter().any(|delay| *delay != delays[0]));
    }
}
