//! Repositories made with `git`, and a server that hands them out: the program `git http-backend` behind a socket.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// A repository to fetch from.
pub struct Repository {
    root: tempfile::TempDir,
}

impl Repository {
    /// An empty one, whose branch is `main`.
    pub fn new() -> Self {
        let repository = Self { root: tempfile::tempdir().unwrap() };
        repository.git(&["init", "-q", "-b", "main", "code.git"], "");
        repository
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn work(&self) -> PathBuf {
        self.root.path().join("code.git")
    }

    fn git(&self, words: &[&str], input: &str) -> String {
        let folder = if self.work().is_dir() { self.work() } else { self.root.path().to_owned() };
        let mut command = Command::new("git");
        command.args(words).current_dir(folder).env("HOME", self.root.path()).env("GIT_CONFIG_NOSYSTEM", "1");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "t").env(format!("GIT_{who}_EMAIL"), "t@example.org");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// What `git` says.
    pub fn run(&self, words: &[&str]) -> String {
        self.git(words, "")
    }

    /// What `git` says to some input.
    pub fn fed(&self, words: &[&str], input: &str) -> String {
        self.git(words, input)
    }

    /// Writes a file.
    pub fn file(&self, path: &str, content: &str) {
        let path = self.work().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Commits everything; the commit's name.
    pub fn commit(&self, message: &str) -> String {
        self.run(&["add", "-A"]);
        self.run(&["commit", "-q", "--allow-empty", "-m", message]);
        self.run(&["rev-parse", "HEAD"])
    }

    /// Makes a branch of any tree.
    pub fn branch(&self, branch: &str, tree: &str) {
        let commit = self.run(&["commit-tree", "-m", branch, tree]);
        self.run(&["update-ref", &format!("refs/heads/{branch}"), &commit]);
    }
}

/// How the server behaves.
#[derive(Clone, Default)]
pub struct Manner {
    /// `user:password` in base64, without which nothing is given.
    pub basic: Option<&'static str>,
    /// Speaks version 0 only.
    pub old: bool,
    /// Sends everybody to this server.
    pub to: Option<String>,
    /// Answers so many requests with 503.
    pub away: usize,
    /// Breaks off so many packs in their middle.
    pub broken: usize,
}

/// A server; it lives as long as the test's process.
pub struct Server {
    pub url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Hands out what lies in `root`.
    pub fn start(root: &Path, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/code.git", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (root, manner, log) = (root.to_owned(), Arc::new(Mutex::new(manner)), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, manner, log) = (root.clone(), Arc::clone(&manner), Arc::clone(&log));
                std::thread::spawn(move || serve(stream, &root, &manner, &log));
            }
        });
        Self { url, seen }
    }

    /// The requests so far: method, address and who asks.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, root: &Path, manner: &Mutex<Manner>, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let (method, target) = line.trim().rsplit_once(' ')?.0.split_once(' ')?;
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    log.lock().unwrap().push(format!("{method} {target} {}", header("authorization")));
    let answer = {
        let mut manner = manner.lock().unwrap();
        if manner.away > 0 {
            manner.away -= 1;
            Some("503 Away\r\n\r\n".to_owned())
        } else if let Some(to) = &manner.to {
            let rest = target.trim_start_matches("/code.git");
            Some(format!("302 Found\r\nLocation: {to}{rest}\r\nContent-Length: 0\r\n\r\n"))
        } else {
            let denied = manner.basic.is_some_and(|basic| header("authorization") != format!("Basic {basic}"));
            let words = "401 Unauthorized\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nwho are you?";
            denied.then(|| words.to_owned())
        }
    };
    if let Some(answer) = answer {
        return stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).ok();
    }
    let old = manner.lock().unwrap().old;
    let protocol = if old { String::new() } else { header("git-protocol") };
    let mut answer = backend(root, method, target, &header("content-type"), &protocol, &body)?;
    let mut manner = manner.lock().unwrap();
    if manner.broken > 0 && answer.windows(4).any(|window| window == b"PACK") {
        manner.broken -= 1;
        answer.truncate(answer.len() - 30);
    }
    stream.write_all(&answer).ok()
}

fn backend(root: &Path, method: &str, target: &str, kind: &str, protocol: &str, body: &[u8]) -> Option<Vec<u8>> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("HOME", root)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method)
        .env("CONTENT_TYPE", kind)
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("GIT_PROTOCOL", protocol)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(body).ok()?;
    let out = child.wait_with_output().ok()?.stdout;
    let end = out.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&out[..end]).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let mut answer =
        format!("HTTP/1.1 {status}\r\n{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", out.len() - end - 4);
    answer = answer.replace(&format!("Status: {status}\r\n"), "");
    let mut answer = answer.into_bytes();
    answer.extend_from_slice(&out[end + 4..]);
    Some(answer)
}
