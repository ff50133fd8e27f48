//! Calls of MLflow that the runner hands on to a server of the user's: what that server gets, what the program gets, and
//! what is recorded here.

mod support;

use cultivar_runner::mlflow::Upstream;
use hyper::StatusCode;
use serde_json::{Value, json};
use support::tracking::{Server, Told};

fn before(url: &str, settings: &[(&str, &str)]) -> Upstream {
    let settings: Vec<(String, String)> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let find = |name: &str| settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    Upstream::read(url, find).unwrap()
}

struct Caller {
    client: reqwest::Client,
    url: String,
}

impl Caller {
    fn of(server: &Server) -> Self {
        Self { client: cultivar_data::client(std::time::Duration::from_secs(20)).unwrap(), url: server.url.clone() }
    }

    async fn post(&self, name: &str, body: Value) -> Value {
        let (status, answer) = self.try_post(name, body).await;
        assert!(status.is_success(), "{name}: {status} {answer}");
        answer
    }

    async fn try_post(&self, name: &str, body: Value) -> (StatusCode, Value) {
        let request = self.client.post(format!("{}/api/2.0/mlflow/{name}", self.url)).body(body.to_string());
        let answer = request.send().await.unwrap();
        (answer.status(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn put(&self, uri: &str, body: &'static str) -> StatusCode {
        let path = uri.trim_start_matches("mlflow-artifacts:/");
        let request = self.client.put(format!("{}/api/2.0/mlflow-artifacts/artifacts/{path}", self.url)).body(body);
        request.send().await.unwrap().status()
    }
}

#[tokio::test]
async fn all_is_on_the_users_server_and_in_the_record() {
    let theirs = Server::new("theirs", None).await;
    let ours = Server::new("ours", Some(before(&theirs.url, &[]))).await;
    let caller = Caller::of(&ours);
    assert!(caller.get("/api/2.0/mlflow/experiments/get-by-name?experiment_name=x").await.1.contains("\"name\":\"x\""));
    let run = caller.post("runs/create", json!({"run_name": "mine", "start_time": 5})).await;
    let (id, uri) = (&run["run"]["info"]["run_id"], run["run"]["info"]["artifact_uri"].as_str().unwrap());
    caller.post("runs/log-metric", json!({"run_id": id, "key": "acc", "value": 0.5, "step": 1, "timestamp": 7})).await;
    let batch = json!({
        "run_id": id, "metrics": [{"key": "loss", "value": 2, "step": 3, "timestamp": 9}],
        "params": [{"key": "lr", "value": "0.1"}], "tags": [{"key": "team", "value": "vision"}],
    });
    caller.post("runs/log-batch", batch).await;
    assert_eq!(caller.put(&format!("{uri}/notes/a%20b+c.txt"), "hello").await, 200);
    let child = caller.post("runs/create", json!({"run_name": "child"})).await;
    caller.post("runs/log-metric", json!({"run_id": child["run"]["info"]["run_id"], "key": "acc", "value": 1})).await;
    let model = caller.post("logged-models", json!({"name": "net"})).await;
    let model = model["model"]["info"]["artifact_uri"].as_str().unwrap().to_owned();
    assert_eq!(caller.put(&format!("{model}/MLmodel"), "flavors: {}").await, 200);
    let (_, back) = caller.get(&format!("/api/2.0/mlflow-artifacts/artifacts/{}/MLmodel", &model[18..])).await;
    assert_eq!(back, "flavors: {}");

    // There under the names that the runs have there, and here under those of the experiment.
    let (there, here) = (theirs.endpoint.logged(), ours.endpoint.logged());
    assert_eq!((&there.params["mine/lr"], &here.params["lr"]), (&json!("0.1"), &json!("0.1")));
    assert_eq!((&there.tags["mine/team"], &here.tags["team"]), (&json!("vision"), &json!("vision")));
    let metrics = |prefix: &str| {
        [("acc", 0.5, 1, 7), ("loss", 2.0, 3, 9)]
            .map(|(name, value, step, at)| {
                json!({"name": format!("{prefix}{name}"), "value": value, "step": step, "timestamp": at}).to_string()
            })
            .join("\n")
    };
    assert!(theirs.metrics().starts_with(&metrics("mine/")), "{}", theirs.metrics());
    assert!(ours.metrics().starts_with(&metrics("")) && ours.metrics().contains("child/acc"), "{}", ours.metrics());
    assert_eq!(theirs.artifact("runs/mine/notes/a b+c.txt").unwrap(), b"hello");
    assert_eq!(ours.artifact("notes/a b+c.txt").unwrap(), b"hello");
    assert_eq!(
        (theirs.artifact("net/MLmodel"), ours.artifact("net/MLmodel")),
        (Some(b"flavors: {}".into()), Some(b"flavors: {}".into()))
    );
    assert_eq!((here.server.as_deref(), here.run.as_deref()), (Some(theirs.url.as_str()), id.as_str()));
    assert!(here.problems.is_empty(), "{:?}", here.problems);
}

#[tokio::test]
async fn a_run_that_is_resumed_is_the_experiments() {
    let theirs = Server::new("theirs", None).await;
    let there = Caller::of(&theirs);
    let mut ids = Vec::new();
    for name in ["old", "resumed"] {
        ids.push(there.post("runs/create", json!({"run_name": name})).await["run"]["info"]["run_id"].clone());
    }
    let ours = Server::new("ours", Some(before(&theirs.url, &[]))).await;
    let caller = Caller::of(&ours);
    // One that is only looked at is not this experiment's.
    for id in &ids {
        assert_eq!(caller.get(&format!("/api/2.0/mlflow/runs/get?run_id={}", id.as_str().unwrap())).await.0, 200);
    }
    assert_eq!(ours.endpoint.logged().run, None);
    let uri = format!("mlflow-artifacts:/0/{}/artifacts/x.txt", ids[1].as_str().unwrap());
    assert_eq!(caller.put(&uri, "x").await, 200);
    caller.post("runs/log-parameter", json!({"run_id": ids[1], "key": "a", "value": "b"})).await;
    assert_eq!(ours.artifact("x.txt").unwrap(), b"x");
    assert_eq!(ours.endpoint.logged().params["a"], "b");
    assert_eq!(ours.endpoint.logged().run.as_deref(), ids[1].as_str());
}

#[tokio::test]
async fn what_the_server_refuses_is_refused_and_not_recorded() {
    let told = Told::start(StatusCode::FORBIDDEN, r#"{"error_code": "PERMISSION_DENIED"}"#).await;
    let ours = Server::new("ours", Some(before(&told.url, &[]))).await;
    let caller = Caller::of(&ours);
    for name in ["runs/create", "runs/log-metric", "logged-models", "traces"] {
        let (status, answer) = caller.try_post(name, json!({"run_id": "r", "key": "acc", "value": 1})).await;
        assert_eq!((status, &answer["error_code"]), (StatusCode::FORBIDDEN, &json!("PERMISSION_DENIED")), "{name}");
    }
    assert_eq!(caller.put("mlflow-artifacts:/0/r/artifacts/x", "x").await, StatusCode::FORBIDDEN);
    assert_eq!(ours.metrics(), "");
    assert_eq!(std::fs::read_dir(ours.outputs()).unwrap().count(), 0);
    assert_eq!(ours.endpoint.logged().run, None);
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_of_the_program() {
    let port = {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        taken.local_addr().unwrap().port()
    };
    let ours = Server::new("ours", Some(before(&format!("http://name:secret@127.0.0.1:{port}"), &[]))).await;
    let caller = Caller::of(&ours);
    let (status, answer) = caller.try_post("runs/log-metric", json!({"run_id": "r", "key": "acc", "value": 1})).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let words = answer["message"].as_str().unwrap();
    assert!(
        words.contains(&format!("http://127.0.0.1:{port} cannot be reached")) && !words.contains("secret"),
        "{words}"
    );
    assert_eq!(caller.put("mlflow-artifacts:/0/r/artifacts/x", "x").await, StatusCode::BAD_GATEWAY);
    assert_eq!((ours.metrics().as_str(), ours.endpoint.logged().run), ("", None));
}

#[tokio::test]
async fn who_calls_is_said_as_the_user_has_set_it() {
    let told = Told::start(StatusCode::OK, "{}").await;
    let host = told.url.trim_start_matches("http://").to_owned();
    let at = |user: &str| format!("http://{user}{host}/base/");
    let named = [("MLFLOW_TRACKING_USERNAME", "u"), ("MLFLOW_TRACKING_PASSWORD", "p"), ("MLFLOW_TRACKING_TOKEN", "t")];
    for (url, settings, expected) in [
        (at(""), &[][..], None),
        (at("a:b%40c@"), &named[..], Some("Basic YTpiQGM=")),
        (at(""), &named[..], Some("Basic dTpw")),
        (at(""), &named[2..], Some("Bearer t")),
    ] {
        let ours = Server::new("ours", Some(before(&url, settings))).await;
        let caller = Caller::of(&ours);
        caller.post("runs/search", json!({"filter": "x"})).await;
        let seen = told.last();
        assert_eq!(seen.headers.get("authorization").map(|value| value.to_str().unwrap()), expected, "{url}");
        assert_eq!(seen.headers["host"], host.as_str());
        assert_eq!(
            (seen.call.as_str(), &seen.body[..]),
            ("POST /base/api/2.0/mlflow/runs/search", &b"{\"filter\":\"x\"}"[..])
        );
        // What the client itself says counts.
        let get = caller.client.get(format!("{}/api/3.0/x?a=%2F+b", ours.url)).header("authorization", "Bearer own");
        let answer = get.header("x-mine", "1").send().await.unwrap();
        assert_eq!(answer.headers()["x-theirs"], "yes");
        let seen = told.last();
        assert_eq!(
            (seen.call.as_str(), &seen.headers["authorization"]),
            ("GET /base/api/3.0/x?a=%2F+b", &"Bearer own".parse().unwrap())
        );
        assert!(seen.headers["x-mine"] == "1" && !seen.headers.contains_key("transfer-encoding"), "{seen:?}");
    }
}

#[tokio::test]
async fn artifacts_that_do_not_pass_are_said() {
    let answer = r#"{"run": {"info": {"run_id": "r1", "run_name": "n", "artifact_uri": "s3://bucket/1/r1/artifacts"}},
        "model": {"info": {"model_id": "m-1", "name": "net", "artifact_uri": "s3://bucket/models/m-1"}}}"#;
    let told = Told::start(StatusCode::OK, answer).await;
    let ours = Server::new("ours", Some(before(&told.url, &[]))).await;
    let caller = Caller::of(&ours);
    caller.post("runs/create", json!({})).await;
    caller.post("logged-models", json!({"name": "net"})).await;
    let post = caller.client.post(format!("{}/api/2.0/mlflow-artifacts/mpu/complete/1/r1/artifacts/big", ours.url));
    assert_eq!(post.send().await.unwrap().status(), 200);
    let said = ours.endpoint.logged().problems.join("\n");
    for words in
        ["run r1 straight to s3://bucket/1/r1/artifacts", "model net straight to", "1/r1/artifacts/big in parts"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(ours.endpoint.logged().run.as_deref(), Some("r1"));
}

#[test]
fn settings_that_cannot_be_kept_to_leave_the_server_alone() {
    for (uri, name, value, words) in [
        ("databricks", "X", "", "only a server at http"),
        ("https://h", "MLFLOW_TRACKING_AWS_SIGV4", "true", "signs calls"),
        (
            "https://h",
            "MLFLOW_TRACKING_SERVER_CERT_PATH",
            "/none.pem",
            "MLFLOW_TRACKING_SERVER_CERT_PATH cannot be used",
        ),
        (
            "https://h",
            "MLFLOW_TRACKING_CLIENT_CERT_PATH",
            "/none.pem",
            "MLFLOW_TRACKING_CLIENT_CERT_PATH cannot be used",
        ),
    ] {
        let why = Upstream::read(uri, |asked| (asked == name).then(|| value.to_owned())).unwrap_err();
        assert!(why.contains(words), "{why}");
    }
    Upstream::read("https://h", |asked| (asked == "MLFLOW_TRACKING_INSECURE_TLS").then(|| "true".to_owned())).unwrap();
}
