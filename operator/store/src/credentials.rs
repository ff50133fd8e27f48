//! Credentials that operator and store derive from one root key, so that nothing else need be shared or stored.
//!
//! Comes in: the root key and a namespace. Goes out: the access key id `ns-<namespace>` and its secret.
//! The secret is `hex(HMAC-SHA256(root key, "cultivar-store/v1/" + namespace))`: who has it learns neither the root key
//! nor any other namespace's secret.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What the id of a namespace's access key starts with.
pub const NAMESPACE_PREFIX: &str = "ns-";
/// The id of the administrator's access key.
pub const ADMIN: &str = "cultivar-admin";
/// The shortest root key that is accepted, in bytes.
pub const MIN_ROOT: usize = 16;

/// An access key of S3. Its `Debug` does not show the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Names the key; no secret.
    pub access_key_id: String,
    /// Signs requests.
    pub secret_access_key: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// A root key that is too short to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootTooShort(usize);

impl fmt::Display for RootTooShort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the root key has {} bytes, at least {MIN_ROOT} are needed; write a longer random one", self.0)
    }
}

impl std::error::Error for RootTooShort {}

/// The root key as it stands in a Secret or a file: line ends at its end do not belong to it.
///
/// # Errors
/// When what is left is shorter than [`MIN_ROOT`].
pub fn root_key(stored: &[u8]) -> Result<&[u8], RootTooShort> {
    let end = stored.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    let key = &stored[..end];
    if key.len() < MIN_ROOT { Err(RootTooShort(key.len())) } else { Ok(key) }
}

/// The credentials of a namespace: for keys under `<namespace>/` and nothing else.
#[must_use]
pub fn derive(root: &[u8], namespace: &str) -> Credentials {
    Credentials {
        access_key_id: format!("{NAMESPACE_PREFIX}{namespace}"),
        secret_access_key: secret(root, "cultivar-store/v1/", namespace),
    }
}

/// The administrator's credentials: for every key. They are derived in a way that no namespace's name can meet.
#[must_use]
pub fn derive_admin(root: &[u8]) -> Credentials {
    Credentials { access_key_id: ADMIN.to_owned(), secret_access_key: secret(root, "cultivar-store-admin/v1", "") }
}

fn secret(root: &[u8], purpose: &str, name: &str) -> String {
    // A key of any length is a key to HMAC, so this cannot fail.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(root) else { unreachable!("HMAC takes keys of any length") };
    mac.update(purpose.as_bytes());
    mac.update(name.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a text can be a namespace's name: a DNS label of RFC 1123. Such a name has no slash and no dot.
#[must_use]
pub fn is_namespace(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's hmac module, so that another implementation can be held against it.
    #[test]
    fn a_namespace_has_its_secret() {
        let vision = derive(b"0123456789abcdef0123456789abcdef", "vision");
        assert_eq!(vision.access_key_id, "ns-vision");
        assert_eq!(vision.secret_access_key, "372180559598403e5e3df201c1104cba24a3e5a3dc3a92e9d9a2393a52effc62");
        assert_ne!(vision.secret_access_key, derive(b"0123456789abcdef0123456789abcdef", "visio").secret_access_key);
        assert_ne!(vision.secret_access_key, derive(b"0123456789abcdef0123456789abcdee", "vision").secret_access_key);
    }

    #[test]
    fn the_administrator_is_no_namespace() {
        let root = b"0123456789abcdef";
        let admin = derive_admin(root);
        for name in ["", "admin", "/v1", "cultivar-admin"] {
            assert_ne!(admin.secret_access_key, derive(root, name).secret_access_key, "{name:?}");
        }
        assert!(!admin.access_key_id.starts_with(NAMESPACE_PREFIX));
        assert!(!format!("{admin:?}").contains(&admin.secret_access_key));
    }

    #[test]
    fn a_root_key_loses_its_line_end_and_no_more() {
        assert_eq!(root_key(b"0123456789abcdef\r\n\n").unwrap(), b"0123456789abcdef");
        assert_eq!(root_key(b" 0123456789abcdef ").unwrap(), b" 0123456789abcdef ");
        assert_eq!(root_key(b"0123456789abcde\n"), Err(RootTooShort(15)));
        assert_eq!(root_key(b"\n"), Err(RootTooShort(0)));
    }

    #[test]
    fn namespaces_are_labels() {
        for good in ["a", "team-a", "0", &"x".repeat(63)] {
            assert!(is_namespace(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a/b", "..", "a.b", "A", "ä", &"x".repeat(64)] {
            assert!(!is_namespace(bad), "{bad}");
        }
    }
}
