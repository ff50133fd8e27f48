//! Fetching a directory: by its manifest where its digest is known, otherwise by listing.

use crate::digest::digest_of;
use crate::error::DataError;
use crate::fetch::{Fetched, broken, check};
use crate::mover::{FILES, Mover};
use crate::remote::Remote;
use crate::store::Store;
use cultivar_protocol::{DirectoryManifest, ManifestFile, is_safe_relative};
use futures::{StreamExt, TryStreamExt};
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The largest manifest that is read: about 200,000 files.
const MAX_MANIFEST: u64 = 32 * 1024 * 1024;

impl Mover {
    /// Fetches everything below a prefix into the new folder `to`. With `expect`, the digest of the directory, the
    /// manifest beside it is read, checked, and every file checked against it; where there is no manifest, one is made of
    /// what was fetched and checked.
    ///
    /// # Errors
    /// What is wrong with the directory, its store or the disk. A prefix without objects is [`DataError::NotFound`].
    pub async fn fetch_tree(
        &self,
        store: &Store,
        prefix: &str,
        to: &Path,
        expect: Option<&str>,
    ) -> Result<Fetched, DataError> {
        let prefix = prefix.trim_end_matches('/');
        std::fs::create_dir_all(to).map_err(DataError::local("make the folder", to))?;
        let known = match expect {
            Some(digest) => store.manifest(prefix, digest).await?,
            None => None,
        };
        let made = Arc::new(Mutex::new(HashSet::new()));
        let fetch = |path: String, digest: Option<String>| {
            let (mover, store, made, to) = (self.clone(), store.clone(), Arc::clone(&made), to.to_owned());
            let key = if prefix.is_empty() { path.clone() } else { format!("{prefix}/{path}") };
            async move { mover.member(store, key, path, digest, &to, &made).await }
        };
        let files: Vec<ManifestFile> = match known {
            Some(manifest) => {
                futures::stream::iter(manifest.files)
                    .map(|file| fetch(file.path, Some(file.digest)))
                    .buffer_unordered(FILES)
                    .try_collect()
                    .await?
            }
            None => {
                // A key that ends in a slash is a folder that some tool drew.
                let listed = store.list(prefix)?.try_filter(|(path, _)| futures::future::ready(!path.ends_with('/')));
                listed.map_ok(|(path, _)| fetch(path, None)).try_buffer_unordered(FILES).try_collect().await?
            }
        };
        if files.is_empty() {
            return Err(DataError::NotFound(format!("{}/", store.uri(prefix))));
        }
        let manifest = DirectoryManifest::new(files);
        let digest = digest_of(&manifest.canonical());
        check(&store.uri(prefix), &digest, expect)?;
        Ok(Fetched { size: manifest.size(), digest, version: None, files: manifest.files.len() as u64 })
    }

    async fn member(
        &self,
        store: Store,
        key: String,
        path: String,
        digest: Option<String>,
        to: &Path,
        made: &Mutex<HashSet<String>>,
    ) -> Result<ManifestFile, DataError> {
        if !is_safe_relative(&path) {
            return Err(DataError::Corrupt {
                what: store.uri(&key),
                why: "its path would leave the folder".to_owned(),
            });
        }
        if let Some((folder, _)) = path.rsplit_once('/') {
            let new = made.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
            let folder = to.join(folder);
            // Another member may be about to make it; making it twice does no harm.
            if new || !folder.is_dir() {
                tokio::fs::create_dir_all(&folder).await.map_err(DataError::local("make the folder", &folder))?;
            }
        }
        let (mover, target) = (self.clone(), to.join(&path));
        let fetched =
            tokio::spawn(async move { mover.fetch(&Remote::Object(store, key), &target, digest.as_deref()).await });
        let fetched = tokio_util::task::AbortOnDropHandle::new(fetched).await.map_err(|error| broken(&error))??;
        Ok(ManifestFile { path, size: fetched.size, digest: fetched.digest })
    }
}

/// Key of the manifest of the directory `prefix`: beside what is in it.
pub(crate) fn manifest_key(prefix: &str) -> String {
    format!("{prefix}.manifest.json")
}

impl Store {
    /// The manifest of the directory `prefix`, checked against the directory's digest; nothing where there is none.
    pub(crate) async fn manifest(&self, prefix: &str, digest: &str) -> Result<Option<DirectoryManifest>, DataError> {
        let key = manifest_key(prefix);
        let bytes = match self.get(&key, MAX_MANIFEST).await {
            Ok(bytes) => bytes,
            Err(DataError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        check(&self.uri(&key), &digest_of(&bytes), Some(digest))?;
        let read = DirectoryManifest::read(&bytes);
        read.map(Some).map_err(|error| DataError::Corrupt { what: self.uri(&key), why: error.to_string() })
    }
}
