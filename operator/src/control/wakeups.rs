//! Wake-ups: each key once, never two passes of one key at a time, timers beside it.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::observe::Key;

/// Keys that want a pass.
#[derive(Default)]
pub struct Wakeups {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    // Whether anybody works: a follower would collect keys without end.
    open: bool,
    // Before all others: who has leave to start, or must end.
    first: VecDeque<Key>,
    // A key may stand here, and in `first`, without being queued any more: then it is passed over.
    ready: VecDeque<Key>,
    queued: HashSet<Key>,
    running: HashSet<Key>,
    timers: BTreeSet<(Instant, Key)>,
    timer_of: HashMap<Key, Instant>,
}

impl State {
    fn push(&mut self, key: Key) -> bool {
        let new = self.queued.insert(key.clone());
        if new {
            self.ready.push_back(key);
        }
        new
    }

    fn expire(&mut self, now: Instant) {
        while let Some((moment, key)) = self.timers.first().cloned() {
            if moment > now {
                break;
            }
            self.timers.remove(&(moment, key.clone()));
            self.timer_of.remove(&key);
            self.push(key);
        }
    }

    fn push_first(&mut self, key: Key) {
        self.queued.insert(key.clone());
        self.first.push_back(key);
    }

    fn pop(&mut self) -> Option<Key> {
        let key = take(&mut self.first, &mut self.queued, &self.running)
            .or_else(|| take(&mut self.ready, &mut self.queued, &self.running))?;
        self.running.insert(key.clone());
        Some(key)
    }
}

// The first that can be worked on. A key that is being worked on waits for its pass to end, and then gets one more.
fn take(lane: &mut VecDeque<Key>, queued: &mut HashSet<Key>, running: &HashSet<Key>) -> Option<Key> {
    loop {
        let position = lane.iter().position(|key| !queued.contains(key) || !running.contains(key))?;
        let key = lane.remove(position)?;
        if queued.remove(&key) {
            return Some(key);
        }
    }
}

impl Wakeups {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes keys from now on: this replica leads.
    pub fn open(&self) {
        self.lock().open = true;
    }

    /// Takes no keys and forgets those that wait: whoever leads next looks at everything.
    pub fn close(&self) {
        let mut state = self.lock();
        let running = std::mem::take(&mut state.running);
        *state = State { running, ..State::default() };
    }

    /// Asks for a pass.
    pub fn wake(&self, key: Key) {
        let mut state = self.lock();
        if state.open && state.push(key) {
            drop(state);
            self.news.notify_one();
        }
    }

    /// Asks for a pass before all those that were asked for with [`Wakeups::wake`].
    pub fn wake_first(&self, key: Key) {
        let mut state = self.lock();
        if state.open {
            state.push_first(key);
            drop(state);
            self.news.notify_one();
        }
    }

    /// Sets, moves or removes the timer of a key.
    pub fn set_timer(&self, key: &Key, moment: Option<Instant>) {
        let mut state = self.lock();
        if let Some(old) = state.timer_of.remove(key) {
            state.timers.remove(&(old, key.clone()));
        }
        if let Some(moment) = moment {
            state.timers.insert((moment, key.clone()));
            state.timer_of.insert(key.clone(), moment);
            let first = state.timers.first().is_some_and(|(_, first)| first == key);
            drop(state);
            if first {
                self.news.notify_one();
            }
        }
    }

    /// The next key to work on; to be given back with [`Wakeups::done`].
    pub async fn next(&self) -> Key {
        loop {
            let timer = {
                let mut state = self.lock();
                state.expire(Instant::now());
                if let Some(key) = state.pop() {
                    return key;
                }
                state.timers.first().map(|(moment, _)| *moment)
            };
            match timer {
                None => self.news.notified().await,
                Some(moment) => {
                    tokio::select! {
                        () = self.news.notified() => {}
                        () = sleep_until(moment) => {}
                    }
                }
            }
        }
    }

    /// A pass has ended.
    pub fn done(&self, key: &Key) {
        let mut state = self.lock();
        state.running.remove(key);
        if state.queued.contains(key) {
            self.news.notify_one();
        }
    }

    /// How many keys wait for a pass.
    pub fn len(&self) -> usize {
        self.lock().queued.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Kind;
    use std::time::Duration;

    fn key(name: &str) -> Key {
        Key::new(Kind::Experiment, "default", name)
    }

    #[tokio::test]
    async fn a_key_waits_once_and_never_runs_twice_at_a_time() {
        let queue = Wakeups::default();
        queue.open();
        queue.wake(key("a"));
        queue.wake(key("a"));
        assert_eq!(queue.next().await, key("a"));
        queue.wake(key("a"));
        queue.wake(key("b"));
        assert_eq!(queue.next().await, key("b"));
        assert!(tokio::time::timeout(Duration::from_millis(20), queue.next()).await.is_err());
        queue.done(&key("a"));
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test]
    async fn who_must_not_wait_comes_first_and_once() {
        let queue = Wakeups::default();
        queue.open();
        for name in ["a", "b", "c"] {
            queue.wake(key(name));
        }
        queue.wake_first(key("c"));
        queue.wake_first(key("d"));
        queue.wake_first(key("d"));
        assert_eq!(queue.len(), 4);
        for name in ["c", "d", "a", "b"] {
            assert_eq!(queue.next().await, key(name));
        }
        assert!(tokio::time::timeout(Duration::from_millis(20), queue.next()).await.is_err());
        queue.wake_first(key("a"));
        queue.wake(key("a"));
        queue.done(&key("a"));
        assert_eq!(queue.next().await, key("a"));
        assert_eq!(queue.len(), 0);
    }

    #[tokio::test]
    async fn timers_fire_in_order_and_can_be_moved() {
        let queue = Wakeups::default();
        queue.open();
        let now = Instant::now();
        queue.set_timer(&key("late"), Some(now + Duration::from_millis(10)));
        queue.set_timer(&key("early"), Some(now + Duration::from_millis(20)));
        queue.set_timer(&key("early"), Some(now + Duration::from_millis(5)));
        queue.set_timer(&key("never"), Some(now));
        queue.set_timer(&key("never"), None);
        assert_eq!(queue.next().await, key("early"));
        assert_eq!(queue.next().await, key("late"));
    }
}
