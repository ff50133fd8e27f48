//! Images that tags name: a run keeps what they stood for when it began.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use cultivar_e2e::error::{Context as _, Result};
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, condition, played, stage};

/// The registry in the names of the images.
const NAME: &str = "registry.test";

/// Who may see what is private, as it is sent and as a pull secret has it: `robot:grows`.
const PASSWORD: &str = "cm9ib3Q6Z3Jvd3M=";

/// What tags stand for, by path.
#[derive(Clone, Default)]
struct Tags(Arc<Mutex<BTreeMap<String, String>>>);

impl Tags {
    /// From now on a tag means the image of this digest.
    fn set(&self, repository: &str, tag: &str, byte: &str) -> String {
        let digest = format!("sha256:{}", byte.repeat(32));
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path, digest.clone());
        digest
    }

    /// Answers as a registry does to whoever asks for a digest, until the case's process ends.
    fn serve(&self) -> Result<String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing(|| "no port for a registry")?;
        let url = format!("http://{}", listener.local_addr().doing(|| "no port for a registry")?);
        let tags = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tags = tags.clone();
                // Each on its own: a client may open a connection and say nothing on it.
                std::thread::spawn(move || tags.answer(stream));
            }
        });
        Ok(url)
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(&stream).lines().map_while(std::result::Result::ok);
        let first = lines.next().unwrap_or_default();
        let mut known = false;
        for line in lines.take_while(|line| !line.is_empty()) {
            known |=
                line.to_ascii_lowercase().starts_with("authorization:") && line.ends_with(&format!("Basic {PASSWORD}"));
        }
        let path = first.split(' ').nth(1).unwrap_or_default();
        if path.contains("silent") {
            // Until the other side gives up.
            let _ = stream.read(&mut [0]);
            return;
        }
        let digest = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        let head = match digest {
            Some(_) if path.contains("private") && !known => {
                format!("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"{NAME}\"\r\n")
            }
            Some(digest) => format!("HTTP/1.1 200 OK\r\nDocker-Content-Digest: {digest}\r\n"),
            None => "HTTP/1.1 404 Not Found\r\n".to_owned(),
        };
        // Who has gone away needs no answer.
        let _ = stream.write_all(format!("{head}Content-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
    }
}

fn pipeline(lr: f64) -> Value {
    let image = |name: &str| format!("{NAME}/{name}:1");
    json!({
        "params": {"lr": lr},
        "stages": [
            stage("prepare", json!({"image": image("acme/train"), "podTemplate": played(&[])})),
            stage("train", json!({"image": image("acme/train"), "podTemplate": played(&[]), "params": {"lr": "${pipeline.params.lr}"}})),
            stage("local", json!({"image": image("acme/gone"), "podTemplate": played(&[])})),
        ],
    })
}

fn image_of(run: &Value, stage: usize) -> &Value {
    &run["status"]["pipelineSpec"]["stages"][stage]["template"]["image"]
}

/// Inline roots by tag: pinned in the run, reused while the tag stays, run again when it is moved; what no registry knows runs
/// by its tag, and the run says so.
pub async fn a_tag_is_looked_up_when_its_run_begins(case: &Case) -> Result<()> {
    let tags = Tags::default();
    let old = tags.set("acme/train", "1", "0a");
    case.ask_registry(NAME, &tags.serve()?)?;

    case.pipeline("digits", pipeline(0.1)).await?;
    let first = case.run_ends("digits-1", "Completed").await?;
    let pinned = format!("{NAME}/acme/train:1@{old}");
    ensure!(*image_of(&first, 0) == pinned.as_str(), "{}", image_of(&first, 0));
    ensure!(*image_of(&first, 2) == format!("{NAME}/acme/gone:1").as_str(), "{}", image_of(&first, 2));
    let said = condition(&first, "ImagesPinned");
    let words = said["message"].as_str().unwrap_or_default();
    ensure!(said["status"] == "False" && said["reason"] == "ImageUnpinned", "{said}");
    ensure!(
        words.starts_with("stage local: registry.test/acme/gone:1: ") && words.contains("no such image"),
        "{words}"
    );
    let pods = case.server.list("Pod", &case.namespace, "cultivar.dev/stage=prepare").await?;
    let ran = pods.first().map(|pod| &pod["spec"]["containers"][0]["image"]);
    ensure!(ran.is_some_and(|image| *image == pinned.as_str()), "the pod runs {ran:?}");

    case.pipeline("digits", pipeline(0.2)).await?;
    case.run_ends("digits-2", "Completed").await?;
    let prepared = case.stage("digits-2", "prepare").await?;
    let before = case.stage("digits-1", "prepare").await?;
    ensure!(prepared["status"]["reusedFrom"]["name"] == before["metadata"]["name"], "{}", prepared["status"]);
    let trained = case.stage("digits-2", "train").await?;
    ensure!(trained["status"]["reusedFrom"].is_null(), "its parameter is another: {}", trained["status"]);

    let new = tags.set("acme/train", "1", "0b");
    case.pipeline("digits", pipeline(0.1)).await?;
    let third = case.run_ends("digits-3", "Completed").await?;
    ensure!(*image_of(&third, 0) == format!("{NAME}/acme/train:1@{new}").as_str(), "{}", image_of(&third, 0));
    let prepared = case.stage("digits-3", "prepare").await?;
    let why = prepared["status"]["cache"]["message"].as_str().unwrap_or_default();
    ensure!(prepared["status"]["reusedFrom"].is_null() && why.starts_with("image: "), "{}", prepared["status"]);

    // By hand, and looking for a result.
    let spec = json!({"image": format!("{NAME}/acme/train:1"), "cache": {"mode": "Use"}, "podTemplate": played(&[])});
    case.experiment("by-hand", spec).await?;
    let by_hand = case.ends("by-hand", "Completed").await?;
    ensure!(by_hand["status"]["reusedFrom"]["name"] == prepared["metadata"]["name"], "{}", by_hand["status"]);

    // A registry that says nothing holds a run up for as long as is said, and the next one not at all.
    let silent =
        json!({"stages": [stage("a", json!({"image": format!("{NAME}/silent:1"), "podTemplate": played(&[])}))]});
    case.pipeline("silent", silent).await?;
    case.wait("PipelineRun", "silent-1", |run| run["status"]["reason"] == "ResolvingImages").await?;
    let run = case.run_ends("silent-1", "Completed").await?;
    let words = condition(&run, "ImagesPinned")["message"].as_str().unwrap_or_default();
    ensure!(words.contains("did not answer within 8s"), "{words}");
    case.pipeline("after", pipeline(0.1)).await?;
    let run = case.run_ends("after-1", "Completed").await?;
    let words = condition(&run, "ImagesPinned")["message"].as_str().unwrap_or_default();
    ensure!(words.contains("is asked again later"), "{words}");
    Ok(())
}

/// A service account gives its pods a pull secret: the operator asks with that too, and only there.
pub async fn a_private_image_is_asked_for_as_its_service_account(case: &Case) -> Result<()> {
    let tags = Tags::default();
    let digest = tags.set("acme/private", "1", "0c");
    let url = tags.serve()?;
    case.ask_registry(NAME, &url)?;
    let host = url.trim_start_matches("http://");
    let known = json!({"auths": {host: {"auth": PASSWORD}, NAME: {"auth": PASSWORD}}}).to_string();
    let meta = |name: &str| json!({"name": name, "namespace": case.namespace});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta("regcred"),
        "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": known}});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("trainer"),
        "imagePullSecrets": [{"name": "regcred"}]});
    case.server.create(&secret).await?;
    case.server.create(&account).await?;
    let image = format!("{NAME}/acme/private:1");
    let mut as_trainer = played(&[]);
    as_trainer["spec"]["serviceAccountName"] = json!("trainer");
    let stages = [
        stage("known", json!({"image": image, "podTemplate": as_trainer})),
        stage("unknown", json!({"image": image, "podTemplate": played(&[])})),
    ];
    case.pipeline("private", json!({"stages": stages})).await?;
    let run = case.run_ends("private-1", "Completed").await?;
    ensure!(*image_of(&run, 0) == format!("{image}@{digest}").as_str(), "{}", image_of(&run, 0));
    ensure!(*image_of(&run, 1) == image.as_str(), "{}", image_of(&run, 1));
    let words = condition(&run, "ImagesPinned")["message"].as_str().unwrap_or_default();
    ensure!(words.starts_with("stage unknown: ") && words.contains("asks for a pull secret"), "{words}");
    Ok(())
}
