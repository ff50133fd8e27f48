//! The data plane as deciding knows it: where artifacts go, who made which, and what a pod is given for it.

use jiff::Timestamp;
use std::collections::BTreeMap;

/// How an artifact store is reached, as pods are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreAccess {
    /// Bucket and prefix, such as `s3://cultivar`.
    pub url: String,
    /// Options by the keys of the crate object_store; no secrets.
    pub options: BTreeMap<String, String>,
    /// Secret in the experiment's namespace with more options.
    pub secret: Option<String>,
    /// Whether it is the operator's own store: then the operator makes that Secret.
    pub own: bool,
}

/// The stores that an experiment may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stores {
    /// The ArtifactStore that it names, or the namespace's default one, if that exists.
    pub named: Option<StoreAccess>,
    /// The operator's own.
    pub own: Option<StoreAccess>,
}

/// Who made an artifact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producer {
    /// The Experiment.
    pub experiment: String,
    /// The artifact's name.
    pub artifact: String,
    /// Digest of its content, where one is known.
    pub digest: Option<String>,
}

/// What a pod is given for the data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Equipment {
    /// Image that the runner is installed from.
    pub runner_image: String,
    /// Where what the run leaves goes; nothing: only the termination message is left.
    pub store: Option<StoreAccess>,
    /// By uri: digests of inputs that an experiment of the namespace made.
    pub digests: BTreeMap<String, String>,
}

/// A result that did not fit into the termination message: where all of it lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultAt {
    /// Number of the attempt.
    pub attempt: u32,
    /// Where.
    pub uri: String,
    /// `sha256:…` of its bytes.
    pub digest: String,
    /// How it is reached.
    pub store: Option<StoreAccess>,
}

/// Such a result as it was read, or why it could not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultRead {
    /// Number of the attempt.
    pub attempt: u32,
    /// The document, or why there is none.
    pub text: Result<String, String>,
    /// When it was read, or not.
    pub at: Timestamp,
    /// Since when it is being tried.
    pub since: Timestamp,
}
