//! What the operator says about itself: metrics, health, and the log.
//!
//! Comes in: typed calls from everywhere else. Goes out: /metrics, /readyz and /livez over HTTP, and log lines.

pub mod health;
pub mod http;
pub mod logs;
pub mod metrics;
mod process;
mod queues;
pub mod serve;

pub use health::Health;
pub use metrics::Metrics;
