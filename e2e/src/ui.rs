//! Progress on a terminal: what is being done now, for how long, and how long it took last time.
//!
//! In: named steps and notes. Out: one live line with a bar on a terminal, one line a finished step
//! everywhere; and the durations, kept in the cache folder for the next time.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::tools::cache_dir;

const BAR: usize = 16;
const REDRAW: Duration = Duration::from_millis(100);

/// A sequence of steps under one title.
pub struct Ui {
    title: String,
    silent: bool,
    started: Instant,
}

/// The step that is running: say what it is doing.
pub struct Step {
    note: Arc<Mutex<String>>,
    silent: bool,
}

impl Step {
    /// Replaces what is shown behind the step's name.
    pub fn note(&self, text: impl Display) {
        *lock(&self.note) = text.to_string();
    }

    /// Writes a line that stays, above the live one.
    pub fn say(&self, line: impl Display) {
        if !self.silent {
            let wipe = if std::io::stderr().is_terminal() { "\r\x1b[2K" } else { "" };
            let _ = writeln!(std::io::stderr(), "{wipe}  {line}");
        }
    }
}

impl Ui {
    /// Steps that are shown; `title` separates their recorded times from those of other commands.
    #[must_use]
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), silent: false, started: Instant::now() }
    }

    /// Steps that are neither shown nor timed, for tests.
    #[must_use]
    pub fn silent() -> Self {
        Self { title: String::new(), silent: true, started: Instant::now() }
    }

    /// Runs one step, showing its progress against its last duration.
    ///
    /// # Errors
    /// Whatever the work returns.
    pub fn step<T>(&self, name: &str, work: impl FnOnce(&Step) -> Result<T>) -> Result<T> {
        let step = Step { note: Arc::default(), silent: self.silent };
        if self.silent {
            return work(&step);
        }
        let key = format!("{}/{name}", self.title);
        let last = last_time(&key);
        let begun = Instant::now();
        let (stop, ticker) = tick(name.to_owned(), Arc::clone(&step.note), last, begun);
        let result = work(&step);
        drop(stop);
        // The ticker only draws; if it failed there is nothing to repair.
        let _ = ticker.join();
        let took = begun.elapsed();
        let mark = if result.is_ok() { '✓' } else { '✗' };
        let before = last.map_or(String::new(), |t| format!("  (last time {})", seconds(t)));
        self.say(format!("{mark} {name:<22} {}{before}", seconds(took)));
        if result.is_ok() {
            record(&key, took);
        }
        result
    }

    /// Writes a line of its own.
    pub fn say(&self, line: impl Display) {
        if !self.silent {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// The time since the first step.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A duration in words: `3.6 s`, `6 min 12 s`.
#[must_use]
pub fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole < 120 {
        return format!("{:.1} s", time.as_secs_f64());
    }
    format!("{} min {} s", whole / 60, whole % 60)
}

/// Redraws the live line until the returned sender is dropped, then wipes it.
fn tick(
    name: String,
    note: Arc<Mutex<String>>,
    last: Option<Duration>,
    begun: Instant,
) -> (Sender<()>, std::thread::JoinHandle<()>) {
    let (stop, stopped) = channel::<()>();
    let thread = std::thread::spawn(move || {
        if !std::io::stderr().is_terminal() {
            let _ = stopped.recv();
            return;
        }
        while stopped.recv_timeout(REDRAW) == Err(RecvTimeoutError::Timeout) {
            let note = lock(&note).clone();
            let line = live_line(&name, &note, begun.elapsed(), last);
            let _ = write!(std::io::stderr(), "\r\x1b[2K{line}");
            let _ = std::io::stderr().flush();
        }
        let _ = write!(std::io::stderr(), "\r\x1b[2K");
    });
    (stop, thread)
}

fn live_line(name: &str, note: &str, now: Duration, last: Option<Duration>) -> String {
    // A step never looks finished while it runs.
    let done = last.map_or(0.0, |t| (now.as_secs_f64() / t.as_secs_f64().max(0.001)).min(0.99));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let full = (done * BAR as f64) as usize;
    let bar: String = (0..BAR).map(|cell| if cell < full { '█' } else { '·' }).collect();
    let of = last.map_or(String::new(), |t| format!(" of about {}", seconds(t)));
    let width = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(100_usize);
    format!("{bar} {name}  {}{of}  {note}", seconds(now)).chars().take(width - 1).collect()
}

fn timings_file() -> std::path::PathBuf {
    cache_dir().join("timings.json")
}

fn timings() -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(timings_file()).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn last_time(key: &str) -> Option<Duration> {
    timings().get(key).and_then(|s| Duration::try_from_secs_f64(*s).ok())
}

fn record(key: &str, took: Duration) {
    let mut all = timings();
    all.insert(key.to_owned(), took.as_secs_f64());
    // Times are a comfort: a cache folder that cannot be written never fails a step.
    if let Ok(text) = serde_json::to_string_pretty(&all) {
        let _ = std::fs::create_dir_all(cache_dir());
        let _ = std::fs::write(timings_file(), text);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
