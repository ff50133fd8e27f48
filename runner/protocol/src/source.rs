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
    /// Whether the program starts in it; false: where its container says.
    #[serde(default)]
    pub enter: bool,
}

/// Where code is fetched from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// An artifact.
    Packed(Packed),
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
