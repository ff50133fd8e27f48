//! The store of a namespace, as whoever types the command reaches it: the ArtifactStore `default`, else the operator's own.

use cultivar_core::render::STORE_SECRET;
use cultivar_crds::ArtifactStoreSpec;
use cultivar_crds::artifact_store::DEFAULT_STORE;
use cultivar_data::{DataError, Store};
use cultivar_protocol::StoreSpec;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{Api, ListParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::commands::fresh;
use crate::error::{Error, Result};
use crate::forward::{self, Forward};

/// The bucket of the operator's own store, as the chart makes it.
const OWN: &str = "s3://cultivar";
/// How the store's Service is found.
const LABELS: &str = "app.kubernetes.io/name=cultivar,app.kubernetes.io/component=store";
/// The option that says where a store is reached.
const ENDPOINT: &str = "aws_endpoint";

/// Where the operator is.
#[derive(Default, clap::Args)]
pub struct Operator {
    /// Namespace of the operator, where its own store is.
    #[arg(long, env = "CULTIVAR_OPERATOR_NAMESPACE", default_value = "cultivar-system")]
    pub operator_namespace: String,
}

/// A store that is reached.
pub struct Reached {
    spec: StoreSpec,
    secrets: Option<tempfile::TempDir>,
    // The way to it, where it is in the cluster; it is open as long as this is there.
    _way: Option<Forward>,
}

impl Reached {
    /// The store itself.
    pub fn store(&self) -> Result<Store> {
        Store::open(&self.spec()).map_err(failed)
    }

    /// The store and the key of an object in it.
    pub fn of_object(&self, uri: &str) -> Result<(Store, String)> {
        if !uri.strip_prefix(self.spec.url.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/')) {
            let hint = format!("the namespace's store is {}; fetch it with the tools of its own store", self.spec.url);
            return Err(Error::refused(format!("{uri} lies in another store")).hint(hint));
        }
        Store::of_object(uri, Some(&self.spec())).map_err(failed)
    }

    fn spec(&self) -> StoreSpec {
        let dir = self.secrets.as_ref().map(|dir| dir.path().to_string_lossy().into_owned());
        StoreSpec { secret_dir: dir, ..self.spec.clone() }
    }
}

/// What a store answered.
pub fn failed(error: DataError) -> Error {
    Error::new("the store").why(error)
}

/// Reaches the namespace's store.
pub async fn reach(cluster: &Cluster, operator: &Operator) -> Result<Reached> {
    let (spec, secret) = match cluster.find("ArtifactStore", DEFAULT_STORE).await? {
        Some(object) => {
            let spec: ArtifactStoreSpec = serde_json::from_value(object["spec"].clone())
                .map_err(|error| Error::new("ArtifactStore default cannot be read").why(error))?;
            (StoreSpec { url: spec.url, options: spec.options, secret_dir: None }, spec.secret)
        }
        None => (own(cluster, &operator.operator_namespace).await?, Some(STORE_SECRET.to_owned())),
    };
    if spec.url.starts_with("file://") {
        let what = format!("the namespace's store {} is a folder of its pods", spec.url);
        return Err(
            Error::refused(what).hint("from here nothing gets there; --git names the code instead of packing it")
        );
    }
    let mut options = spec.options;
    let secrets = match secret {
        Some(name) => Some(secrets(cluster, &name, &mut options).await?),
        None => None,
    };
    let within = options.get(ENDPOINT).and_then(|endpoint| forward::service(endpoint));
    let way = match within {
        Some((namespace, name, port)) => {
            let way = forward::open(&cluster.client, &namespace, &name, port).await.map_err(|error| {
                error.hint("it needs the rights to get services and list pods there, and to create pods/portforward")
            })?;
            options.insert(ENDPOINT.to_owned(), format!("http://{}", way.address));
            options.insert("aws_allow_http".to_owned(), "true".to_owned());
            Some(way)
        }
        None => None,
    };
    Ok(Reached { spec: StoreSpec { url: spec.url, options, secret_dir: None }, secrets, _way: way })
}

/// How long the operator may take to make a namespace's credentials.
const SOON: Duration = Duration::from_secs(30);

/// Sees to it that a namespace where nothing has run yet has credentials of the operator's own store: the operator makes them
/// for the first experiment that it sees, so one that starts nothing is made for a moment.
pub async fn prepare(cluster: &Cluster) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    // Who may not look at it finds that out when it is read.
    let is_missing = async || matches!(secrets.get_opt(STORE_SECRET).await, Ok(None));
    if cluster.find("ArtifactStore", DEFAULT_STORE).await?.is_some() || !is_missing().await {
        return Ok(());
    }
    let name = fresh("store-credentials", 52);
    // What it waits for has a name that nobody can have made.
    let spec = json!({"from": {"experiment": format!("{name}-are-asked-for")}});
    cluster.create(&cluster.manifest("Experiment", json!({"name": name}), spec)).await?;
    let deadline = Instant::now() + SOON;
    while is_missing().await && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    cluster.delete("Experiment", &name).await
}

// The operator's own store by its Service.
async fn own(cluster: &Cluster, namespace: &str) -> Result<StoreSpec> {
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
    let hint = "make an ArtifactStore default in your namespace, or say where the operator is: --operator-namespace";
    let what = || format!("the operator's store is not found in namespace {namespace}");
    let found = services.list(&ListParams::default().labels(LABELS)).await;
    let found = found.map_err(|error| Error::of_server(what(), error).hint(hint))?;
    let port = |service: &Service| {
        let ports = service.spec.as_ref()?.ports.as_ref()?;
        ports.iter().find(|port| port.name.as_deref() == Some("s3")).map(|port| port.port)
    };
    let (name, port) = found
        .items
        .iter()
        .find_map(|service| Some((service.metadata.name.clone()?, port(service)?)))
        .ok_or_else(|| Error::not_found(what()).hint(hint))?;
    let options = [
        (ENDPOINT, format!("http://{name}.{namespace}.svc:{port}")),
        ("aws_region", "us-east-1".to_owned()),
        ("aws_allow_http", "true".to_owned()),
    ];
    let options = options.map(|(key, value)| (key.to_owned(), value));
    Ok(StoreSpec { url: OWN.to_owned(), options: BTreeMap::from(options), secret_dir: None })
}

// Into files that only this user reads: given like this they count alone, whatever the environment has. An endpoint among
// them is an option.
async fn secrets(cluster: &Cluster, name: &str, options: &mut BTreeMap<String, String>) -> Result<tempfile::TempDir> {
    let what =
        || format!("Secret {name} of namespace {}, with the store's credentials, cannot be read", cluster.namespace);
    let found = Api::<Secret>::namespaced(cluster.client.clone(), &cluster.namespace).get_opt(name).await;
    let found = found.map_err(|error| Error::of_server(what(), error))?.ok_or_else(|| {
        let error = Error::not_found(what()).why("it is not there");
        if name == STORE_SECRET {
            return error.hint("the operator makes it with the namespace's first experiment");
        }
        error.hint("make it, or correct ArtifactStore default")
    })?;
    let dir = tempfile::tempdir().map_err(|error| Error::new("no temporary folder").why(error))?;
    for (key, value) in found.data.unwrap_or_default() {
        if key == ENDPOINT {
            options.insert(key, String::from_utf8_lossy(&value.0).trim_end().to_owned());
            continue;
        }
        std::fs::write(dir.path().join(&key), &value.0)
            .map_err(|error| Error::new("no temporary file for the store's credentials").why(error))?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(url: &str) -> Reached {
        let spec = StoreSpec { url: url.to_owned(), ..StoreSpec::default() };
        Reached { spec, secrets: None, _way: None }
    }

    #[test]
    fn only_what_lies_in_the_store_is_opened_with_its_credentials() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        let store = reached(&url);
        assert!(store.of_object(&format!("{url}/ns/model.pkl")).is_ok());
        for other in [format!("{url}-other/model.pkl"), "s3://other/model.pkl".to_owned()] {
            let error = store.of_object(&other).err().unwrap().to_string();
            assert!(error.contains("lies in another store"), "{error}");
        }
    }
}
