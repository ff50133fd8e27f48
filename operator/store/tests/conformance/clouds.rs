//! The store of another cloud, as its emulator has it. A harness names the main script of Azurite's blob service in
//! CULTIVAR_TEST_AZURITE; without one nothing is tested here, and that is said. None of the emulators of Google's takes
//! uploads in parts by the XML interface, which `object_store` uses; an S3 that is not ours does, since that interface is S3's.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use cultivar_data::{DataError, Mover, digest_of, walk};
use cultivar_protocol::StoreSpec;

use crate::checks::object;
use crate::kinds::{Kind, pattern};

/// One emulator for all checks of this process. It ends when its standard input does: with this process, however that ends.
struct Emulator {
    options: BTreeMap<String, String>,
    _child: Child,
}

/// Azure's, each check below a prefix of its own.
pub fn azure() -> Option<Kind> {
    static SERVER: OnceLock<Emulator> = OnceLock::new();
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let Some(script) = std::env::var_os("CULTIVAR_TEST_AZURITE") else {
        println!(
            "NOT TESTED: set CULTIVAR_TEST_AZURITE to dist/src/blob/main.js of the npm package azurite; node runs it"
        );
        return None;
    };
    let options = SERVER.get_or_init(|| azurite(Path::new(&script))).options.clone();
    let url = format!("az://suite/of the suite/{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut kind = Kind::of(StoreSpec { url, options, secret_dir: None }, 300);
    kind.backslashes = false;
    Some(kind)
}

fn azurite(script: &Path) -> Emulator {
    let mut child = Command::new("node")
        .args(["-e", include_str!("azurite.js"), "--"])
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap_or_else(|error| panic!("node does not start: {error}"));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let told = lines.find(|line| line.starts_with("serving ")).expect("azurite says where it serves");
    std::thread::spawn(move || lines.for_each(drop));
    let mut words = told.split(' ').skip(1);
    let (at, account, key) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let options = BTreeMap::from([
        ("azure_endpoint".to_owned(), format!("http://{at}/{account}")),
        ("azure_allow_http".to_owned(), "true".to_owned()),
        ("azure_storage_account_name".to_owned(), account.to_owned()),
        ("azure_storage_account_key".to_owned(), key.to_owned()),
    ]);
    Emulator { options, _child: child }
}

/// Another account's key: refused at once, and it is said without the key.
pub async fn a_wrong_account_key(kind: &Kind) {
    let wrong = "d3Jvbmc=";
    let store = kind.open_with(&[("azure_storage_account_key", wrong)]);
    let mover = Mover::default();
    let from = kind.file(&pattern(1000, 1));
    for done in [
        mover.upload(&store, "file", &from).await.map(drop),
        mover.fetch(&object(&store, "file"), &kind.at("to"), None).await.map(drop),
        store.get("file", 10).await.map(drop),
    ] {
        let error = done.unwrap_err();
        assert!(matches!(&error, DataError::Denied { .. }) && !error.to_string().contains(wrong), "{error}");
    }
}

/// One file small and one in parts, a directory both ways, and what is not there.
pub async fn there_and_back(kind: &Kind) {
    let (store, mover) = (kind.open(), Mover::default());
    for size in [0, 1000, 13 * 1024 * 1024] {
        let (bytes, key, to) = (pattern(size, 1), format!("files/{size}"), kind.at("to"));
        let up = mover.upload(&store, &key, &kind.file(&bytes)).await.unwrap();
        assert_eq!(up.digest, digest_of(&bytes));
        mover.fetch(&object(&store, &key), &to, Some(&up.digest)).await.unwrap();
        assert!(std::fs::read(&to).unwrap() == bytes, "{size} bytes came back as others");
    }
    let from = kind.at("from");
    std::fs::create_dir_all(from.join("a")).unwrap();
    for name in ["a/one", "two", "ü + #"] {
        std::fs::write(from.join(name), name).unwrap();
    }
    let up = mover.upload_tree(&store, "tree", walk(&from).unwrap().files).await.unwrap();
    for expect in [None, Some(up.digest.as_str())] {
        let to = kind.at(if expect.is_some() { "checked" } else { "listed" });
        assert_eq!(mover.fetch_tree(&store, "tree", &to, expect).await.unwrap().digest, up.digest);
    }
    store.delete_tree("tree").await.unwrap();
    let gone = mover.fetch_tree(&store, "tree", &kind.at("gone"), None).await;
    assert!(matches!(gone, Err(DataError::NotFound(_))), "{gone:?}");
    assert!(matches!(store.get("nowhere", 10).await, Err(DataError::NotFound(_))));
}
