//! `source`: the program's code, apart from the image that runs it.

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::schema;

/// The program's code, put into place before it starts. What fetched it last is what a retry and a clone run.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.subdirectory) || !self.subdirectory.matches('(^|/)[.][.](/|$)')").message("subdirectory leads down from the top of the source: without ..").field_path(".subdirectory"))]
#[x_kube(validation = Rule::new("!has(self.path) || !self.path.matches('(^|/)[.][.](/|$)|^/+$')").message("path is a folder of its own for the source: absolute, without .., and not /").field_path(".path"))]
pub struct Source {
    /// An archive or a folder in a store, as it was packed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<Packed>,

    /// A folder of the source in which the program starts; the top by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "relative")]
    pub subdirectory: Option<String>,

    /// Where the source is put: an absolute path; `/cultivar/source` by default. The program starts there, unless
    /// `podTemplate` gives its container a `workingDir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::path")]
    pub path: Option<String>,
}

/// Code that was packed into one artifact, and where it came from.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.remote) || !self.remote.matches('^https?://[^/]*@|^[a-z+]+://[^/@]*:[^/@]*@')").message("remote is recorded for everyone to read: leave user and password out").field_path(".remote"))]
#[x_kube(validation = Rule::new("!self.uri.startsWith('pvc://')").message("what is packed is fetched: name an object in a store or a http(s) address, not a claim").field_path(".uri"))]
pub struct Packed {
    /// Where it is: `s3://`, `gs://`, `az://`, `http(s)://` or `file://` (in the pod). A tar or tar.gz archive, which is
    /// unpacked; or a folder in a store, when it ends in `/` or its digest is that of a folder's manifest.
    #[schemars(length(min = 1, max = 4096))]
    pub uri: String,
    /// `sha256:` and 64 hex digits. What is fetched must have it, or the attempt ends with InputCorrupt.
    #[schemars(schema_with = "digest")]
    pub digest: String,
    /// The repository that it was packed from, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub remote: Option<String>,
    /// The commit that it was packed at, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub commit: Option<String>,
    /// Whether it differs from that commit, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty: Option<bool>,
}

/// A relative path in the source.
fn relative(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[^/]"})
}

/// A digest, or a reference to one.
fn digest(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 256, "pattern": "^(sha256:[0-9a-f]{64}|[$][{].+[}])$"})
}
