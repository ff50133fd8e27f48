//! `source`: the program's code, apart from the image that runs it.

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::schema;

/// The program's code, put into place before it starts. What fetched it last is what a retry and a clone run.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.git) || !has(self.packed)").message("the code comes from one place: git or packed"))]
#[x_kube(validation = Rule::new("!has(self.subdirectory) || !self.subdirectory.matches('(^|/)[.][.](/|$)')").message("subdirectory leads down from the top of the source: without ..").field_path(".subdirectory"))]
#[x_kube(validation = Rule::new("!has(self.path) || !self.path.matches('(^|/)[.][.](/|$)|^/+$')").message("path is a folder of its own for the source: absolute, without .., and not /").field_path(".path"))]
pub struct Source {
    /// A commit of a git repository. Submodules and what LFS keeps elsewhere are not fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<Git>,

    /// An archive or a folder in a store, as it was packed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<Packed>,

    /// A folder of the source in which the program starts; the top by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "relative")]
    pub subdirectory: Option<String>,

    /// Python packages that the code needs and the image does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<Python>,

    /// Where the source is put: an absolute path; `/cultivar/source` by default. The program starts there, unless
    /// `podTemplate` gives its container a `workingDir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::path")]
    pub path: Option<String>,
}

/// A commit of a git repository, fetched without its history.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.url) || self.url.matches('^(https?|ssh)://|^[$][{]|^[A-Za-z0-9._-]+@[A-Za-z0-9._-]+:.')").message("git is fetched over https://, http:// or ssh://").field_path(".url"))]
#[x_kube(validation = Rule::new("!has(self.url) || !self.url.matches('^https?://[^/]*@|^[a-z]+://[^/@]*:[^/@]*@')").message("user and password do not belong into the url, which everyone can read: put them into a Secret and name it in secret").field_path(".url"))]
pub struct Git {
    /// Address of the repository: `https://` or `http://`, without user and password; or `ssh://git@host:port/path`, also
    /// written as `git@host:path`, which needs a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub url: Option<String>,
    /// A branch, a tag, or a commit in full; a branch where both have the name. The branch that the repository's HEAD
    /// names by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 250))]
    pub revision: Option<String>,
    /// The commit that is fetched, in full, whatever `revision` has come to mean. Once an attempt has fetched the code,
    /// the frozen template holds its commit; a clone that overrides `url` or `revision` resolves them anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "commit")]
    pub commit: Option<String>,
    /// A Secret of the namespace with `username` and `password`, as of the type kubernetes.io/basic-auth; a token is a
    /// password. For ssh it has `ssh-privatekey`, as of the type kubernetes.io/ssh-auth, and beside it `known_hosts`, what
    /// `ssh-keyscan` prints of the server: one that does not stand there is not trusted. Keys are Ed25519 or ECDSA, without
    /// passphrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret: Option<String>,
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

/// Python packages, installed before the program starts, with the Python that the command names or the image has.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.requirements.matches('(^|/)[.][.](/|$)')").message("requirements leads down from the top of the source: without ..").field_path(".requirements"))]
pub struct Python {
    /// A requirements file of pip, as a path from the top of the source. What it names is installed with
    /// `python -m pip install --target` into a folder of the run, which PYTHONPATH and PATH then begin with; settings of
    /// pip, such as PIP_INDEX_URL, are those of `env`. Where there is a store, what one run has installed is kept for
    /// the namespace's next runs that ask for the same: the file and those that it names, of the same Python and the same
    /// index. So what the file does not pin stays as it was first installed, until the file changes.
    #[schemars(schema_with = "relative")]
    pub requirements: String,
}

/// A relative path in the source.
fn relative(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[^/]"})
}

/// A commit in full, or a reference to one.
fn commit(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 256, "pattern": "^([0-9a-f]{40}|[$][{].+[}])$"})
}

/// A digest, or a reference to one.
fn digest(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "maxLength": 256, "pattern": "^(sha256:[0-9a-f]{64}|[$][{].+[}])$"})
}
