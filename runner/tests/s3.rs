//! The runner and the built-in store, over S3: what one run leaves the next one reads, and nobody else.

mod support;

use cultivar_store::credentials::derive;
use cultivar_store::keyring::Keyring;
use cultivar_store::metrics::Metrics;
use cultivar_store::s3::Operations;
use cultivar_store::serve;
use cultivar_store::store::{Store, Threads};
use serde_json::{Value, json};
use std::time::Duration;
use support::Run;
use tokio_util::sync::CancellationToken;

const ROOT: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A store on a free port, for as long as this lives.
struct Served {
    folder: tempfile::TempDir,
    address: String,
    runtime: Option<tokio::runtime::Runtime>,
    threads: Option<Threads>,
}

impl Served {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root-key");
        std::fs::write(&root, ROOT).unwrap();
        let (store, threads) = Store::open(&folder.path().join("data"), 0).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let metrics = Metrics::new().unwrap();
        let operations = Operations::new(store, "cultivar".to_owned(), metrics.clone());
        let service = serve::service(operations, Keyring::open(&root).unwrap());
        let limits = (64, Duration::from_secs(1));
        runtime.spawn(serve::s3(listener, service, metrics, limits, CancellationToken::new()));
        Self { folder, address, runtime: Some(runtime), threads: Some(threads) }
    }

    /// The store as a run of `namespace` is told of it: its credentials are files.
    fn told(&self, namespace: &str) -> Value {
        let secrets = self.folder.path().join(format!("secret-{namespace}"));
        let given = derive(ROOT, namespace);
        std::fs::create_dir_all(&secrets).unwrap();
        std::fs::write(secrets.join("aws_access_key_id"), given.access_key_id).unwrap();
        std::fs::write(secrets.join("aws_secret_access_key"), given.secret_access_key).unwrap();
        let options = json!({
            "aws_endpoint": format!("http://{}", self.address), "aws_region": "us-east-1",
            "aws_allow_http": "true", "aws_virtual_hosted_style_request": "false", "cultivar_patience": "3s",
        });
        json!({"url": "s3://cultivar", "options": options, "secretDir": secrets.display().to_string()})
    }

    fn run(&self, namespace: &str, name: &str) -> Run {
        let mut run = Run::new();
        run.spec["store"] = self.told(namespace);
        run.spec["prefix"] = format!("{namespace}/{name}").into();
        run
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(|runtime| runtime.shutdown_timeout(Duration::from_secs(1)));
        self.threads.take().into_iter().for_each(Threads::join);
    }
}

fn artifact<'a>(result: &'a Value, name: &str) -> &'a Value {
    let all = result["artifacts"].as_array().unwrap();
    all.iter().find(|artifact| artifact["name"] == name).unwrap_or_else(|| panic!("{name}: {result}"))
}

#[test]
fn what_one_run_leaves_the_next_one_reads_by_its_digest() {
    let served = Served::start();
    let mut first = served.run("vision", "make");
    first.spec["outputs"] = json!([
        {"name": "data", "path": first.text("data.bin"), "type": "Dataset"}, {"name": "folder", "path": first.text("many")},
    ]);
    let script = r#"
        head -c 20000000 /dev/urandom > data.bin && mkdir -p many/inner && echo one > many/one && echo zwei > "many/inner/zwei ü.txt"
        env; cat /proc/self/cmdline
        echo '{"acc": 0.9}' >> "$CULTIVAR_METRICS""#;
    let output = first.sh(script);
    assert!(output.status.success(), "{output:?}");
    let secret = derive(ROOT, "vision").secret_access_key;
    let said = [output.stdout, output.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains(&secret), "the program was handed the credentials");
    let result = first.result();
    assert_eq!(artifact(&result, "data")["size"], 20_000_000);
    assert_eq!(result["metrics"]["acc"]["last"], 0.9);
    assert!(result["record"]["uri"].as_str().unwrap().starts_with("s3://cultivar/vision/make/"), "{result}");

    let mut next = served.run("vision", "use");
    let input = |name: &str, path: String| {
        let made = artifact(&result, name);
        json!({"name": name, "uri": made["uri"], "digest": made["digest"], "path": path})
    };
    next.spec["inputs"] = json!([input("data", next.text("in.bin")), input("folder", next.text("in"))]);
    let output = next.sh("sha256sum < in.bin; cat in/one 'in/inner/zwei ü.txt'");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let digest = artifact(&result, "data")["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    assert!(text.starts_with(&digest) && text.ends_with("one\nzwei\n"), "{text}");
    assert_eq!(next.result()["inputs"][0]["digest"], artifact(&result, "data")["digest"]);
}

#[test]
fn another_digest_is_corrupt_and_another_namespace_is_refused() {
    let served = Served::start();
    let mut first = served.run("vision", "make");
    first.spec["outputs"] = json!([{"name": "data", "path": first.text("data.bin")}]);
    assert!(first.sh("echo data > data.bin").status.success());
    let uri = artifact(&first.result(), "data")["uri"].clone();

    let mut corrupt = served.run("vision", "use");
    corrupt.spec["inputs"] = json!([{"name": "data", "uri": uri, "digest": format!("sha256:{}", "0".repeat(64)), "path": corrupt.text("in")}]);
    assert_eq!(corrupt.sh("true").status.code(), Some(125));
    assert_eq!(corrupt.result()["reason"], "InputCorrupt");
    assert!(!corrupt.path("in").exists());

    let mut stranger = served.run("audio", "use");
    stranger.spec["inputs"] = json!([{"name": "data", "uri": uri, "path": stranger.text("in")}]);
    assert_eq!(stranger.sh("true").status.code(), Some(125));
    let result = stranger.result();
    assert_eq!(result["reason"], "InputUnavailable");
    let secret = derive(ROOT, "audio").secret_access_key;
    assert!(!result.to_string().contains(&secret), "a secret stands in the result");
}

#[test]
fn a_result_too_large_for_the_message_lies_in_the_store() {
    let served = Served::start();
    let run = served.run("vision", "many");
    let script = r#"for i in $(seq 200); do echo "{\"a metric with a rather long name, number $i\": $i}" >> "$CULTIVAR_METRICS"; done"#;
    assert!(run.sh(script).status.success());
    let pointer = run.result();
    let uri = pointer["manifest"]["uri"].as_str().unwrap_or_else(|| panic!("{pointer}"));
    assert!(uri.starts_with("s3://cultivar/vision/many/"), "{uri}");
    let spec = serde_json::from_value(served.told("vision")).unwrap();
    let (store, key) = cultivar_data::Store::of_object(uri, Some(&spec)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let bytes = runtime.block_on(store.get(&key, 1 << 20)).unwrap();
    assert_eq!(cultivar_data::digest_of(&bytes), pointer["manifest"]["digest"].as_str().unwrap());
    let whole: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(whole["metrics"].as_object().unwrap().len(), 200);
}
