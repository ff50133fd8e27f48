//! The real program, started for a test.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use cultivar_store::credentials::{Credentials, derive, derive_admin};
use object_store::aws::{AmazonS3, AmazonS3Builder};

/// The root key of every test.
pub const ROOT: &[u8] = b"0123456789abcdef0123456789abcdef";

/// The program, killed when this is dropped.
pub struct Server {
    child: Child,
    /// Address of S3.
    pub s3: String,
    /// Address of the probes.
    pub http: String,
}

impl Server {
    /// Starts the program on a data folder and waits until it serves.
    pub fn start(data: &Path, flags: &[&str]) -> Self {
        let credentials = data.join("root-key");
        std::fs::create_dir_all(data).unwrap();
        std::fs::write(&credentials, ROOT).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_cultivar-store"))
            .arg("--data-dir")
            .arg(data.join("data"))
            .arg("--credentials")
            .arg(&credentials)
            .args(["--s3-bind", "127.0.0.1:0", "--http-bind", "127.0.0.1:0", "--log-format", "json"])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self { child, s3: String::new(), http: String::new() };
        let (line, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for text in output.lines().map_while(Result::ok) {
                println!("store: {text}");
                let _ = line.send(text);
            }
        });
        loop {
            let text = lines.recv_timeout(Duration::from_secs(60)).expect("the store says where it serves");
            if text.contains("\"serving\"") {
                let field = |name: &str| text.split(&format!("\"{name}\":\"")).nth(1)?.split('"').next();
                server.s3 = field("s3").unwrap().to_owned();
                server.http = field("http").unwrap().to_owned();
                return server;
            }
        }
    }

    /// Ends the program at once, as a crash does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits for the end and says whether it was a good one.
    pub fn wait(mut self) -> bool {
        self.child.wait().unwrap().success()
    }

    /// The body of a GET on the probes' address, with its status line.
    pub fn probe(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The administrator's credentials.
pub fn admin() -> Credentials {
    derive_admin(ROOT)
}

/// A namespace's credentials.
pub fn namespace(name: &str) -> Credentials {
    derive(ROOT, name)
}

/// The Python that the tests of other clients run on; without one nothing is tested, and that is said.
pub fn python_with(packages: &str) -> Option<OsString> {
    let python = std::env::var_os("CULTIVAR_TEST_PYTHON");
    if python.is_none() {
        println!("NOT TESTED: set CULTIVAR_TEST_PYTHON to a python that has {packages} (python -m venv, pip install)");
    }
    python
}

/// Every file below a folder, by path.
pub fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    read_below(folder, "", &mut found);
    found
}

fn read_below(folder: &Path, below: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{below}/{}", entry.file_name().to_str().unwrap()).trim_start_matches('/').to_owned();
        if entry.path().is_dir() {
            read_below(folder, &path, found);
        } else {
            found.insert(path, fs::read(entry.path()).unwrap());
        }
    }
}

/// A client of namespace `a` that tries everything once.
pub fn client(server: &Server) -> AmazonS3 {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let credentials = namespace("a");
    AmazonS3Builder::new()
        .with_endpoint(format!("http://{}", server.s3))
        .with_allow_http(true)
        .with_bucket_name("cultivar")
        .with_access_key_id(&credentials.access_key_id)
        .with_secret_access_key(&credentials.secret_access_key)
        .with_retry(object_store::RetryConfig { max_retries: 0, ..Default::default() })
        .build()
        .unwrap()
}
