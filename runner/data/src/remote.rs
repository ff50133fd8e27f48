//! One object to read, in a store or behind an HTTP address: its size, a pin, and any range of it.

use crate::error::{DataError, scrub};
use crate::store::Store;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use reqwest::{Client, ClientBuilder, StatusCode, Url, header};
use std::ops::Range;
use std::time::Duration;

/// What pins an object, so that every byte is read of the same one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pin {
    /// In bytes; unknown where a server does not say.
    pub size: Option<u64>,
    /// The server's ETag.
    pub etag: Option<String>,
    /// The store's version.
    pub version: Option<String>,
    /// Whether ranges can be asked for.
    pub(crate) ranged: bool,
}

impl Pin {
    /// The version or, without one, the ETag.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        self.version.clone().or_else(|| self.etag.clone())
    }
}

/// A client for HTTP addresses. A server may be silent for `read_timeout`.
///
/// # Errors
/// When TLS cannot be set up.
pub fn client(read_timeout: Duration) -> Result<Client, reqwest::Error> {
    client_builder(read_timeout).build()
}

/// What [`client`] builds, for who has more to say.
pub fn client_builder(read_timeout: Duration) -> ClientBuilder {
    crate::options::provider();
    let mut builder = Client::builder()
        .user_agent(concat!("cultivar-runner/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(read_timeout);
    if !crate::options::has_certificates() {
        let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
        builder = builder.tls_certs_only(roots.filter_map(|der| reqwest::Certificate::from_der(der).ok()));
    }
    builder
}

/// An object that can be read.
#[derive(Clone, Debug)]
pub enum Remote {
    /// A key of a store.
    Object(Store, String),
    /// An address that answers GET.
    Http(Client, Url),
}

pub(crate) type Body = BoxStream<'static, Result<Bytes, DataError>>;

impl Remote {
    /// An HTTP address.
    ///
    /// # Errors
    /// When it is no URL, or no client can be made.
    pub fn http(uri: &str) -> Result<Self, DataError> {
        let bad = |why: String| DataError::Invalid(format!("{} cannot be fetched: {why}", crate::public(uri)));
        let url = Url::parse(uri).map_err(|error| bad(error.to_string()))?;
        let client = client(Duration::from_secs(20)).map_err(|error| bad(scrub(&error.to_string())))?;
        Ok(Self::Http(client, url))
    }

    /// Where it is, without credentials.
    #[must_use]
    pub fn uri(&self) -> String {
        match self {
            Self::Object(store, key) => store.uri(key),
            Self::Http(_, url) => crate::public(url.as_str()),
        }
    }

    pub(crate) fn patience(&self) -> Duration {
        match self {
            Self::Object(store, _) => store.patience,
            Self::Http(..) => crate::PATIENCE,
        }
    }

    /// Looks at it.
    pub(crate) async fn head(&self) -> Result<Pin, DataError> {
        match self {
            Self::Object(store, key) => {
                let meta = store.client.head(&store.key(key)?).await;
                let meta = meta.map_err(|error| DataError::of_store(&self.uri(), &error))?;
                Ok(Pin { size: Some(meta.size), etag: meta.e_tag, version: meta.version, ranged: true })
            }
            // Signed addresses often allow GET only, so one byte is asked for.
            Self::Http(client, url) => {
                let answer = client.get(url.clone()).header(header::RANGE, "bytes=0-0").send().await;
                let answer = answer.map_err(|error| self.unavailable(&error))?;
                let etag = etag(&answer);
                match answer.status() {
                    StatusCode::PARTIAL_CONTENT => {
                        let size = total(&answer);
                        Ok(Pin { size, etag, version: None, ranged: size.is_some() })
                    }
                    StatusCode::RANGE_NOT_SATISFIABLE => {
                        Ok(Pin { size: total(&answer), etag, version: None, ranged: false })
                    }
                    StatusCode::OK => Ok(Pin { size: answer.content_length(), etag, version: None, ranged: false }),
                    status => Err(self.refused(status)),
                }
            }
        }
    }

    /// A range of it; without one, all of it from the beginning.
    pub(crate) async fn get(&self, pin: &Pin, range: Option<Range<u64>>) -> Result<Body, DataError> {
        match self {
            Self::Object(store, key) => {
                let options = GetOptions {
                    if_match: pin.etag.clone(),
                    version: pin.version.clone(),
                    range: range.map(Into::into),
                    ..GetOptions::default()
                };
                let uri = self.uri();
                let got = store.client.get_opts(&store.key(key)?, options).await;
                let got = got.map_err(|error| DataError::of_store(&uri, &error))?;
                Ok(got.into_stream().map_err(move |error| DataError::of_store(&uri, &error)).boxed())
            }
            Self::Http(client, url) => {
                let mut request = client.get(url.clone());
                if let Some(range) = &range {
                    request = request.header(header::RANGE, format!("bytes={}-{}", range.start, range.end - 1));
                }
                let answer = request.send().await.map_err(|error| self.unavailable(&error))?;
                let expected = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
                if answer.status() != expected {
                    return Err(if answer.status().is_success() {
                        DataError::Changed(self.uri())
                    } else {
                        self.refused(answer.status())
                    });
                }
                // A weak ETag is not good for If-Match, so it is compared here.
                if pin.etag != etag(&answer) || (range.is_some() && total(&answer) != pin.size) {
                    return Err(DataError::Changed(self.uri()));
                }
                let uri = self.uri();
                let lost =
                    move |error: reqwest::Error| DataError::Unavailable { uri: uri.clone(), why: reason(&error) };
                Ok(answer.bytes_stream().map_err(lost).boxed())
            }
        }
    }

    fn unavailable(&self, error: &reqwest::Error) -> DataError {
        DataError::Unavailable { uri: self.uri(), why: reason(error) }
    }

    fn refused(&self, status: StatusCode) -> DataError {
        let uri = self.uri();
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => DataError::NotFound(uri),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => DataError::Denied { uri, why: status.to_string() },
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                DataError::Unavailable { uri, why: status.to_string() }
            }
            status if status.is_server_error() => DataError::Unavailable { uri, why: status.to_string() },
            status => DataError::Invalid(format!("{uri} answers {status}, which is of no use")),
        }
    }
}

/// With its causes: reqwest's own text is only "error sending request".
#[must_use]
pub fn reason(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    scrub(&text)
}

fn etag(answer: &reqwest::Response) -> Option<String> {
    answer.headers().get(header::ETAG)?.to_str().ok().map(str::to_owned)
}

// The part after the slash of `Content-Range: bytes 0-0/123`.
fn total(answer: &reqwest::Response) -> Option<u64> {
    answer.headers().get(header::CONTENT_RANGE)?.to_str().ok()?.rsplit_once('/')?.1.parse().ok()
}
