//! What holds when the network, or whoever is at its other end, behaves badly.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cultivar_data::{DataError, Mover, Store, digest_of, walk};

use crate::checks::object;
use crate::kinds::{Kind, pattern};
use crate::proxy::{Manners, Proxy, nobody};
use crate::support::contents;

const MIB: usize = 1024 * 1024;

fn before(kind: &Kind, manners: Manners) -> Proxy {
    Proxy::start(kind.endpoint.as_deref().unwrap(), manners)
}

/// Connections break in the middle, then none can be made for a while, then all is well.
pub async fn interrupted_transfers(kind: &Kind) {
    let mover = Mover::default();
    let bytes = pattern(20 * MIB, 1);
    let from = kind.file(&bytes);
    let manners = Manners { cut: 6, after: 2_500_000, refuse: 8, ..Manners::default() };
    let proxy = before(kind, manners);
    let up = mover.upload(&kind.open_at(&proxy.address, "60s"), "cut", &from).await.unwrap();
    assert_eq!(up.digest, digest_of(&bytes));
    assert!(proxy.connections() > 14, "{} connections were made", proxy.connections());
    assert_eq!(kind.open().verify("cut", &up.digest).await.unwrap(), up.size);

    let (proxy, to) = (before(kind, manners), kind.at("to"));
    let store = kind.open_at(&proxy.address, "60s");
    mover.fetch(&object(&store, "cut"), &to, Some(&up.digest)).await.unwrap();
    assert!(proxy.connections() > 14, "{} connections were made", proxy.connections());
    assert!(fs::read(&to).unwrap() == bytes);
}

/// The same for many small files.
pub async fn interrupted_directories(kind: &Kind) {
    let mover = Mover::default();
    let from = kind.at("from");
    fs::create_dir_all(&from).unwrap();
    for number in 0..150_u8 {
        fs::write(from.join(number.to_string()), pattern(30_000, number)).unwrap();
    }
    let manners = Manners { cut: 20, after: 100_000, refuse: 20, ..Manners::default() };
    let proxy = before(kind, manners);
    let store = kind.open_at(&proxy.address, "60s");
    let up = mover.upload_tree(&store, "dir", walk(&from).unwrap().files).await.unwrap();
    assert!(proxy.connections() > 40, "{} connections were made", proxy.connections());
    for (to, expect) in [("listed", None), ("by its manifest", Some(up.digest.as_str()))] {
        let (proxy, to) = (before(kind, manners), kind.at(to));
        let store = kind.open_at(&proxy.address, "60s");
        let down = mover.fetch_tree(&store, "dir", &to, expect).await.unwrap();
        assert!(proxy.connections() > 40, "{} connections were made", proxy.connections());
        assert_eq!(down.digest, up.digest);
        assert_eq!(contents(&to), contents(&from));
    }
}

/// A line on which no connection ever lives long: each lets a part or so through, so both ways come to their end.
pub async fn a_line_that_always_breaks(kind: &Kind) {
    let mover = Mover::default();
    let proxy = before(kind, Manners { cut: usize::MAX, after: 8_000_000, ..Manners::default() });
    let (store, to) = (kind.open_at(&proxy.address, "60s"), kind.at("to"));
    let bytes = pattern(20 * MIB, 6);
    let up = mover.upload(&store, "again", &kind.file(&bytes)).await.unwrap();
    mover.fetch(&object(&store, "again"), &to, Some(&up.digest)).await.unwrap();
    assert!(fs::read(&to).unwrap() == bytes);
}

/// An upload that breaks for good leaves nothing that could be read, and what was there before stays.
pub async fn what_is_given_up_is_not_seen(kind: &Kind) {
    let mover = Mover::default();
    let whole = kind.open();
    let old = whole.put("old", "as it was").await.unwrap();
    let from = kind.file(&pattern(20 * MIB, 2));
    for key in ["new", "old"] {
        // Less than a part: none ever arrives.
        let proxy = before(kind, Manners { cut: usize::MAX, after: 2_000_000, ..Manners::default() });
        let error = mover.upload(&kind.open_at(&proxy.address, "2s"), key, &from).await.unwrap_err();
        assert!(error.is_temporary(), "{error}");
    }
    assert!(matches!(whole.get("new", 100).await, Err(DataError::NotFound(_))));
    whole.verify("old", &old).await.unwrap();
}

// What each call says of an object, and of a folder.
async fn every_call(kind: &Kind, store: &Store, key: &str, folder: &str, from: &Path) -> [Result<(), DataError>; 7] {
    let mover = Mover::default();
    [
        store.get(key, 10).await.map(drop),
        store.put(key, "y").await.map(drop),
        store.delete(key).await,
        store.verify(key, &digest_of(b"x")).await.map(drop),
        mover.fetch(&object(store, key), &kind.at("to"), None).await.map(drop),
        mover.fetch_tree(store, folder, &kind.at("tree"), None).await.map(drop),
        mover.upload(store, key, from).await.map(drop),
    ]
}

/// Refused is refused: said in these words, at once, and without going on trying.
pub async fn wrong_credentials(kind: &Kind) {
    let store = kind.open();
    store.put("there", "x").await.unwrap();
    let from = kind.file(&pattern(7 * MIB, 3));
    for (name, value) in [("aws_secret_access_key", "wrong"), ("aws_access_key_id", "nobody")] {
        let proxy = before(kind, Manners::default());
        let endpoint = format!("http://{}", proxy.address);
        let wrong = kind.open_with(&[("aws_endpoint", &endpoint), (name, value)]);
        for (number, error) in every_call(kind, &wrong, "there", "", &from).await.into_iter().enumerate() {
            assert!(matches!(&error, Err(DataError::Denied { .. })), "{name}, {number}: {error:?}");
            let told = error.unwrap_err().to_string();
            assert!(told.contains("check the credentials") && !told.contains(value), "{told}");
        }
        assert!(proxy.connections() <= 14, "{} connections were made", proxy.connections());
    }
    assert_eq!(store.get("there", 10).await.unwrap(), "x");
}

/// Nobody there, or somebody who hangs up: waited for as long as the patience lasts, then told.
pub async fn a_store_that_is_away(kind: &Kind) {
    let deaf = before(kind, Manners { refuse: usize::MAX, ..Manners::default() });
    let from = kind.file(&pattern(7 * MIB, 4));
    for address in [nobody(), deaf.address.clone()] {
        let store = kind.open_at(&address, "300ms");
        for (number, error) in every_call(kind, &store, "k", "k", &from).await.into_iter().enumerate() {
            assert!(matches!(&error, Err(DataError::Unavailable { .. })), "{number}: {error:?}");
        }
    }
    // It was tried more than once each.
    assert!(deaf.connections() >= 14, "{} connections were made", deaf.connections());
}

/// A line on which the transfer takes longer than the patience, which counts only while nothing moves.
pub async fn a_slow_line(kind: &Kind) {
    let mover = Mover::default();
    let proxy = before(kind, Manners { delay: Duration::from_millis(40), ..Manners::default() });
    let store = kind.open_at(&proxy.address, "1s");
    let bytes = pattern(7 * MIB, 5);
    let up = mover.upload(&store, "slow", &kind.file(&bytes)).await.unwrap();
    let to = kind.at("to");
    mover.fetch(&object(&store, "slow"), &to, Some(&up.digest)).await.unwrap();
    assert!(fs::read(&to).unwrap() == bytes);
}
