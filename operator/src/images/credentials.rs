//! Credentials of registries, as pull secrets hold them.
//!
//! Comes in: Secrets of the types that the kubelet pulls with. Goes out: the one credential that is for a registry and a
//! repository in it. Nothing of it is logged or told.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// The names under which one registry is written in pull secrets.
const DOCKER: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// A name and a password.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({}, …)", self.username)
    }
}

// An entry of a Docker configuration.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    /// Base64 of `name:password`.
    auth: Option<Value>,
}

impl Entry {
    fn credential(self) -> Option<Credential> {
        let encoded = self.auth.and_then(|auth| serde_json::from_value::<ByteString>(auth).ok());
        let decoded = encoded.and_then(|bytes| String::from_utf8(bytes.0).ok());
        let (username, password) = match decoded.as_deref().and_then(|text| text.split_once(':')) {
            // Docker pads some with zeros.
            Some((username, password)) => (username.to_owned(), password.trim_end_matches('\0').to_owned()),
            None => (self.username?, self.password?),
        };
        (!username.is_empty()).then_some(Credential { username, password })
    }
}

/// The credentials of some pull secrets.
#[derive(Default)]
pub struct Credentials {
    entries: Vec<(String, Credential)>,
}

impl Credentials {
    /// Takes in the entries of a Secret, if it is one to pull with.
    pub fn add(&mut self, secret: &Secret) {
        let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
        // Others hold something else, which is not read.
        let entries: Option<BTreeMap<String, Value>> = match secret.type_.as_deref() {
            Some("kubernetes.io/dockerconfigjson") => {
                #[derive(Deserialize)]
                struct Config {
                    #[serde(default)]
                    auths: BTreeMap<String, Value>,
                }
                data(".dockerconfigjson").and_then(|json| Some(serde_json::from_slice::<Config>(json).ok()?.auths))
            }
            Some("kubernetes.io/dockercfg") => data(".dockercfg").and_then(|json| serde_json::from_slice(json).ok()),
            _ => None,
        };
        for (place, entry) in entries.unwrap_or_default() {
            let credential = serde_json::from_value::<Entry>(entry).ok().and_then(Entry::credential);
            self.entries.extend(credential.map(|credential| (place, credential)));
        }
    }

    /// The credential for a repository of a registry: of those whose place holds it, the one that says most.
    pub fn of(&self, registry: &str, repository: &str) -> Option<&Credential> {
        let holding = self.entries.iter().filter_map(|(place, credential)| {
            let (host, path) = parts(place);
            let holds = is_host(host, registry) && is_within(repository, path);
            holds.then_some(((path.len(), !host.contains('*')), credential))
        });
        // Of those that say the same, the first: as the pod names its secrets.
        let mut best: Option<((usize, bool), &Credential)> = None;
        for (said, credential) in holding {
            if best.as_ref().is_none_or(|(most, _)| said > *most) {
                best = Some((said, credential));
            }
        }
        best.map(|(_, credential)| credential)
    }
}

// `https://index.docker.io/v1/` as host and path, without the version of an API.
fn parts(place: &str) -> (&str, &str) {
    let place = place.split_once("://").map_or(place, |(_, rest)| rest);
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let path = path.trim_matches('/');
    (host, if matches!(path, "v1" | "v2") { "" } else { path })
}

// The same host and port; `*` stands for one label.
fn is_host(pattern: &str, registry: &str) -> bool {
    if DOCKER.contains(&registry) {
        return DOCKER.contains(&pattern);
    }
    let (mut wanted, mut given) = (pattern.split('.'), registry.split('.'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some("*"), Some(label)) if !label.is_empty() => {}
            (Some(wanted), Some(given)) if wanted.eq_ignore_ascii_case(given) => {}
            _ => return false,
        }
    }
}

fn is_within(repository: &str, path: &str) -> bool {
    path.is_empty() || repository.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(kind: &str, key: &str, document: &Value) -> Secret {
        let data = BTreeMap::from([(key.to_owned(), ByteString(document.to_string().into_bytes()))]);
        Secret { type_: Some(kind.to_owned()), data: Some(data), ..Secret::default() }
    }

    fn config(auths: &Value) -> Secret {
        secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", &json!({"auths": auths}))
    }

    fn user(credentials: &Credentials, registry: &str, repository: &str) -> Option<String> {
        credentials.of(registry, repository).map(|found| format!("{}/{}", found.username, found.password))
    }

    #[test]
    fn a_credential_is_for_its_registry_and_path_alone() {
        let mut credentials = Credentials::default();
        credentials.add(&config(&json!({
            "https://index.docker.io/v1/": {"auth": "aHViOnA6dw=="},
            "ghcr.io": {"username": "all", "password": "1"},
            "ghcr.io/acme": {"username": "acme", "password": "2"},
            "*.example.com": {"username": "wild", "password": "3"},
            "https://one.example.com:5000/v2/": {"username": "port", "password": "4"},
        })));
        for (registry, repository, expected) in [
            ("docker.io", "library/busybox", Some("hub/p:w")),
            ("registry-1.docker.io", "library/busybox", Some("hub/p:w")),
            ("ghcr.io", "other/train", Some("all/1")),
            ("ghcr.io", "acme/train", Some("acme/2")),
            ("ghcr.io", "acmeother/train", Some("all/1")),
            ("a.example.com", "x", Some("wild/3")),
            ("a.b.example.com", "x", None),
            ("example.com", "x", None),
            ("one.example.com:5000", "x", Some("port/4")),
            ("evil-ghcr.io", "acme/train", None),
            ("ghcr.io.evil.com", "acme/train", None),
            ("ghcr.io:5000", "acme/train", None),
        ] {
            assert_eq!(user(&credentials, registry, repository).as_deref(), expected, "{registry}/{repository}");
        }
    }

    #[test]
    fn only_secrets_to_pull_with_are_read() {
        let auths = json!({"ghcr.io": {"username": "u", "password": "p"}});
        let mut credentials = Credentials::default();
        credentials.add(&secret("Opaque", ".dockerconfigjson", &json!({"auths": auths})));
        credentials.add(&Secret::default());
        credentials.add(&config(&json!({"ghcr.io": {"auth": "%%%"}, "quay.io": {"identitytoken": "t"}, "x.io": 7})));
        assert_eq!(user(&credentials, "ghcr.io", "a"), None);
        credentials.add(&secret("kubernetes.io/dockercfg", ".dockercfg", &auths));
        assert_eq!(user(&credentials, "ghcr.io", "a").as_deref(), Some("u/p"));
        credentials.add(&config(&json!({"ghcr.io": {"username": "second", "password": "p"}})));
        assert_eq!(user(&credentials, "ghcr.io", "a").as_deref(), Some("u/p"), "the first that the pod names");
        assert!(!format!("{:?}", credentials.of("ghcr.io", "a")).contains("u/p"));
    }
}
