//! One admission review: what is asked, and what is answered.
//!
//! Comes in: the body of an AdmissionReview (admission.k8s.io/v1) and the function that validates a spec. Goes out: the
//! AdmissionReview to answer with. Plain JSON is read, not types, so that an odd object is judged and not an error.
//! A fault of ours never refuses an object: whatever goes wrong here admits it with a warning.

use std::fmt::Write as _;

use cultivar_core::validate::Report;
use serde::Deserialize;
use serde_json::{Value, json};

/// Validates the spec of a kind; `None` for a kind that is not validated.
pub type Validate = fn(kind: &str, spec: &Value) -> Option<Report>;

/// Faults listed in one answer; the rest is counted.
const FAULTS: usize = 50;
/// Bytes of one warning; the API server cuts what is longer.
const WARNING: usize = 256;

/// Something that is no AdmissionReview.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadReview {
    /// Not JSON.
    #[error("the body is not JSON: {0}")]
    Json(String),
    /// JSON, but not what was expected.
    #[error("the body is no AdmissionReview of admission.k8s.io/v1: {0}; point only the API server's webhooks here")]
    Shape(&'static str),
}

/// What is asked, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    uid: String,
    kind: String,
    /// None: nothing to judge, the answer is yes.
    spec: Option<Value>,
    /// The object is nested deeper than can be read.
    too_deep: bool,
}

/// As much of a review as is read when its object is nested too deep: what is not named here is skipped, not parsed.
#[derive(Deserialize)]
struct Shallow {
    request: ShallowRequest,
}

#[derive(Deserialize)]
struct ShallowRequest {
    uid: String,
    kind: ShallowKind,
}

#[derive(Deserialize)]
struct ShallowKind {
    kind: String,
}

fn read_shallow(body: &[u8], error: &serde_json::Error) -> Result<Question, BadReview> {
    let bad = || BadReview::Json(error.to_string());
    if !error.to_string().contains("recursion limit") {
        return Err(bad());
    }
    let Shallow { request } = serde_json::from_slice(body).map_err(|_| bad())?;
    Ok(Question { uid: request.uid, kind: request.kind.kind, spec: None, too_deep: true })
}

/// The judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Why not; `None` admits the object.
    pub refusal: Option<String>,
    /// Shown to whoever applies the object.
    pub warnings: Vec<String>,
}

impl Answer {
    /// The object is admitted although it was not judged, because of a fault here.
    #[must_use]
    pub fn unjudged(why: &str) -> Self {
        let warning = format!("cultivar did not check this object: {why}; it is checked again when it is run");
        Self { refusal: None, warnings: vec![warning] }
    }
}

/// Reads what is asked.
///
/// # Errors
/// When the body is no AdmissionReview.
pub fn read(body: &[u8]) -> Result<Question, BadReview> {
    let mut review: Value = match serde_json::from_slice(body) {
        Ok(review) => review,
        Err(error) => return read_shallow(body, &error),
    };
    if review["apiVersion"] != "admission.k8s.io/v1" || review["kind"] != "AdmissionReview" {
        return Err(BadReview::Shape("apiVersion or kind is another"));
    }
    let request = review.get_mut("request").and_then(Value::as_object_mut);
    let request = request.ok_or(BadReview::Shape("request is missing"))?;
    let text = |key: &str| request.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (uid, operation, subresource) = (text("uid"), text("operation"), text("subResource"));
    if uid.is_empty() {
        return Err(BadReview::Shape("request.uid is missing"));
    }
    let kind = request.get("kind").and_then(|kind| kind["kind"].as_str()).unwrap_or_default().to_owned();
    if kind.is_empty() {
        return Err(BadReview::Shape("request.kind.kind is missing"));
    }
    let judged = matches!(operation.as_str(), "CREATE" | "UPDATE") && subresource.is_empty();
    let mut object = request.remove("object").unwrap_or_default();
    let old = request.get("oldObject").unwrap_or(&Value::Null);
    // An object on its way out must be able to lose its finalizers, and one that an older version admitted its labels.
    let leaving = !object["metadata"]["deletionTimestamp"].is_null();
    let unchanged = operation == "UPDATE" && object["spec"] == old["spec"];
    let spec = (judged && !leaving && !unchanged).then(|| object.get_mut("spec").map(Value::take).unwrap_or_default());
    Ok(Question { uid, kind, spec, too_deep: false })
}

/// Judges what is asked.
#[must_use]
pub fn judge(question: &Question, validate: Validate) -> Answer {
    if question.too_deep {
        let refusal =
            "spec: nested too deep: at most about 120 levels of lists and maps can be read; keep data in inputs";
        return Answer { refusal: Some(refusal.to_owned()), warnings: Vec::new() };
    }
    let report = question.spec.as_ref().and_then(|spec| validate(&question.kind, spec));
    let Some(report) = report else { return Answer::default() };
    let mut refusal = String::new();
    for fault in report.faults.iter().take(FAULTS) {
        // Writing to a String cannot fail.
        let _ = writeln!(refusal, "{}: {}", fault.field, fault.message);
    }
    if report.faults.len() > FAULTS {
        let _ = writeln!(refusal, "and {} more", report.faults.len() - FAULTS);
    }
    let refusal = refusal.trim_end().to_owned();
    let warnings = report.warnings.iter().map(|warning| header_text(warning)).collect();
    Answer { refusal: Some(refusal).filter(|text| !text.is_empty()), warnings }
}

/// Warnings travel in a header: one line, not too long.
fn header_text(warning: &str) -> String {
    let mut text = String::new();
    for c in warning.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if text.len() + c.len_utf8() > WARNING {
            break;
        }
        text.push(c);
    }
    text
}

/// The AdmissionReview to answer with.
#[must_use]
pub fn write(question: &Question, answer: &Answer) -> Value {
    let mut response = json!({"uid": question.uid, "allowed": answer.refusal.is_none()});
    if let Some(refusal) = &answer.refusal {
        response["status"] = json!({"status": "Failure", "code": 422, "reason": "Invalid", "message": refusal});
    }
    if !answer.warnings.is_empty() {
        response["warnings"] = json!(answer.warnings);
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

#[cfg(test)]
mod tests {
    use cultivar_core::validate::Fault;

    use super::*;

    fn validate(kind: &str, spec: &Value) -> Option<Report> {
        let faults = spec["faults"].as_u64().unwrap_or(0);
        let fault = |index| Fault { field: format!("spec.stages[{index}].args[0]"), message: "no".to_owned() };
        let report = Report { faults: (0..faults).map(fault).collect(), warnings: vec!["a\nb".to_owned()] };
        (kind == "Pipeline").then_some(report)
    }

    fn review(operation: &str, object: Value, old: Value) -> Value {
        let request = json!({
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "cultivar.dev", "version": "v1alpha1", "kind": "Pipeline"},
            "operation": operation, "object": object, "oldObject": old,
        });
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
    }

    fn response(review: &Value) -> Value {
        let question = read(review.to_string().as_bytes()).unwrap();
        write(&question, &judge(&question, validate))["response"].take()
    }

    #[test]
    fn every_fault_is_named() {
        let response = response(&review("CREATE", json!({"spec": {"faults": 2}}), Value::Null));
        assert_eq!(response["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
        assert_eq!(response["allowed"], false);
        assert_eq!(response["status"]["code"], 422);
        assert_eq!(response["status"]["reason"], "Invalid");
        assert_eq!(response["status"]["message"], "spec.stages[0].args[0]: no\nspec.stages[1].args[0]: no");
        assert_eq!(response["warnings"], json!(["a b"]));
    }

    #[test]
    fn very_many_faults_are_counted() {
        let response = response(&review("CREATE", json!({"spec": {"faults": 53}}), Value::Null));
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.lines().count() == 51 && message.ends_with("and 3 more"));
    }

    #[test]
    fn what_must_pass_passes() {
        let bad = json!({"spec": {"faults": 1}});
        let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"faults": 1}});
        let mut status = review("UPDATE", bad.clone(), Value::Null);
        status["request"]["subResource"] = json!("status");
        let mut other = review("CREATE", bad.clone(), Value::Null);
        other["request"]["kind"]["kind"] = json!("Other");
        for (name, review) in [
            ("unchanged spec", review("UPDATE", bad.clone(), bad.clone())),
            ("on its way out", review("UPDATE", leaving, Value::Null)),
            ("deletion", review("DELETE", Value::Null, bad.clone())),
            ("status", status),
            ("another kind", other),
        ] {
            assert_eq!(response(&review)["allowed"], true, "{name}");
        }
        assert_eq!(response(&review("UPDATE", bad, json!({"spec": {}})))["allowed"], false, "a changed spec");
    }

    #[test]
    fn what_is_no_review_is_refused() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#,
            r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"x"}}"#,
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":""}}"#,
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"x","object":7}}"#,
        ] {
            assert!(read(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn odd_objects_are_judged() {
        for object in [json!(7), json!([]), Value::Null, json!({"spec": "text"}), json!({"metadata": 3, "spec": []})] {
            let review = review("CREATE", object, Value::Null);
            assert_eq!(response(&review)["allowed"], true);
        }
    }
}
