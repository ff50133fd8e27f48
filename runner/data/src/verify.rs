//! Checking what lies in a store against its digest, without keeping any of it.

use crate::digest::Sha256Sum;
use crate::error::DataError;
use crate::fetch::check;
use crate::store::Store;
use crate::tree::manifest_key;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;

/// Files of a directory that are read side by side.
const FILES: usize = 4;

impl Store {
    /// Reads an object, or a directory where the key ends in a slash, and compares its digest. Comes back with its size.
    ///
    /// # Errors
    /// [`DataError::Corrupt`] where the bytes are others; [`DataError::NotFound`]; whatever the store says.
    pub async fn verify(&self, key: &str, digest: &str) -> Result<u64, DataError> {
        match key.strip_suffix('/') {
            Some(prefix) => self.verify_tree(prefix, digest).await,
            None => self.verify_file(key, digest).await,
        }
    }

    async fn verify_file(&self, key: &str, digest: &str) -> Result<u64, DataError> {
        let uri = self.uri(key);
        let fail = |error| DataError::of_store(&uri, &error);
        let mut body = self.client.get(&self.key(key)?).await.map_err(fail)?.into_stream();
        let (mut sum, mut size) = (Sha256Sum::default(), 0);
        while let Some(chunk) = body.try_next().await.map_err(fail)? {
            sum.update(&chunk);
            size += chunk.len() as u64;
        }
        check(&uri, &sum.finish(), Some(digest)).map(|()| size)
    }

    async fn verify_tree(&self, prefix: &str, digest: &str) -> Result<u64, DataError> {
        let manifest = self.manifest(prefix, digest).await?;
        let manifest = manifest.ok_or_else(|| DataError::NotFound(self.uri(&manifest_key(prefix))))?;
        let files = manifest.files.into_iter().map(|file| {
            let (store, key) = (self.clone(), format!("{prefix}/{}", file.path));
            async move { store.verify_file(&key, &file.digest).await }
        });
        futures::stream::iter(files)
            .buffer_unordered(FILES)
            .try_fold(0, |sum, size| async move { Ok(sum + size) })
            .await
    }
}
