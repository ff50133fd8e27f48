//! The operator's metrics.
//!
//! Comes in: typed calls; every label value is a variant of an enum here, never the name of an object or the text of an
//! error, so the number of series is fixed; queues are the exception, see [`super::queues`]. Goes out: Prometheus' text
//! format.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cultivar_crds::Phase;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::process::Process;
use super::queues::QueueMetrics;

/// A kind of object that is reconciled or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An Experiment.
    Experiment,
    /// A Pipeline.
    Pipeline,
    /// A PipelineRun.
    PipelineRun,
    /// A Schedule.
    Schedule,
    /// A Job.
    Job,
    /// An Event.
    Event,
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
    /// A Queue.
    Queue,
    /// A Service.
    Service,
}

impl Kind {
    /// The value of the label `kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Experiment => "Experiment",
            Self::Pipeline => "Pipeline",
            Self::PipelineRun => "PipelineRun",
            Self::Schedule => "Schedule",
            Self::Job => "Job",
            Self::Event => "Event",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Queue => "Queue",
            Self::Service => "Service",
        }
    }
}

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Well.
    Ok,
    /// Somebody else was faster; it is done again.
    Conflict,
    /// The API server, or we, refused what was asked for.
    Invalid,
    /// A quota of the cluster is full.
    Quota,
    /// The API server was not there, or too slow.
    Transient,
    /// A bug or a missing right.
    Fatal,
}

impl Outcome {
    /// The value of the label `outcome`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Quota => "quota",
            Self::Transient => "transient",
            Self::Fatal => "fatal",
        }
    }
}

/// What is done to an object of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// POST.
    Create,
    /// PATCH.
    Patch,
    /// Any write to the status subresource.
    Status,
    /// DELETE.
    Delete,
}

impl Verb {
    /// The value of the label `verb`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Patch => "patch",
            Self::Status => "status",
            Self::Delete => "delete",
        }
    }
}

type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

/// Every metric of the operator, in a registry of its own. Clones are the same metrics.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    reconcile: HistogramVec,
    objects: IntGaugeVec,
    stage_gap: Histogram,
    writes: IntCounterVec,
    wakeups: IntGauge,
    leader: IntGauge,
    queues: QueueMetrics,
    refresh: Mutex<Vec<Arc<Refresh>>>,
}

const RECONCILE_BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];
const GAP_BUCKETS: [f64; 13] = [0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0];

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// When two metrics have one name: a bug, found by the test below.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let reconcile = HistogramVec::new(
            HistogramOpts::new("cultivar_reconcile_duration_seconds", "Time of one reconcile, by kind and outcome.")
                .buckets(RECONCILE_BUCKETS.to_vec()),
            &["kind", "outcome"],
        )?;
        let objects = IntGaugeVec::new(
            Opts::new("cultivar_objects", "Objects in the cluster, by kind and phase."),
            &["kind", "phase"],
        )?;
        let stage_gap = Histogram::with_opts(
            HistogramOpts::new(
                "cultivar_stage_gap_seconds",
                "Time from the end of a stage's Pod until the Job of the next stage is created.",
            )
            .buckets(GAP_BUCKETS.to_vec()),
        )?;
        let writes = IntCounterVec::new(
            Opts::new("cultivar_api_writes_total", "Writes to the API server, by kind, verb and outcome."),
            &["kind", "verb", "outcome"],
        )?;
        let wakeups = IntGauge::new("cultivar_wakeups_queued", "Objects that wait for their reconcile.")?;
        let leader = IntGauge::new("cultivar_leader", "1 where this replica is the leader, otherwise 0.")?;
        registry.register(Box::new(reconcile.clone()))?;
        registry.register(Box::new(objects.clone()))?;
        registry.register(Box::new(stage_gap.clone()))?;
        registry.register(Box::new(writes.clone()))?;
        registry.register(Box::new(wakeups.clone()))?;
        registry.register(Box::new(leader.clone()))?;
        registry.register(Box::new(Process::new()?))?;
        let queues = QueueMetrics::new(&registry)?;
        let refresh = Mutex::default();
        Ok(Self(Arc::new(Inner { registry, reconcile, objects, stage_gap, writes, wakeups, leader, queues, refresh })))
    }

    /// One reconcile is done.
    pub fn reconciled(&self, kind: Kind, outcome: Outcome, took: Duration) {
        let labels = [kind.as_str(), outcome.as_str()];
        self.0.reconcile.with_label_values(&labels).observe(took.as_secs_f64());
    }

    /// One write to the API server is done. Renewals of the Lease do not count.
    pub fn wrote(&self, kind: Kind, verb: Verb, outcome: Outcome) {
        self.0.writes.with_label_values(&[kind.as_str(), verb.as_str(), outcome.as_str()]).inc();
    }

    /// A stage's Pod ended this long before the next stage's Job was created.
    pub fn stage_gap(&self, gap: Duration) {
        self.0.stage_gap.observe(gap.as_secs_f64());
    }

    /// How many objects of a kind are in each phase. Phases that are not named have none.
    pub fn set_objects(&self, kind: Kind, counts: impl IntoIterator<Item = (Phase, usize)>) {
        let mut all = [0_i64; Phase::ALL.len()];
        for (phase, count) in counts {
            if let Some(index) = Phase::ALL.iter().position(|known| *known == phase) {
                all[index] += i64::try_from(count).unwrap_or(i64::MAX);
            }
        }
        for (phase, count) in Phase::ALL.iter().zip(all) {
            self.0.objects.with_label_values(&[kind.as_str(), phase.as_str()]).set(count);
        }
    }

    /// How many wake-ups wait.
    pub fn set_wakeups_queued(&self, count: usize) {
        self.0.wakeups.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Those of queues.
    #[must_use]
    pub fn queues(&self) -> &QueueMetrics {
        &self.0.queues
    }

    /// Whether this replica leads.
    pub fn set_leader(&self, leads: bool) {
        self.0.leader.set(i64::from(leads));
    }

    /// Calls `refresh` before every scrape: for gauges that are cheaper to count when asked than to keep.
    pub fn on_scrape(&self, refresh: impl Fn(&Self) + Send + Sync + 'static) {
        self.refreshers().push(Arc::new(Box::new(refresh)));
    }

    fn refreshers(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Refresh>>> {
        self.0.refresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric cannot be written as text: a bug.
    pub fn text(&self) -> prometheus::Result<String> {
        // Called outside the lock: a callback may use these metrics in any way.
        let refreshers = self.refreshers().clone();
        for refresh in refreshers {
            refresh(self);
        }
        TextEncoder::new().encode_to_string(&self.0.registry.gather())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_holds_what_was_told() {
        let metrics = Metrics::new().unwrap();
        metrics.reconciled(Kind::Experiment, Outcome::Ok, Duration::from_micros(700));
        metrics.wrote(Kind::Job, Verb::Create, Outcome::Conflict);
        metrics.stage_gap(Duration::from_millis(30));
        metrics.set_wakeups_queued(3);
        metrics.on_scrape(|metrics| metrics.set_leader(true));
        let text = metrics.text().unwrap();
        for line in [
            "cultivar_reconcile_duration_seconds_bucket{kind=\"Experiment\",outcome=\"ok\",le=\"0.001\"} 1",
            "cultivar_api_writes_total{kind=\"Job\",outcome=\"conflict\",verb=\"create\"} 1",
            "cultivar_stage_gap_seconds_bucket{le=\"0.02\"} 0",
            "cultivar_stage_gap_seconds_bucket{le=\"0.04\"} 1",
            "cultivar_wakeups_queued 3",
            "cultivar_leader 1",
            "# TYPE process_cpu_seconds_total counter",
            "# TYPE process_resident_memory_bytes gauge",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_phase_that_nothing_is_in_any_more_is_zero() {
        let metrics = Metrics::new().unwrap();
        metrics.set_objects(Kind::Experiment, [(Phase::Running, 2), (Phase::Failed, 1)]);
        metrics.set_objects(Kind::Experiment, [(Phase::Failed, 3)]);
        let text = metrics.text().unwrap();
        assert!(text.contains("cultivar_objects{kind=\"Experiment\",phase=\"Running\"} 0"), "{text}");
        assert!(text.contains("cultivar_objects{kind=\"Experiment\",phase=\"Failed\"} 3"), "{text}");
    }
}
