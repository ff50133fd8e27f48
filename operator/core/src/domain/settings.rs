//! Effective settings of a frozen template: what the user set, else the product's defaults.

use cultivar_crds::{Retries, Timeouts};
use serde_json::Value;
use std::time::Duration;

use super::names::short_hash;
use super::time::parse_duration;

/// How long each step may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectiveTimeouts {
    /// Wait for the experiment named in `from`.
    pub template: Duration,
    /// Wait in the queue.
    pub queue: Option<Duration>,
    /// From the Job's creation until the program runs.
    pub start: Duration,
    /// From the program's start to its end.
    pub run: Option<Duration>,
}

/// How often an attempt is repeated, and how soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EffectiveRetries {
    /// After failures of the program.
    pub limit: u32,
    /// After failures of the cluster.
    pub infrastructure: u32,
    /// Before the first retry.
    pub initial: Duration,
    /// Growth from retry to retry.
    pub factor: u32,
    /// Longest wait.
    pub max: Duration,
}

/// Timeouts of a spec or template. What does not parse was refused when applied; here it is the default.
#[must_use]
pub fn timeouts(template: &Value) -> EffectiveTimeouts {
    let set: Timeouts = section(template, "timeouts");
    let read = |text: Option<&String>| text.and_then(|text| parse_duration(text).ok());
    EffectiveTimeouts {
        template: read(set.template.as_ref()).unwrap_or(Duration::from_secs(3600)),
        queue: read(set.queue.as_ref()),
        start: read(set.start.as_ref()).unwrap_or(Duration::from_secs(1800)),
        run: read(set.run.as_ref()),
    }
}

/// Retries of a template.
#[must_use]
pub fn retries(template: &Value) -> EffectiveRetries {
    let set: Retries = section(template, "retries");
    let backoff = set.backoff.unwrap_or_default();
    let read = |text: Option<&String>| text.and_then(|text| parse_duration(text).ok());
    EffectiveRetries {
        limit: set.limit.unwrap_or(0),
        infrastructure: set.infrastructure.unwrap_or(3),
        initial: read(backoff.initial.as_ref()).unwrap_or(Duration::from_secs(10)),
        factor: backoff.factor.unwrap_or(2).max(1),
        max: read(backoff.max.as_ref()).unwrap_or(Duration::from_secs(300)),
    }
}

/// How many pods run a template's program together.
#[must_use]
pub fn workers(template: &Value) -> u32 {
    let workers = template.get("workers").and_then(Value::as_u64).unwrap_or(1);
    u32::try_from(workers).unwrap_or(u32::MAX).max(1)
}

fn section<T: serde::de::DeserializeOwned + Default>(template: &Value, key: &str) -> T {
    template.get(key).and_then(|value| T::deserialize(value).ok()).unwrap_or_default()
}

impl EffectiveRetries {
    /// Wait before the retry that follows `spent` earlier ones; `seed` (the attempt's identity)
    /// decides the jitter, up to a tenth more, so that the same snapshot gives the same plan.
    #[must_use]
    pub fn delay(&self, spent: u32, seed: &str) -> Duration {
        let factor = u64::from(self.factor).saturating_pow(spent.min(32));
        let millis = u64::try_from(self.initial.as_millis()).unwrap_or(u64::MAX).saturating_mul(factor);
        let capped = Duration::from_millis(millis).min(self.max);
        let noise = u32::from_str_radix(&short_hash(&[seed], 2), 16).unwrap_or(0);
        capped + capped.mul_f64(0.1 * f64::from(noise) / f64::from(u16::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn delays_grow_and_are_capped() {
        let retries =
            retries(&json!({"retries": {"limit": 5, "backoff": {"initial": "1s", "factor": 3, "max": "10s"}}}));
        let delays: Vec<u64> = (0..4).map(|spent| retries.delay(spent, "seed").as_secs()).collect();
        assert_eq!(delays[0], 1);
        assert_eq!(delays[1], 3);
        assert!(delays[2] >= 9 && delays[3] <= 11, "{delays:?}");
        assert_eq!(retries.delay(2, "seed"), retries.delay(2, "seed"));
    }

    #[test]
    fn what_is_not_set_is_the_default() {
        assert_eq!(timeouts(&json!({})).start, Duration::from_secs(1800));
        assert_eq!(timeouts(&json!({})).run, None);
        assert_eq!(retries(&json!({})).infrastructure, 3);
    }
}
