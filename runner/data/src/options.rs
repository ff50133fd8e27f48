//! Opening: from a URL, options and secrets to a client of a store.

use crate::error::{DataError, scrub};
use crate::mover::PATIENCE;
use cultivar_protocol::{Span, StoreSpec};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, Certificate, ClientConfigKey, ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Once};
use std::time::Duration;
use url::Url;

/// The one option that is ours: how long a store may be away before a transfer gives up, such as `5m`.
pub const PATIENCE_OPTION: &str = "cultivar_patience";

/// A client, the key that the URL points to, and the patience with it.
pub(crate) struct Opened {
    pub client: Arc<dyn ObjectStore>,
    pub base: Key,
    pub patience: Duration,
}

pub(crate) fn open(spec: &StoreSpec) -> Result<Opened, DataError> {
    provider();
    let shown = crate::public(&spec.url);
    let url = Url::parse(&spec.url)
        .map_err(|error| DataError::Invalid(format!("the store's url {shown:?} is not a URL: {error}")))?;
    let mut options = spec.options.clone();
    options.extend(secrets(spec)?);
    let patience = match options.remove(PATIENCE_OPTION) {
        Some(text) => {
            text.parse::<Span>().map_err(|error| DataError::Invalid(format!("option {PATIENCE_OPTION}: {error}")))?.0
        }
        None => PATIENCE,
    };
    let (scheme, path) = ObjectStoreScheme::parse(&url).map_err(|error| {
        DataError::Invalid(format!("no store can be opened at {shown}: {}", scrub(&error.to_string())))
    })?;
    let base = Key::parse(path.as_ref()).map_err(|error| DataError::Invalid(format!("{shown}: {error}")))?;
    let client = client(&scheme, &url, &shown, options, spec.secret_dir.is_none(), patience)?;
    Ok(Opened { client, base, patience })
}

// One option per file. Names that start with a dot are the kubelet's own.
fn secrets(spec: &StoreSpec) -> Result<BTreeMap<String, String>, DataError> {
    let Some(dir) = spec.secret_dir.as_deref().map(std::path::Path::new) else { return Ok(BTreeMap::new()) };
    let mut secrets = BTreeMap::new();
    for entry in std::fs::read_dir(dir).map_err(DataError::local("read the store's secrets in", dir))? {
        let entry = entry.map_err(DataError::local("read the store's secrets in", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || entry.path().is_dir() {
            continue;
        }
        let value =
            std::fs::read_to_string(entry.path()).map_err(DataError::local("read the secret", &entry.path()))?;
        secrets.insert(name, value.trim_end_matches(['\r', '\n']).to_owned());
    }
    Ok(secrets)
}

fn client(
    scheme: &ObjectStoreScheme,
    url: &Url,
    shown: &str,
    options: BTreeMap<String, String>,
    ambient: bool,
    patience: Duration,
) -> Result<Arc<dyn ObjectStore>, DataError> {
    // Credentials of the environment (a workload identity) count only where none are given.
    macro_rules! cloud {
        ($builder:ident) => {{
            let mut builder = if ambient { $builder::from_env() } else { $builder::new() }.with_url(url.as_str());
            let (ours, http) = split(options);
            for (name, value) in ours {
                let key = name.parse().map_err(|_| unknown(&name, shown))?;
                builder = builder.with_config(key, value);
            }
            builder = builder.with_retry(retry(patience)).with_client_options(http?);
            Arc::new(builder.build().map_err(|error| cannot_open(shown, &error))?)
        }};
    }
    Ok(match scheme {
        ObjectStoreScheme::Local => match options.keys().next() {
            Some(name) => return Err(unknown(name, shown)),
            None => Arc::new(LocalFileSystem::new()),
        },
        ObjectStoreScheme::AmazonS3 => cloud!(AmazonS3Builder),
        ObjectStoreScheme::GoogleCloudStorage => cloud!(GoogleCloudStorageBuilder),
        ObjectStoreScheme::MicrosoftAzure => cloud!(MicrosoftAzureBuilder),
        _ => {
            return Err(DataError::Invalid(format!(
                "{shown} is no store that can be opened; a store is s3://, gs://, az:// or file://"
            )));
        }
    })
}

fn unknown(name: &str, shown: &str) -> DataError {
    DataError::Invalid(format!(
        "the option {name:?} is not known for the store {shown}; options have the names of the object_store crate, such as aws_endpoint, aws_region, google_service_account_key, azure_storage_account_name"
    ))
}

fn cannot_open(shown: &str, error: &object_store::Error) -> DataError {
    DataError::Invalid(format!("the store {shown} cannot be opened: {}", scrub(&error.to_string())))
}

// Options of the connection go to the connection; the builders would overwrite them with the ones given as a whole.
fn split(options: BTreeMap<String, String>) -> (Vec<(String, String)>, Result<ClientOptions, DataError>) {
    let (mut ours, mut http) = (Vec::new(), connection());
    for (name, value) in options {
        let plain = name.strip_prefix("aws_").or(name.strip_prefix("google_")).or(name.strip_prefix("azure_"));
        match plain.unwrap_or(&name).parse::<ClientConfigKey>() {
            Ok(key) => http = http.with_config(key, value),
            Err(_) => ours.push((name, value)),
        }
    }
    (ours, roots(http))
}

fn connection() -> ClientOptions {
    // A part of 8 MiB must get through a slow line, and a line that says nothing is given up much earlier.
    ClientOptions::new()
        .with_timeout(Duration::from_secs(180))
        .with_read_timeout(Duration::from_secs(20))
        .with_connect_timeout(Duration::from_secs(5))
}

// The image's own certificates where there are any, so that a company's root counts; otherwise Mozilla's.
fn roots(http: ClientOptions) -> Result<ClientOptions, DataError> {
    if has_certificates() {
        return Ok(http);
    }
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().try_fold(http.with_no_system_certificates(true), |http, der| {
        let certificate =
            Certificate::from_der(der).map_err(|error| DataError::Invalid(format!("a root certificate: {error}")))?;
        Ok(http.with_root_certificate(certificate))
    })
}

/// Whether this image brings root certificates.
pub(crate) fn has_certificates() -> bool {
    const PLACES: [&str; 5] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    std::env::var_os("SSL_CERT_FILE").is_some()
        || std::env::var_os("SSL_CERT_DIR").is_some()
        || PLACES.iter().any(|place| std::path::Path::new(place).exists())
}

fn retry(patience: Duration) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: 10_000,
        retry_timeout: patience,
    }
}

/// Chooses the TLS provider, once.
pub(crate) fn provider() {
    static ONCE: Once = Once::new();
    // An error says that the program has chosen one already.
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}
