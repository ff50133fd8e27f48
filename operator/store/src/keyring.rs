//! Whose key signed a request.
//!
//! Comes in: the place of the root key, and access key ids from requests. Goes out: secrets to verify with, and
//! identities. The root key is read again when its file changes, as that of a mounted Secret does.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

use crate::credentials::{ADMIN, NAMESPACE_PREFIX, derive, derive_admin, is_namespace, root_key};

/// The file in a folder of credentials.
pub const ROOT_FILE: &str = "root-key";
/// How often the file is looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// May touch every key.
    Admin,
    /// May touch keys under its name.
    Namespace(String),
}

impl Identity {
    /// What every key must start with; none for the administrator.
    #[must_use]
    pub fn prefix(&self) -> Option<String> {
        match self {
            Self::Admin => None,
            Self::Namespace(name) => Some(format!("{name}/")),
        }
    }
}

/// Who has this access key id. That it was theirs to use is proven by the signature.
#[must_use]
pub fn identity(access_key_id: &str) -> Option<Identity> {
    if access_key_id == ADMIN {
        return Some(Identity::Admin);
    }
    let name = access_key_id.strip_prefix(NAMESPACE_PREFIX)?;
    is_namespace(name).then(|| Identity::Namespace(name.to_owned()))
}

/// The root key cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}; it must be a file with the root key, or a folder with a file {ROOT_FILE:?}", path.display())]
pub struct KeyringError {
    path: PathBuf,
    why: String,
}

/// The root key, kept up to date. Clones are the same keyring.
#[derive(Clone)]
pub struct Keyring {
    path: Arc<Path>,
    state: Arc<Mutex<State>>,
}

struct State {
    root: Vec<u8>,
    seen: Seen,
    looked: Instant,
}

/// What tells one state of a file from another.
type Seen = Option<(u64, i64, i64, u64)>;

impl std::fmt::Debug for Keyring {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Keyring").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Reads the root key.
    ///
    /// # Errors
    /// When it is not there or too short.
    pub fn open(path: &Path) -> Result<Self, KeyringError> {
        let path = path.to_owned();
        let seen = seen(&path);
        let root = read(&path).map_err(|why| KeyringError { path: path.clone(), why })?;
        let state = State { root, seen, looked: Instant::now() };
        Ok(Self { path: path.into(), state: Arc::new(Mutex::new(state)) })
    }

    /// Calls `with` with the root key of now. One that cannot be read leaves the old one in use.
    fn root<T>(&self, with: impl FnOnce(&[u8]) -> T) -> T {
        // Nothing in here can panic half way, so what a panicking thread left is whole.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            let now = seen(&self.path);
            if now != state.seen {
                match read(&self.path) {
                    Ok(root) => {
                        if root != state.root {
                            tracing::info!("the root key has changed; keys derived from the old one are refused now");
                        }
                        state.root = root;
                        state.seen = now;
                    }
                    Err(why) => tracing::warn!(path = %self.path.display(), why, "keeping the old root key"),
                }
            }
        }
        with(&state.root)
    }
}

fn file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(ROOT_FILE) } else { path.to_owned() }
}

fn seen(path: &Path) -> Seen {
    // Follows links: a mounted Secret is swapped by one.
    let data = fs::metadata(file(path)).ok()?;
    Some((data.ino(), data.mtime(), data.mtime_nsec(), data.len()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let stored = fs::read(file(path)).map_err(|error| error.to_string())?;
    root_key(&stored).map(<[u8]>::to_vec).map_err(|error| error.to_string())
}

#[async_trait::async_trait]
impl S3Auth for Keyring {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let credentials = match identity(access_key) {
            Some(Identity::Admin) => self.root(derive_admin),
            Some(Identity::Namespace(name)) => self.root(|root| derive(root, &name)),
            None => {
                let why = "this store knows the access keys ns-<namespace> and cultivar-admin only";
                return Err(s3_error!(InvalidAccessKeyId, "{why}"));
            }
        };
        Ok(credentials.secret_access_key.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_come_from_well_formed_ids_only() {
        assert_eq!(identity("cultivar-admin"), Some(Identity::Admin));
        assert_eq!(identity("ns-team-a"), Some(Identity::Namespace("team-a".to_owned())));
        for foreign in ["", "ns-", "ns-a/b", "ns-..", "ns-A", "admin", "team-a", "NS-team-a"] {
            assert_eq!(identity(foreign), None, "{foreign}");
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again_and_a_broken_one_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(ROOT_FILE);
        fs::write(&file, "0123456789abcdef\n").unwrap();
        let keyring = Keyring::open(folder.path()).unwrap();
        let secret = async || keyring.get_secret_key("ns-a").await.unwrap().expose().to_owned();
        let old = secret().await;
        assert_eq!(old, derive(b"0123456789abcdef", "a").secret_access_key);
        let later = |text: &str| {
            fs::write(&file, text).unwrap();
            keyring.state.lock().unwrap().looked = Instant::now().checked_sub(LOOK).unwrap();
        };
        later("short");
        assert_eq!(secret().await, old);
        later("fedcba9876543210");
        assert_eq!(secret().await, derive(b"fedcba9876543210", "a").secret_access_key);
        assert!(keyring.get_secret_key("somebody").await.is_err());
    }

    #[test]
    fn a_missing_root_key_is_told_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let error = Keyring::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("root-key") && error.contains(folder.path().to_str().unwrap()), "{error}");
    }
}
