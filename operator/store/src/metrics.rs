//! The store's metrics.
//!
//! Comes in: typed calls; every label value comes from a list here, so the number of series is fixed. Goes out:
//! Prometheus' text format.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use hyper::StatusCode;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::blobs::space::Space;
use crate::index::Totals;

/// The operations that have a label value of their own.
const OPERATIONS: [&str; 20] = [
    "AbortMultipartUpload",
    "CompleteMultipartUpload",
    "CopyObject",
    "CreateBucket",
    "CreateMultipartUpload",
    "DeleteObject",
    "DeleteObjects",
    "GetBucketLocation",
    "GetObject",
    "GetObjectTagging",
    "HeadBucket",
    "HeadObject",
    "ListBuckets",
    "ListMultipartUploads",
    "ListObjects",
    "ListObjectsV2",
    "ListParts",
    "PutObject",
    "UploadPart",
    "UploadPartCopy",
];

/// What a request turned out to ask for: put into the request, filled in when its path has been understood.
#[derive(Clone, Debug, Default)]
pub struct Asked(Arc<OnceLock<&'static str>>);

impl Asked {
    /// It asks for this operation.
    pub fn set(&self, operation: &str) {
        if let Some(known) = OPERATIONS.iter().find(|known| **known == operation) {
            let _ = self.0.set(known);
        }
    }

    fn label(&self) -> &'static str {
        self.0.get().copied().unwrap_or("other")
    }
}

fn outcome(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => "denied",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::PRECONDITION_FAILED | StatusCode::NOT_MODIFIED => "condition",
        StatusCode::INSUFFICIENT_STORAGE => "full",
        status if status.is_server_error() => "failed",
        status if status.is_client_error() => "invalid",
        _ => "ok",
    }
}

/// Every metric of the store. Clones are the same metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    /// Bytes of objects and parts received.
    pub received: IntCounter,
    /// Bytes of objects sent.
    pub sent: IntCounter,
    objects: IntGauge,
    bytes: IntGauge,
    free: IntGauge,
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// When two metrics have one name: a bug, found by the test below.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("cultivar_store_requests_total", "Requests answered, by operation and outcome."),
            &["operation", "outcome"],
        )?;
        let received = IntCounter::new("cultivar_store_received_bytes_total", "Bytes of objects and parts received.")?;
        let sent = IntCounter::new("cultivar_store_sent_bytes_total", "Bytes of objects sent.")?;
        let objects = IntGauge::new("cultivar_store_objects", "Objects in the store.")?;
        let bytes = IntGauge::new("cultivar_store_bytes", "Sum of the sizes of the objects in the store.")?;
        let free = IntGauge::new("cultivar_store_volume_free_bytes", "Bytes that are free on the store's volume.")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(received.clone()))?;
        registry.register(Box::new(sent.clone()))?;
        registry.register(Box::new(objects.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        registry.register(Box::new(free.clone()))?;
        Ok(Self { registry, requests, received, sent, objects, bytes, free })
    }

    /// A request has been answered.
    pub fn answered(&self, asked: &Asked, status: StatusCode) {
        self.requests.with_label_values(&[asked.label(), outcome(status)]).inc();
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric cannot be written as text: a bug.
    pub fn text(&self, totals: &Totals, space: &Space) -> prometheus::Result<String> {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.objects.set(gauge(totals.objects.load(Ordering::Relaxed)));
        self.bytes.set(gauge(totals.bytes.load(Ordering::Relaxed)));
        if let Ok(free) = space.free() {
            self.free.set(gauge(free));
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_holds_what_was_told() {
        let metrics = Metrics::new().unwrap();
        let (asked, strange) = (Asked::default(), Asked::default());
        asked.set("PutObject");
        strange.set("DropEverything");
        metrics.answered(&asked, StatusCode::INSUFFICIENT_STORAGE);
        metrics.answered(&strange, StatusCode::FORBIDDEN);
        metrics.sent.inc_by(7);
        let totals = Totals::default();
        totals.objects.store(3, Ordering::Relaxed);
        let text = metrics.text(&totals, &Space::new(std::path::Path::new("/"), 0)).unwrap();
        for line in [
            "cultivar_store_requests_total{operation=\"PutObject\",outcome=\"full\"} 1",
            "cultivar_store_requests_total{operation=\"other\",outcome=\"denied\"} 1",
            "cultivar_store_sent_bytes_total 7",
            "cultivar_store_objects 3",
            "# TYPE cultivar_store_volume_free_bytes gauge",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
