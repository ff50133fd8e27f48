//! A store: one client, one prefix.

use crate::error::DataError;
use crate::tree::manifest_key;
use crate::{digest_of, options};
use bytes::Bytes;
use cultivar_protocol::StoreSpec;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// An open store. Keys are relative to the URL that it was opened by.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) client: Arc<dyn ObjectStore>,
    base: Key,
    url: String,
    /// How long it may be away.
    pub patience: Duration,
}

/// An object that a listing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key, relative to the store.
    pub key: String,
    /// In bytes.
    pub size: u64,
    /// When it was written, in milliseconds since 1970.
    pub modified: i64,
}

impl Store {
    /// Opens a store. Nothing is asked of it yet. A `file://` store's folder is made.
    ///
    /// # Errors
    /// A URL or option that cannot work, a secret that cannot be read.
    pub fn open(spec: &StoreSpec) -> Result<Self, DataError> {
        let opened = options::open(spec)?;
        let url = crate::public(&spec.url).trim_end_matches('/').to_owned();
        if let Some(folder) =
            spec.url.strip_prefix("file://").and_then(|_| Url::parse(&spec.url).ok()?.to_file_path().ok())
        {
            std::fs::create_dir_all(&folder).map_err(DataError::local("make the store's folder", &folder))?;
        }
        Ok(Self { client: opened.client, base: opened.base, url, patience: opened.patience })
    }

    /// Opens the store that a uri of an object lies in, and the object's key there. With `like`, its options and
    /// secrets are used; its own URL does not matter.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn of_object(uri: &str, like: Option<&StoreSpec>) -> Result<(Self, String), DataError> {
        let opened = options::open(&StoreSpec { url: uri.to_owned(), ..like.cloned().unwrap_or_default() })?;
        let key = opened.base.as_ref().to_owned();
        // What stands before the key, so that url + "/" + key is the uri again.
        let shown = crate::public(uri);
        let root =
            shown.trim_end_matches('/').strip_suffix(key.as_str()).unwrap_or(&shown).trim_end_matches('/').to_owned();
        Ok((Self { client: opened.client, base: Key::ROOT, url: root, patience: opened.patience }, key))
    }

    /// The uri of a key.
    #[must_use]
    pub fn uri(&self, key: &str) -> String {
        if key.is_empty() { self.url.clone() } else { format!("{}/{key}", self.url) }
    }

    /// The key of a uri of this store.
    #[must_use]
    pub fn key_of<'a>(&self, uri: &'a str) -> Option<&'a str> {
        uri.strip_prefix(&self.url)?.strip_prefix('/')
    }

    pub(crate) fn key(&self, key: &str) -> Result<Key, DataError> {
        let bad = |why: String| DataError::Invalid(format!("{key:?} cannot be a key of {}: {why}", self.url));
        if key.split('/').any(|part| part == ".." || part == ".") {
            return Err(bad("it has a . or .. in it".to_owned()));
        }
        let tail = Key::parse(key).map_err(|error| bad(error.to_string()))?;
        Ok(self.base.parts().chain(tail.parts()).collect())
    }

    /// Writes a small object, visible only when whole. Comes back with its digest.
    ///
    /// # Errors
    /// When the store does not take it within its patience.
    pub async fn put(&self, key: &str, bytes: impl Into<Bytes>) -> Result<String, DataError> {
        let bytes = bytes.into();
        let digest = digest_of(&bytes);
        let put = self.client.put(&self.key(key)?, bytes.into()).await;
        put.map(|_| digest).map_err(|error| DataError::of_store(&self.uri(key), &error))
    }

    /// Reads an object of at most `most` bytes.
    ///
    /// # Errors
    /// When it is not there, larger, or the store does not answer.
    pub async fn get(&self, key: &str, most: u64) -> Result<Bytes, DataError> {
        let uri = self.uri(key);
        let found = self.client.get(&self.key(key)?).await.map_err(|error| DataError::of_store(&uri, &error))?;
        if found.meta.size > most {
            let why = format!("it has {} bytes, and at most {most} are expected", found.meta.size);
            return Err(DataError::Corrupt { what: uri, why });
        }
        found.bytes().await.map_err(|error| DataError::of_store(&uri, &error))
    }

    /// Whether there is an object; or, where the key ends in a slash, a directory, which is there when its manifest is.
    ///
    /// # Errors
    /// When the store refuses or does not answer.
    pub async fn exists(&self, key: &str) -> Result<bool, DataError> {
        let file = key.strip_suffix('/').map_or_else(|| key.to_owned(), manifest_key);
        match self.client.head(&self.key(&file)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(DataError::of_store(&self.uri(key), &error)),
        }
    }

    /// Removes an object; one that is not there is no error.
    ///
    /// # Errors
    /// When the store refuses or does not answer.
    pub async fn delete(&self, key: &str) -> Result<(), DataError> {
        match self.client.delete(&self.key(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(DataError::of_store(&self.uri(key), &error)),
        }
    }

    /// Removes everything below a prefix, and the manifest beside it first, so that no half directory looks like a whole.
    ///
    /// # Errors
    /// When the store refuses or does not answer.
    pub async fn delete_tree(&self, prefix: &str) -> Result<(), DataError> {
        self.delete_tree_where(prefix, |_| true).await
    }

    /// As [`Store::delete_tree`], of those objects whose keys, relative to the store, `goes` says yes to.
    ///
    /// # Errors
    /// When the store refuses or does not answer.
    pub async fn delete_tree_where(&self, prefix: &str, goes: impl Fn(&str) -> bool) -> Result<(), DataError> {
        let manifest = manifest_key(prefix);
        if goes(&manifest) {
            self.delete(&manifest).await?;
        }
        let keys = self.list(prefix)?.map_ok(|(path, _)| format!("{prefix}/{path}"));
        let keys = keys.try_filter(|key| futures::future::ready(goes(key)));
        keys.try_for_each_concurrent(16, |key| async move { self.delete(&key).await }).await
    }

    /// The objects below a prefix, the newest first.
    ///
    /// # Errors
    /// When the store refuses or does not answer.
    pub async fn objects(&self, prefix: &str) -> Result<Vec<Listed>, DataError> {
        let (base, uri) = (self.base.as_ref(), self.uri(prefix));
        let list = self.client.list(Some(&self.key(prefix)?)).map_err(|error| DataError::of_store(&uri, &error));
        let mut found: Vec<Listed> = list
            .try_filter_map(|meta| {
                let key = meta.location.as_ref().strip_prefix(base).map(|key| key.trim_start_matches('/').to_owned());
                let modified = meta.last_modified.timestamp_millis();
                futures::future::ready(Ok(key.map(|key| Listed { key, size: meta.size, modified })))
            })
            .try_collect()
            .await?;
        found.sort_by(|one, other| other.modified.cmp(&one.modified).then_with(|| one.key.cmp(&other.key)));
        Ok(found)
    }

    /// The names of what lies directly below a prefix and has something below itself, in their order.
    ///
    /// # Errors
    /// When the store refuses or does not answer.
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>, DataError> {
        let listed = self.client.list_with_delimiter(Some(&self.key(prefix)?)).await;
        let listed = listed.map_err(|error| DataError::of_store(&self.uri(prefix), &error))?;
        let names = listed.common_prefixes.iter().filter_map(|path| Some(path.filename()?.to_owned()));
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names)
    }

    /// The keys below a prefix with their sizes, relative to the prefix, as the store gives them.
    pub(crate) fn list(
        &self,
        prefix: &str,
    ) -> Result<impl futures::Stream<Item = Result<(String, u64), DataError>> + Send + 'static, DataError> {
        let (root, uri) = (self.key(prefix)?, self.uri(prefix));
        let list = self.client.list(Some(&root));
        Ok(list
            .map_err(move |error| DataError::of_store(&uri, &error))
            .try_filter_map(move |meta| {
                let relative =
                    meta.location.as_ref().strip_prefix(root.as_ref()).map(|rest| rest.trim_start_matches('/'));
                let found = relative.filter(|rest| !rest.is_empty()).map(|rest| (rest.to_owned(), meta.size));
                futures::future::ready(Ok(found))
            })
            .boxed())
    }
}
