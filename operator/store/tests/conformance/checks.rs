//! What holds over every store, the network being well.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cultivar_data::{DataError, Mover, Place, Remote, Store, digest_of, walk};

use crate::kinds::{Kind, pattern};
use crate::support::contents;

const MIB: usize = 1024 * 1024;

/// An object of a store, to be fetched.
pub fn object(store: &Store, key: &str) -> Remote {
    Remote::Object(store.clone(), key.to_owned())
}

/// Nothing, one byte, and the sizes around what S3 and the mover take for a part.
pub async fn sizes(kind: &Kind) {
    let (store, mover) = (kind.open(), Mover::default());
    for size in [0, 1, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 6 * MIB, 6 * MIB + 1, 20 * MIB] {
        let (bytes, key, to) = (pattern(size, 1), format!("sizes/{size}"), kind.at("to"));
        let up = mover.upload(&store, &key, &kind.file(&bytes)).await.unwrap();
        assert_eq!((up.size, &up.digest), (size as u64, &digest_of(&bytes)), "{size}");
        let down = mover.fetch(&object(&store, &key), &to, Some(&up.digest)).await.unwrap();
        assert_eq!((down.size, &down.digest), (up.size, &up.digest), "{size}");
        assert!(fs::read(&to).unwrap() == bytes, "{size} bytes came back as others");
        assert_eq!(store.verify(&key, &up.digest).await.unwrap(), up.size);
    }
}

/// A gibibyte, there and back: more parts than are ever under way at once, and sizes that no 31 bits hold in bits. It takes
/// half a minute, so only a harness asks for it.
pub async fn a_gibibyte(kind: &Kind) {
    if std::env::var_os("CULTIVAR_TEST_LARGE").is_none() {
        println!("NOT TESTED: a file of 1 GiB; set CULTIVAR_TEST_LARGE");
        return;
    }
    let (store, mover) = (kind.open(), Mover::default());
    let (from, to) = (kind.file(b"begins"), kind.at("to"));
    // The rest are zeros that take no room on the disk.
    File::options().append(true).open(&from).unwrap().set_len(1 << 30).unwrap();
    let up = mover.upload(&store, "large", &from).await.unwrap();
    assert_eq!(up.size, 1 << 30);
    let down = mover.fetch(&object(&store, "large"), &to, Some(&up.digest)).await.unwrap();
    assert_eq!((down.size, down.digest), (up.size, up.digest));
    assert_eq!(fs::metadata(&to).unwrap().len(), 1 << 30);
}

/// Names that mean something to a URL, a shell, XML or a file system, and such that are long or in other scripts.
pub async fn odd_names(kind: &Kind) {
    let (store, mover) = (kind.open(), Mover::default());
    let names = [
        "plain",
        "two  spaces",
        " in front and behind ",
        "ü ? # % & + = ; : , ' ( ) ! @ $.txt",
        "\"<a>&amp;</a>\" ~ ^ ` { } | [ ] \\ *",
        "%2e%2e",
        "a%20b",
        "a+b",
        ".hidden",
        "ends.",
        "日本語/каталог/🎉",
        "e\u{301} is not é",
        "Case",
        "case",
        "deep/er/and/deep/er/and/deep/er",
    ];
    let names: Vec<&str> = names.into_iter().filter(|name| kind.backslashes || !name.contains('\\')).collect();
    let long = format!("{}/{}", "l".repeat(200), "ö".repeat(100));
    let from = kind.at("from");
    for name in names.iter().copied().chain([long.as_str()]) {
        let path = from.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, name).unwrap();
    }
    let found = walk(&from).unwrap();
    assert!(found.refused.is_empty(), "{:?}", found.refused);
    let up = mover.upload_tree(&store, "ödd + names", found.files).await.unwrap();
    for (to, expect) in [("listed", None), ("by its manifest", Some(up.digest.as_str()))] {
        let to = kind.at(to);
        let down = mover.fetch_tree(&store, "ödd + names/", &to, expect).await.unwrap();
        // The names first: a digest tells nothing of them.
        assert_eq!(contents(&to), contents(&from));
        assert_eq!(down.digest, up.digest);
    }
    for name in names {
        let got = store.get(&format!("ödd + names/{name}"), 1000).await.unwrap();
        assert_eq!(got, name.as_bytes(), "{name}");
        store.delete(&format!("ödd + names/{name}")).await.unwrap();
    }
    // The long one is the only one that is left.
    let left = mover.fetch_tree(&store, "ödd + names", &kind.at("left"), None).await.unwrap();
    assert_eq!(left.files, 1);
}

/// More objects than a listing has on a page, ten times over.
pub async fn a_large_directory(kind: &Kind) {
    let (store, mover) = (kind.open(), Mover::default());
    let from = kind.at("from");
    for number in 0..kind.many {
        let folder = from.join((number % 100).to_string());
        if number < 100 {
            fs::create_dir_all(&folder).unwrap();
        }
        fs::write(folder.join(number.to_string()), number.to_string()).unwrap();
    }
    let up = mover.upload_tree(&store, "many", walk(&from).unwrap().files).await.unwrap();
    // Beside it, and not of it.
    store.put("many2", "x").await.unwrap();
    let to = kind.at("to");
    let down = mover.fetch_tree(&store, "many", &to, None).await.unwrap();
    assert_eq!((down.files, &down.digest, down.size), (kind.many as u64, &up.digest, up.size));
    let last = kind.many - 1;
    assert_eq!(fs::read_to_string(to.join(format!("{}/{last}", last % 100))).unwrap(), last.to_string());
    store.delete_tree("many").await.unwrap();
    let gone = mover.fetch_tree(&store, "many", &kind.at("gone"), None).await;
    assert!(matches!(gone, Err(DataError::NotFound(_))), "{gone:?}");
    assert_eq!(store.get("many2", 1).await.unwrap(), "x");
}

/// Nothing there is an error of its own, which names the place; deleting nothing is none.
pub async fn what_is_absent(kind: &Kind) {
    let (store, mover) = (kind.open(), Mover::default());
    store.put("there/is", "something").await.unwrap();
    let digest = digest_of(b"x");
    let errors = [
        store.get("not/here", 10).await.map(drop),
        store.verify("not/here", &digest).await.map(drop),
        store.verify("not/here/", &digest).await.map(drop),
        mover.fetch(&object(&store, "not/here"), &kind.at("to"), None).await.map(drop),
        mover.fetch_tree(&store, "not/here", &kind.at("to-tree"), None).await.map(drop),
        mover.fetch_tree(&store, "not/here", &kind.at("to-tree"), Some(&digest)).await.map(drop),
        // A folder is no object, and half a name is no prefix.
        store.get("there", 10).await.map(drop),
        mover.fetch_tree(&store, "the", &kind.at("to-tree"), None).await.map(drop),
    ];
    for (number, error) in errors.into_iter().enumerate() {
        let place = store.uri(if number < 6 { "not/here" } else { "the" });
        assert!(matches!(&error, Err(DataError::NotFound(at)) if at.starts_with(&place)), "{number}: {error:?}");
    }
    store.delete("not/here").await.unwrap();
    store.delete_tree("not/here").await.unwrap();
}

/// Other bytes than those that were recorded.
pub async fn what_is_corrupt(kind: &Kind) {
    let (store, mover) = (kind.open(), Mover::default());
    let bytes = pattern(7 * MIB, 2);
    let up = mover.upload(&store, "file", &kind.file(&bytes)).await.unwrap();
    let other = digest_of(b"other");
    let target = kind.at("target");
    let place = Place::of(&target).unwrap();
    let done = mover.fetch(&object(&store, "file"), place.part(), Some(&other)).await;
    let told = done.unwrap_err();
    assert!(matches!(&told, DataError::Corrupt { .. }), "{told}");
    assert!(told.to_string().contains(&up.digest) && told.to_string().contains(&other), "{told}");
    drop(place);
    assert!(!target.exists());
    assert!(matches!(store.verify("file", &other).await, Err(DataError::Corrupt { .. })));

    let from = kind.at("from");
    fs::create_dir_all(&from).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(from.join(name), name).unwrap();
    }
    let tree = mover.upload_tree(&store, "tree", walk(&from).unwrap().files).await.unwrap();
    store.put("tree/b", "x").await.unwrap();
    let done = mover.fetch_tree(&store, "tree", &kind.at("tree"), Some(&tree.digest)).await;
    assert!(matches!(&done, Err(DataError::Corrupt { what, .. }) if what.ends_with("tree/b")), "{done:?}");
    assert!(matches!(store.verify("tree/", &tree.digest).await, Err(DataError::Corrupt { .. })));
    store.put("tree.manifest.json", "{}").await.unwrap();
    let done = mover.fetch_tree(&store, "tree", &kind.at("tree-2"), Some(&tree.digest)).await;
    assert!(matches!(&done, Err(DataError::Corrupt { what, .. }) if what.ends_with(".manifest.json")), "{done:?}");
}

/// An object that is replaced, by one of the same size, once its first bytes have been read.
pub async fn what_changes_while_it_is_read(kind: &Kind) {
    let (store, mover) = (kind.open(), Mover::default());
    // More than the mover holds in memory: the rest is asked for only when somebody takes what came.
    let (old, new) = (kind.file(&pattern(48 * MIB, 3)), kind.file(&pattern(48 * MIB, 4)));
    mover.upload(&store, "changing", &old).await.unwrap();
    let pipe = kind.at("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reading = tokio::spawn({
        let (mover, remote, pipe) = (Mover::default(), object(&store, "changing"), pipe.clone());
        async move { mover.fetch(&remote, &pipe, None).await }
    });
    let taken = tokio::task::spawn_blocking(move || {
        let mut taken = File::open(pipe).unwrap();
        taken.read_exact(&mut [0; 1000]).unwrap();
        taken
    });
    let mut taken = taken.await.unwrap();
    mover.upload(&store, "changing", &new).await.unwrap();
    let rest = tokio::task::spawn_blocking(move || io::copy(&mut taken, &mut io::sink()).unwrap());
    let done = reading.await.unwrap();
    assert!(matches!(done, Err(DataError::Changed(_))), "{done:?}");
    rest.await.unwrap();
}

/// An object that is written over and over is at every moment one of the wholes, or noticed as changed.
pub async fn files_are_seen_whole(kind: &Kind) {
    let (store, mover) = (kind.open(), Mover::default());
    let versions = [pattern(13 * MIB, 5), pattern(MIB, 6), pattern(7 * MIB, 7)];
    let digests: Vec<String> = versions.iter().map(|bytes| digest_of(bytes)).collect();
    let ended = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (store, ended, to) = (store.clone(), Arc::clone(&ended), kind.at("to"));
        async move {
            let mover = Mover::default();
            loop {
                let last = ended.load(Ordering::SeqCst);
                match mover.fetch(&object(&store, "over"), &to, None).await {
                    Ok(got) => assert!(digests.contains(&got.digest), "{} bytes of none of the versions", got.size),
                    Err(DataError::NotFound(_) | DataError::Changed(_)) if !last => {}
                    Err(error) => panic!("{error}"),
                }
                if last {
                    break;
                }
            }
        }
    });
    let files = versions.map(|bytes| kind.file(&bytes));
    for file in files.iter().cycle().take(9) {
        mover.upload(&store, "over", file).await.unwrap();
    }
    ended.store(true, Ordering::SeqCst);
    reader.await.unwrap();
}

/// A directory is there with its manifest, and then all of it is.
pub async fn directories_are_seen_whole(kind: &Kind) {
    let (store, mover) = (kind.open(), Mover::default());
    let from = kind.at("from");
    fs::create_dir_all(&from).unwrap();
    for number in 0..200_u8 {
        fs::write(from.join(number.to_string()), pattern(20_000, number)).unwrap();
    }
    // The same directory at another place tells the digest beforehand.
    let known = mover.upload_tree(&store, "known", walk(&from).unwrap().files).await.unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (store, ended, digest, size) = (store.clone(), Arc::clone(&ended), known.digest.clone(), known.size);
        async move {
            loop {
                let last = ended.load(Ordering::SeqCst);
                match store.verify("dir/", &digest).await {
                    Ok(seen) => assert_eq!(seen, size),
                    Err(DataError::NotFound(at)) if !last && at.ends_with("dir.manifest.json") => {}
                    Err(error) => panic!("{error}"),
                }
                if last {
                    break;
                }
            }
        }
    });
    mover.upload_tree(&store, "dir", walk(&from).unwrap().files).await.unwrap();
    ended.store(true, Ordering::SeqCst);
    reader.await.unwrap();
}

/// The local disk ends: the error names the file, and nothing of it stays.
pub async fn a_full_disk_at_the_reader(kind: &Kind) {
    let (store, mover) = (kind.open(), Mover::default());
    mover.upload(&store, "large", &kind.file(&pattern(20 * MIB, 8))).await.unwrap();
    let volume = kind.at("volume");
    fs::create_dir_all(&volume).unwrap();
    let Some(_mounted) = Mounted::tmpfs(&volume) else {
        println!("NOT TESTED: a full disk, since a tmpfs cannot be mounted here (root is needed)");
        return;
    };
    let target = volume.join("target");
    let place = Place::of(&target).unwrap();
    let done = mover.fetch(&object(&store, "large"), place.part(), None).await;
    assert!(matches!(&done, Err(DataError::Local { path, .. }) if path == place.part()), "{done:?}");
    drop(place);
    assert_eq!(fs::read_dir(&volume).unwrap().count(), 0, "something of the broken transfer stays");
}

/// A volume of 8 MiB, unmounted when this is dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn tmpfs(at: &'a Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(at).output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then_some(Self(at))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
