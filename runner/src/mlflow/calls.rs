//! The calls, as pure as they can be: state and arguments in, an answer out.

use super::state::{EXPERIMENT, Model, Run, State, now};
use super::{CallError, filter};
use hyper::Method;
use serde_json::{Value, json};

type Answer = Result<Value, CallError>;

/// The name of a call of MLflow's own: what its path has after the API's.
pub fn name(path: &str) -> Option<&str> {
    path.strip_prefix("/api/2.0/mlflow/").or_else(|| path.strip_prefix("/ajax-api/2.0/mlflow/"))
}

pub fn call(state: &mut State, method: &Method, path: &str, args: &Value) -> Answer {
    let name = name(path).unwrap_or(path);
    if let Some(rest) = name.strip_prefix("logged-models") {
        return models(state, method, rest.trim_start_matches('/'), args);
    }
    match name {
        "runs/create" => create_run(state, args),
        "runs/get" => Ok(json!({"run": run_json(state.run(&run_id(args))?)})),
        "runs/update" => update_run(state, args),
        "runs/search" => search_runs(state, args),
        "runs/log-metric" => log_metric(state, &run_id(args), args),
        "runs/log-parameter" => log_param(state, &run_id(args), args),
        "runs/set-tag" => set_tag(state, &run_id(args), args),
        "runs/delete-tag" => {
            state.run(&run_id(args))?.tags.remove(&text(args, "key"));
            Ok(json!({}))
        }
        "runs/log-batch" => log_batch(state, args),
        "runs/log-inputs" => log_inputs(state, args),
        "runs/outputs" => {
            let models = list(args, "models");
            state.run(&run_id(args))?.models.extend(models);
            Ok(json!({}))
        }
        "metrics/get-history" => history(state, args),
        "experiments/get-by-name" => {
            // Whatever the program calls it is this one, so that a run resumed by its id is in it.
            state.experiment_name = text(args, "experiment_name");
            Ok(json!({"experiment": experiment(state)}))
        }
        "experiments/create" => {
            state.experiment_name = text(args, "name");
            Ok(json!({"experiment_id": EXPERIMENT}))
        }
        "experiments/get" => Ok(json!({"experiment": experiment(state)})),
        "experiments/search" => Ok(json!({"experiments": [experiment(state)]})),
        "experiments/set-experiment-tag" => Ok(json!({})),
        "/api/3.0/mlflow/server-info" => Ok(json!({
            "store_type": "FileStore", "workspaces_enabled": false, "trace_archival_enabled": false,
            "multipart_uploads_enabled": false, "features_enabled": [],
        })),
        "/health" | "/version" => Ok(json!("3.17.2")),
        _ => {
            state.problem(format!(
                "the MLflow call {method} {path} is not supported; what it would have logged is not recorded"
            ));
            Err(CallError {
                code: "ENDPOINT_NOT_FOUND",
                ..CallError::missing(format!("{method} {path} is not supported by the runner"))
            })
        }
    }
}

fn create_run(state: &mut State, args: &Value) -> Answer {
    let id = state.fresh();
    let artifacts = Some(format!("{EXPERIMENT}/{id}/artifacts"));
    let mut run = Run { id, artifacts, status: "RUNNING".to_owned(), ..Run::default() };
    asked(&mut run, args);
    Ok(json!({"run": run_json(state.add(run))}))
}

/// Takes over what a call asks a new run to be.
pub fn asked(run: &mut Run, args: &Value) {
    run.user = text(args, "user_id");
    run.start = integer(&args["start_time"]).unwrap_or_else(now);
    run.tags = pairs(args, "tags");
    run.name = Some(text(args, "run_name"))
        .filter(|name| !name.is_empty())
        .or_else(|| run.tags.get("mlflow.runName").cloned())
        .unwrap_or_default();
}

fn update_run(state: &mut State, args: &Value) -> Answer {
    let run = state.run(&run_id(args))?;
    if let Some(status) = args["status"].as_str() {
        status.clone_into(&mut run.status);
    }
    run.end = integer(&args["end_time"]).or(run.end);
    Ok(json!({"run_info": run_json(run)["info"]}))
}

fn search_runs(state: &State, args: &Value) -> Answer {
    let filter = filter::Filter::read(args["filter"].as_str().unwrap_or_default()).map_err(CallError::invalid)?;
    let most = usize::try_from(integer(&args["max_results"]).unwrap_or(1000)).unwrap_or(1000);
    let mut runs: Vec<&Run> = state.runs.values().filter(|run| filter.matches(run)).collect();
    runs.sort_by_key(|run| std::cmp::Reverse(run.start));
    Ok(json!({"runs": runs.into_iter().take(most).map(run_json).collect::<Vec<_>>()}))
}

fn log_metric(state: &mut State, run: &str, args: &Value) -> Answer {
    let key = text(args, "key");
    let value = number(&args["value"])
        .ok_or_else(|| CallError::invalid(format!("metric {key:?} has no number for a value")))?;
    let timestamp = integer(&args["timestamp"]).unwrap_or_else(now);
    state.metric(run, &key, value, timestamp, integer(&args["step"]).unwrap_or(0))?;
    Ok(json!({}))
}

fn log_param(state: &mut State, run: &str, args: &Value) -> Answer {
    let (key, value) = (text(args, "key"), text(args, "value"));
    let params = &mut state.run(run)?.params;
    match params.get(&key) {
        Some(old) if *old != value => Err(CallError::invalid(format!(
            "Changing param values is not allowed. Param with key={key:?} was already logged with value={old:?}. Attempted logging new value {value:?}."
        ))),
        _ => {
            params.insert(key, value);
            Ok(json!({}))
        }
    }
}

fn set_tag(state: &mut State, run: &str, args: &Value) -> Answer {
    let (key, value) = (text(args, "key"), text(args, "value"));
    state.run(run)?.tags.insert(key, value);
    Ok(json!({}))
}

fn log_batch(state: &mut State, args: &Value) -> Answer {
    let run = run_id(args);
    for metric in list(args, "metrics") {
        log_metric(state, &run, &metric)?;
    }
    for param in list(args, "params") {
        log_param(state, &run, &param)?;
    }
    for tag in list(args, "tags") {
        set_tag(state, &run, &tag)?;
    }
    Ok(json!({}))
}

fn log_inputs(state: &mut State, args: &Value) -> Answer {
    let run = state.run(&run_id(args))?;
    for input in list(args, "datasets") {
        let dataset = &input["dataset"];
        run.datasets
            .push(json!({"name": dataset["name"], "digest": dataset["digest"], "sourceType": dataset["source_type"]}));
    }
    Ok(json!({}))
}

fn history(state: &State, args: &Value) -> Answer {
    let key = text(args, "metric_key");
    let name = state.scoped(&run_id(args), &key);
    let most = usize::try_from(integer(&args["max_results"]).unwrap_or(25_000)).unwrap_or(25_000);
    let mut metrics = Vec::new();
    // From the file: it holds the whole series, so that memory need not.
    let read = crate::metrics::read(&state.metrics_path, |point| {
        if point.name == name && metrics.len() < most {
            metrics.push(json!({"key": key, "value": point.value, "timestamp": point.timestamp.unwrap_or(0), "step": point.step.unwrap_or(0)}));
        }
    });
    read.map_err(|error| CallError::internal(&error))?;
    Ok(json!({"metrics": metrics}))
}

fn models(state: &mut State, method: &Method, rest: &str, args: &Value) -> Answer {
    if rest == "search" {
        return Ok(json!({"models": state.models.iter().map(|model| &model.json).collect::<Vec<_>>()}));
    }
    if rest.is_empty() && method == Method::POST {
        return create_model(state, args);
    }
    let (id, part) = rest.split_once('/').unwrap_or((rest, ""));
    let found = state.models.iter_mut().find(|model| model.id == id);
    let model = found.ok_or_else(|| CallError::missing(format!("Logged model with ID {id} not found")))?;
    match (method, part) {
        (&Method::PATCH, "") => {
            let status = match args["status"].as_str() {
                Some(status) => status.to_owned(),
                None => integer(&args["status"])
                    .map_or("LOGGED_MODEL_READY", |n| {
                        if n == 3 { "LOGGED_MODEL_UPLOAD_FAILED" } else { "LOGGED_MODEL_READY" }
                    })
                    .to_owned(),
            };
            model.json["info"]["status"] = status.into();
            model.json["info"]["last_updated_timestamp_ms"] = now().into();
        }
        (&Method::PATCH, "tags") | (&Method::POST, "params") => {
            let to = if part == "tags" { &mut model.json["info"]["tags"] } else { &mut model.json["data"]["params"] };
            if let Some(have) = to.as_array_mut() {
                have.extend(list(args, part));
            }
        }
        _ => {}
    }
    Ok(json!({"model": model.json}))
}

fn create_model(state: &mut State, args: &Value) -> Answer {
    let id = format!("m-{}", state.fresh());
    let name = Some(text(args, "name")).filter(|name| !name.is_empty()).unwrap_or_else(|| "model".to_owned());
    let folder = state.model_folder(&name, &id);
    let json = json!({
        "info": {
            "model_id": id, "experiment_id": EXPERIMENT, "name": name, "status": "LOGGED_MODEL_PENDING",
            "creation_timestamp_ms": now(), "last_updated_timestamp_ms": now(),
            "artifact_uri": format!("mlflow-artifacts:/{EXPERIMENT}/models/{id}/artifacts"),
            "model_type": args["model_type"], "source_run_id": args["source_run_id"], "tags": list(args, "tags"),
        },
        "data": {"params": list(args, "params"), "metrics": []},
    });
    let artifacts = Some(format!("{EXPERIMENT}/models/{id}/artifacts"));
    state.models.push(Model { id, folder, artifacts, json: json.clone() });
    Ok(json!({"model": json}))
}

fn experiment(state: &State) -> Value {
    json!({
        "experiment_id": EXPERIMENT, "name": state.experiment_name, "lifecycle_stage": "active",
        "artifact_location": format!("mlflow-artifacts:/{EXPERIMENT}"), "tags": [],
    })
}

pub fn run_json(run: &Run) -> Value {
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(key, value)| json!({"key": key, "value": value})).collect::<Vec<_>>()
    };
    let metrics: Vec<Value> = run
        .metrics
        .iter()
        .map(|(key, (value, timestamp, step))| {
            // As protobuf writes what JSON cannot.
            let value = if value.is_finite() {
                json!(value)
            } else {
                json!(if value.is_nan() {
                    "NaN"
                } else if *value > 0.0 {
                    "Infinity"
                } else {
                    "-Infinity"
                })
            };
            json!({"key": key, "value": value, "timestamp": timestamp, "step": step})
        })
        .collect();
    let mut info = json!({
        "run_id": run.id, "run_uuid": run.id, "run_name": run.name, "experiment_id": EXPERIMENT, "user_id": run.user,
        "status": run.status, "start_time": run.start, "lifecycle_stage": "active",
        "artifact_uri": format!("mlflow-artifacts:/{EXPERIMENT}/{}/artifacts", run.id),
    });
    if let Some(end) = run.end {
        info["end_time"] = end.into();
    }
    json!({
        "info": info,
        "data": {"metrics": metrics, "params": pairs(&run.params), "tags": pairs(&run.tags)},
        "inputs": {"dataset_inputs": [], "model_inputs": []},
        "outputs": {"model_outputs": run.models},
    })
}

pub fn run_id(args: &Value) -> String {
    Some(text(args, "run_id")).filter(|id| !id.is_empty()).unwrap_or_else(|| text(args, "run_uuid"))
}

pub fn text(args: &Value, key: &str) -> String {
    args[key].as_str().unwrap_or_default().to_owned()
}

fn list(args: &Value, key: &str) -> Vec<Value> {
    args[key].as_array().cloned().unwrap_or_default()
}

fn pairs(args: &Value, key: &str) -> std::collections::BTreeMap<String, String> {
    list(args, key).iter().map(|pair| (text(pair, "key"), text(pair, "value"))).collect()
}

// 64-bit integers may come as text: that is how protobuf writes them.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}
