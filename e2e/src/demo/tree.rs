//! From objects to rows of the tree.
//!
//! In: Experiments and PipelineRuns as the API server has them. Out: one row each.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::paint::{Look, Row};
use super::watch::Watch;

/// The word for an object that does not exist yet.
const NOT_YET: &str = "–";

/// The rows of experiments by name, in this order.
pub fn experiments(watch: &Watch, names: &[&str]) -> Vec<Row> {
    let width = longest(names.iter().copied());
    let row = |name: &&str| match watch.get("Experiment", name) {
        Some(object) => experiment(&object, "", format!("{name:<width$}")),
        None => waiting("", format!("{name:<width$}"), NOT_YET, ""),
    };
    names.iter().map(row).collect()
}

/// The rows of a run and its stages. A stage's own experiment is ahead of the summary that the run's status holds.
pub fn run(watch: &Watch, name: &str, stages: &[&str]) -> Vec<Row> {
    let run = watch.get("PipelineRun", name).unwrap_or_default();
    let status = &run["status"];
    let width = longest(stages.iter().copied()).max(name.len().saturating_sub(3));
    let reached = phase(status);
    let progress = text(&status["progress"]);
    let detail = match reached {
        "Failed" | "Cancelled" => why(status),
        _ if progress.is_empty() => String::new(),
        _ => format!("{progress} stages"),
    };
    let mut rows = vec![Row {
        branch: "",
        name: format!("{name:<w$}", w = width + 3),
        phase: reached.to_owned(),
        time: span(&status["startedAt"], &status["finishedAt"]),
        detail,
        look: look(reached),
    }];
    for (index, stage) in stages.iter().enumerate() {
        let branch = if index + 1 == stages.len() { "└─ " } else { "├─ " };
        let label = format!("{stage:<width$}");
        let summary = status["stages"].as_array().into_iter().flatten().find(|one| one["name"] == *stage);
        let summary = summary.unwrap_or(&Value::Null);
        let reached = phase(summary);
        rows.push(match watch.stage(name, stage) {
            Some(object) => experiment(&object, branch, label),
            None if reached == "Pending" => waiting(branch, label, reached, &why(summary)),
            None => Row {
                branch,
                name: label,
                phase: reached.to_owned(),
                time: None,
                detail: why(summary),
                look: look(reached),
            },
        });
    }
    rows
}

/// From the moment that the operator saw a stage's end to the creation of the next stage's Job.
pub fn gap(before: &Value, after: &Value) -> Option<Duration> {
    let ended = &before["status"]["times"]["finished"];
    let created = &after["status"]["attempts"][0]["createdAt"];
    created.is_string().then(|| span(ended, created))?
}

/// Metrics of an experiment as `name value`.
pub fn metrics(experiment: &Value) -> String {
    let metrics = experiment["status"]["metrics"].as_object().into_iter().flatten();
    let words: Vec<String> = metrics.map(|(name, value)| format!("{name} {}", number(&value["last"]))).collect();
    words.join("  ")
}

/// A number as people write it: at most four digits behind the point.
pub fn number(value: &Value) -> String {
    let Some(number) = value.as_f64() else { return text(value).to_owned() };
    let short = format!("{number:.4}");
    short.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The phase of an object, by its status.
pub fn phase(status: &Value) -> &str {
    match text(&status["phase"]) {
        "" => "Pending",
        phase => phase,
    }
}

/// Reason and message of a status, as one text.
pub fn why(status: &Value) -> String {
    match (text(&status["reason"]), text(&status["message"])) {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

fn experiment(object: &Value, branch: &'static str, name: String) -> Row {
    let status = &object["status"];
    let phase = phase(status);
    let attempt = status["attempts"].as_array().and_then(|all| all.last()).unwrap_or(&Value::Null);
    let reused = text(&status["reusedFrom"]["name"]);
    let detail = match phase {
        "Completed" if !reused.is_empty() => format!("reused from {reused}"),
        "Completed" => metrics(object),
        "Running" => format!("on {}", attempt["node"].as_str().unwrap_or("a node")),
        _ => why(status),
    };
    let times = &status["times"];
    let began = if times["running"].is_null() { &times["starting"] } else { &times["running"] };
    Row { branch, name, phase: phase.to_owned(), time: span(began, &times["finished"]), detail, look: look(phase) }
}

fn waiting(branch: &'static str, name: String, phase: &str, detail: &str) -> Row {
    Row { branch, name, phase: phase.to_owned(), time: None, detail: detail.to_owned(), look: Look::Dim }
}

fn look(phase: &str) -> Look {
    match phase {
        "Completed" => Look::Good,
        "Failed" | "Cancelled" => Look::Bad,
        "Skipped" => Look::Dim,
        _ => Look::Live,
    }
}

/// From one moment to another, or until now.
fn span(from: &Value, until: &Value) -> Option<Duration> {
    let from: Timestamp = from.as_str()?.parse().ok()?;
    let until = until.as_str().map_or_else(|| Some(Timestamp::now()), |text| text.parse().ok())?;
    // Two clocks may disagree.
    Some(until.duration_since(from).try_into().unwrap_or(Duration::ZERO))
}

fn longest<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_short() {
        for (value, shown) in [(json!(0.936_508), "0.9365"), (json!(540), "540"), (json!(1.0), "1"), (json!("x"), "x")]
        {
            assert_eq!(number(&value), shown);
        }
    }

    #[test]
    fn a_failed_experiment_says_why() {
        let object = json!({"status": {"phase": "Failed", "reason": "Error", "message": "exit code 2"}});
        let row = experiment(&object, "", "train".to_owned());
        assert_eq!((row.look, row.detail.as_str()), (Look::Bad, "Error: exit code 2"));
    }
}
