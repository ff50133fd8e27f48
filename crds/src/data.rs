//! What a program reads, leaves and goes on from: inputs, outputs, checkpoints.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Something that the program reads: fetched before it starts, and found at `${inputs.<name>.path}`.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.uri), has(self.uris), has(self.experiment)].exists_one(said, said)").message("say where it is: either uri, or uris, or experiment and artifact"))]
#[x_kube(validation = Rule::new("!has(self.uris) || !has(self.digest)").message("a digest is that of one uri"))]
#[x_kube(validation = Rule::new("has(self.experiment) == has(self.artifact)").message("experiment and artifact belong together"))]
pub struct Input {
    /// Name of the input, unique within the experiment.
    #[schemars(schema_with = "schema::part_name")]
    pub name: String,
    /// Where it is: `s3://`, `gs://`, `az://`, `http(s)://` or `file://` (in the pod); one that ends in `/` means
    /// everything below it. `pvc://claim/dir` is a folder or file in a PersistentVolumeClaim, mounted read-only and never
    /// copied. Or a reference to an artifact of another stage: `${stages.prepare.artifacts.dataset.uri}`. In a stage, what
    /// all members of a fan-out have made, or another list, becomes `uris`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub uri: Option<String>,
    /// The same of several, which make a folder: the program finds them at `${inputs.<name>.path}/0`, `/1` and so on. In a
    /// stage, one that is a list stands for all that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 4096)))]
    pub uris: Option<Vec<String>>,
    /// An Experiment of the same namespace that made it. It is waited for, at most `timeouts.template`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub experiment: Option<String>,
    /// The artifact of that Experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub artifact: Option<String>,
    /// Where the program finds it: an absolute path; `/cultivar/inputs/<name>` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::path")]
    pub path: Option<String>,
    /// `sha256:` and 64 hex digits. What is fetched must have it, or the attempt ends with InputCorrupt. Known by
    /// itself where an experiment of the namespace made the input. In a stage it may be a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::digest_or_reference")]
    pub digest: Option<String>,
    /// Whether it is a tar or tar.gz archive, of which `path` receives the contents; false by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpack: Option<bool>,
}

/// An artifact that the program must leave or report.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Name of the artifact, unique within the experiment.
    #[schemars(schema_with = "schema::part_name")]
    pub name: String,
    /// Where the program leaves it: a file, a folder, or a pattern with `*` and `?` in its last part. By default
    /// whatever lies under this name in `$CULTIVAR_OUTPUTS`, or the program reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::path")]
    pub path: Option<String>,
    /// Kind of the artifact, such as Model or Dataset; recorded where the program reports none.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub type_: Option<String>,
    /// Whether the run may end without it; false by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
    /// Whether it stays when the Experiment is deleted; by default as `artifacts` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<bool>,
    /// Where its uri and digest are written when the run has completed, for what serves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Publish>,
    /// Its content where the program left nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub default: Option<String>,
}

/// An entry of a ConfigMap in the same namespace that says where an artifact lies: JSON with `uri`, `digest`, `size` and
/// `experiment`. Other entries stay as they are. The ConfigMap is made where it is missing; one that is there must carry the
/// label `app.kubernetes.io/managed-by: cultivar`, so that nobody writes another's settings through an Experiment.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Publish {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub config_map: String,
    /// Key of the entry; the output's name by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::config_key")]
    pub key: Option<String>,
}

/// Where the first attempt starts from.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.uri) != has(self.experiment)").message("say where it is: either uri or experiment"))]
pub struct Restore {
    /// Where it lies: a file or folder in a store, or the `checkpoint.json` beside the checkpoints of an experiment.
    /// Without a scheme it is a key of the run's own store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub uri: Option<String>,
    /// An Experiment of the same namespace whose last checkpoint it is, however it ended; while it runs it is waited for,
    /// at most `timeouts.template`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub experiment: Option<String>,
}

/// What is saved while the program runs, for the next attempt to go on from.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// The file or folder in which the program keeps it. The next attempt finds it there again.
    #[schemars(schema_with = "schema::path")]
    pub path: String,
    /// How often it is saved, besides when the pod is told to end; 10m by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub every: Option<String>,
    /// Where the first attempt starts from, such as the last checkpoint of the experiment that this is a clone of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
}
