//! The server over loopback, with a TLS client that trusts one authority and checks the name.

use std::io::{Read, Write};
use std::net::SocketAddr;

use cultivar_core::validate::{Fault, Report};
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};

use super::super::certs::{Contents, Plan, carry_out, provider};
use super::*;

fn certificate() -> Contents {
    carry_out(Plan::IssueAll, None, Timestamp::now(), &["127.0.0.1".to_owned()]).unwrap().unwrap()
}

fn validate(kind: &str, spec: &Value) -> Option<Report> {
    assert_ne!(spec["panic"], true, "told to panic");
    let fault = Fault { field: "spec.image".to_owned(), message: format!("{kind} has none").replace('"', "") };
    Some(Report { faults: if spec["image"].is_null() { vec![fault] } else { vec![] }, warnings: vec![] })
}

/// The answer to one request by a client that trusts `authorities`, or why there is none.
fn send(address: SocketAddr, authorities: &str, request: &[u8]) -> Result<String, std::io::Error> {
    let mut roots = rustls::RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(der.unwrap()).unwrap();
    }
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = rustls::StreamOwned::new(client, std::net::TcpStream::connect(address)?);
    stream.write_all(request)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(String::from_utf8(answer).unwrap()),
    }
}

async fn post(address: SocketAddr, contents: &Contents, body: String) -> Result<String, std::io::Error> {
    let length = body.len();
    let head = format!("POST /validate HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    let (request, bundle) = (head + &body, contents.bundle());
    tokio::task::spawn_blocking(move || send(address, &bundle, request.as_bytes())).await.unwrap()
}

fn review(spec: Value) -> String {
    let text = include_str!("testdata/review.json");
    let mut review: Value = serde_json::from_str(text).unwrap();
    review["request"]["object"]["spec"] = spec;
    review.to_string()
}

fn response(answer: &str) -> Value {
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str::<Value>(body).unwrap()["response"].take()
}

struct Running {
    address: SocketAddr,
    live: Live,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<Result<(), rustls::Error>>,
}

async fn start() -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (live, stop) = (Live::default(), CancellationToken::new());
    let (of_server, token) = (live.clone(), stop.clone());
    let server = tokio::spawn(async move { run(listener, &of_server, validate, token).await });
    Running { address, live, stop, server }
}

#[tokio::test]
async fn reviews_are_answered_and_the_server_stops() {
    let (running, contents) = (start().await, certificate());
    assert!(post(running.address, &contents, review(json!({}))).await.is_err(), "no certificate yet");
    assert!(running.live.set(contents.serving().unwrap()));
    assert!(!running.live.set(contents.serving().unwrap()), "the same again");

    let denied = response(&post(running.address, &contents, review(json!({}))).await.unwrap());
    assert_eq!(
        (&denied["allowed"], &denied["status"]["message"]),
        (&json!(false), &json!("spec.image: Experiment has none"))
    );
    let allowed = response(&post(running.address, &contents, review(json!({"image": "x"}))).await.unwrap());
    assert_eq!((&allowed["allowed"], &allowed["uid"]), (&json!(true), &json!("0e2f4d6c-8a1b-4c3d-9e5f-123456789abc")));

    let malformed = post(running.address, &contents, "{]".to_owned()).await.unwrap();
    assert!(malformed.starts_with("HTTP/1.1 400"), "{malformed}");
    let large = post(running.address, &contents, " ".repeat(BODY + 1)).await;
    assert!(large.is_err() || large.is_ok_and(|answer| answer.starts_with("HTTP/1.1 413")));

    running.stop.cancel();
    timeout(Duration::from_secs(5), running.server).await.expect("stops").unwrap().unwrap();
}

#[tokio::test]
async fn a_panic_admits_the_object_and_the_server_goes_on() {
    let (running, contents) = (start().await, certificate());
    running.live.set(contents.serving().unwrap());
    let answer = response(&post(running.address, &contents, review(json!({"panic": true}))).await.unwrap());
    assert_eq!(answer["allowed"], true);
    assert!(answer["warnings"][0].as_str().unwrap().contains("did not check"), "{answer}");
    let next = response(&post(running.address, &contents, review(json!({"image": "x"}))).await.unwrap());
    assert_eq!(next["allowed"], true);
}

#[tokio::test]
async fn the_certificate_changes_while_the_server_runs() {
    let (running, first, second) = (start().await, certificate(), certificate());
    running.live.set(first.serving().unwrap());
    let body = || review(json!({"image": "x"}));
    post(running.address, &first, body()).await.unwrap();
    assert!(post(running.address, &second, body()).await.is_err(), "not trusted yet");
    running.live.set(second.serving().unwrap());
    post(running.address, &second, body()).await.unwrap();
    assert!(post(running.address, &first, body()).await.is_err(), "not trusted any more");
}
