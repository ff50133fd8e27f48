//! The local endpoint with the real client. A harness names a Python that has `mlflow` (3.17.2) and scikit-learn in
//! CULTIVAR_TEST_PYTHON; without it there is nothing to test, and that is said.

mod support;

use serde_json::Value;
use support::{Run, problems, tracking};

fn client(run: &Run, mode: &str) -> Option<Value> {
    client_of(run, mode, None)
}

fn client_of(run: &Run, mode: &str, server: Option<&str>) -> Option<Value> {
    let Ok(python) = std::env::var("CULTIVAR_TEST_PYTHON") else {
        eprintln!("not run: CULTIVAR_TEST_PYTHON names no Python with mlflow");
        return None;
    };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mlflow_client.py");
    let mut command = run.command(&[&python, script, mode]);
    command.env_remove("MLFLOW_TRACKING_URI").envs(server.map(|server| ("MLFLOW_TRACKING_URI", server)));
    command.env("MLFLOW_DISABLE_TELEMETRY", "true").env("HOME", run.root.path());
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
fn through_the_runner_to_a_server_of_the_users() {
    let run = Run::stored();
    let server = tracking::Server::start();
    let Some(result) = client_of(&run, "forwarded", Some(&server.url)) else { return };
    let theirs = server.endpoint.logged();
    // The runs are that server's own, and both have all of it.
    assert_eq!(result["environment"]["trackingServer"], server.url.as_str());
    let id = result["environment"]["trackingRun"].as_str().unwrap();
    assert_eq!(result["metrics"]["acc"]["max"], 0.9);
    assert_eq!(result["metrics"]["child/acc"]["last"], 0.1);
    assert_eq!(result["params"]["lr"], "0.1");
    assert_eq!(result["environment"]["tags"]["team"], "vision");
    assert_eq!(theirs.params["first/lr"], "0.1");
    assert_eq!(theirs.tags["first/team"], "vision");
    assert!(server.metrics().contains("\"first/acc\"") && server.metrics().contains("\"child/acc\""));
    assert_eq!(run.object("ns/exp/artifacts/1/notes/a b+c.txt").unwrap(), b"hello");
    assert_eq!(run.object("ns/exp/artifacts/1/runs/child/c.txt").unwrap(), b"c");
    assert_eq!(server.artifact("runs/first/notes/a b+c.txt").unwrap(), b"hello");
    assert_eq!(run.object("ns/exp/artifacts/1/blobs/big.bin").unwrap().len(), 3_000_000);
    assert_eq!(server.artifact("runs/first/blobs/big.bin").unwrap().len(), 3_000_000);
    assert!(!id.is_empty() && problems(&result).contains("odd"), "{}", problems(&result));
}

#[test]
fn where_the_programs_calls_go() {
    let environment = |uri: Option<&str>| {
        let run = Run::new();
        let mut command = run.command(&["env"]);
        match uri {
            Some(uri) => command.env("MLFLOW_TRACKING_URI", uri).env("MLFLOW_TRACKING_TOKEN", "t"),
            None => command.env_remove("MLFLOW_TRACKING_URI"),
        };
        let out = command.output().unwrap();
        (String::from_utf8_lossy(&out.stdout).into_owned(), run.result())
    };
    let (text, _) = environment(None);
    assert!(text.contains("MLFLOW_TRACKING_URI=http://127.0.0.1:") && text.contains("MLFLOW_RUN_ID="), "{text}");
    // Through the runner, which run it is and who calls being the user's and the server's matter.
    let (text, result) = environment(Some("https://name:secret@mine:5000/base/"));
    assert!(text.contains("MLFLOW_TRACKING_URI=http://127.0.0.1:") && !text.contains("MLFLOW_RUN_ID"), "{text}");
    assert!(text.contains("MLFLOW_TRACKING_TOKEN=t\n"), "{text}");
    assert_eq!(result["environment"]["trackingServer"], "https://mine:5000/base");
    // What nobody can stand before is left alone, and that is said without what may be secret in it.
    for uri in ["databricks", "sqlite:////tmp/secret.db", "/data/secret/mlruns", "postgresql://u:secret@db/mlflow"] {
        let (text, result) = environment(Some(uri));
        assert!(text.contains(&format!("MLFLOW_TRACKING_URI={uri}\n")) && !text.contains("MLFLOW_RUN_ID"), "{text}");
        assert!(problems(&result).contains("MLFLOW_TRACKING_URI only"), "{result}");
        assert!(!result.to_string().contains("secret"), "{result}");
    }
    let (text, result) = environment(Some(""));
    assert!(text.contains("MLFLOW_TRACKING_URI=\n") && problems(&result).is_empty(), "{text}");
}
