//! `source`: what the schema alone cannot say of it.

use serde_json::Value;

use super::Report;
use crate::domain::source;
use crate::refs::FieldPath;

/// A root's source says all there is; a clone's may be completed by what it is cloned from.
pub fn check(spec: &Value, at: &FieldPath, report: &mut Report) {
    if spec.get("from").is_none()
        && let Some(fault) = source::fault(spec)
    {
        report.fault(at.key("source"), fault);
    }
}
