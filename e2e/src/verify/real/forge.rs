//! Code that lies in a private repository: fetched with a Secret, pinned to its commit.
//!
//! In: a cluster with a real node, git. Out: nothing, or what is wrong.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{IMAGE, experiment, finished, namespace};
use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};
use crate::gitops::repository::{BRANCH, Repository};

const NAMESPACE: &str = "forge";
const USER: &str = "reader:of code";
/// The folder of a [`Repository`] that is cloned from.
const BARE: &str = "/bare.git";

/// A branch is fetched and pinned; a clone runs the same commit, unless it asks for the branch again.
pub fn fetched(cluster: &Cluster) -> Result<()> {
    let repository = Repository::create(cluster.dir().join("forge"))?;
    let program = |n: u32| Some(format!("print('revision {n}')\n"));
    let first = repository.commit("first", &[("src/train.py", program(1))])?;
    let url = serve(cluster, repository.home().to_owned())?;

    namespace(cluster, NAMESPACE)?;
    let (user, password) = USER.split_once(':').unwrap_or_default();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "forge", "namespace": NAMESPACE},
        "type": "kubernetes.io/basic-auth", "stringData": {"username": user, "password": password},
    });
    cluster.apply(&secret.to_string())?;
    let git = json!({"url": url, "revision": BRANCH, "secret": "forge"});
    let source = json!({"git": git, "subdirectory": "src"});
    let spec = json!({"image": IMAGE, "command": ["python3", "train.py"], "source": source});
    cluster.apply(&experiment(NAMESPACE, "from-a-branch", &spec))?;
    commit(&finished(cluster, NAMESPACE, "from-a-branch")?, &first)?;

    let second = repository.commit("second", &[("src/train.py", program(2))])?;
    let same = json!({"from": {"experiment": "from-a-branch"}});
    let anew = json!({"from": {"experiment": "from-a-branch"}, "source": {"git": {"revision": BRANCH}}});
    cluster.apply(&experiment(NAMESPACE, "the-same", &same))?;
    cluster.apply(&experiment(NAMESPACE, "anew", &anew))?;
    commit(&finished(cluster, NAMESPACE, "the-same")?, &first)?;
    commit(&finished(cluster, NAMESPACE, "anew")?, &second)
}

fn commit(experiment: &Value, expected: &str) -> Result<()> {
    let commit = &experiment["status"]["template"]["source"]["git"]["commit"];
    if commit == expected {
        return Ok(());
    }
    let name = &experiment["metadata"]["name"];
    Err(Error::new(format!("{name} ran {commit}, not {expected}")).log(experiment["status"].to_string()))
}

// Until this process ends, at an address that pods reach.
fn serve(cluster: &Cluster, root: PathBuf) -> Result<String> {
    let listener = TcpListener::bind((cluster.host_addr(), 0)).doing(|| "no port for a forge")?;
    let url = format!("http://{}{BARE}", listener.local_addr().doing(|| "no port for a forge")?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let root = root.clone();
            // Who breaks off hears nothing.
            std::thread::spawn(move || answer(stream, &root).ok());
        }
    });
    Ok(url)
}

fn answer(mut stream: TcpStream, root: &Path) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let header = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
    let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body)?;
    if header("authorization") != format!("Basic {}", STANDARD.encode(USER)) {
        let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 0\r\n";
        return stream.write_all(format!("{refusal}Connection: close\r\n\r\n").as_bytes());
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut git = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    git.stdin.take().map(|mut stdin| stdin.write_all(&body)).transpose()?;
    // Its head is that of HTTP but for the first line; the end of the connection is that of the answer.
    let said = git.wait_with_output()?.stdout;
    stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")?;
    stream.write_all(&said)
}
