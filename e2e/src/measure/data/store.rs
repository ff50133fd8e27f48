//! The built-in store as a process on this machine, on a folder of its own.
//!
//! In: its program and a folder. Out: an endpoint, and the credentials of a namespace. It ends with its handle.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cultivar_store::credentials::{Credentials, derive};

use super::files::Folder;
use crate::error::{Context as _, Error, Result};
use crate::exec;
use crate::operator::free_port;

/// The store's bucket.
pub const BUCKET: &str = "cultivar";
const READY: Duration = Duration::from_secs(20);
// Opens a store that listens on this machine alone, and goes with its folder.
const ROOT: &[u8] = b"root key of a store that is measured";

/// A running store.
#[derive(Debug)]
pub struct Store {
    child: Child,
    s3: SocketAddr,
    log: PathBuf,
}

impl Store {
    /// Starts the program and waits until it listens.
    pub fn start(binary: &Path, folder: &Folder) -> Result<Self> {
        let (root, log) = (folder.at("root-key"), folder.at("store.log"));
        fs::write(&root, ROOT).doing(|| format!("cannot write {}", root.display()))?;
        let file = File::create(&log).doing(|| format!("cannot write {}", log.display()))?;
        let (s3, http) = (free_port()?, free_port()?);
        let child = Command::new(binary)
            .arg("--data-dir")
            .arg(folder.folder("store")?)
            .arg("--credentials")
            .arg(&root)
            .args(["--bucket", BUCKET, "--s3-bind", &s3.to_string(), "--http-bind", &http.to_string()])
            .stdin(Stdio::null())
            .stdout(file.try_clone().doing(|| "cannot share the store's log")?)
            .stderr(file)
            .spawn()
            .doing(|| format!("cannot start {}", binary.display()))?;
        let mut store = Self { child, s3, log };
        store.wait()?;
        Ok(store)
    }

    fn wait(&mut self) -> Result<()> {
        let begun = Instant::now();
        while TcpStream::connect_timeout(&self.s3, READY).is_err() {
            let ended = self.child.try_wait().doing(|| "lost the store")?;
            if ended.is_some() || begun.elapsed() > READY {
                let why = ended.map_or_else(|| "it does not listen".to_owned(), |status| status.to_string());
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                return Err(Error::new("the store did not start").why(why).log(exec::last_lines(&log, 15)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Where S3 is served.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.s3)
    }

    /// What opens a namespace's part of it.
    pub fn credentials(namespace: &str) -> Credentials {
        derive(ROOT, namespace)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Its folder goes too: there is nothing that it could end well for. It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
