//! The index: every record the operator knows, linked, behind one lock that is never held across an await.
//!
//! A change wakes every object that it touches, before and after the change.

use cultivar_core::decide::experiment::Refusal;
use cultivar_core::domain::{ExperimentRecord, JobRecord, JobState, PipelineRecord, PodRecord, RunRecord};
use cultivar_crds::{ExperimentStatus, PipelineRunStatus, PipelineStatus};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::links::{self, Links};
use super::store::{Name, Store};
use crate::control::queue::Queue;

/// A kind with a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Experiment,
    PipelineRun,
    Pipeline,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Experiment => "Experiment",
            Self::PipelineRun => "PipelineRun",
            Self::Pipeline => "Pipeline",
        }
    }
}

/// An object to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    fn place(&self) -> Name {
        (self.namespace.clone(), self.name.clone())
    }
}

/// What the operator knows.
pub struct Index {
    state: Mutex<State>,
    queue: Arc<Queue>,
}

/// The state behind the lock.
#[derive(Default)]
pub struct State {
    pub(super) experiments: Store<ExperimentStatus>,
    pub(super) pipelines: Store<PipelineStatus>,
    pub(super) runs: Store<PipelineRunStatus>,
    pub(super) jobs: HashMap<Name, BTreeMap<String, Arc<JobRecord>>>,
    pub(super) pods: HashMap<Name, BTreeMap<String, Arc<PodRecord>>>,
    // By a run's uid: stage → experiment.
    pub(super) stages: HashMap<String, BTreeMap<String, String>>,
    // By pipeline: its runs.
    pub(super) runs_of: HashMap<Name, BTreeSet<String>>,
    pub(super) links: Links,
    // By namespace: objects that are not frozen yet and may wait for an experiment.
    waiting: HashMap<String, HashSet<Key>>,
    // What the API server itself said: attempts and stages that are gone for sure.
    pub(super) confirmed: HashMap<Key, Confirmed>,
    pub(super) refusals: HashMap<Key, Refusal>,
    // By a run's uid: when its latest stage ended, for the gap histogram.
    stage_ends: HashMap<String, Instant>,
}

/// What the API server itself said about an object's children.
#[derive(Clone, Debug, Default)]
pub struct Confirmed {
    pub attempt: Option<u32>,
    pub stages: BTreeSet<String>,
    pub refused_stages: BTreeMap<String, String>,
}

impl Index {
    pub fn new(queue: Arc<Queue>) -> Self {
        Self { state: Mutex::default(), queue }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock leaves records, each whole: the next reader goes on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, keys: impl IntoIterator<Item = Key>) {
        keys.into_iter().for_each(|key| self.queue.wake(key));
    }

    /// Wakes every object: after this replica has become the leader.
    pub fn wake_all(&self) {
        let keys: Vec<Key> = {
            let mut state = self.lock();
            state.confirmed.clear();
            state.refusals.clear();
            let experiments = state.experiments.iter().map(|slot| (Kind::Experiment, &slot.stored.meta));
            let runs = state.runs.iter().map(|slot| (Kind::PipelineRun, &slot.stored.meta));
            let pipelines = state.pipelines.iter().map(|slot| (Kind::Pipeline, &slot.stored.meta));
            experiments.chain(runs).chain(pipelines).map(|(kind, meta)| Key::new(kind, &meta.namespace, &meta.name)).collect()
        };
        self.wake(keys);
    }

    pub fn apply_experiment(&self, record: ExperimentRecord) {
        let keys = self.lock().apply_experiment(record);
        self.wake(keys);
    }

    pub fn apply_run(&self, record: RunRecord) {
        let keys = self.lock().apply_run(record);
        self.wake(keys);
    }

    pub fn apply_pipeline(&self, record: PipelineRecord) {
        let keys = self.lock().apply_pipeline(record);
        self.wake(keys);
    }

    pub fn apply_job(&self, job: JobRecord) {
        let keys = self.lock().apply_job(job);
        self.wake(keys);
    }

    pub fn apply_pod(&self, pod: PodRecord) {
        let keys = self.lock().apply_pod(pod);
        self.wake(keys);
    }

    pub fn remove(&self, key: &Key) {
        let keys = self.lock().remove(key);
        self.wake(keys);
    }

    pub fn remove_job(&self, experiment: &Name, job: &str) {
        let mut state = self.lock();
        if let Some(jobs) = state.jobs.get_mut(experiment) {
            jobs.remove(job);
            if jobs.is_empty() {
                state.jobs.remove(experiment);
            }
        }
        drop(state);
        self.wake([Key::new(Kind::Experiment, &experiment.0, &experiment.1)]);
    }

    /// Publishes a decided status before it is stored, so that what depends on it goes on meanwhile.
    pub fn publish_experiment(&self, key: &Key, uid: &str, status: &ExperimentStatus) {
        let keys = self.lock().publish_experiment(key, uid, status);
        self.wake(keys);
    }

    pub fn publish_run(&self, key: &Key, uid: &str, status: &PipelineRunStatus) {
        let mut state = self.lock();
        let mut keys = Vec::new();
        if state.runs.decide(&key.place(), uid, status) && status.phase.is_terminal() {
            keys = state.around_run(key);
        }
        drop(state);
        self.wake(keys);
    }

    pub fn publish_pipeline(&self, key: &Key, uid: &str, status: &PipelineStatus) {
        self.lock().pipelines.decide(&key.place(), uid, status);
    }

    /// Forgets a decided status whose write failed.
    pub fn forget(&self, key: &Key) {
        let mut state = self.lock();
        match key.kind {
            Kind::Experiment => state.experiments.forget(&key.place()),
            Kind::PipelineRun => state.runs.forget(&key.place()),
            Kind::Pipeline => state.pipelines.forget(&key.place()),
        }
    }

    /// Since when a decided status waits to be stored.
    pub fn dirty_since(&self, key: &Key) -> Option<Instant> {
        let state = self.lock();
        match key.kind {
            Kind::Experiment => state.experiments.get(&key.place())?.dirty_since,
            Kind::PipelineRun => state.runs.get(&key.place())?.dirty_since,
            Kind::Pipeline => state.pipelines.get(&key.place())?.dirty_since,
        }
    }

    /// The API server itself says that an attempt has neither Job nor pods.
    pub fn confirm_attempt(&self, key: &Key, number: u32) {
        self.lock().confirmed.entry(key.clone()).or_default().attempt = Some(number);
        self.queue.wake(key.clone());
    }

    /// The API server itself says that a stage's experiment is gone.
    pub fn confirm_stage_gone(&self, key: &Key, stage: &str) {
        self.lock().confirmed.entry(key.clone()).or_default().stages.insert(stage.to_owned());
        self.queue.wake(key.clone());
    }

    /// The API server will not take a stage's experiment.
    pub fn refuse_stage(&self, key: &Key, stage: &str, message: String) {
        self.lock().confirmed.entry(key.clone()).or_default().refused_stages.insert(stage.to_owned(), message);
        self.queue.wake(key.clone());
    }

    /// The next attempt's Job cannot be made.
    pub fn refuse_attempt(&self, key: &Key, refusal: Refusal) {
        self.lock().refusals.insert(key.clone(), refusal);
        self.queue.wake(key.clone());
    }

    /// Forgets why the last Job could not be made.
    pub fn clear_refusal(&self, key: &Key) {
        self.lock().refusals.remove(key);
    }

    /// When the latest stage of a run ended; asked once per stage that starts.
    pub fn stage_end(&self, run_uid: &str) -> Option<Instant> {
        self.lock().stage_ends.get(run_uid).copied()
    }

    /// Live objects by kind and phase, for the metrics.
    pub fn counts(&self) -> BTreeMap<(&'static str, &'static str), usize> {
        let state = self.lock();
        let mut counts = BTreeMap::new();
        for slot in state.experiments.iter() {
            *counts.entry(("Experiment", slot.current().status.phase.as_str())).or_default() += 1;
        }
        for slot in state.runs.iter() {
            *counts.entry(("PipelineRun", slot.current().status.phase.as_str())).or_default() += 1;
        }
        let pipelines = state.pipelines.iter().count();
        counts.insert(("Pipeline", "All"), pipelines);
        counts
    }

    /// A list of a kind begins.
    pub fn begin_list(&self, kind: Kind, within: Option<&str>) {
        let mut state = self.lock();
        match kind {
            Kind::Experiment => state.experiments.begin(within),
            Kind::PipelineRun => state.runs.begin(within),
            Kind::Pipeline => state.pipelines.begin(within),
        }
    }

    /// A list of a kind is complete: what it did not name is gone.
    pub fn finish_list(&self, kind: Kind, within: Option<&str>) {
        let gone = {
            let mut state = self.lock();
            match kind {
                Kind::Experiment => state.experiments.finish(within),
                Kind::PipelineRun => state.runs.finish(within),
                Kind::Pipeline => state.pipelines.finish(within),
            }
        };
        for (namespace, name) in gone {
            self.remove(&Key { kind, namespace, name });
        }
    }

    /// Jobs known in a namespace or everywhere: a list that does not name one means it is gone.
    pub fn job_names(&self, within: Option<&str>) -> HashSet<(Name, String)> {
        let state = self.lock();
        let here = state.jobs.iter().filter(|(name, _)| within.is_none_or(|namespace| name.0 == namespace));
        here.flat_map(|(name, jobs)| jobs.keys().map(|job| (name.clone(), job.clone()))).collect()
    }

    /// Pods known that are not marked as gone.
    pub fn live_pods(&self, within: Option<&str>) -> Vec<Arc<PodRecord>> {
        let state = self.lock();
        let all = state.pods.values().flat_map(BTreeMap::values);
        all.filter(|pod| !pod.gone && within.is_none_or(|namespace| pod.namespace == namespace)).cloned().collect()
    }
}

impl State {
    fn apply_experiment(&mut self, record: ExperimentRecord) -> Vec<Key> {
        let meta = record.meta.clone();
        let spec = Arc::clone(&record.spec);
        let place = (meta.namespace.clone(), meta.name.clone());
        let namesake = self.experiments.get(&place).is_some_and(|slot| slot.stored.meta.uid != meta.uid);
        if namesake {
            let key = Key::new(Kind::Experiment, &meta.namespace, &meta.name);
            self.confirmed.remove(&key);
            self.refusals.remove(&key);
        }
        if !self.experiments.apply(record) {
            return Vec::new();
        }
        let key = Key::new(Kind::Experiment, &meta.namespace, &meta.name);
        if let (Some(owner), Some(stage)) = (&meta.owner, meta.label(cultivar_crds::labels::STAGE)) {
            self.stages.entry(owner.uid.clone()).or_default().insert(stage.to_owned(), meta.name.clone());
        }
        let mut keys = self.links.set(&key, links::of_experiment(&spec));
        self.after_experiment(&key, &mut keys);
        keys
    }

    fn publish_experiment(&mut self, key: &Key, uid: &str, status: &ExperimentStatus) -> Vec<Key> {
        if !self.experiments.decide(&key.place(), uid, status) {
            return Vec::new();
        }
        let mut keys = Vec::new();
        if status.phase.is_terminal() {
            let owner = self.experiments.get(&key.place()).and_then(|slot| slot.stored.meta.owner.clone());
            if let Some(owner) = owner {
                self.stage_ends.insert(owner.uid, Instant::now());
            }
        }
        self.after_experiment(key, &mut keys);
        keys.retain(|woken| woken != key);
        keys
    }

    // Whom a change of an experiment concerns: itself, its run, and what waits for a template.
    fn after_experiment(&mut self, key: &Key, keys: &mut Vec<Key>) {
        keys.push(key.clone());
        let Some(slot) = self.experiments.get(&key.place()) else { return };
        let current = slot.current();
        if let Some(owner) = current.meta.owner.as_ref().filter(|owner| owner.kind == "PipelineRun") {
            keys.push(Key::new(Kind::PipelineRun, &key.namespace, &owner.name));
        }
        let waits = current.status.template.is_none() && current.spec.get("from").is_some() && !current.status.phase.is_terminal();
        let recorded = current.status.attempts.iter().filter(|attempt| attempt.finished_at.is_some()).map(|attempt| attempt.number).max();
        let is_source = current.status.phase.is_terminal();
        self.set_waiting(key, waits);
        if is_source || waits {
            keys.extend(self.waiting.get(&key.namespace).into_iter().flatten().filter(|waiting| *waiting != key).cloned());
        }
        self.tidy_pods(&key.place(), recorded);
    }

    // A pod that is gone is remembered until its attempt's end is recorded.
    fn tidy_pods(&mut self, experiment: &Name, recorded: Option<u32>) {
        let Some(pods) = self.pods.get_mut(experiment) else { return };
        pods.retain(|_, pod| !pod.gone || recorded.is_none_or(|recorded| pod.attempt > recorded));
        if pods.is_empty() {
            self.pods.remove(experiment);
        }
    }

    fn set_waiting(&mut self, key: &Key, waits: bool) {
        if waits {
            self.waiting.entry(key.namespace.clone()).or_default().insert(key.clone());
        } else if let Some(waiting) = self.waiting.get_mut(&key.namespace) {
            waiting.remove(key);
            if waiting.is_empty() {
                self.waiting.remove(&key.namespace);
            }
        }
    }

    fn apply_run(&mut self, record: RunRecord) -> Vec<Key> {
        let key = Key::new(Kind::PipelineRun, &record.meta.namespace, &record.meta.name);
        let terminal = record.status.phase.is_terminal();
        let waits = record.status.pipeline_spec.is_none() && !terminal;
        let names = if terminal { BTreeSet::new() } else { links::of_frozen(record.status.pipeline_spec.as_ref()) };
        let pipeline = record.spec.get("pipeline").and_then(|name| name.as_str()).unwrap_or_default().to_owned();
        if !self.runs.apply(record) {
            return Vec::new();
        }
        self.runs_of.entry((key.namespace.clone(), pipeline)).or_default().insert(key.name.clone());
        let mut keys = self.links.set(&key, names);
        self.set_waiting(&key, waits);
        keys.push(key.clone());
        keys.extend(self.around_run(&key));
        keys
    }

    // Whom a change of a run concerns: its pipeline, and runs of the same pipeline that wait for their turn.
    fn around_run(&self, key: &Key) -> Vec<Key> {
        let Some(slot) = self.runs.get(&key.place()) else { return Vec::new() };
        let pipeline = slot.stored.spec.get("pipeline").and_then(|name| name.as_str()).unwrap_or_default();
        let mut keys = vec![Key::new(Kind::Pipeline, &key.namespace, pipeline)];
        keys.extend(self.unfinished_siblings(&key.namespace, pipeline, &key.name));
        keys
    }

    fn unfinished_siblings(&self, namespace: &str, pipeline: &str, except: &str) -> Vec<Key> {
        let names = self.runs_of.get(&(namespace.to_owned(), pipeline.to_owned())).into_iter().flatten();
        names
            .filter(|name| *name != except)
            .filter(|name| {
                let slot = self.runs.get(&(namespace.to_owned(), (*name).clone()));
                slot.is_some_and(|slot| !slot.current().status.phase.is_terminal())
            })
            .map(|name| Key::new(Kind::PipelineRun, namespace, name))
            .collect()
    }

    fn apply_pipeline(&mut self, record: PipelineRecord) -> Vec<Key> {
        let key = Key::new(Kind::Pipeline, &record.meta.namespace, &record.meta.name);
        let names = links::of_pipeline(&record.spec);
        if !self.pipelines.apply(record) {
            return Vec::new();
        }
        let mut keys = self.links.set(&key, names);
        keys.extend(self.unfinished_siblings(&key.namespace, &key.name, ""));
        keys.push(key);
        keys
    }

    fn apply_job(&mut self, job: JobRecord) -> Vec<Key> {
        let experiment = (job.namespace.clone(), job.experiment.clone());
        let key = Key::new(Kind::Experiment, &experiment.0, &experiment.1);
        let jobs = self.jobs.entry(experiment).or_default();
        if jobs.get(&job.name).is_some_and(|known| **known == job) {
            return Vec::new();
        }
        // A late answer to our own POST must not undo what the watch has said since.
        if let Some(known) = jobs.get(&job.name).filter(|known| known.uid == job.uid) {
            if known.state != JobState::Active && job.state == JobState::Active {
                return Vec::new();
            }
        }
        jobs.insert(job.name.clone(), Arc::new(job));
        vec![key]
    }

    fn apply_pod(&mut self, pod: PodRecord) -> Vec<Key> {
        let experiment = (pod.namespace.clone(), pod.experiment.clone());
        let key = Key::new(Kind::Experiment, &experiment.0, &experiment.1);
        let pods = self.pods.entry(experiment.clone()).or_default();
        if pods.get(&pod.name).is_some_and(|known| **known == pod) {
            return Vec::new();
        }
        let gone = pod.gone;
        pods.insert(pod.name.clone(), Arc::new(pod));
        if gone {
            let recorded = self.experiments.get(&experiment).and_then(|slot| {
                let attempts = &slot.current().status.attempts;
                attempts.iter().filter(|attempt| attempt.finished_at.is_some()).map(|attempt| attempt.number).max()
            });
            let known = self.experiments.get(&experiment).is_some();
            self.tidy_pods(&experiment, if known { recorded } else { Some(u32::MAX) });
        }
        vec![key]
    }

    fn remove(&mut self, key: &Key) -> Vec<Key> {
        let place = key.place();
        self.confirmed.remove(key);
        self.refusals.remove(key);
        let mut keys = self.links.set(key, BTreeSet::new());
        self.set_waiting(key, false);
        match key.kind {
            Kind::Experiment => {
                if let Some(record) = self.experiments.remove(&place) {
                    self.forget_stage(&record, &mut keys);
                }
                self.tidy_pods(&place, Some(u32::MAX));
            }
            Kind::PipelineRun => {
                keys.extend(self.around_run(key));
                if let Some(record) = self.runs.remove(&place) {
                    self.stage_ends.remove(&record.meta.uid);
                    let pipeline = record.spec.get("pipeline").and_then(|name| name.as_str()).unwrap_or_default();
                    let of = (key.namespace.clone(), pipeline.to_owned());
                    if let Some(runs) = self.runs_of.get_mut(&of) {
                        runs.remove(&key.name);
                        if runs.is_empty() {
                            self.runs_of.remove(&of);
                        }
                    }
                }
            }
            Kind::Pipeline => {
                self.pipelines.remove(&place);
                keys.extend(self.unfinished_siblings(&key.namespace, &key.name, ""));
            }
        }
        keys
    }

    fn forget_stage(&mut self, record: &ExperimentRecord, keys: &mut Vec<Key>) {
        let Some(owner) = record.meta.owner.as_ref().filter(|owner| owner.kind == "PipelineRun") else { return };
        keys.push(Key::new(Kind::PipelineRun, &record.meta.namespace, &owner.name));
        if let Some(stages) = self.stages.get_mut(&owner.uid) {
            stages.retain(|_, name| *name != record.meta.name);
            if stages.is_empty() {
                self.stages.remove(&owner.uid);
            }
        }
    }

}

#[cfg(test)]
mod tests {
    use super::*;
    use cultivar_core::domain::{ContainerState, Meta, Owner, PodPhase, Record, Terminated};
    use cultivar_crds::{Attempt, Phase, labels};
    use serde_json::{Value, json};

    fn meta(name: &str, version: u64) -> Meta {
        Meta {
            namespace: "n".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
            resource_version: version.to_string(),
            generation: 1,
            ..Meta::default()
        }
    }

    fn experiment(name: &str, version: u64, spec: Value, phase: Phase) -> ExperimentRecord {
        let status = ExperimentStatus { phase, ..ExperimentStatus::default() };
        Record { meta: meta(name, version), spec: Arc::new(spec), status: Arc::new(status) }
    }

    fn key(kind: Kind, name: &str) -> Key {
        Key::new(kind, "n", name)
    }

    fn index() -> (Index, Arc<Queue>) {
        let queue = Arc::new(Queue::default());
        (Index::new(Arc::clone(&queue)), queue)
    }

    async fn woken(queue: &Queue) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        while queue.len() > 0 {
            let key = queue.next().await;
            queue.done(&key);
            keys.insert(key);
        }
        keys
    }

    #[tokio::test]
    async fn an_old_answer_never_undoes_news() {
        let (index, queue) = index();
        index.apply_experiment(experiment("e", 7, json!({}), Phase::Completed));
        woken(&queue).await;
        index.apply_experiment(experiment("e", 6, json!({}), Phase::Running));
        index.apply_experiment(experiment("e", 7, json!({}), Phase::Running));
        assert!(woken(&queue).await.is_empty());
        let view = index.experiment(&key(Kind::Experiment, "e"), jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(view.stored.status.phase, Phase::Completed);
    }

    #[tokio::test]
    async fn a_template_that_ends_wakes_who_waits_for_it_and_its_run() {
        let (index, queue) = index();
        index.apply_experiment(experiment("clone", 1, json!({"from": {"experiment": "root"}}), Phase::Pending));
        let mut root = experiment("root", 2, json!({"image": "i"}), Phase::Running);
        root.meta.owner = Some(Owner { kind: "PipelineRun".into(), name: "run".into(), uid: "r".into() });
        index.apply_experiment(root.clone());
        woken(&queue).await;
        let ended = ExperimentStatus { phase: Phase::Completed, ..ExperimentStatus::default() };
        index.publish_experiment(&key(Kind::Experiment, "root"), "uid-root", &ended);
        let woken = woken(&queue).await;
        assert!(woken.contains(&key(Kind::Experiment, "clone")), "{woken:?}");
        assert!(woken.contains(&key(Kind::PipelineRun, "run")), "{woken:?}");
        let view = index.experiment(&key(Kind::Experiment, "root"), jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(view.snapshot.experiment.status.phase, Phase::Completed, "decided counts");
        assert_eq!(view.stored.status.phase, Phase::Running, "and is told from what is stored");
        assert_eq!(view.snapshot.in_use.as_deref(), Some("an Experiment"));
        index.remove(&key(Kind::Experiment, "clone"));
        let view = index.experiment(&key(Kind::Experiment, "root"), jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(view.snapshot.in_use, None);
    }

    fn pod(name: &str, attempt: u32, gone: bool) -> PodRecord {
        PodRecord {
            namespace: "n".into(),
            name: name.into(),
            experiment: "e".into(),
            attempt,
            gone,
            phase: PodPhase::Succeeded,
            main: ContainerState::Terminated(Terminated::default()),
            ..PodRecord::default()
        }
    }

    #[tokio::test]
    async fn a_pod_that_is_gone_is_remembered_until_its_end_is_recorded() {
        let (index, queue) = index();
        index.apply_experiment(experiment("e", 1, json!({}), Phase::Running));
        index.apply_pod(pod("p", 1, false));
        index.apply_pod(pod("p", 1, true));
        assert!(woken(&queue).await.contains(&key(Kind::Experiment, "e")));
        let pods = |index: &Index| index.experiment(&key(Kind::Experiment, "e"), jiff::Timestamp::UNIX_EPOCH).unwrap().snapshot.pods;
        assert_eq!(pods(&index).len(), 1);
        let mut recorded = experiment("e", 2, json!({}), Phase::Completed);
        let attempt = Attempt { number: 1, finished_at: Some("2026-01-01T00:00:00Z".into()), ..Attempt::default() };
        recorded.status = Arc::new(ExperimentStatus { attempts: vec![attempt], ..(*recorded.status).clone() });
        index.apply_experiment(recorded);
        assert!(pods(&index).is_empty());
    }

    #[tokio::test]
    async fn what_a_list_does_not_name_is_gone_but_not_what_was_written_meanwhile() {
        let (index, queue) = index();
        index.apply_experiment(experiment("old", 1, json!({}), Phase::Running));
        index.begin_list(Kind::Experiment, None);
        index.apply_experiment(experiment("listed", 2, json!({}), Phase::Running));
        // The answer to our own POST arrives while the list is being read.
        let mut stage = experiment("written", 3, json!({}), Phase::Pending);
        stage.meta.labels.insert(labels::STAGE.into(), "train".into());
        index.apply_experiment(stage);
        index.finish_list(Kind::Experiment, None);
        woken(&queue).await;
        let known = |name: &str| index.experiment(&key(Kind::Experiment, name), jiff::Timestamp::UNIX_EPOCH).is_some();
        assert!(!known("old") && known("listed") && known("written"));
    }
}
