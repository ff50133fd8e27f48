//! Credentials for the operator's own artifact store: one root key, and a Secret in each namespace with experiments.
//!
//! Comes in: a namespace. Goes out: its Secret, made when it is missing or not the one that the root key gives. Nothing
//! of it is logged or put into an object but these Secrets.

use cultivar_core::render::STORE_SECRET;
use cultivar_crds::labels;
use cultivar_store::credentials::{derive, root_key};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use tokio::sync::OnceCell;

use super::{ActError, Calls};
use crate::settings::StoreSettings;

/// The root key's place in its Secret.
const ROOT_KEY: &str = "root-key";

/// Keeps the credentials.
pub struct Credentials {
    settings: Option<StoreSettings>,
    root: OnceCell<Vec<u8>>,
    // Namespaces whose Secret is known to be right.
    made: Mutex<HashSet<String>>,
}

impl Credentials {
    /// For this store; with none, nothing is ever made.
    pub fn new(settings: Option<StoreSettings>) -> Self {
        Self { settings, root: OnceCell::new(), made: Mutex::default() }
    }

    /// Makes the root key, unless there is one.
    pub async fn prepare(&self, calls: &Calls) -> Result<(), ActError> {
        match &self.settings {
            Some(settings) => self.root(calls, settings).await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// Makes a namespace's credentials, unless they are there.
    pub async fn ensure(&self, calls: &Calls, namespace: &str) -> Result<(), ActError> {
        let Some(settings) = &self.settings else { return Ok(()) };
        // Nothing in here panics half way.
        if self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(namespace) {
            return Ok(());
        }
        let root = self.root(calls, settings).await?;
        let given = derive(root, namespace);
        let data = [("aws_access_key_id", given.access_key_id), ("aws_secret_access_key", given.secret_access_key)];
        let wanted: BTreeMap<String, ByteString> =
            data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect();
        match calls.secret(namespace, STORE_SECRET).await? {
            Some(secret) if secret.data.as_ref() == Some(&wanted) => {}
            Some(mut secret) => {
                secret.data = Some(wanted);
                calls.replace_secret(namespace, STORE_SECRET, &secret).await?;
            }
            None => calls.create_secret(namespace, &secret(STORE_SECRET, wanted)).await?,
        }
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace.to_owned());
        Ok(())
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

fn secret(name: &str, data: BTreeMap<String, ByteString>) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(labels::MANAGED_BY.to_owned(), labels::MANAGER.to_owned())])),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..Secret::default()
    }
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
