//! The kinds of store that the suite runs over, each opened as the runner opens it: by URL and options.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use cultivar_data::Store;
use cultivar_protocol::StoreSpec;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Server, namespace, python_with};

/// One store for one check, and a folder for the check's own files.
pub struct Kind {
    spec: StoreSpec,
    scratch: TempDir,
    /// Where its S3 is; a file system has none.
    pub endpoint: Option<String>,
    /// Objects of the check that needs many. More than one page of a listing everywhere.
    pub many: usize,
    /// Whether a backslash in a name stays one: Azure makes a slash of it.
    pub backslashes: bool,
    _server: Option<Server>,
}

/// A folder of this machine.
pub fn file_system() -> Option<Kind> {
    let scratch = tempfile::tempdir().unwrap();
    let url = format!("file://{}/the store", scratch.path().display());
    let spec = StoreSpec { url, ..StoreSpec::default() };
    Some(Kind { spec, scratch, endpoint: None, many: 10_000, backslashes: true, _server: None })
}

/// The built-in store, as a program of its own.
pub fn built_in() -> Option<Kind> {
    let scratch = tempfile::tempdir().unwrap();
    let server = Server::start(&scratch.path().join("server"), &[]);
    let keys = namespace("a");
    let spec = s3(&server.s3, "s3://cultivar/a/of the suite", &keys.access_key_id, &keys.secret_access_key);
    Some(Kind {
        spec,
        scratch,
        endpoint: Some(server.s3.clone()),
        many: 10_000,
        backslashes: true,
        _server: Some(server),
    })
}

/// moto, an S3 that is not ours, on a Python that has it, named by CULTIVAR_TEST_PYTHON; without one nothing is tested
/// here, and that is said. It lets everybody in.
pub fn moto() -> Option<Kind> {
    static SERVER: OnceLock<Moto> = OnceLock::new();
    below_moto(Moto::once(&SERVER, "open")?)
}

/// A moto that checks signatures. It takes those over a query with a space for wrong, which AWS does not, so that not
/// everything can be checked over it.
pub fn guarded_moto() -> Option<Kind> {
    static SERVER: OnceLock<Moto> = OnceLock::new();
    below_moto(Moto::once(&SERVER, "guarded")?)
}

/// Google's client beside a moto that knows Google's headers: what GCS calls its XML interface is S3's but for those.
pub fn google() -> Option<Kind> {
    static SERVER: OnceLock<Moto> = OnceLock::new();
    let key = json!({
        "client_email": "suite@example.org", "private_key": "", "private_key_id": "", "disable_oauth": true,
        "gcs_base_url": format!("http://{}", Moto::once(&SERVER, "google")?.endpoint),
    });
    let options = BTreeMap::from([
        ("google_service_account_key".to_owned(), key.to_string()),
        ("google_allow_http".to_owned(), "true".to_owned()),
    ]);
    let url = format!("gs://suite/of the suite/{}", next());
    Some(Kind::of(StoreSpec { url, options, secret_dir: None }, 2_100))
}

// A number for a prefix of its own: one serves all checks of this process.
fn next() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn below_moto(moto: &Moto) -> Option<Kind> {
    let url = format!("s3://suite/of the suite/{}", next());
    let spec = s3(&moto.endpoint, &url, &moto.id, &moto.secret);
    let scratch = tempfile::tempdir().unwrap();
    Some(Kind { spec, scratch, endpoint: Some(moto.endpoint.clone()), many: 2_100, backslashes: true, _server: None })
}

/// A running moto. It ends when its standard input does: with this process, however that ends.
struct Moto {
    endpoint: String,
    id: String,
    secret: String,
    _child: Child,
}

impl Moto {
    fn once(server: &'static OnceLock<Self>, manner: &str) -> Option<&'static Self> {
        let python = python_with("boto3 and moto[server]")?;
        Some(server.get_or_init(|| Self::start(&python, manner)))
    }

    fn start(python: &OsStr, manner: &str) -> Self {
        let mut child = Command::new(python)
            .args(["-c", include_str!("moto.py"), manner])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{python:?} does not start: {error}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let told = lines.find(|line| line.starts_with("serving ")).expect("moto says where it serves");
        // What else it says goes nowhere, but must be read.
        std::thread::spawn(move || lines.for_each(drop));
        let mut words = told.split(' ').skip(1).map(str::to_owned);
        let mut word = || words.next().unwrap();
        Self { endpoint: word(), id: word(), secret: word(), _child: child }
    }
}

/// How any store of this protocol is opened.
fn s3(endpoint: &str, url: &str, id: &str, secret: &str) -> StoreSpec {
    let options = BTreeMap::from([
        ("aws_endpoint".to_owned(), format!("http://{endpoint}")),
        ("aws_allow_http".to_owned(), "true".to_owned()),
        ("aws_region".to_owned(), "us-east-1".to_owned()),
        ("aws_access_key_id".to_owned(), id.to_owned()),
        ("aws_secret_access_key".to_owned(), secret.to_owned()),
    ]);
    StoreSpec { url: url.to_owned(), options, secret_dir: None }
}

impl Kind {
    /// One that is reached by this.
    pub fn of(spec: StoreSpec, many: usize) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        Self { spec, scratch, endpoint: None, many, backslashes: true, _server: None }
    }

    /// Opens it.
    pub fn open(&self) -> Store {
        self.open_with(&[])
    }

    /// Opens it with some options set to something else.
    pub fn open_with(&self, options: &[(&str, &str)]) -> Store {
        let mut spec = self.spec.clone();
        spec.options.extend(options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Store::open(&spec).unwrap()
    }

    /// Opens it at another address, where it is to be given up after `patience`.
    pub fn open_at(&self, endpoint: &str, patience: &str) -> Store {
        self.open_with(&[("aws_endpoint", &format!("http://{endpoint}")), ("cultivar_patience", patience)])
    }

    /// Where the check may write.
    pub fn at(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A new file of the check.
    pub fn file(&self, bytes: &[u8]) -> PathBuf {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let path = self.at(&format!("file-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// Bytes in which no part of a file is like another.
pub fn pattern(length: usize, seed: u8) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
