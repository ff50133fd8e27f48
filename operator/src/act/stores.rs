//! Artifact stores, as the operator itself uses them: credentials for its own one, and results that lie in any.
//!
//! One root key; a Secret in each namespace with experiments, made when it is missing or not the one that the root key
//! gives. Nothing of it is logged or put into an object but these Secrets.

use cultivar_core::decide::experiment::record::CheckedRecord;
use cultivar_core::domain::StoreAccess;
use cultivar_core::domain::errand::{Document, Leftovers, Presence};
use cultivar_core::render::STORE_SECRET;
use cultivar_crds::Artifact;
use cultivar_data::{DataError, Store, digest_of};
use cultivar_protocol::StoreSpec;
use cultivar_store::credentials::{derive, root_key};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

use super::ours::{is_ours, metadata};
use super::{Act, ActError, Calls};
use crate::settings::StoreSettings;

/// No result is larger: the runner keeps to the limits of a status, and lists no packages in it.
const MAX_RESULT: u64 = 4 * 1024 * 1024;
/// How long reading one may take.
const READING: Duration = Duration::from_secs(10);
/// How long a Secret that was looked at is taken to be right.
const RIGHT_FOR: Duration = Duration::from_secs(30);
/// All that is believed of a store that users describe: how an S3 endpoint is reached, and a key that opens it. Other
/// options make the client read files, tokens and the environment of whoever uses it, which here is the operator.
const BELIEVED: [&str; 7] = [
    "aws_endpoint",
    "aws_region",
    "aws_allow_http",
    "aws_virtual_hosted_style_request",
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
];
const UNREADABLE: &str = "the operator reads and deletes in its own store, and in S3 stores whose Secret has \
                          aws_access_key_id and aws_secret_access_key and may be read by it";
const NOT_ITS_DIGEST: &str = "it is not what its digest says";
/// The root key's place in its Secret.
const ROOT_KEY: &str = "root-key";

impl Act {
    /// Makes a namespace's credentials beside the passes, before anything runs in it: who packs code there needs them first.
    pub fn greet(self: &Arc<Self>, namespace: &str) {
        if !self.stores.greets(namespace) {
            return;
        }
        let (act, namespace) = (Arc::clone(self), namespace.to_owned());
        self.beside.spawn(async move {
            if let Err(error) = act.stores.ensure(&act.calls, &namespace).await {
                tracing::debug!(%namespace, %error, "credentials for the artifact store could not be made; the first attempt tries again");
            }
        });
    }
}

/// Keeps the credentials, and reads with them.
pub struct Stores {
    settings: Option<StoreSettings>,
    root: OnceCell<Vec<u8>>,
    // Namespaces whose Secret was right a moment ago: somebody may delete it, or the namespace with it.
    made: Mutex<HashMap<String, Instant>>,
    // Namespaces whose Secret was asked for by what has not begun.
    greeted: Mutex<HashMap<String, Instant>>,
}

impl Stores {
    /// For this store; with none, nothing is ever made.
    pub fn new(settings: Option<StoreSettings>) -> Self {
        Self { settings, root: OnceCell::new(), made: Mutex::default(), greeted: Mutex::default() }
    }

    /// Makes the root key, unless there is one.
    pub async fn prepare(&self, calls: &Calls) -> Result<(), ActError> {
        match &self.settings {
            Some(settings) => self.root(calls, settings).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Whether it is time to see to a namespace's credentials.
    fn greets(&self, namespace: &str) -> bool {
        if self.settings.is_none() {
            return false;
        }
        let mut greeted = self.greeted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = greeted.get(namespace).is_none_or(|last| last.elapsed() >= RIGHT_FOR);
        if is_due {
            greeted.insert(namespace.to_owned(), Instant::now());
        }
        is_due
    }

    /// Makes a namespace's credentials, unless they are there.
    pub async fn ensure(&self, calls: &Calls, namespace: &str) -> Result<(), ActError> {
        let Some(settings) = &self.settings else { return Ok(()) };
        // Nothing in here panics half way.
        let seen = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).copied();
        if seen.is_some_and(|seen| seen.elapsed() < RIGHT_FOR) {
            return Ok(());
        }
        let root = self.root(calls, settings).await?;
        let wanted: BTreeMap<String, ByteString> =
            of_namespace(root, namespace).map(|(key, value)| (key, ByteString(value.into_bytes()))).into();
        match calls.secret(namespace, STORE_SECRET).await? {
            Some(secret) if secret.data.as_ref() == Some(&wanted) => {}
            Some(secret) if !is_ours(&secret.metadata) => {
                let doing = "writing the namespace's credentials for the artifact store".to_owned();
                return Err(ActError::NameTaken { doing, name: format!("Secret {STORE_SECRET}") });
            }
            Some(mut secret) => {
                secret.data = Some(wanted);
                calls.replace_secret(namespace, STORE_SECRET, &secret).await?;
            }
            None => calls.create_secret(namespace, &secret(STORE_SECRET, wanted)).await?,
        }
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.to_owned(), Instant::now());
        Ok(())
    }

    /// Reads a result from a store; why not, in words for the experiment's status.
    pub async fn read(&self, calls: &Calls, namespace: &str, at: &Document) -> Result<String, String> {
        self.document(&self.access(calls, namespace, at.store.as_ref()).await?, at).await
    }

    /// Reads a record and checks the artifacts that it names. Comes back with [`CheckedRecord`] as JSON.
    pub async fn record(&self, calls: &Calls, namespace: &str, at: &Document) -> Result<String, String> {
        let spec = self.access(calls, namespace, at.store.as_ref()).await?;
        let text = match self.document(&spec, at).await {
            Err(why) if why == NOT_ITS_DIGEST => {
                return checked(&CheckedRecord { corrupt: vec![why], ..Default::default() });
            }
            read => read?,
        };
        let mut found = CheckedRecord::default();
        let record: serde_json::Value = match serde_json::from_str(&text) {
            Ok(record) => record,
            Err(error) => return checked(&CheckedRecord { corrupt: vec![format!("it is no JSON: {error}")], ..found }),
        };
        let artifacts: Vec<Artifact> = record
            .pointer("/result/artifacts")
            .and_then(|artifacts| serde_json::from_value(artifacts.clone()).ok())
            .unwrap_or_default();
        for artifact in artifacts {
            let held = at.store.as_ref().is_some_and(|store| store.holds(&artifact.uri));
            let Some(digest) = artifact.digest.filter(|digest| held && digest.starts_with("sha256:")) else {
                found.unchecked.push(artifact.name);
                continue;
            };
            match verify(&spec, &artifact.uri, &digest).await {
                Ok(()) => {}
                Err(DataError::Corrupt { why, .. }) => found.corrupt.push(format!("artifact {}: {why}", artifact.name)),
                Err(DataError::NotFound(uri)) => {
                    found.corrupt.push(format!("artifact {}: there is nothing at {uri}", artifact.name));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        found.record = record;
        checked(&found)
    }

    /// The first of some artifacts that is not there; nothing: they all are, or the store is not the operator's to read.
    pub async fn missing(&self, calls: &Calls, namespace: &str, wanted: &Presence) -> Result<String, String> {
        let spec = match self.access(calls, namespace, Some(&wanted.store)).await {
            Err(why) if why == UNREADABLE => return Ok(String::new()),
            access => access?,
        };
        let store = Store::open(&spec).map_err(|error| error.to_string())?;
        for uri in &wanted.uris {
            let Some(key) = store.key_of(uri) else { continue };
            if !in_time(store.exists(key)).await? {
                return Ok(uri.clone());
            }
        }
        Ok(String::new())
    }

    /// Deletes what an experiment left, but for what is to stay.
    pub async fn clear(&self, calls: &Calls, namespace: &str, left: &Leftovers) -> Result<String, String> {
        let spec = self.access(calls, namespace, left.store.as_ref()).await?;
        let store = Store::open(&spec).map_err(|error| error.to_string())?;
        let stays: Vec<&str> = left.keep.iter().filter_map(|uri| store.key_of(uri)).collect();
        let goes = |key: &str| !stays.iter().any(|kept| is_part_of(key, kept));
        for uri in &left.delete {
            let key = store.key_of(uri).ok_or_else(|| format!("{uri} lies in another store"))?;
            let deleted = match key.strip_suffix('/') {
                Some(folder) => store.delete_tree_where(folder, goes).await,
                None => store.delete(key).await,
            };
            deleted.map_err(|error| error.to_string())?;
        }
        Ok(String::new())
    }

    async fn document(&self, spec: &StoreSpec, at: &Document) -> Result<String, String> {
        if !at.uri.starts_with("s3://") {
            return Err(UNREADABLE.to_owned());
        }
        let (store, key) = Store::of_object(&at.uri, Some(spec)).map_err(|error| error.to_string())?;
        let bytes = in_time(store.get(&key, MAX_RESULT)).await?;
        if digest_of(&bytes) != at.digest {
            return Err(NOT_ITS_DIGEST.to_owned());
        }
        String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
    }

    // How a store is opened by the operator itself.
    async fn access(&self, calls: &Calls, namespace: &str, access: Option<&StoreAccess>) -> Result<StoreSpec, String> {
        let access = access.ok_or("it lies in no store that this namespace has; see kubectl get artifactstores")?;
        let mut options = self.options(calls, namespace, access).await.map_err(|error| error.to_string())?;
        options.retain(|key, _| BELIEVED.contains(&key.as_str()));
        // With a key of its own the client asks nobody else who it is.
        let has_key = ["aws_access_key_id", "aws_secret_access_key"].iter().all(|key| options.contains_key(*key));
        if !has_key || !access.url.starts_with("s3://") {
            return Err(UNREADABLE.to_owned());
        }
        Ok(StoreSpec { url: access.url.clone(), options, secret_dir: None })
    }

    async fn options(
        &self,
        calls: &Calls,
        namespace: &str,
        access: &StoreAccess,
    ) -> Result<BTreeMap<String, String>, ActError> {
        let mut options = access.options.clone();
        match (&self.settings, &access.secret) {
            (Some(settings), _) if access.own => {
                options.extend(of_namespace(self.root(calls, settings).await?, namespace));
            }
            (_, Some(name)) => {
                // A right that the chart does not give: whoever wants large results from a store of their own grants it.
                let secret = calls.secret(namespace, name).await?.and_then(|secret| secret.data).unwrap_or_default();
                let text = |value: ByteString| String::from_utf8_lossy(&value.0).trim_end().to_owned();
                options.extend(secret.into_iter().map(|(key, value)| (key, text(value))));
            }
            _ => {}
        }
        Ok(options)
    }

    async fn root(&self, calls: &Calls, settings: &StoreSettings) -> Result<&[u8], ActError> {
        let read = || async {
            let Some(secret) = calls.secret(&settings.namespace, &settings.secret).await? else {
                let data = BTreeMap::from([(ROOT_KEY.to_owned(), ByteString(random_hex()?.into_bytes()))]);
                calls.create_secret(&settings.namespace, &secret(&settings.secret, data.clone())).await?;
                return Ok(data[ROOT_KEY].0.clone());
            };
            let stored = secret.data.and_then(|mut data| data.remove(ROOT_KEY)).unwrap_or_default().0;
            root_key(&stored).map(<[u8]>::to_vec).map_err(|why| ActError::Refused {
                doing: format!("Secret {}/{}, key {ROOT_KEY}: {why}", settings.namespace, settings.secret),
            })
        };
        self.root.get_or_try_init(read).await.map(Vec::as_slice)
    }
}

async fn in_time<T>(asked: impl Future<Output = Result<T, DataError>>) -> Result<T, String> {
    let answer = tokio::time::timeout(READING, asked).await;
    answer.map_err(|_| format!("the store did not answer within {READING:?}"))?.map_err(|error| error.to_string())
}

async fn verify(spec: &StoreSpec, uri: &str, digest: &str) -> Result<(), DataError> {
    let (store, key) = Store::of_object(uri, Some(spec))?;
    let key = if uri.ends_with('/') { format!("{}/", key.trim_end_matches('/')) } else { key };
    store.verify(&key, digest).await.map(|_| ())
}

fn checked(found: &CheckedRecord) -> Result<String, String> {
    serde_json::to_string(found).map_err(|error| error.to_string())
}

// Whether a key belongs to a file or folder that stays: it, what lies in it, or its manifest.
fn is_part_of(key: &str, kept: &str) -> bool {
    let kept = kept.trim_end_matches('/');
    key.strip_prefix(kept).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest == ".manifest.json")
}

// A namespace's credentials, by the keys of the crate object_store.
fn of_namespace(root: &[u8], namespace: &str) -> [(String, String); 2] {
    let given = derive(root, namespace);
    [
        ("aws_access_key_id".to_owned(), given.access_key_id),
        ("aws_secret_access_key".to_owned(), given.secret_access_key),
    ]
}

fn secret(name: &str, data: BTreeMap<String, ByteString>) -> Secret {
    Secret { metadata: metadata(name), data: Some(data), ..Secret::default() }
}

// 32 bytes from the system's own source.
fn random_hex() -> Result<String, ActError> {
    let mut bytes = [0_u8; 32];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| ActError::Refused { doing: "the system gives no randomness for a root key".to_owned() })?;
    Ok(bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String never fails.
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_stays_whole_and_nothing_else_does() {
        for (key, stays) in [
            ("ns/a-1/model.pkl", true),
            ("ns/a-1/model.pkl2", false),
            ("ns/a-1/model.pkl.manifest.json", true),
            ("ns/a-1/model.pkl/part", true),
            ("ns/a-1/log/1.gz", false),
        ] {
            assert_eq!(is_part_of(key, "ns/a-1/model.pkl"), stays, "{key}");
            assert_eq!(is_part_of(key, "ns/a-1/model.pkl/"), stays, "{key}");
        }
    }
}
