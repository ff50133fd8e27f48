//! The real program, spoken to by Rust's `object_store`, as the runner does it.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use cultivar_store::credentials::Credentials;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutPayload, WriteMultipart};
use support::{Server, admin, namespace};

fn client(server: &Server, credentials: &Credentials) -> AmazonS3 {
    // The client wants a provider of TLS even where it uses none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    AmazonS3Builder::new()
        .with_endpoint(format!("http://{}", server.s3))
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name("cultivar")
        .with_access_key_id(&credentials.access_key_id)
        .with_secret_access_key(&credentials.secret_access_key)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(object_store::RetryConfig { max_retries: 0, ..Default::default() })
        .build()
        .unwrap()
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap() ^ seed).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_ranges_and_names() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let store = client(&server, &namespace("vision"));
    for size in [0, 1, 16 * 1024, 16 * 1024 + 1, 256 * 1024, 256 * 1024 + 1, 3_000_000] {
        let key = Path::parse(format!("vision/grüße {size} + %2e%2e")).unwrap();
        let bytes = pattern(size, 0);
        store.put(&key, PutPayload::from(bytes.clone())).await.unwrap();
        let got = store.get(&key).await.unwrap();
        assert_eq!(got.meta.size, size as u64);
        assert_eq!(got.bytes().await.unwrap(), bytes);
        if size > 10 {
            let middle = store.get_range(&key, 5..size as u64 - 3).await.unwrap();
            assert_eq!(middle, bytes[5..size - 3]);
            let beyond = GetOptions { range: Some((size as u64..size as u64 + 1).into()), ..GetOptions::default() };
            assert!(store.get_opts(&key, beyond).await.is_err());
        }
    }
    let all: Vec<_> = store.list(Some(&Path::from("vision"))).try_collect().await.unwrap();
    assert_eq!(all.len(), 7);
    let shown = server.probe("/metrics");
    assert!(shown.contains("cultivar_store_objects 7"), "{shown}");
    assert!(shown.contains("cultivar_store_requests_total{operation=\"PutObject\",outcome=\"ok\"} 7"), "{shown}");
    assert!(server.probe("/healthz").starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_copies_and_deletes() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let store = client(&server, &namespace("a"));
    let (key, other) = (Path::from("a/x"), Path::from("a/y"));
    let first = store.put_opts(&key, "one".into(), PutMode::Create.into()).await.unwrap();
    let again = store.put_opts(&key, "two".into(), PutMode::Create.into()).await;
    assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
    let update = |version| store.put_opts(&key, "three".into(), PutMode::Update(version).into());
    update(first.clone().into()).await.unwrap();
    let stale = update(first.into()).await;
    assert!(matches!(stale, Err(Error::Precondition { .. })), "{stale:?}");
    store.copy(&key, &other).await.unwrap();
    store.delete(&key).await.unwrap();
    assert!(matches!(store.head(&key).await, Err(Error::NotFound { .. })));
    assert_eq!(store.get(&other).await.unwrap().bytes().await.unwrap(), "three");
    let none = GetOptions { if_none_match: store.head(&other).await.unwrap().e_tag, ..GetOptions::default() };
    assert!(matches!(store.get_opts(&other, none).await, Err(Error::NotModified { .. })));
    let gone = futures::stream::iter([Ok(other.clone()), Ok(Path::from("a/never"))]).boxed();
    assert_eq!(store.delete_stream(gone).try_collect::<Vec<_>>().await.unwrap().len(), 2);
    assert!(store.list(Some(&Path::from("a"))).next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_parts_is_one_object_and_its_files_go_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let store = client(&server, &namespace("a"));
    let key = Path::from("a/large");
    let bytes = pattern(13 * 1024 * 1024 + 7, 3);
    let mut upload = WriteMultipart::new(store.put_multipart(&key).await.unwrap());
    upload.write(&bytes);
    assert!(store.head(&key).await.is_err(), "nothing is visible before it is whole");
    upload.finish().await.unwrap();
    let got = store.get(&key).await.unwrap();
    assert!(got.meta.e_tag.as_deref().unwrap().ends_with("-3\""), "{:?}", got.meta.e_tag);
    assert_eq!(got.bytes().await.unwrap(), bytes);
    let across = 5 * 1024 * 1024 - 10..10 * 1024 * 1024 + 10;
    let part = store.get_range(&key, across.start as u64..across.end as u64).await.unwrap();
    assert_eq!(part, bytes[across]);
    store.copy(&key, &Path::from("a/copy")).await.unwrap();
    assert_eq!(files(folder.path()), 3, "a copy shares the files");
    store.delete(&key).await.unwrap();
    assert_eq!(store.get(&Path::from("a/copy")).await.unwrap().bytes().await.unwrap(), bytes);
    store.delete(&Path::from("a/copy")).await.unwrap();
    for _ in 0..100 {
        if files(folder.path()) == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{} files stay", files(folder.path()));
}

fn files(folder: &std::path::Path) -> usize {
    let shards = std::fs::read_dir(folder.join("data/blobs")).unwrap();
    shards.map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap().count()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_sees_itself_only() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let (one, two) = (client(&server, &namespace("one")), client(&server, &namespace("two")));
    two.put(&Path::from("two/secret"), "s".into()).await.unwrap();
    let denied = |what: &str, result: Result<(), Error>| {
        // Of a listing the client gives the answer as it came.
        let told = format!("{:?}", result.as_ref().err());
        let denied = matches!(result, Err(Error::PermissionDenied { .. })) || told.contains("AccessDenied");
        assert!(denied, "{what}: {told}");
    };
    let foreign = Path::from("two/secret");
    denied("get", one.get(&foreign).await.map(drop));
    denied("head", one.head(&foreign).await.map(drop));
    denied("put", one.put(&foreign, "x".into()).await.map(drop));
    denied("copy out", one.copy(&foreign, &Path::from("one/stolen")).await);
    denied("copy in", one.copy(&Path::from("one/x"), &foreign).await);
    denied("multipart", one.put_multipart(&foreign).await.map(drop));
    denied("list all", one.list(None).try_collect::<Vec<_>>().await.map(drop));
    denied("list other", one.list(Some(&Path::from("two"))).try_collect::<Vec<_>>().await.map(drop));
    let both = futures::stream::iter([Ok(Path::from("one/x")), Ok(foreign.clone())]).boxed();
    let deleted = one.delete_stream(both).try_collect::<Vec<_>>().await;
    assert!(deleted.is_err(), "{deleted:?}");
    let all = client(&server, &admin());
    assert_eq!(all.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 1);
    let mut wrong = namespace("two");
    wrong.secret_access_key = namespace("one").secret_access_key;
    assert!(client(&server, &wrong).get(&foreign).await.is_err());
    let stranger = Credentials { access_key_id: "ns-two/x".to_owned(), ..namespace("two") };
    assert!(client(&server, &stranger).get(&foreign).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_loses_nothing_that_was_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let store = Arc::new(client(&server, &namespace("a")));
    let puts = (0..64_usize).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let bytes = pattern(200_000 + number, u8::try_from(number).unwrap());
            store.put(&Path::from(format!("a/{number}")), bytes.into()).await.map(|_| number)
        })
    });
    let puts: Vec<_> = puts.collect();
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    server.terminate();
    let mut kept = Vec::new();
    for put in puts {
        kept.extend(put.await.unwrap().ok());
    }
    assert!(server.wait(), "the stop was not clean");
    let server = Server::start(folder.path(), &[]);
    let store = client(&server, &namespace("a"));
    println!("{} of 64 were acknowledged", kept.len());
    for number in kept {
        let bytes = pattern(200_000 + number, u8::try_from(number).unwrap());
        assert_eq!(store.get(&Path::from(format!("a/{number}"))).await.unwrap().bytes().await.unwrap(), bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_of_one_key_leave_one_of_their_objects() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let store = Arc::new(client(&server, &namespace("a")));
    let key = Path::from("a/same");
    store.put(&key, pattern(100_000, 0).into()).await.unwrap();
    let writers = (1..=8_u8).map(|seed| {
        let (store, key) = (store.clone(), key.clone());
        tokio::spawn(async move {
            for _ in 0..10 {
                store.put(&key, pattern(100_000, seed).into()).await.unwrap();
            }
        })
    });
    let readers = (0..4).map(|_| {
        let (store, key) = (store.clone(), key.clone());
        tokio::spawn(async move {
            for _ in 0..40 {
                let got = store.get(&key).await.unwrap().bytes().await.unwrap();
                let seed = got[0];
                assert!(got == pattern(100_000, seed), "a mixture of objects");
            }
        })
    });
    for task in writers.collect::<Vec<_>>().into_iter().chain(readers.collect::<Vec<_>>()) {
        task.await.unwrap();
    }
}

#[test]
fn a_client_that_is_refused_its_body_gets_no_second_request_on_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let mut stream = TcpStream::connect(&server.s3).unwrap();
    let head = "PUT /cultivar/a/x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    // It ends, though it could be kept.
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("connection: close"), "{answer}");
}
