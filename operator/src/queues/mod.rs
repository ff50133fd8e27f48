//! Queues: the one loop that admits, over all of them, and what it knows.
//!
//! Comes in: Queues and namespaces from their watches, what experiments ask for from their passes, and what their live Jobs
//! and pods hold from the index. Goes out: leave to start, orders to stop and reasons to wait, which the next pass over
//! each experiment acts on; and the status of the Queues. What is decided is the core's: see `decide::queue`.

mod admit;
mod status;

pub use admit::{Loop, run};

use cultivar_core::decide::experiment::queueing::Queueing;
use cultivar_core::decide::queue::{Ask, Bearer, Engine, Id, Reading};
use cultivar_core::domain::node::{Node, Outsider};
use cultivar_core::domain::queue::{Hold, Word, config};
use cultivar_core::domain::{Meta, Placement, Record};
use cultivar_crds::{QueueSpec, QueueStatus};
use jiff::Timestamp;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

use crate::observe::Key;
use crate::observe::convert;
use crate::observe::raw::Raw;

/// An experiment's namespace and name.
type Name = (String, String);

/// What an experiment holds, and who it is to preemption.
pub struct Held {
    pub bearer: Bearer,
    pub holds: Vec<Hold>,
}

/// What the loop, the passes and the watches share.
#[derive(Default)]
pub struct Queues {
    engine: Mutex<Engine>,
    objects: Mutex<BTreeMap<String, Arc<Record<QueueStatus>>>>,
    touched: Mutex<HashSet<Name>>,
    // Whether there is any queue: where there is none nothing here costs anything.
    any: AtomicBool,
    news: Notify,
    // The extended resources that queues list, once every Queue is known.
    listed: watch::Sender<Option<Arc<BTreeSet<Word>>>>,
    // Since when the pods are looked through that hold some of what was listed last.
    counting: Mutex<Option<Instant>>,
    kueue: Mutex<Kueue>,
    kueue_wanted: watch::Sender<bool>,
    off: bool,
}

/// What Kueue says of Jobs, by uid, and who waits for it.
#[derive(Default)]
struct Kueue {
    words: HashMap<String, String>,
    waiting: HashMap<String, Key>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole after every statement that could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn id(key: &Key) -> Id {
    Id::new(&key.namespace, &key.name)
}

impl Queues {
    /// No queue is known yet; with `on` false none ever is.
    pub fn new(on: bool) -> Self {
        Self { off: !on, ..Self::default() }
    }

    /// A Queue as it is now.
    ///
    /// # Errors
    /// It cannot be read: a newer operator wrote it.
    pub fn apply(&self, object: Raw) -> Result<(), serde_json::Error> {
        let record = convert::record::<QueueStatus>(object, None)?;
        let spec = QueueSpec::deserialize(&*record.spec)?;
        let Meta { name, uid, deleting, .. } = record.meta.clone();
        locked(&self.engine).set_queue(&name, Some(config(&name, &uid, deleting, &spec)), Timestamp::now());
        locked(&self.objects).insert(name, Arc::new(record));
        self.any.store(true, Ordering::Relaxed);
        if self.listed.borrow().is_some() {
            self.are_known();
        }
        self.news.notify_one();
        Ok(())
    }

    /// Every Queue is known: what they list is.
    pub fn are_known(&self) {
        let listed = locked(&self.engine).listed();
        self.listed.send_if_modified(|known| {
            let news = known.as_deref() != Some(&listed);
            if news {
                *locked(&self.counting) = Some(Instant::now());
                *known = Some(Arc::new(listed));
            }
            news
        });
    }

    /// The extended resources that queues list; nothing until every Queue is known.
    pub fn listed(&self) -> watch::Receiver<Option<Arc<BTreeSet<Word>>>> {
        self.listed.subscribe()
    }

    /// A pod that no queue admitted holds something of a node, or nothing any more.
    pub fn set_outsider(&self, name: &str, outsider: Option<Outsider>) {
        // Most pods of a cluster change nothing here.
        if locked(&self.engine).set_outsider(name, outsider) {
            self.news.notify_one();
        }
    }

    /// The pods that no queue admitted and that hold something of a node.
    pub fn outsiders(&self) -> HashSet<String> {
        locked(&self.engine).outsiders().cloned().collect()
    }

    /// All of them are known.
    pub fn outsiders_are_known(&self) {
        *locked(&self.counting) = None;
        self.news.notify_one();
    }

    /// How long those pods have been looked through, where they still are.
    fn counting(&self) -> Option<Duration> {
        locked(&self.counting).map(|since| since.elapsed())
    }

    /// A Queue is gone.
    pub fn remove(&self, name: &str) {
        let mut engine = locked(&self.engine);
        engine.set_queue(name, None, Timestamp::now());
        self.any.store(engine.has_queues(), Ordering::Relaxed);
        drop(engine);
        locked(&self.objects).remove(name);
        if self.listed.borrow().is_some() {
            self.are_known();
        }
        self.news.notify_one();
    }

    /// A namespace has these labels, or is gone.
    pub fn set_namespace(&self, name: &str, labels: Option<BTreeMap<String, String>>) {
        locked(&self.engine).set_namespace(name, labels, Timestamp::now());
        self.news.notify_one();
    }

    /// A node is as it says, or takes no pods.
    pub fn set_node(&self, name: &str, node: Option<Node>) {
        locked(&self.engine).set_node(name, node);
        self.news.notify_one();
    }

    /// Something about an experiment, its Jobs or its pods has changed.
    pub fn touch(&self, namespace: &str, name: &str) {
        locked(&self.touched).insert((namespace.to_owned(), name.to_owned()));
        if self.any.load(Ordering::Relaxed) {
            self.news.notify_one();
        }
    }

    /// How the queues stand to an experiment, which is or was in `queue`.
    pub fn of(&self, key: &Key, queue: Option<&str>) -> Queueing {
        if !self.any.load(Ordering::Relaxed) && queue.is_none() {
            return Queueing { off: self.off, ..Queueing::default() };
        }
        let engine = locked(&self.engine);
        let id = id(key);
        let admission = engine.admission(&id).map(|admission| {
            let (queue, flavor) = (&admission.claim.queue, &admission.claim.flavor);
            let config = engine.queue(queue);
            let known = config.and_then(|config| config.flavor(flavor)).cloned().unwrap_or_default();
            let placement = Placement {
                queue: Arc::clone(queue),
                flavor: Arc::clone(flavor),
                since: admission.since,
                node_selector: known.node_selector,
                tolerations: known.tolerations,
                pod: config.and_then(|config| config.pod.clone()),
            };
            (admission.attempt, placement)
        });
        let of = engine.queue_of(&key.namespace, queue);
        Queueing {
            off: self.off,
            queues: engine.has_queues(),
            admission,
            wait: engine.wait(&id).cloned(),
            eviction: engine.eviction(&id).cloned(),
            bounded: of.is_some_and(|config| config.max_queued.is_some()),
            kueue: None,
            pod: of.and_then(|config| config.pod.clone()),
            max_runtime: of.and_then(|config| config.max_runtime),
        }
    }

    /// Whether anybody has waited for Kueue.
    pub fn kueue_is_wanted(&self) -> watch::Receiver<bool> {
        self.kueue_wanted.subscribe()
    }

    /// What Kueue says of the Job of an experiment that waits for it.
    pub fn of_kueue(&self, key: &Key, suspended: Option<String>) -> Option<String> {
        let mut kueue = locked(&self.kueue);
        kueue.waiting.retain(|job, waiting| waiting != key || Some(job) == suspended.as_ref());
        let job = suspended?;
        self.kueue_wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
        let words = kueue.words.get(&job).cloned();
        kueue.waiting.insert(job, key.clone());
        words
    }

    /// Kueue says this of a Job, or nothing more; who hears of it, if that is news.
    pub fn kueue_says(&self, job: String, words: Option<String>) -> Option<Key> {
        let mut kueue = locked(&self.kueue);
        let news = kueue.words.get(&job) != words.as_ref();
        let key = kueue.waiting.get(&job).filter(|_| news).cloned();
        match words {
            Some(words) => kueue.words.insert(job, words),
            None => kueue.words.remove(&job),
        };
        key
    }

    /// Kueue says nothing more of any Job.
    pub fn kueue_says_nothing(&self) {
        locked(&self.kueue).words.clear();
    }

    /// How every queue stands, in numbers.
    pub fn readings(&self) -> BTreeMap<String, Reading> {
        locked(&self.engine).readings(Timestamp::now())
    }

    /// An experiment asks for leave to start.
    pub fn ask(&self, key: &Key, ask: Ask) {
        locked(&self.engine).ask(&id(key), ask, Timestamp::now());
        self.news.notify_one();
    }

    /// An experiment wants nothing of any queue.
    pub fn withdraw(&self, key: &Key) {
        let id = id(key);
        let mut engine = locked(&self.engine);
        if engine.wait(&id).is_some() || engine.admission(&id).is_some() || engine.is_asking(&id) {
            engine.withdraw(&id, Timestamp::now());
            drop(engine);
            self.news.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Kind;

    #[test]
    fn what_kueue_says_is_told_to_whoever_waits_for_it_and_only_when_it_is_news() {
        let queues = Queues::new(true);
        let wanted = queues.kueue_is_wanted();
        let key = Key::new(Kind::Experiment, "vision", "train");
        let says = |words: Option<&str>| queues.kueue_says("job".to_owned(), words.map(str::to_owned));
        // Its words may come before the Job's own news.
        assert_eq!((says(Some("3 more needed")), *wanted.borrow()), (None, false));
        let said = queues.of_kueue(&key, Some("job".to_owned()));
        assert_eq!((said.as_deref(), *wanted.borrow()), (Some("3 more needed"), true));
        assert_eq!(says(Some("3 more needed")), None);
        assert_eq!(says(Some("2 more needed")), Some(key.clone()));
        assert_eq!(says(None), Some(key.clone()));
        // Admitted it waits no more.
        assert_eq!(queues.of_kueue(&key, None), None);
        assert_eq!(says(Some("again")), None);
    }

    #[test]
    fn only_extended_resources_that_queues_list_are_listed_and_once_all_queues_are_known() {
        let queues = Queues::new(true);
        let listed = queues.listed();
        assert!(listed.borrow().is_none());
        let queue = serde_json::json!({
            "metadata": {"name": "q", "uid": "u", "resourceVersion": "1"},
            "spec": {"resources": {"nvidia.com/gpu": {"quota": 8}, "cpu": {"quota": 4}}},
        });
        queues.apply(serde_json::from_value(queue).unwrap()).unwrap();
        assert!(listed.borrow().is_none() && queues.counting().is_none());
        queues.are_known();
        assert_eq!(listed.borrow().as_deref(), Some(&BTreeSet::from(["nvidia.com/gpu".into()])));
        assert!(queues.counting().is_some());
        queues.outsiders_are_known();
        assert!(queues.counting().is_none());
        queues.remove("q");
        assert_eq!(listed.borrow().as_deref(), Some(&BTreeSet::new()));
    }
}
