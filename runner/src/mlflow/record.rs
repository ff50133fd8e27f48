//! What a call to the user's server leaves in the record, once that server has taken it.

use super::calls::{self, text};
use super::state::{Model, Run, State};
use hyper::Method;
use serde_json::Value;

/// What has to be kept of a call until its answer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nothing: it only passes through.
    Nothing,
    /// What it said.
    Call,
    /// What it said, and what the server said.
    CallAndAnswer,
}

/// What of a call is of interest.
pub fn kept(method: &Method, path: &str) -> Kept {
    match (method, calls::name(path)) {
        (&Method::POST, Some("runs/create" | "logged-models")) | (&Method::GET, Some("runs/get")) => {
            Kept::CallAndAnswer
        }
        (&Method::POST, Some(name)) if WRITES.contains(&name) => Kept::Call,
        _ => Kept::Nothing,
    }
}

/// Calls that change what is known of a run.
const WRITES: [&str; 8] = [
    "runs/update",
    "runs/log-metric",
    "runs/log-parameter",
    "runs/set-tag",
    "runs/delete-tag",
    "runs/log-batch",
    "runs/log-inputs",
    "runs/outputs",
];

/// Notes a call that the server has taken.
pub fn record(state: &mut State, method: &Method, path: &str, args: &Value, answer: &Value) {
    match calls::name(path) {
        Some("runs/create") => create_run(state, args, &answer["run"]["info"]),
        Some("runs/get") => {
            let info = &answer["run"]["info"];
            state.meet(&calls::run_id(info), &text(info, "run_name"), &text(info, "artifact_uri"));
        }
        Some("logged-models") => create_model(state, &answer["model"]["info"]),
        _ => {
            state.adopt(&calls::run_id(args));
            if let Err(error) = calls::call(state, method, path, args) {
                state.problem(format!("a call of MLflow is on its server, but not in this record: {}", error.message));
            }
        }
    }
}

fn create_run(state: &mut State, args: &Value, info: &Value) {
    let id = calls::run_id(info);
    if id.is_empty() {
        state.problem("the MLflow server's answer names no run; what is logged to it is not in this record".to_owned());
        return;
    }
    let artifacts = state.passing(&text(info, "artifact_uri"), &format!("run {id}"));
    let mut run = Run { id, artifacts, status: "RUNNING".to_owned(), ..Run::default() };
    calls::asked(&mut run, args);
    // A server makes names up for runs that have none.
    Some(text(info, "run_name")).filter(|name| !name.is_empty()).into_iter().for_each(|name| run.name = name);
    state.add(run);
}

fn create_model(state: &mut State, info: &Value) {
    let (id, name) = (text(info, "model_id"), text(info, "name"));
    let artifacts = state.passing(&text(info, "artifact_uri"), &format!("model {name}"));
    if id.is_empty() || artifacts.is_none() {
        return;
    }
    let folder = state.model_folder(&name, &id);
    state.models.push(Model { id, folder, artifacts, json: Value::Null });
}
