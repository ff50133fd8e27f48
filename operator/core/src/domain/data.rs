//! The data plane as deciding knows it: where artifacts go, who made which, and what a pod is given for it.

use cultivar_crds::Artifact;
use std::collections::BTreeMap;

use super::{ExperimentRecord, names};

/// How an artifact store is reached, as pods are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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

impl Producer {
    /// Who made an artifact, as an experiment that has it tells.
    #[must_use]
    pub fn of(record: &ExperimentRecord, artifact: &Artifact) -> Self {
        // What lies elsewhere may be written anew by others; what the runner left here is its maker's for good.
        let own = || artifact.uri.contains(&format!("/{}/", names::store_prefix(&record.meta)));
        let traced = record.status.reused_from.is_some() || own();
        Self {
            experiment: record.meta.name.clone(),
            artifact: artifact.name.clone(),
            digest: artifact.digest.clone().filter(|_| traced),
        }
    }
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

impl StoreAccess {
    /// Whether a uri lies in it.
    #[must_use]
    pub fn holds(&self, uri: &str) -> bool {
        uri.strip_prefix(self.url.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
    }

    /// The uri of a key.
    #[must_use]
    pub fn uri_of(&self, key: &str) -> String {
        format!("{}/{key}", self.url.trim_end_matches('/'))
    }
}

impl Stores {
    /// The store that a uri lies in.
    #[must_use]
    pub fn of(&self, uri: &str) -> Option<&StoreAccess> {
        self.named.iter().chain(&self.own).find(|store| store.holds(uri))
    }

    /// The store that what an experiment leaves goes to.
    #[must_use]
    pub fn target(&self) -> Option<&StoreAccess> {
        self.named.as_ref().or(self.own.as_ref())
    }
}
