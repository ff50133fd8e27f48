//! Asking a registry on this machine that behaves, and registries that do not.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use reqwest::Url;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

/// `sha256:aa…`, as a registry says it.
fn digest(byte: &str) -> String {
    format!("sha256:{}", byte.repeat(32))
}

/// What a registry is asked, in short: method, path, who asks.
type Heard = Arc<Mutex<Vec<String>>>;

/// A server on this machine that answers as the function says, and notes what it is asked.
struct Fake {
    address: SocketAddr,
    heard: Heard,
}

impl Fake {
    async fn start(answer: impl Fn(&str, &str, Option<&str>) -> Response<Full<Bytes>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, heard) = (listener.local_addr().unwrap(), Heard::default());
        let (noted, answer) = (Arc::clone(&heard), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (noted, answer) = (Arc::clone(&noted), Arc::clone(&answer));
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                    let whom = request.headers().get("authorization").and_then(|value| value.to_str().ok());
                    let method = request.method().as_str();
                    lock(&noted).push(format!("{method} {path} {}", whom.unwrap_or("-")));
                    let answer = answer(method, path, whom);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, heard }
    }

    fn url(&self) -> Url {
        Url::parse(&format!("http://{}", self.address)).unwrap()
    }

    fn heard(&self) -> Vec<String> {
        lock(&self.heard).clone()
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::new(body.into())).unwrap()
}

/// Images whose registry `r.test` is at the address.
fn images(mirrors: &[(&str, Url)]) -> Images {
    let mirrors: BTreeMap<String, Url> = mirrors.iter().map(|(name, url)| ((*name).to_owned(), url.clone())).collect();
    Images::new(ImageSettings { resolve: true, mirrors })
}

fn credentials(host: &str) -> Credentials {
    let config = json!({"auths": {host: {"username": "u", "password": "p"}}});
    let data = BTreeMap::from([(".dockerconfigjson".to_owned(), ByteString(config.to_string().into_bytes()))]);
    let mut credentials = Credentials::default();
    let type_ = Some("kubernetes.io/dockerconfigjson".to_owned());
    credentials.add(&Secret { type_, data: Some(data), ..Secret::default() });
    credentials
}

async fn ask(images: &Images, image: &str) -> Result<String, String> {
    images.digest("vision", image, &Credentials::default()).await
}

#[tokio::test]
async fn a_tag_is_asked_for_by_its_head() {
    let fake = Fake::start(|_, _, _| answer(200, &[("docker-content-digest", &digest("ab"))], "")).await;
    let images = images(&[("r.test", fake.url()), ("docker.io", fake.url().join("/hub/").unwrap())]);
    assert_eq!(ask(&images, "r.test/acme/train:1").await, Ok(digest("ab")));
    assert_eq!(ask(&images, "busybox").await, Ok(digest("ab")));
    let heard = ["HEAD /v2/acme/train/manifests/1 -", "HEAD /v2/hub/library/busybox/manifests/latest -"];
    assert_eq!(fake.heard(), heard);
}

#[tokio::test]
async fn a_registry_that_says_no_digest_is_asked_for_the_manifest() {
    let manifest = json!({"schemaVersion": 2, "layers": []}).to_string();
    let body = manifest.clone();
    let fake = Fake::start(move |method, path, _| match (method, path) {
        ("HEAD", path) if path.contains("no-head") => answer(405, &[], ""),
        ("GET", path) if path.contains("liar") => {
            answer(200, &[("docker-content-digest", &digest("00"))], body.clone())
        }
        ("GET", path) if path.contains("page") => answer(200, &[], "<html>"),
        ("GET", path) if path.contains("huge") => answer(200, &[], vec![b' '; 5 * 1024 * 1024]),
        ("HEAD", path) if path.contains("other") => answer(200, &[("docker-content-digest", "sha512:ab")], ""),
        _ => answer(200, &[], body.clone()),
    })
    .await;
    let images = images(&[("r.test", fake.url())]);
    use sha2::Digest as _;
    let expected = format!("sha256:{:x}", sha2::Sha256::digest(manifest.as_bytes()));
    assert_eq!(ask(&images, "r.test/plain").await, Ok(expected.clone()));
    assert_eq!(ask(&images, "r.test/no-head").await, Ok(expected));
    for (image, part) in [
        ("r.test/liar", "of a manifest that is"),
        ("r.test/page", "something else than a manifest"),
        ("r.test/huge", "more than 4194304 bytes"),
        ("r.test/other", "no sha256 digest"),
    ] {
        let why = ask(&images, image).await.expect_err(image);
        assert!(why.contains(part), "{image}: {why}");
    }
}

/// A registry with a server of tokens, which shows `private` to `u` with the password `p` alone.
async fn guarded_by_tokens() -> (Fake, Fake) {
    let tokens = Fake::start(|_, path, whom| {
        let named = whom == Some("Basic dTpw");
        match (path.contains("private"), named) {
            (true, false) => answer(401, &[], ""),
            _ => answer(200, &[], json!({"access_token": if named { "named" } else { "anyone" }}).to_string()),
        }
    })
    .await;
    let realm = tokens.url();
    let registry = Fake::start(move |_, path, whom| {
        let challenge = format!("Bearer realm=\"{realm}token?x=1\",service=\"r\",scope=\"ignored\"");
        match whom {
            None => answer(401, &[("www-authenticate", &challenge)], ""),
            Some("Bearer named") => answer(200, &[("docker-content-digest", &digest("cc"))], ""),
            Some("Bearer anyone") if !path.contains("private") => {
                answer(200, &[("docker-content-digest", &digest("dd"))], "")
            }
            Some(_) => answer(403, &[], ""),
        }
    })
    .await;
    (registry, tokens)
}

#[tokio::test]
async fn a_token_is_asked_for_as_whom_the_pull_secret_says() {
    let (registry, tokens) = guarded_by_tokens().await;
    let images = images(&[("r.test", registry.url()), ("tokens.test", tokens.url())]);
    assert_eq!(ask(&images, "r.test/open").await, Ok(digest("dd")));
    assert_eq!(tokens.heard(), ["GET /token?x=1&service=r&scope=repository%3Aopen%3Apull -"]);
    let why = ask(&images, "r.test/private").await.unwrap_err();
    assert!(why.contains("401") && why.contains("asks for a pull secret"), "{why}");
    let named = credentials(&registry.address.to_string());
    assert_eq!(images.digest("vision", "r.test/private", &named).await, Ok(digest("cc")));
    // What was shown to one is not shown to another who asks a moment later.
    assert!(ask(&images, "r.test/private").await.is_err());
    let others = credentials("other.test");
    assert!(images.digest("vision", "r.test/private:2", &others).await.is_err(), "it is for another registry");
    assert!(registry.heard().iter().all(|heard| !heard.contains("Basic")), "{:?}", registry.heard());
}

#[tokio::test]
async fn a_token_is_not_asked_of_whoever_the_settings_do_not_name() {
    let (registry, tokens) = guarded_by_tokens().await;
    let images = images(&[("r.test", registry.url())]);
    let why = ask(&images, "r.test/open").await.unwrap_err();
    assert!(why.contains("wants a token of") && why.contains("own machine"), "{why}");
    assert!(tokens.heard().is_empty());
}

#[tokio::test]
async fn basic_is_answered_with_the_pull_secret() {
    let fake = Fake::start(|_, _, whom| match whom {
        Some("Basic dTpw") => answer(200, &[("docker-content-digest", &digest("ee"))], ""),
        _ => answer(401, &[("www-authenticate", "Basic realm=\"x\"")], ""),
    })
    .await;
    let images = images(&[("r.test", fake.url())]);
    let named = credentials(&fake.address.to_string());
    assert_eq!(images.digest("vision", "r.test/a:1", &named).await, Ok(digest("ee")));
    let why = ask(&images, "r.test/a:1").await.unwrap_err();
    assert!(why.contains("401 Unauthorized"), "{why}");
}

#[tokio::test]
async fn refusals_say_what_the_registry_said() {
    let fake = Fake::start(|_, path, _| {
        let status = path.rsplit('/').next().and_then(|tag| tag.parse().ok()).unwrap_or(500);
        answer(status, &[], "")
    })
    .await;
    let images = images(&[("r.test", fake.url())]);
    for (tag, part, asked) in [
        (404, "no such image", 1),
        (403, "403 Forbidden", 1),
        (401, "401 Unauthorized", 1),
        (418, "418", 1),
        // These are asked again.
        (429, "429 Too Many Requests", 2),
        (503, "503 Service Unavailable", 2),
    ] {
        let before = fake.heard().len();
        let why = ask(&images, &format!("r.test/a:{tag}")).await.unwrap_err();
        assert!(why.contains(part), "{tag}: {why}");
        assert_eq!(fake.heard().len() - before, asked, "{tag}");
    }
}

#[tokio::test]
async fn redirects_are_followed_a_little_and_nothing_goes_along() {
    let elsewhere = Fake::start(|_, _, _| answer(200, &[("docker-content-digest", &digest("aa"))], "")).await;
    let to = elsewhere.url();
    let fake = Fake::start(move |_, path, whom| match (path, whom) {
        (_, None) => answer(401, &[("www-authenticate", "Basic realm=x")], ""),
        (path, _) if path.contains("loop") => answer(302, &[("location", path)], ""),
        (path, _) if path.contains("metadata") => answer(307, &[("location", "http://169.254.169.254/latest")], ""),
        (path, _) if path.contains("nowhere") => answer(302, &[], ""),
        _ => answer(307, &[("location", &format!("{to}elsewhere"))], ""),
    })
    .await;
    let named = credentials(&fake.address.to_string());
    let images = images(&[("r.test", fake.url()), ("elsewhere.test", elsewhere.url())]);
    assert_eq!(images.digest("vision", "r.test/away", &named).await, Ok(digest("aa")));
    assert_eq!(elsewhere.heard(), ["HEAD /elsewhere -"], "the password stays");
    for (image, part) in
        [("r.test/loop", "more than 3 times"), ("r.test/metadata", "own machine"), ("r.test/nowhere", "to nowhere")]
    {
        let why = images.digest("vision", image, &named).await.expect_err(image);
        assert!(why.contains(part), "{image}: {why}");
    }
}

#[tokio::test]
async fn hosts_of_this_machine_are_not_asked_unless_they_are_mirrors() {
    let fake = Fake::start(|_, _, _| answer(200, &[("docker-content-digest", &digest("ab"))], "")).await;
    let images = images(&[]);
    let port = fake.address.port();
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        "169.254.169.254".to_owned(),
        format!("[::1]:{port}"),
    ] {
        let why = ask(&images, &format!("{host}/a/b:1")).await.unwrap_err();
        assert!(why.contains("own machine or link"), "{host}: {why}");
    }
    assert!(ask(&images, "Train:1").await.unwrap_err().contains("no repository"));
    assert!(fake.heard().is_empty(), "{:?}", fake.heard());
}

#[tokio::test]
async fn many_that_ask_the_same_are_one_question_and_a_moved_tag_is_seen() {
    let tags = Arc::new(Mutex::new(VecDeque::from([digest("01"), digest("02")])));
    let fake = Fake::start(move |_, _, _| {
        let digest = lock(&tags).pop_front().unwrap_or_default();
        answer(200, &[("docker-content-digest", &digest)], "")
    })
    .await;
    let images = images(&[("r.test", fake.url())]);
    // All of them are under way before the first is answered.
    let asking = ["vision", "audio", "text"].into_iter().cycle().take(24);
    let none = Credentials::default();
    let answers =
        futures::future::join_all(asking.map(|namespace| images.digest(namespace, "r.test/a:1", &none))).await;
    assert!(answers.iter().all(|answer| *answer == Ok(digest("01"))), "{answers:?}");
    assert_eq!(fake.heard().len(), 1);
    assert_eq!(ask(&images, "r.test/a:1").await, Ok(digest("02")));
}

#[tokio::test]
async fn a_registry_that_is_away_is_left_alone_for_a_while() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let images = images(&[("r.test", url)]);
    let why = ask(&images, "r.test/a:1").await.unwrap_err();
    assert!(why.contains("could not be asked"), "{why}");
    let why = ask(&images, "r.test/b:1").await.unwrap_err();
    assert!(why.contains("is asked again later"), "{why}");
}

#[tokio::test]
async fn a_registry_that_takes_the_call_and_says_nothing_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let images = Images { asking: Duration::from_millis(200), ..images(&[("r.test", url)]) };
    let why = ask(&images, "r.test/a:1").await.unwrap_err();
    assert!(why.contains("did not answer") || why.contains("could not be asked"), "{why}");
    assert!(ask(&images, "r.test/a:2").await.unwrap_err().contains("is asked again later"));
    drop(listener);
}
