//! The local endpoint with the real client. A harness names a Python that has `mlflow` (3.17.2) and scikit-learn in
//! CULTIVAR_TEST_PYTHON; without it there is nothing to test, and that is said.

mod support;

use serde_json::Value;
use support::{Run, problems};

fn client(run: &Run, mode: &str) -> Option<Value> {
    let Ok(python) = std::env::var("CULTIVAR_TEST_PYTHON") else {
        eprintln!("not run: CULTIVAR_TEST_PYTHON names no Python with mlflow");
        return None;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mlflow_client.py");
    let mut command = run.command(&[&python, script, mode]);
    command.env_remove("MLFLOW_TRACKING_URI").env("MLFLOW_DISABLE_TELEMETRY", "true").env("HOME", run.root.path());
    let out = command.output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&out.stdout).into_owned(), String::from_utf8_lossy(&out.stderr).into_owned());
    assert!(out.status.success(), "{stdout}\n{stderr}\n{}", run.result());
    let record: Value = serde_json::from_slice(&run.object("ns/exp/record-1.json").unwrap()).unwrap();
    Some(record["result"].clone())
}

#[test]
fn what_is_logged_lands_in_the_run() {
    let run = Run::stored();
    let Some(result) = client(&run, "plain") else { return };
    assert_eq!(result["metrics"]["acc"]["max"], 0.9);
    assert_eq!(result["metrics"]["acc"]["step"], 4);
    assert_eq!(result["metrics"]["child/acc"]["last"], 0.1);
    assert_eq!(result["metrics"]["val/loss"]["last"], 0.25);
    assert_eq!(result["params"]["lr"], "0.1");
    assert_eq!(result["environment"]["tags"]["team"], "vision");
    assert_eq!(run.object("ns/exp/artifacts/1/notes/a b+c.txt").unwrap(), b"hello");
    assert_eq!(run.object("ns/exp/artifacts/1/runs/child/c.txt").unwrap(), b"c");
    assert!(problems(&result).contains("odd") && !problems(&result).contains("not supported"), "{}", problems(&result));
}

#[test]
fn autolog_and_models() {
    let run = Run::stored();
    let Some(result) = client(&run, "autolog") else { return };
    assert!(result["metrics"]["training_accuracy_score"]["last"].as_f64().unwrap() > 0.9, "{result}");
    assert_eq!(result["params"]["gamma"], "0.001");
    let names: Vec<&str> = result["artifacts"].as_array().unwrap().iter().filter_map(|a| a["name"].as_str()).collect();
    assert!(names.contains(&"model") && names.contains(&"mine"), "{names:?}");
    assert!(run.object("ns/exp/artifacts/1/mine/MLmodel").is_some());
    assert!(!problems(&result).contains("not supported"), "{}", problems(&result));
}

#[test]
fn a_tracking_server_of_the_users_is_left_alone() {
    let run = Run::new();
    let out = run.command(&["env"]).env("MLFLOW_TRACKING_URI", "http://mine").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("MLFLOW_TRACKING_URI=http://mine\n") && !text.contains("MLFLOW_RUN_ID"), "{text}");
    let out = run.command(&["env"]).env_remove("MLFLOW_TRACKING_URI").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("MLFLOW_TRACKING_URI=http://127.0.0.1:") && text.contains("MLFLOW_RUN_ID="), "{text}");
}
