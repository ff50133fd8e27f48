//! The metrics of queues.
//!
//! Comes in: how every queue stands, at each scrape, and what each pass of the admission loop has done. Goes out: families of
//! Prometheus. The labels here are the exception to the rule of `metrics`, that no name of an object is one: without the name of
//! the queue none of this says anything. Queues, their flavors and resources are few and made by administrators; namespaces are
//! told of up to a limit for each queue. What is gone has no series any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use cultivar_core::decide::queue::{Standing, Tallied};
use cultivar_core::domain::quantity::number;
use cultivar_core::domain::queue::Word;
use cultivar_crds::Reason;
use jiff::Timestamp;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

const QUEUE: &str = "queue";
/// A run may start at once, or after days.
const WAIT_BUCKETS: [f64; 12] =
    [0.1, 1.0, 5.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0];

/// Every queue at a moment, as the replica that leads sees it.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// How each queue stands.
    pub standings: BTreeMap<Word, Standing>,
    /// How many wait in each queue, by reason; without a queue those whom none takes.
    pub waiting: BTreeMap<(Option<Word>, Reason), usize>,
}

/// The metrics of queues. Clones are the same metrics.
#[derive(Clone)]
pub struct QueueMetrics {
    gauges: Gauges,
    admissions: IntCounterVec,
    evictions: IntCounterVec,
    wait: HistogramVec,
}

impl QueueMetrics {
    /// All at zero, and known to the registry.
    ///
    /// # Errors
    /// When two metrics have one name: a bug, found by the tests.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let admissions = IntCounterVec::new(
            Opts::new("cultivar_queue_admissions_total", "Attempts that a queue let start."),
            &[QUEUE],
        )?;
        let evictions = IntCounterVec::new(
            Opts::new("cultivar_queue_evictions_total", "Attempts that were told to end, by the queue that they held."),
            &[QUEUE],
        )?;
        let wait = HistogramVec::new(
            HistogramOpts::new("cultivar_queue_wait_seconds", "Time from when an attempt asks until it may start.")
                .buckets(WAIT_BUCKETS.to_vec()),
            &[QUEUE],
        )?;
        let gauges = Gauges { last: Arc::default(), families: Families::new()? };
        registry.register(Box::new(gauges.clone()))?;
        registry.register(Box::new(admissions.clone()))?;
        registry.register(Box::new(evictions.clone()))?;
        registry.register(Box::new(wait.clone()))?;
        Ok(Self { gauges, admissions, evictions, wait })
    }

    /// What a pass has done.
    pub fn passed(&self, tallied: &Tallied) {
        for (queue, waited) in &tallied.admitted {
            self.admissions.with_label_values(&[&**queue]).inc();
            self.wait.with_label_values(&[&**queue]).observe(waited.as_secs_f64());
        }
        for queue in &tallied.evicted {
            self.evictions.with_label_values(&[&**queue]).inc();
        }
    }

    /// How the queues stand; `None` where this replica does not lead and nobody asks it. `names` are those of all queues: of
    /// any other nothing is told any more.
    ///
    /// # Errors
    /// When a gauge cannot be made: a bug.
    pub fn set(&self, names: &BTreeSet<Word>, seen: Option<&Snapshot>, now: Timestamp) -> prometheus::Result<()> {
        self.gauges.set(seen, now)?;
        for queue in queues_of(&self.admissions).chain(queues_of(&self.evictions)) {
            if !names.contains(queue.as_str()) {
                // Each may know it or not.
                let label = [queue.as_str()];
                let _ = self.admissions.remove_label_values(&label);
                let _ = self.evictions.remove_label_values(&label);
                let _ = self.wait.remove_label_values(&label);
            }
        }
        Ok(())
    }
}

fn queues_of(counter: &IntCounterVec) -> impl Iterator<Item = String> + use<> {
    let families = counter.collect().into_iter();
    families.flat_map(|mut family| family.take_metric()).filter_map(|metric| {
        let label = metric.get_label().iter().find(|label| label.name() == QUEUE)?;
        Some(label.value().to_owned())
    })
}

/// What stands at the last scrape, whole: a scrape at the same time sees all of it or all of the one before.
#[derive(Clone)]
struct Gauges {
    last: Arc<Mutex<Vec<MetricFamily>>>,
    families: Families,
}

impl Gauges {
    fn set(&self, seen: Option<&Snapshot>, now: Timestamp) -> prometheus::Result<()> {
        let families = match seen {
            Some(seen) => {
                let families = Families::new()?;
                families.fill(seen, now);
                families.collect()
            }
            None => Vec::new(),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = families;
        Ok(())
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        self.families.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Clone)]
struct Families {
    used: GaugeVec,
    quota: GaugeVec,
    borrowed: GaugeVec,
    lent: GaugeVec,
    waiting: GaugeVec,
    admitted: GaugeVec,
    oldest: GaugeVec,
    namespace: GaugeVec,
}

impl Families {
    fn new() -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            GaugeVec::new(Opts::new(format!("cultivar_queue_{name}"), help), &[&[QUEUE], labels].concat())
        };
        let place = ["flavor", "resource"];
        Ok(Self {
            used: gauge("used", "What a queue uses, borrowed or not: cores of cpu, else units or bytes.", &place)?,
            quota: gauge("quota", "A queue's own quota: cores of cpu, else units or bytes.", &place)?,
            borrowed: gauge("borrowed", "What a queue uses beyond its quota.", &place)?,
            lent: gauge("lent", "What others of the cohort use of a queue's quota.", &place)?,
            waiting: gauge(
                "waiting",
                "Attempts that wait, by reason; without a queue those whom none takes.",
                &["reason"],
            )?,
            admitted: gauge("admitted", "Attempts that hold something of a queue, or may start.", &[])?,
            oldest: gauge(
                "oldest_wait_seconds",
                "How long the one waits that has waited longest; 0 if nobody does.",
                &[],
            )?,
            namespace: gauge(
                "namespace_used",
                "What a namespace holds of a queue, for the fifty that hold most of it.",
                &["namespace", "resource"],
            )?,
        })
    }

    fn all(&self) -> [&GaugeVec; 8] {
        let Self { used, quota, borrowed, lent, waiting, admitted, oldest, namespace } = self;
        [used, quota, borrowed, lent, waiting, admitted, oldest, namespace]
    }

    // A family without a series is not told of: the text format has no place for it.
    fn collect(&self) -> Vec<MetricFamily> {
        let families = self.all().into_iter().flat_map(Collector::collect);
        families.filter(|family| !family.get_metric().is_empty()).collect()
    }

    fn fill(&self, seen: &Snapshot, now: Timestamp) {
        for (queue, standing) in &seen.standings {
            for one in &standing.usage {
                let labels = [&**queue, &*one.flavor, &*one.resource];
                let set =
                    |gauge: &GaugeVec, amount| gauge.with_label_values(&labels).set(number(&one.resource, amount));
                set(&self.used, one.used);
                set(&self.quota, one.quota);
                set(&self.borrowed, one.borrowed);
                set(&self.lent, one.lent);
            }
            let waited = standing.oldest.map_or(0.0, |since| now.duration_since(since).as_secs_f64().max(0.0));
            self.oldest.with_label_values(&[&**queue]).set(waited);
            self.admitted.with_label_values(&[&**queue]).set(count(standing.admitted));
            for (namespace, held) in &standing.namespaces {
                for (resource, amount) in held {
                    let labels = [&**queue, &**namespace, &**resource];
                    self.namespace.with_label_values(&labels).set(number(resource, *amount));
                }
            }
        }
        for ((queue, reason), waiting) in &seen.waiting {
            let labels = [queue.as_deref().unwrap_or_default(), reason.as_str()];
            self.waiting.with_label_values(&labels).set(count(*waiting));
        }
    }
}

fn count(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cultivar_core::decide::queue::Use;
    use prometheus::TextEncoder;
    use std::time::Duration;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seen() -> Snapshot {
        let usage = |resource: &str, quota, used| Use {
            flavor: "a100".into(),
            resource: resource.into(),
            quota,
            used,
            borrowed: (used - quota).max(0),
            lent: 0,
        };
        let standing = Standing {
            waiting: 2,
            admitted: 3,
            oldest: Some(at(100)),
            usage: vec![usage("cpu", 8000, 9500), usage("memory", 1 << 30, 0)],
            namespaces: vec![("vision".into(), [("cpu".into(), 9500)].into_iter().collect())],
        };
        let waiting = [((Some("one".into()), Reason::WaitingForQuota), 2), ((None, Reason::QueueNotFound), 1)];
        Snapshot { standings: [("one".into(), standing)].into_iter().collect(), waiting: waiting.into_iter().collect() }
    }

    fn names(names: &[&str]) -> BTreeSet<Word> {
        names.iter().map(|name| Word::from(*name)).collect()
    }

    fn text(registry: &Registry) -> String {
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn queues_are_told_of_in_the_units_of_people() {
        let registry = Registry::new();
        let metrics = QueueMetrics::new(&registry).unwrap();
        metrics.set(&names(&["one"]), Some(&seen()), at(130)).unwrap();
        metrics
            .passed(&Tallied { admitted: vec![("one".into(), Duration::from_secs(20))], evicted: vec!["one".into()] });
        let text = text(&registry);
        for line in [
            "cultivar_queue_used{flavor=\"a100\",queue=\"one\",resource=\"cpu\"} 9.5",
            "cultivar_queue_borrowed{flavor=\"a100\",queue=\"one\",resource=\"cpu\"} 1.5",
            "cultivar_queue_quota{flavor=\"a100\",queue=\"one\",resource=\"memory\"} 1073741824",
            "cultivar_queue_lent{flavor=\"a100\",queue=\"one\",resource=\"memory\"} 0",
            "cultivar_queue_waiting{queue=\"one\",reason=\"WaitingForQuota\"} 2",
            "cultivar_queue_waiting{queue=\"\",reason=\"QueueNotFound\"} 1",
            "cultivar_queue_admitted{queue=\"one\"} 3",
            "cultivar_queue_oldest_wait_seconds{queue=\"one\"} 30",
            "cultivar_queue_namespace_used{namespace=\"vision\",queue=\"one\",resource=\"cpu\"} 9.5",
            "cultivar_queue_admissions_total{queue=\"one\"} 1",
            "cultivar_queue_evictions_total{queue=\"one\"} 1",
            "cultivar_queue_wait_seconds_bucket{queue=\"one\",le=\"5\"} 0",
            "cultivar_queue_wait_seconds_bucket{queue=\"one\",le=\"30\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn of_a_queue_that_is_gone_nothing_is_told() {
        let registry = Registry::new();
        let metrics = QueueMetrics::new(&registry).unwrap();
        metrics.set(&names(&["one"]), Some(&seen()), at(130)).unwrap();
        metrics.passed(&Tallied { admitted: vec![("one".into(), Duration::ZERO)], evicted: Vec::new() });
        metrics.passed(&Tallied { admitted: Vec::new(), evicted: vec!["two".into()] });
        metrics.set(&names(&[]), Some(&Snapshot::default()), at(131)).unwrap();
        assert_eq!(text(&registry), "");
    }

    #[test]
    fn who_does_not_lead_tells_what_it_has_counted_and_nothing_of_now() {
        let registry = Registry::new();
        let metrics = QueueMetrics::new(&registry).unwrap();
        metrics.set(&names(&["one"]), Some(&seen()), at(130)).unwrap();
        metrics.passed(&Tallied { admitted: Vec::new(), evicted: vec!["one".into()] });
        metrics.set(&names(&["one"]), None, at(131)).unwrap();
        let text = text(&registry);
        assert!(text.contains("cultivar_queue_evictions_total{queue=\"one\"} 1"), "{text}");
        assert!(!text.contains("cultivar_queue_used"), "{text}");
    }
}
