//! Round trips through a store in a folder.

use cultivar_data::{DataError, Mover, Remote, Store, digest_of, walk};
use cultivar_protocol::StoreSpec;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn open(root: &Path) -> Store {
    Store::open(&StoreSpec { url: format!("file://{}/st ore", root.display()), ..StoreSpec::default() }).unwrap()
}

#[tokio::test]
async fn files_of_all_sizes_and_names() {
    let root = tempfile::tempdir().unwrap();
    let (store, mover) = (open(root.path()), Mover::default());
    for (name, size) in [("empty", 0), ("ü ? # % & + =.txt", 10), ("large", 20_000_000)] {
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        let bytes = vec![7; size];
        fs::write(&from, &bytes).unwrap();
        let up = mover.upload(&store, &format!("a/{name}"), &from).await.unwrap();
        assert_eq!((up.size, &up.digest), (size as u64, &digest_of(&bytes)), "{name}");
        let down =
            mover.fetch(&Remote::Object(store.clone(), format!("a/{name}")), &to, Some(&up.digest)).await.unwrap();
        assert_eq!(down.size, up.size, "{name}");
        assert!(fs::read(&to).unwrap() == bytes, "{name}");
    }
    assert!(mover.bytes_in() >= 20_000_010 && mover.bytes_out() >= 20_000_010);
}

#[tokio::test]
async fn directories_with_and_without_a_digest() {
    let root = tempfile::tempdir().unwrap();
    let (store, mover) = (open(root.path()), Mover::default());
    let from = root.path().join("from");
    fs::create_dir_all(from.join("sub/deep")).unwrap();
    for n in 0..300 {
        fs::write(from.join(format!("sub/{n}")), n.to_string()).unwrap();
    }
    fs::write(from.join("sub/deep/ü"), "x").unwrap();
    let up = mover.upload_tree(&store, "d", walk(&from).unwrap().files).await.unwrap();
    assert!(up.uri.ends_with("/d/"));
    for (to, expect) in [("one", None), ("two", Some(up.digest.as_str()))] {
        let to = root.path().join(to);
        let down = mover.fetch_tree(&store, "d/", &to, expect).await.unwrap();
        assert_eq!((down.files, down.digest.as_str(), down.size), (301, up.digest.as_str(), up.size));
        assert_eq!(fs::read_to_string(to.join("sub/299")).unwrap(), "299");
    }
    // One byte of one file; then the manifest itself; then no manifest, and the digest is taken of what is there.
    let object = root.path().join("st ore/d/sub/7");
    fs::write(&object, "8").unwrap();
    let tree = |to: &str, digest: String| {
        let (mover, store, to) = (mover.clone(), store.clone(), root.path().join(to));
        async move { mover.fetch_tree(&store, "d", &to, Some(&digest)).await }
    };
    assert!(matches!(tree("three", up.digest.clone()).await, Err(DataError::Corrupt { .. })));
    fs::write(&object, "7").unwrap();
    assert!(matches!(tree("four", digest_of(b"x")).await, Err(DataError::Corrupt { .. })));
    store.delete("d.manifest.json").await.unwrap();
    tree("five", up.digest).await.unwrap();
    assert!(matches!(tree("six", digest_of(b"x")).await, Err(DataError::Corrupt { .. })));
    assert!(matches!(
        mover.fetch_tree(&store, "none", &root.path().join("7"), None).await,
        Err(DataError::NotFound(_))
    ));
}

#[tokio::test]
async fn a_manifest_that_leaves_its_folder_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (store, mover) = (open(root.path()), Mover::default());
    let text = r#"{"version":1,"files":[{"path":"../../x","size":1,"digest":"sha256:0"}]}"#;
    let digest = store.put("d.manifest.json", text).await.unwrap();
    let done = mover.fetch_tree(&store, "d", &root.path().join("to"), Some(&digest)).await;
    assert!(matches!(done, Err(DataError::Corrupt { .. })), "{done:?}");
}

#[tokio::test]
async fn keys_do_not_leave_the_store() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    for key in ["../x", "a/../../x", "a/./b"] {
        assert!(matches!(store.put(key, "x").await, Err(DataError::Invalid(_))), "{key}");
    }
    // Opaque names are no way out either.
    store.put("%2e%2e/x", "x").await.unwrap();
    assert!(!root.path().join("x").exists());
    assert_eq!(store.key_of(&store.uri("a/b")), Some("a/b"));
}

#[test]
fn what_cannot_be_opened_says_why_and_keeps_secrets() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("aws_secret_access_key"), "hunter2\n").unwrap();
    fs::write(root.path().join("aws_access_key_id"), "id").unwrap();
    let open = |url: &str, option: &str| {
        let options = BTreeMap::from([(option.to_owned(), "hunter3".to_owned())]);
        let secret_dir = Some(root.path().display().to_string());
        Store::open(&StoreSpec { url: url.to_owned(), options, secret_dir })
            .map(drop)
            .map_err(|error| error.to_string())
    };
    open("s3://bucket/prefix", "aws_region").unwrap();
    for (url, option, why) in [
        ("s3://bucket", "aws_nonsense", "aws_nonsense"),
        ("ftp://x/y", "aws_region", "ftp"),
        ("no url", "aws_region", "not a URL"),
        ("s3://bucket", "cultivar_patience", "hunter3"),
    ] {
        let error = open(url, option).unwrap_err();
        assert!(error.contains(why) && !error.contains("hunter2"), "{error}");
    }
    let missing = StoreSpec { secret_dir: Some("/no/such".into()), url: "s3://b".into(), ..StoreSpec::default() };
    assert!(Store::open(&missing).unwrap_err().to_string().contains("/no/such"));
}

#[tokio::test]
async fn a_store_that_is_away_is_waited_for_then_told() {
    let options = [
        ("aws_endpoint", "http://127.0.0.1:9"),
        ("aws_allow_http", "true"),
        ("cultivar_patience", "400ms"),
        ("aws_access_key_id", "a"),
        ("aws_secret_access_key", "b"),
        ("aws_region", "x"),
    ];
    let options = options.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let store = Store::open(&StoreSpec { url: "s3://bucket/p".into(), options, secret_dir: None }).unwrap();
    let started = std::time::Instant::now();
    let error = store.put("k", "x").await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert!(started.elapsed().as_millis() >= 300 && started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

#[tokio::test]
async fn what_lies_there_is_checked_without_a_copy() {
    let root = tempfile::tempdir().unwrap();
    let (store, mover) = (open(root.path()), Mover::default());
    let from = root.path().join("from");
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::write(from.join("sub/a"), "alpha").unwrap();
    fs::write(from.join("b"), "beta").unwrap();
    let tree = mover.upload_tree(&store, "d", walk(&from).unwrap().files).await.unwrap();
    let file = mover.upload(&store, "f", &from.join("b")).await.unwrap();
    assert_eq!(store.verify("d/", &tree.digest).await.unwrap(), 9);
    assert_eq!(store.verify("f", &file.digest).await.unwrap(), 4);
    assert!(matches!(store.verify("f", &tree.digest).await, Err(DataError::Corrupt { .. })));
    assert!(matches!(store.verify("gone", &file.digest).await, Err(DataError::NotFound(_))));
    fs::write(root.path().join("st ore/d/sub/a"), "alphA").unwrap();
    assert!(matches!(store.verify("d/", &tree.digest).await, Err(DataError::Corrupt { .. })));
}

#[tokio::test]
async fn a_folder_is_deleted_but_for_what_stays() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    for key in ["e/model.pkl", "e/log/1.gz", "e/data/x", "e/data.manifest.json", "e2/other"] {
        store.put(key, key.as_bytes().to_vec()).await.unwrap();
    }
    store.delete_tree_where("e", |key| !key.starts_with("e/data")).await.unwrap();
    for (key, there) in [
        ("e/model.pkl", false),
        ("e/log/1.gz", false),
        ("e/data/x", true),
        ("e/data.manifest.json", true),
        ("e2/other", true),
    ] {
        assert_eq!(store.get(key, 100).await.is_ok(), there, "{key}");
    }
    // With the folder its manifest, which would tell of files that are not there any more.
    store.delete_tree_where("e/data", |key| !key.starts_with("e/model")).await.unwrap();
    for key in ["e/data/x", "e/data.manifest.json"] {
        assert!(store.get(key, 100).await.is_err(), "{key}");
    }
}
