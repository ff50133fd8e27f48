//! What a directory is made of, and the digest of a directory.
//!
//! A directory in a store is its files under a prefix `P/` and, beside them, the object `P.manifest.json`. The digest of
//! the directory is the sha256 of the manifest's canonical bytes ([`DirectoryManifest::canonical`]), so a reader who
//! knows the digest checks the manifest, and with it every file.

use serde::{Deserialize, Serialize};

/// The files of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DirectoryManifest {
    /// [`crate::VERSION`].
    pub version: u32,
    /// Sorted by the bytes of their paths.
    pub files: Vec<ManifestFile>,
}

/// One file of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestFile {
    /// Relative to the directory, `/` between the parts.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// `sha256:` and 64 hex digits, of the file's bytes.
    pub digest: String,
}

/// Why a manifest is not used.
#[derive(Debug, thiserror::Error)]
pub enum BadManifest {
    /// Not JSON, or not of this shape.
    #[error("the manifest is not readable: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Written by something newer.
    #[error("the manifest has version {0}, and this program knows version 1; use a newer one")]
    Version(u32),
    /// A path that leaves the directory, or that is written twice.
    #[error("the manifest names the file {0:?}, which is no safe and unique relative path")]
    Path(String),
}

impl DirectoryManifest {
    /// A manifest of these files, in canonical order.
    #[must_use]
    pub fn new(mut files: Vec<ManifestFile>) -> Self {
        files.sort();
        Self { version: crate::VERSION, files }
    }

    /// The bytes that the directory's digest is taken of: JSON without white space, fields in the order of this type,
    /// files sorted by path.
    ///
    /// # Panics
    /// Never: the type has no map keys and no numbers that JSON cannot hold.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(&Self::new(self.files.clone())).unwrap_or_default()
    }

    /// The sum of the files' sizes, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }

    /// Reads a manifest that somebody else wrote. Its paths are safe to join to a directory afterwards.
    ///
    /// # Errors
    /// What is wrong with it; nothing of it may be used then.
    pub fn read(bytes: &[u8]) -> Result<Self, BadManifest> {
        let manifest: Self = serde_json::from_slice(bytes)?;
        if manifest.version != crate::VERSION {
            return Err(BadManifest::Version(manifest.version));
        }
        let mut seen = std::collections::BTreeSet::new();
        for file in &manifest.files {
            if !is_safe_relative(&file.path) || !seen.insert(&file.path) {
                return Err(BadManifest::Path(file.path.clone()));
            }
        }
        Ok(manifest)
    }
}

/// Whether a path stays below the directory it is joined to: parts that are neither empty, `.` nor `..`, no NUL, no
/// leading `/`, and no part over 255 bytes.
#[must_use]
pub fn is_safe_relative(path: &str) -> bool {
    path.len() <= 4096
        && !path.contains('\0')
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && part.len() <= 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_bytes_do_not_depend_on_order() {
        let file = |path: &str| ManifestFile { path: path.into(), size: 1, digest: "sha256:0".into() };
        let one = DirectoryManifest { version: 1, files: vec![file("b"), file("a/z")] };
        let other = DirectoryManifest::new(vec![file("a/z"), file("b")]);
        assert_eq!(one.canonical(), other.canonical());
        let text = String::from_utf8(other.canonical()).unwrap();
        assert_eq!(
            text,
            r#"{"version":1,"files":[{"path":"a/z","size":1,"digest":"sha256:0"},{"path":"b","size":1,"digest":"sha256:0"}]}"#
        );
        assert_eq!(DirectoryManifest::read(text.as_bytes()).unwrap(), other);
    }

    #[test]
    fn paths_that_leave_are_refused() {
        for path in ["../x", "/etc/passwd", "a/../../x", "a//b", "", "a/./b", "a/", "a\0b"] {
            assert!(!is_safe_relative(path), "{path:?}");
            let text = serde_json::json!({"version": 1, "files": [{"path": path, "size": 1, "digest": "d"}]});
            assert!(DirectoryManifest::read(text.to_string().as_bytes()).is_err(), "{path:?}");
        }
        assert!(is_safe_relative("ä/…/c.txt"));
    }
}
