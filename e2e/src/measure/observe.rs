//! What a bystander sees: watches in this process that note when each thing happened.
//!
//! In: a namespace, and the labels by which a pod or Job says which chain and stage it is. Out: the moments at which the
//! watch brought the creation of every Job and Pod, and the end of every pod's container; and what has ended so far.
//! Kubernetes' own timestamps have whole seconds; the arrival of a watch event has microseconds, and whoever reacts to
//! an event has to wait for that arrival too.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::Client;
use kube::api::{Api, NotUsed, Object};
use kube_runtime::WatchStreamExt as _;
use kube_runtime::watcher::{self, Event, watcher};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::api::resource;
use crate::error::{Context as _, Error, Result};

/// The labels that name a chain and its stage.
#[derive(Debug, Clone, Copy)]
pub struct Marks {
    /// Label whose value is the chain's name.
    pub chain: &'static str,
    /// Label whose value is the stage's name.
    pub stage: &'static str,
}

/// When the watch brought what.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moments {
    /// The Job's creation.
    pub job: Option<Instant>,
    /// The Pod's creation.
    pub pod: Option<Instant>,
    /// The end of the pod's container.
    pub ended: Option<Instant>,
}

/// Chain and stage.
pub type Place = (String, String);

/// From a Job's creation until its pod has ended or is gone: what a queue counts as held.
#[derive(Debug, Clone)]
pub struct Hold {
    /// Whose Job it is.
    pub place: Place,
    /// The Job's creation.
    pub since: Instant,
    /// The end of its pod, or of the Job if it never had one.
    pub until: Option<Instant>,
}

/// What has been seen so far.
#[derive(Debug, Default)]
pub struct Book {
    /// Per chain and stage.
    pub moments: HashMap<Place, Moments>,
    /// Every Job, by name, those that were stopped for others too.
    pub holds: HashMap<String, Hold>,
    /// Jobs with the condition Complete.
    pub jobs_complete: HashMap<String, Instant>,
    /// Runs in a terminal phase: when, and which.
    pub runs_ended: HashMap<String, (Instant, String)>,
    /// Pods that have ended.
    pub pods_ended: usize,
    /// How often each experiment was seen, its creation included, until its first Job was: see [`Observer::with_experiments`].
    pub seen_before_job: HashMap<String, u32>,
    // Those that have had a Job.
    chains: HashSet<String>,
}

impl Book {
    fn release(&mut self, job: &str, now: Instant) {
        if let Some(hold) = self.holds.get_mut(job) {
            hold.until.get_or_insert(now);
        }
    }
}

/// What a watch tells of an object.
enum News<S> {
    Here(S),
    Gone(S),
}

/// Watches a namespace until it is dropped.
pub struct Observer {
    book: Arc<Mutex<Book>>,
    news: Arc<Notify>,
    watches: JoinSet<()>,
}

/// The part of a pod's status that says whether it has ended.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PodStatus {
    phase: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct JobStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct RunStatus {
    phase: Option<String>,
}

/// A pod, with no more of it read than is needed here.
pub type SlimPod = Object<NotUsed, PodStatus>;

/// Whether the pod's container has ended.
#[must_use]
pub fn has_ended(pod: &SlimPod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The place of an object with these labels.
#[must_use]
pub fn place(labels: Option<&std::collections::BTreeMap<String, String>>, marks: Marks) -> Option<Place> {
    let labels = labels?;
    Some((labels.get(marks.chain)?.clone(), labels.get(marks.stage)?.clone()))
}

impl Observer {
    /// Sets the watches up and waits until they follow.
    ///
    /// # Errors
    /// They are not set up in time.
    pub async fn start(client: &Client, namespace: &str, marks: Marks) -> Result<Self> {
        let (book, news) = (Arc::<Mutex<Book>>::default(), Arc::<Notify>::default());
        let mut watches = JoinSet::new();
        let ready = Arc::new(tokio::sync::Semaphore::new(0));
        let follow = Follow { client, namespace, book: &book, news: &news, ready: &ready };
        follow.spawn("Pod", &mut watches, move |book, news: News<SlimPod>, now| {
            let (News::Here(pod) | News::Gone(pod)) = &news;
            let labels = pod.metadata.labels.as_ref();
            let job = labels.and_then(|labels| labels.get("batch.kubernetes.io/job-name"));
            if let Some(job) = job.filter(|_| matches!(news, News::Gone(_)) || has_ended(pod)) {
                book.release(job, now);
            }
            let Some(place) = place(labels, marks).filter(|_| matches!(news, News::Here(_))) else { return };
            let moments = book.moments.entry(place).or_default();
            moments.pod.get_or_insert(now);
            if has_ended(pod) && moments.ended.is_none() {
                moments.ended = Some(now);
                book.pods_ended += 1;
            }
        });
        follow.spawn("Job", &mut watches, move |book, news: News<Object<NotUsed, JobStatus>>, now| {
            let job = match news {
                News::Here(job) => job,
                // Its pod, if it had one, has gone before it.
                News::Gone(job) => return book.release(&job.metadata.name.unwrap_or_default(), now),
            };
            let name = job.metadata.name.unwrap_or_default();
            if let Some(place) = place(job.metadata.labels.as_ref(), marks) {
                book.moments.entry(place.clone()).or_default().job.get_or_insert(now);
                book.chains.insert(place.0.clone());
                book.holds.entry(name.clone()).or_insert(Hold { place, since: now, until: None });
            }
            let conditions = job.status.unwrap_or_default().conditions;
            if conditions.iter().any(|condition| condition.kind == "Complete" && condition.status == "True") {
                book.jobs_complete.entry(name).or_insert(now);
            }
        });
        follow.spawn("PipelineRun", &mut watches, |book, news: News<Object<NotUsed, RunStatus>>, now| {
            let News::Here(run) = news else { return };
            let phase = run.status.unwrap_or_default().phase.unwrap_or_default();
            if matches!(phase.as_str(), "Completed" | "Failed" | "Cancelled" | "Skipped") {
                book.runs_ended.entry(run.metadata.name.unwrap_or_default()).or_insert((now, phase));
            }
        });
        let all = tokio::time::timeout(Duration::from_secs(30), ready.acquire_many(3)).await;
        all.doing(|| "the measuring watches do not start")?.doing(|| "a measuring watch ended")?.forget();
        Ok(Self { book, news, watches })
    }

    /// Watches experiments too. Their chain is their name.
    ///
    /// # Errors
    /// The watch is not set up in time.
    pub async fn with_experiments(mut self, client: &Client, namespace: &str) -> Result<Self> {
        let ready = Arc::new(tokio::sync::Semaphore::new(0));
        let follow = Follow { client, namespace, book: &self.book, news: &self.news, ready: &ready };
        follow.spawn("Experiment", &mut self.watches, |book, news: News<Object<NotUsed, NotUsed>>, _| {
            let News::Here(experiment) = news else { return };
            let name = experiment.metadata.name.unwrap_or_default();
            if !book.chains.contains(&name) {
                *book.seen_before_job.entry(name).or_default() += 1;
            }
        });
        let ready = tokio::time::timeout(Duration::from_secs(30), ready.acquire()).await;
        ready.doing(|| "the measuring watch of experiments does not start")?.doing(|| "it ended")?.forget();
        Ok(self)
    }

    /// What has been seen so far.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    /// Waits until what has been seen satisfies `holds`.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn until(&self, what: &str, limit: Duration, holds: impl Fn(&Book) -> bool) -> Result<()> {
        let waited = async {
            loop {
                let news = self.news.notified();
                if holds(&self.book()) {
                    return;
                }
                news.await;
            }
        };
        if tokio::time::timeout(limit, waited).await.is_ok() {
            return Ok(());
        }
        let book = self.book();
        let seen = format!(
            "{} pods ended, {} Jobs complete, {} runs ended",
            book.pods_ended,
            book.jobs_complete.len(),
            book.runs_ended.len()
        );
        Err(Error::new(format!("{what} did not happen in {limit:?}")).why(seen))
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the watches share.
struct Follow<'a> {
    client: &'a Client,
    namespace: &'a str,
    book: &'a Arc<Mutex<Book>>,
    news: &'a Arc<Notify>,
    ready: &'a Arc<tokio::sync::Semaphore>,
}

impl Follow<'_> {
    fn spawn<S>(
        &self,
        kind: &str,
        watches: &mut JoinSet<()>,
        note: impl Fn(&mut Book, News<Object<NotUsed, S>>, Instant) + Send + 'static,
    ) where
        S: Clone + Default + std::fmt::Debug + DeserializeOwned + Serialize + Send + Sync + 'static,
    {
        let api: Api<Object<NotUsed, S>> = Api::namespaced_with(self.client.clone(), self.namespace, &resource(kind));
        let (book, news, ready) = (Arc::clone(self.book), Arc::clone(self.news), Arc::clone(self.ready));
        watches.spawn(async move {
            let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                let told = match event {
                    Ok(Event::Apply(object) | Event::InitApply(object)) => News::Here(object),
                    Ok(Event::Delete(object)) => News::Gone(object),
                    Ok(Event::Init) => continue,
                    Ok(Event::InitDone) => {
                        ready.add_permits(1);
                        continue;
                    }
                    Err(error) => {
                        eprintln!("a measuring watch broke, this round's gaps are wrong: {error}");
                        continue;
                    }
                };
                note(&mut lock(&book), told, Instant::now());
                news.notify_waiters();
            }
        });
    }
}
