//! Whether this process is ready and alive.
//!
//! Comes in: every watch with a flag that it has synced, whatever else the process needs to be of use, and every loop
//! with its heartbeats. Goes out: a verdict and the text that names what is missing. Synced: every watch has its first
//! list, so deciding may begin. Ready: synced, and everything else is there. Alive: every loop has beaten in time.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The health of the process. Clones are the same health.
#[derive(Clone, Debug)]
pub struct Health {
    start: Instant,
    parts: Arc<Mutex<Parts>>,
}

#[derive(Debug, Default)]
struct Parts {
    watches: Vec<(&'static str, Arc<AtomicBool>)>,
    needs: Vec<(&'static str, Arc<AtomicBool>)>,
    loops: Vec<Loop>,
}

#[derive(Debug)]
struct Loop {
    name: &'static str,
    within: Duration,
    /// Milliseconds from the start to the last beat.
    last: Arc<AtomicU64>,
}

/// A verdict with its reason, one line for each thing that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether all is well.
    pub ok: bool,
    /// "ok", or what is not.
    pub text: String,
}

/// The flag of one watch, or of one thing that is needed.
#[derive(Clone, Debug)]
pub struct Synced(Arc<AtomicBool>);

impl Synced {
    /// The watch has its first complete list, or what is needed is there.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The heart of one loop. When the last clone is gone the loop has ended and is not waited for any more.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    start: Instant,
    last: Arc<AtomicU64>,
}

impl Heartbeat {
    /// The loop has come round.
    pub fn beat(&self) {
        self.last.store(millis(self.start.elapsed()), Ordering::Release);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Nothing to wait for yet: register every watch before serving, or the process is ready too early.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now(), parts: Arc::default() }
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Parts> {
        // Nothing in here can panic half way, so what a panicking thread left is whole.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A watch, by its name.
    #[must_use]
    pub fn watch(&self, name: &'static str) -> Synced {
        let flag = Arc::new(AtomicBool::new(false));
        self.parts().watches.push((name, flag.clone()));
        Synced(flag)
    }

    /// Something other than a watch without which the process is not ready, by its name. Deciding does not wait for it.
    #[must_use]
    pub fn need(&self, name: &'static str) -> Synced {
        let flag = Arc::new(AtomicBool::new(false));
        self.parts().needs.push((name, flag.clone()));
        Synced(flag)
    }

    /// A loop that promises to beat at least every `within`.
    #[must_use]
    pub fn heartbeat(&self, name: &'static str, within: Duration) -> Heartbeat {
        let last = Arc::new(AtomicU64::new(millis(self.start.elapsed())));
        self.parts().loops.push(Loop { name, within, last: last.clone() });
        Heartbeat { start: self.start, last }
    }

    /// Whether every watch has synced.
    #[must_use]
    pub fn synced(&self) -> Verdict {
        verdict(missing(&self.parts().watches, "not synced"))
    }

    /// Whether every watch has synced and everything needed is there.
    #[must_use]
    pub fn ready(&self) -> Verdict {
        let parts = self.parts();
        verdict(missing(&parts.watches, "not synced").chain(missing(&parts.needs, "not there")))
    }

    /// Whether every loop has beaten in time, at `now`.
    #[must_use]
    pub fn live(&self, now: Instant) -> Verdict {
        let elapsed = now.saturating_duration_since(self.start);
        let mut parts = self.parts();
        parts.loops.retain(|part| Arc::strong_count(&part.last) > 1);
        let still = parts.loops.iter().filter_map(|part| {
            let since = elapsed.saturating_sub(Duration::from_millis(part.last.load(Ordering::Acquire)));
            (since > part.within).then(|| {
                format!(
                    "stands still: {} (last turn {} s ago, allowed {} s)",
                    part.name,
                    since.as_secs(),
                    part.within.as_secs()
                )
            })
        });
        verdict(still)
    }
}

fn missing<'a>(flags: &'a [(&'static str, Arc<AtomicBool>)], what: &'a str) -> impl Iterator<Item = String> + 'a {
    flags.iter().filter(|(_, flag)| !flag.load(Ordering::Acquire)).map(move |(name, _)| format!("{what}: {name}"))
}

fn verdict(faults: impl Iterator<Item = String>) -> Verdict {
    let mut text = String::new();
    for fault in faults {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{fault}");
    }
    let ok = text.is_empty();
    Verdict { ok, text: if ok { "ok\n".to_owned() } else { text } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_what_has_not_synced() {
        let health = Health::new();
        let (pods, jobs) = (health.watch("pods"), health.watch("jobs"));
        assert_eq!(health.ready().text, "not synced: pods\nnot synced: jobs\n");
        pods.set();
        assert_eq!(health.ready(), Verdict { ok: false, text: "not synced: jobs\n".to_owned() });
        let certificate = health.need("certificate");
        jobs.set();
        assert!(health.synced().ok, "deciding does not wait for what else is needed");
        assert_eq!(health.ready().text, "not there: certificate\n");
        certificate.set();
        assert_eq!(health.ready(), Verdict { ok: true, text: "ok\n".to_owned() });
    }

    #[test]
    fn liveness_names_the_loop_that_stands_still() {
        let health = Health::new();
        let queue = health.heartbeat("queue", Duration::from_secs(5));
        let slow = health.heartbeat("slow", Duration::from_secs(60));
        let later = Instant::now() + Duration::from_secs(30);
        let live = health.live(later);
        assert!(!live.ok && live.text.starts_with("stands still: queue (last turn "), "{}", live.text);
        assert!(health.live(Instant::now() + Duration::from_secs(3)).ok);
        drop(queue);
        assert!(health.live(later).ok, "a loop that has ended is not waited for");
        slow.beat();
    }
}
