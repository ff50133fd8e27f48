//! One question to one registry, by the distribution API: which digest does this tag stand for?
//!
//! Comes in: where to ask, for what, and as whom. Goes out: the digest, or why there is none. A password goes to the registry
//! that it is for, and to the server of tokens that this registry names where the two are of one domain; a token goes to the
//! registry alone; nothing goes along where a registry sends on to.

use cultivar_core::domain::Image;
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::challenge::Challenge;
use super::credentials::Credential;
use super::guard::Guard;

/// What is asked for: the digest of a list where an image is made for several machines, as the kubelet pulls it.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// Where a registry says the digest of what it answers.
const DIGEST: &str = "docker-content-digest";
/// How often a registry may send on to another place.
const HOPS: usize = 3;
/// Longest manifest that is read, as registries themselves limit them, and longest answer with a token.
const MAX_MANIFEST: usize = 4 * 1024 * 1024;
const MAX_TOKEN: usize = 256 * 1024;

/// Why there is no digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody answers there.
    Away(String),
    /// It has no time.
    Busy(String),
    /// It answers, and asking again would bring the same.
    Refused(String),
}

impl Fault {
    /// Whether nobody answered.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away(_))
    }

    /// In words.
    pub fn words(self) -> String {
        match self {
            Self::Away(words) | Self::Busy(words) | Self::Refused(words) => words,
        }
    }
}

/// Where an image is asked for.
#[derive(Clone, Debug)]
pub struct Place {
    /// Address of its registry, or of what stands in for that.
    pub base: Url,
    /// Path of the repository there.
    pub repository: String,
}

impl Place {
    /// Host and port.
    pub fn host(&self) -> String {
        authority(&self.base)
    }

    fn manifest(&self, tag: &str) -> Result<Url, Fault> {
        let path = format!("/v2/{}/manifests/{tag}", self.repository);
        self.base.join(&path).map_err(|error| Fault::Refused(format!("{path} is no address: {error}")))
    }
}

/// Asks for the digest of a tag.
pub async fn digest(
    guard: &Guard,
    place: &Place,
    image: &Image,
    credential: Option<&Credential>,
) -> Result<String, Fault> {
    let tag = image.tag.as_deref().unwrap_or_default();
    let mut asking = Asking { guard, place, credential, url: place.manifest(tag)?, authorization: None };
    let answer = asking.ask(Method::HEAD).await?;
    // Some know no HEAD.
    let knows_no_head = matches!(
        answer.status(),
        StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
    );
    if !knows_no_head && let Some(digest) = said(&asking.judged(answer)?)? {
        return Ok(digest);
    }
    let answer = asking.ask(Method::GET).await?;
    let answer = asking.judged(answer)?;
    let said = said(&answer)?;
    let manifest = bounded(answer, MAX_MANIFEST).await?;
    is_manifest(&manifest).map_err(|why| Fault::Refused(format!("{} {why}", place.host())))?;
    let digest = format!("sha256:{:x}", Sha256::digest(&manifest));
    match said {
        Some(said) if said != digest => {
            Err(Fault::Refused(format!("{} says {said} of a manifest that is {digest}", place.host())))
        }
        _ => Ok(digest),
    }
}

struct Asking<'a> {
    guard: &'a Guard,
    place: &'a Place,
    credential: Option<&'a Credential>,
    url: Url,
    authorization: Option<HeaderValue>,
}

impl Asking<'_> {
    // Asks, and once more as somebody where the registry wants to know who asks.
    async fn ask(&mut self, method: Method) -> Result<Response, Fault> {
        let answer = self.follow(&method).await?;
        let is_own = answer.url().origin() == self.url.origin();
        if answer.status() != StatusCode::UNAUTHORIZED || self.authorization.is_some() || !is_own {
            return Ok(answer);
        }
        let headers = answer.headers().get_all(header::WWW_AUTHENTICATE);
        let challenge = Challenge::read(headers.iter().filter_map(|value| value.to_str().ok()));
        self.authorization = match (challenge, self.credential) {
            (Some(Challenge::Bearer { realm, service }), _) => Some(self.token(&realm, service.as_deref()).await?),
            (Some(Challenge::Basic), Some(credential)) => Some(basic(credential)?),
            (Some(Challenge::Basic) | None, _) => return Ok(answer),
        };
        self.follow(&method).await
    }

    async fn follow(&self, method: &Method) -> Result<Response, Fault> {
        let mut url = self.url.clone();
        for _ in 0..=HOPS {
            let own = self.authorization.as_ref().filter(|_| url.origin() == self.url.origin());
            let answer = self.send(method, &url, own).await?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            let to = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            let to = to.and_then(|to| url.join(to).ok()).filter(|to| to.username().is_empty());
            url = to.ok_or_else(|| Fault::Refused(format!("{} sends on to nowhere", authority(&url))))?;
        }
        Err(Fault::Refused(format!("{} sends on more than {HOPS} times", self.place.host())))
    }

    async fn send(&self, method: &Method, url: &Url, own: Option<&HeaderValue>) -> Result<Response, Fault> {
        let client = self.guard.client(url).map_err(Fault::Refused)?;
        let request = client.request(method.clone(), url.clone()).header(header::ACCEPT, ACCEPT);
        let request = match own {
            Some(own) => request.header(header::AUTHORIZATION, own.clone()),
            None => request,
        };
        sent(request, url).await
    }

    // A token for reading the repository.
    async fn token(&self, realm: &str, service: Option<&str>) -> Result<HeaderValue, Fault> {
        let refused = |why: String| Fault::Refused(format!("{} wants a token of {why}", self.place.host()));
        let mut url = Url::parse(realm).map_err(|error| refused(format!("{realm:?}, which is no address: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("an address with a password in it".to_owned()));
        }
        let host = authority(&url);
        let client = self.guard.client(&url).map_err(|why| refused(format!("{host}: {why}")))?;
        let scope = format!("repository:{}:pull", self.place.repository);
        let asked = service.map(|service| ("service", service)).into_iter().chain([("scope", scope.as_str())]);
        url.query_pairs_mut().extend_pairs(asked);
        let kin = self.guard.trusts(&url) || is_kin(&self.url, &url);
        let request = match self.credential.filter(|_| kin) {
            Some(credential) => client.get(url.clone()).basic_auth(&credential.username, Some(&credential.password)),
            None => client.get(url.clone()),
        };
        let answer = sent(request, &url).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(self.denied(answer.status())),
            status => return Err(trouble(&host, status)),
        }
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let body = bounded(answer, MAX_TOKEN).await?;
        let token = serde_json::from_slice::<Token>(&body).ok().and_then(|given| given.token.or(given.access_token));
        let token = token.and_then(|token| secret_header(&format!("Bearer {token}")));
        token.ok_or_else(|| refused(format!("{host}, which gives none that can be read")))
    }

    fn judged(&self, answer: Response) -> Result<Response, Fault> {
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::NOT_FOUND => {
                Err(Fault::Refused(format!("{} has no such image, or does not show it", self.place.host())))
            }
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(self.denied(status)),
            status => Err(trouble(&self.place.host(), status)),
        }
    }

    fn denied(&self, status: StatusCode) -> Fault {
        let host = self.place.host();
        Fault::Refused(match self.credential {
            Some(_) => format!("{host} does not show it with the pod's pull secret ({status})"),
            None => format!("{host} does not show it to anyone ({status}): it is not there, or asks for a pull secret"),
        })
    }
}

async fn sent(request: RequestBuilder, url: &Url) -> Result<Response, Fault> {
    let away = |error: reqwest::Error| {
        let why = cultivar_data::reason(&error.without_url());
        Fault::Away(format!("{} could not be asked: {why}", authority(url)))
    };
    request.send().await.map_err(away)
}

fn trouble(host: &str, status: StatusCode) -> Fault {
    let words = format!("{host} answers {status}");
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Fault::Busy(words),
        status if status.is_server_error() => Fault::Busy(words),
        _ => Fault::Refused(words),
    }
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

// Whether a server of tokens belongs to a registry: the same host, or one of the domain that the registry's host is in.
// auth.docker.io is of registry-1.docker.io, and gitlab.com of registry.gitlab.com.
fn is_kin(registry: &Url, realm: &Url) -> bool {
    let (Some(registry), Some(url::Host::Domain(realm))) = (registry.host(), realm.host()) else {
        return registry.origin() == realm.origin();
    };
    let is_in = |domain: &str| realm == domain || realm.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    let url::Host::Domain(registry) = registry else { return false };
    let domain = registry.split_once('.').map(|(_, domain)| domain).filter(|domain| domain.contains('.'));
    is_in(registry) || domain.is_some_and(is_in)
}

// The digest that an answer itself says.
fn said(answer: &Response) -> Result<Option<String>, Fault> {
    let Some(said) = answer.headers().get(DIGEST) else { return Ok(None) };
    let digest = said.to_str().ok().filter(|digest| is_digest(digest));
    let host = authority(answer.url());
    digest
        .map(|digest| Some(digest.to_owned()))
        .ok_or_else(|| Fault::Refused(format!("{host} says no sha256 digest of it")))
}

fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:");
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

// A page that stands before a registry answers everything, too.
fn is_manifest(body: &[u8]) -> Result<(), &'static str> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest {
        schema_version: u64,
    }
    match serde_json::from_slice(body) {
        Ok(Manifest { schema_version: 2 }) => Ok(()),
        Ok(_) => Err("has it in the first form of manifests, whose digest is not that of its bytes"),
        Err(_) => Err("gives something else than a manifest"),
    }
}

async fn bounded(mut answer: Response, most: usize) -> Result<Vec<u8>, Fault> {
    let host = authority(answer.url());
    let mut body = Vec::new();
    loop {
        let part = answer.chunk().await;
        let part = part.map_err(|error| {
            Fault::Away(format!("{host} broke off: {}", cultivar_data::reason(&error.without_url())))
        })?;
        let Some(part) = part else { return Ok(body) };
        if body.len() + part.len() > most {
            return Err(Fault::Refused(format!("{host} answers with more than {most} bytes")));
        }
        body.extend_from_slice(&part);
    }
}

fn basic(credential: &Credential) -> Result<HeaderValue, Fault> {
    use k8s_openapi::ByteString;
    let both = ByteString(format!("{}:{}", credential.username, credential.password).into_bytes());
    let encoded = serde_json::to_value(both).ok().and_then(|value| value.as_str().map(str::to_owned));
    let header = encoded.and_then(|encoded| secret_header(&format!("Basic {encoded}")));
    header.ok_or_else(|| Fault::Refused("the pod's pull secret cannot be sent".to_owned()))
}

fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_to_servers_of_the_registrys_own_domain() {
        let kin = |registry: &str, realm: &str| is_kin(&Url::parse(registry).unwrap(), &Url::parse(realm).unwrap());
        for (registry, realm) in [
            ("https://registry-1.docker.io", "https://auth.docker.io/token"),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            ("https://ghcr.io", "https://ghcr.io/token"),
            ("https://example.com", "https://auth.example.com/token"),
            ("https://10.0.0.1:5000", "https://10.0.0.1:5000/token"),
        ] {
            assert!(kin(registry, realm), "{registry} {realm}");
        }
        for (registry, realm) in [
            ("https://registry-1.docker.io", "https://docker.io.evil.com/token"),
            ("https://registry-1.docker.io", "https://evildocker.io/token"),
            ("https://ghcr.io", "https://other.io/token"),
            ("https://example.com", "https://other.com/token"),
            ("https://10.0.0.1:5000", "https://10.0.0.2:5000/token"),
            ("https://10.0.0.1:5000", "https://auth.example.com/token"),
        ] {
            assert!(!kin(registry, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn only_a_manifest_has_a_digest() {
        assert!(is_digest(&format!("sha256:{}", "0a".repeat(32))));
        for not in
            ["", "sha256:", "sha512:0a", &format!("sha256:{}", "0A".repeat(32)), &format!("sha256:{}", "0g".repeat(32))]
        {
            assert!(!is_digest(not), "{not}");
        }
        assert_eq!(is_manifest(br#"{"schemaVersion":2}"#), Ok(()));
        assert!(is_manifest(br#"{"schemaVersion":1}"#).is_err() && is_manifest(b"<html>").is_err());
    }
}
