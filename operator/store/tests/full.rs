//! A volume that is full: writes are refused with an error that says so, nothing half-written stays, the rest goes on.
//!
//! The real end of a volume needs one that is small: a tmpfs, which only root can mount. Without root the reserve plays
//! its part, and that is said.

mod support;

use std::path::Path as Folder;
use std::process::Command;

use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use support::{Server, client};

fn files(folder: &Folder) -> usize {
    let shards = std::fs::read_dir(folder.join("data/blobs")).unwrap();
    shards.map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap().count()).sum()
}

async fn refused(store: &AmazonS3, key: &str, size: usize) {
    let error = store.put(&Path::from(key), PutPayload::from(vec![1; size])).await.unwrap_err();
    let told = format!("{error:?}");
    assert!(told.contains("InsufficientStorage") && told.contains("507") && told.contains("is full"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let before = Server::start(folder.path(), &[]);
    client(&before).put(&Path::from("a/before"), vec![7; 50_000].into()).await.unwrap();
    assert!({
        before.terminate();
        before.wait()
    });
    let server = Server::start(folder.path(), &["--reserve", "1000Ti"]);
    let store = client(&server);
    for size in [0, 10, 100_000] {
        refused(&store, "a/x", size).await;
    }
    let upload = store.put_multipart(&Path::from("a/x")).await;
    assert!(upload.is_err(), "an upload cannot even begin");
    assert_eq!(store.get(&Path::from("a/before")).await.unwrap().bytes().await.unwrap(), vec![7; 50_000]);
    assert_eq!(files(folder.path()), 1);
    store.delete(&Path::from("a/before")).await.unwrap();
    let shown = server.probe("/metrics");
    assert!(shown.contains("cultivar_store_requests_total{operation=\"PutObject\",outcome=\"full\"} 3"), "{shown}");
}

/// A small volume, unmounted when this is dropped.
struct Volume(tempfile::TempDir);

impl Volume {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(folder.path()).output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then_some(Self(folder))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_volume_is_survived() {
    let Some(volume) = Volume::mount("48m") else {
        println!("NOT TESTED: the real end of a volume, since a tmpfs cannot be mounted here (root is needed)");
        return;
    };
    let folder = volume.0.path();
    let other = folder.join("of-somebody-else");
    std::fs::write(&other, vec![0; 4 << 20]).unwrap();
    let server = Server::start(folder, &["--reserve", "0"]);
    let store = client(&server);
    let mut kept = Vec::new();
    // Large ones until nothing fits, then small ones, which go into the index, until that cannot grow either.
    for size in [4_000_000, 300_000, 9_000] {
        for number in 0..5000 {
            let key = format!("a/{size}/{number}");
            match store.put(&Path::from(key.clone()), PutPayload::from(vec![1; size])).await {
                Ok(_) => kept.push((key, size)),
                Err(error) => {
                    println!("{} objects fit, then: {error}", kept.len());
                    break;
                }
            }
        }
        refused(&store, "a/more", 4_000_000).await;
    }
    for (key, size) in &kept {
        let got = store.get(&Path::from(key.clone())).await.unwrap().bytes().await.unwrap();
        assert_eq!(got.len(), *size, "{key}");
    }
    server.kill();
    // A start needs room for one row. Somebody else's file made the volume full and goes again; everything acknowledged is still there.
    std::fs::remove_file(&other).unwrap();
    let server = Server::start(folder, &["--reserve", "0"]);
    let store = client(&server);
    for (key, size) in &kept {
        assert_eq!(store.head(&Path::from(key.clone())).await.unwrap().size, *size as u64, "{key}");
    }
    for (key, _) in &kept {
        store.delete(&Path::from(key.clone())).await.unwrap();
    }
    store.put(&Path::from("a/after"), vec![2; 10_000_000].into()).await.unwrap();
}
