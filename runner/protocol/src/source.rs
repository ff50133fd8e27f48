//! The program's code: where the runner gets it from, and where it goes.

use serde::{Deserialize, Serialize};

/// The program's code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Where it is fetched from.
    pub origin: Origin,
    /// The folder that receives it: an absolute path.
    pub path: String,
    /// A folder in it, as a relative path of plain parts; the program starts there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdirectory: Option<String>,
    /// A requirements file of pip in it, as a relative path of plain parts from `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requirements: Option<String>,
    /// Key prefix in the run's store, without a slash at either end, where installed requirements are kept for the next
    /// run that asks for the same. Without one each run installs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// Whether the program starts in it; false: where its container says.
    #[serde(default)]
    pub enter: bool,
}

/// Where code is fetched from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// A commit of a repository.
    Git(Git),
    /// An artifact.
    Packed(Packed),
}

/// A commit of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Git {
    /// `https://` or `http://`, without user and password; `ssh://user@host:port/path` or `user@host:path`.
    pub url: String,
    /// A branch, a tag, or a commit in full; the repository's HEAD unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The commit in full; it comes before the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// A folder with the files `username` and `password`; for ssh `ssh-privatekey` and `known_hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_dir: Option<String>,
}

/// A tar or tar.gz archive, or a directory with a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Packed {
    /// Where it lies; a directory's may end in `/`.
    pub uri: String,
    /// `sha256:…` of the archive, or of the directory's manifest.
    pub digest: String,
    /// The repository that it was packed from, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// The commit that it was packed at, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whether it differs from that commit, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty: Option<bool>,
}
