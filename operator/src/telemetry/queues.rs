//! The metrics of queues.
//!
//! Comes in: what each pass has decided, and at every scrape what the engine says. Goes out: series by queue, flavor,
//! resource and namespace. These are names of objects, and so the exception to the rule of [`super::metrics`]: queues are
//! few, and administrators make them; namespaces are those that hold something. Their label is `run_namespace`, since a
//! scrape puts the operator's own into `namespace`.

use std::collections::BTreeMap;
use std::time::Duration;

use cultivar_core::decide::queue::{Reading, Use};
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

const WAIT_BUCKETS: [f64; 12] = [0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0, 259_200.0];

/// Every metric of queues.
pub struct QueueMetrics {
    used: GaugeVec,
    quota: GaugeVec,
    borrowed: GaugeVec,
    lent: GaugeVec,
    largest_free: GaugeVec,
    namespace_used: GaugeVec,
    waiting: IntGaugeVec,
    admitted: IntGaugeVec,
    oldest_wait: GaugeVec,
    admissions: IntCounterVec,
    evictions: IntCounterVec,
    wait: HistogramVec,
}

impl QueueMetrics {
    /// All of them, registered.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let place = ["queue", "flavor", "resource"];
        let gauge = |name: &str, help: &str, labels: &[&str]| GaugeVec::new(Opts::new(name, help), labels);
        let metrics = Self {
            used: gauge("cultivar_queue_used", "What a queue's runs hold: cores, bytes or units.", &place)?,
            quota: gauge("cultivar_queue_quota", "What is a queue's own.", &place)?,
            borrowed: gauge("cultivar_queue_borrowed", "What a queue's runs hold beyond its quota.", &place)?,
            lent: gauge("cultivar_queue_lent", "What others of the cohort hold of a queue's quota.", &place)?,
            largest_free: gauge(
                "cultivar_queue_largest_free_block",
                "The most that pods outside the queues leave on one node of a flavor, its taints aside.",
                &place,
            )?,
            namespace_used: gauge(
                "cultivar_queue_namespace_used",
                "What a namespace's runs hold of a queue, whatever the flavor.",
                &["queue", "run_namespace", "resource"],
            )?,
            waiting: IntGaugeVec::new(
                Opts::new("cultivar_queue_waiting", "Experiments that wait in a queue, by reason."),
                &["queue", "reason"],
            )?,
            admitted: IntGaugeVec::new(
                Opts::new("cultivar_queue_admitted", "Experiments that hold something of a queue."),
                &["queue"],
            )?,
            oldest_wait: gauge(
                "cultivar_queue_oldest_wait_seconds",
                "How long the one has waited that has waited longest.",
                &["queue"],
            )?,
            admissions: IntCounterVec::new(Opts::new("cultivar_queue_admissions_total", "Admissions."), &["queue"])?,
            evictions: IntCounterVec::new(
                Opts::new("cultivar_queue_evictions_total", "Runs that a queue stopped, for others or to drain it."),
                &["queue"],
            )?,
            wait: HistogramVec::new(
                HistogramOpts::new("cultivar_queue_wait_seconds", "Time from when an attempt asks until it may start.")
                    .buckets(WAIT_BUCKETS.to_vec()),
                &["queue"],
            )?,
        };
        for gauge in metrics.gauges() {
            registry.register(Box::new(gauge.clone()))?;
        }
        registry.register(Box::new(metrics.waiting.clone()))?;
        registry.register(Box::new(metrics.admitted.clone()))?;
        registry.register(Box::new(metrics.admissions.clone()))?;
        registry.register(Box::new(metrics.evictions.clone()))?;
        registry.register(Box::new(metrics.wait.clone()))?;
        Ok(metrics)
    }

    fn gauges(&self) -> [&GaugeVec; 7] {
        let Self { used, quota, borrowed, lent, largest_free, namespace_used, oldest_wait, .. } = self;
        [used, quota, borrowed, lent, largest_free, namespace_used, oldest_wait]
    }

    /// A run was admitted to a queue after it had waited this long.
    pub fn admitted(&self, queue: &str, waited: Duration) {
        self.admissions.with_label_values(&[queue]).inc();
        self.wait.with_label_values(&[queue]).observe(waited.as_secs_f64());
    }

    /// A queue has stopped a run.
    pub fn evicted(&self, queue: &str) {
        self.evictions.with_label_values(&[queue]).inc();
    }

    /// Sets every gauge to what is so now; queues that are gone have none.
    pub fn set(&self, readings: &BTreeMap<String, Reading>) {
        self.gauges().into_iter().for_each(GaugeVec::reset);
        self.waiting.reset();
        self.admitted.reset();
        for (queue, reading) in readings {
            for Use { flavor, resource, quota, used, borrowed, lent } in &reading.uses {
                let place = [queue, flavor.as_ref(), resource.as_ref()];
                for (gauge, amount) in
                    [(&self.used, used), (&self.quota, quota), (&self.borrowed, borrowed), (&self.lent, lent)]
                {
                    gauge.with_label_values(&place).set(units(resource, *amount));
                }
            }
            for ((flavor, resource), amount) in &reading.largest_free {
                let place = [queue, flavor.as_ref(), resource.as_ref()];
                self.largest_free.with_label_values(&place).set(units(resource, *amount));
            }
            for (namespace, held) in &reading.namespaces {
                for (resource, amount) in held {
                    let labels = [queue, namespace.as_ref(), resource.as_ref()];
                    self.namespace_used.with_label_values(&labels).set(units(resource, *amount));
                }
            }
            for (reason, count) in &reading.waiting {
                self.waiting
                    .with_label_values(&[queue, reason.as_str()])
                    .set(i64::try_from(*count).unwrap_or(i64::MAX));
            }
            self.admitted.with_label_values(&[queue]).set(i64::try_from(reading.admitted).unwrap_or(i64::MAX));
            self.oldest_wait.with_label_values(&[queue]).set(reading.oldest_wait.as_secs_f64());
        }
    }
}

// Cores are kept in thousandths.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
fn units(resource: &str, amount: i64) -> f64 {
    if resource == "cpu" { amount as f64 / 1e3 } else { amount as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cultivar_crds::Reason;
    use prometheus::TextEncoder;

    #[test]
    fn a_queue_that_is_gone_has_no_gauges_and_keeps_its_counts() {
        let registry = Registry::new();
        let metrics = QueueMetrics::new(&registry).unwrap();
        let uses = |resource: &str, used| Use {
            flavor: "a100".into(),
            resource: resource.into(),
            quota: 8,
            used,
            borrowed: 0,
            lent: 0,
        };
        let reading = Reading {
            uses: vec![uses("nvidia.com/gpu", 5), uses("cpu", 1500)],
            largest_free: [(("a100".into(), "nvidia.com/gpu".into()), 4)].into(),
            namespaces: [("vision".into(), [("nvidia.com/gpu".into(), 5)].into())].into(),
            waiting: [(Reason::WaitingForQuota, 3)].into(),
            admitted: 2,
            oldest_wait: Duration::from_secs(90),
        };
        metrics.admitted("research", Duration::from_secs(20));
        metrics.evicted("research");
        metrics.set(&[("research".to_owned(), reading)].into());
        let text = || TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "cultivar_queue_used{flavor=\"a100\",queue=\"research\",resource=\"nvidia.com/gpu\"} 5",
            "cultivar_queue_used{flavor=\"a100\",queue=\"research\",resource=\"cpu\"} 1.5",
            "cultivar_queue_largest_free_block{flavor=\"a100\",queue=\"research\",resource=\"nvidia.com/gpu\"} 4",
            "cultivar_queue_namespace_used{queue=\"research\",resource=\"nvidia.com/gpu\",run_namespace=\"vision\"} 5",
            "cultivar_queue_waiting{queue=\"research\",reason=\"WaitingForQuota\"} 3",
            "cultivar_queue_admitted{queue=\"research\"} 2",
            "cultivar_queue_oldest_wait_seconds{queue=\"research\"} 90",
            "cultivar_queue_admissions_total{queue=\"research\"} 1",
            "cultivar_queue_evictions_total{queue=\"research\"} 1",
            "cultivar_queue_wait_seconds_bucket{queue=\"research\",le=\"60\"} 1",
        ] {
            assert!(text().contains(line), "{line} is not in\n{}", text());
        }
        metrics.set(&BTreeMap::new());
        assert!(!text().contains("cultivar_queue_used{") && text().contains("cultivar_queue_admissions_total{"));
    }
}
