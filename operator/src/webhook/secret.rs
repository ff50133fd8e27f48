//! The Secret and the webhook configuration in the cluster.
//!
//! Comes in: the names, and [`Contents`] to write. Goes out: what is there. The trait is what the keeper needs of an
//! API server, so that tests can be one.

use std::collections::BTreeMap;
use std::future::Future;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use super::certs::{CertsError, Contents, Record};
use crate::settings::WebhookSettings;

/// Annotation of the Secret with its [`Record`] as JSON.
pub const RECORD: &str = "cultivar.dev/certificates";
const MANAGER: &str = "cultivar";

/// Why the cluster was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else was faster.
    #[error("{0} was changed by somebody else; it is read again")]
    Conflict(&'static str),
    /// Anything else.
    #[error("{0}: {1}")]
    Api(&'static str, String),
}

/// The caBundle of each webhook in the configuration, by the webhook's name.
pub type CaBundles = BTreeMap<String, String>;

/// Where the Secret and the configuration are kept.
pub trait Store: Send + Sync + 'static {
    /// The Secret, or `None` if there is none.
    fn secret(&self) -> impl Future<Output = Result<Option<Secret>, StoreError>> + Send;
    /// Creates the Secret, or replaces the version that it names.
    fn write_secret(&self, secret: Secret) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// The caBundles as they are, or `None` if there is no configuration.
    fn ca_bundles(&self) -> impl Future<Output = Result<Option<CaBundles>, StoreError>> + Send;
    /// Sets the caBundle of these webhooks.
    fn set_ca_bundles(&self, bundles: CaBundles) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A cluster. Needs the rights to create Secrets, to get and update this one, and to get and patch the configuration.
#[derive(Clone)]
pub struct Cluster {
    secrets: Api<Secret>,
    configurations: Api<ValidatingWebhookConfiguration>,
    secret: String,
    configuration: String,
}

impl Cluster {
    /// The objects that the settings name.
    #[must_use]
    pub fn new(client: Client, settings: &WebhookSettings) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), &settings.namespace),
            configurations: Api::all(client),
            secret: settings.secret.clone(),
            configuration: settings.configuration.clone(),
        }
    }
}

fn refused(what: &'static str) -> impl Fn(kube::Error) -> StoreError {
    move |error| match error {
        kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => StoreError::Conflict(what),
        other => StoreError::Api(what, other.to_string()),
    }
}

impl Store for Cluster {
    async fn secret(&self) -> Result<Option<Secret>, StoreError> {
        self.secrets.get_opt(&self.secret).await.map_err(refused("the Secret"))
    }

    async fn write_secret(&self, mut secret: Secret) -> Result<(), StoreError> {
        secret.metadata.name = Some(self.secret.clone());
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let written = if secret.metadata.resource_version.is_some() {
            self.secrets.replace(&self.secret, &params, &secret).await
        } else {
            self.secrets.create(&params, &secret).await
        };
        written.map(drop).map_err(refused("the Secret"))
    }

    async fn ca_bundles(&self) -> Result<Option<CaBundles>, StoreError> {
        let found = self.configurations.get_opt(&self.configuration).await;
        let configuration = found.map_err(refused("the ValidatingWebhookConfiguration"))?;
        Ok(configuration.map(|configuration| {
            let webhooks = configuration.webhooks.unwrap_or_default();
            let bundle = |bytes: ByteString| String::from_utf8_lossy(&bytes.0).into_owned();
            webhooks
                .into_iter()
                .map(|webhook| (webhook.name, webhook.client_config.ca_bundle.map(bundle).unwrap_or_default()))
                .collect()
        }))
    }

    async fn set_ca_bundles(&self, bundles: CaBundles) -> Result<(), StoreError> {
        // A strategic merge goes by the webhooks' names and leaves everything else to its owners.
        let webhooks: Vec<_> = bundles
            .into_iter()
            .map(|(name, bundle)| json!({"name": name, "clientConfig": {"caBundle": ByteString(bundle.into_bytes())}}))
            .collect();
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Strategic(json!({"webhooks": webhooks}));
        let patched = self.configurations.patch(&self.configuration, &params, &patch).await;
        patched.map(drop).map_err(refused("the ValidatingWebhookConfiguration"))
    }
}

/// What the Secret holds.
///
/// # Errors
/// When something is missing or no text, or the record does not fit the certificates.
pub fn contents(secret: &Secret) -> Result<Contents, CertsError> {
    let text = |key: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        let bytes = bytes.ok_or_else(|| CertsError::Contents(key, "it is not there".to_owned()))?;
        String::from_utf8(bytes.0.clone()).map_err(|error| CertsError::Contents(key, error.to_string()))
    };
    let wrong = |why: String| CertsError::Contents("the annotation", why);
    let record = secret.metadata.annotations.as_ref().and_then(|annotations| annotations.get(RECORD));
    let record = record.ok_or_else(|| wrong("it is not there".to_owned()))?;
    let record: Record = serde_json::from_str(record).map_err(|error| wrong(error.to_string()))?;
    let authorities = certificates(&text("ca.crt")?)?;
    if authorities.len() != record.authorities.len() {
        let counts = (authorities.len(), record.authorities.len());
        return Err(wrong(format!("ca.crt has {} certificates, the record {}", counts.0, counts.1)));
    }
    Ok(Contents {
        record,
        authorities,
        authority_key: text("ca.key")?,
        leaf: text("tls.crt")?,
        leaf_key: text("tls.key")?,
    })
}

/// Each certificate of a bundle as a text of its own.
pub(super) fn certificates(bundle: &str) -> Result<Vec<String>, CertsError> {
    const END: &str = "-----END CERTIFICATE-----";
    let parts = bundle.split_inclusive(END).filter(|part| part.contains(END));
    let parts: Vec<String> = parts.map(|part| format!("{}\n", part.trim_start())).collect();
    for part in &parts {
        CertificateDer::from_pem_slice(part.as_bytes())
            .map_err(|error| CertsError::Contents("ca.crt", error.to_string()))?;
    }
    Ok(parts)
}

/// The Secret with `contents`. What others added to the metadata of `previous` stays, and so does its version.
///
/// # Errors
/// When the record cannot be written as JSON, which would be a bug.
pub fn with_contents(previous: Option<Secret>, contents: &Contents) -> Result<Secret, StoreError> {
    let mut secret = previous.unwrap_or_else(|| Secret {
        // The type cannot be changed later, so a Secret that was there keeps its own.
        type_: Some("kubernetes.io/tls".to_owned()),
        ..Secret::default()
    });
    let record = serde_json::to_string(&contents.record);
    let record = record.map_err(|error| StoreError::Api("the Secret's record", error.to_string()))?;
    secret.metadata.annotations.get_or_insert_default().insert(RECORD.to_owned(), record);
    let labels = secret.metadata.labels.get_or_insert_default();
    labels.insert("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned());
    let parts = [
        ("ca.crt", contents.bundle()),
        ("ca.key", contents.authority_key.clone()),
        ("tls.crt", contents.leaf.clone()),
        ("tls.key", contents.leaf_key.clone()),
    ];
    secret.data = Some(parts.map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).into());
    Ok(secret)
}
