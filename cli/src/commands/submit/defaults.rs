//! `.cultivar.yaml`: what a folder's submissions have in common, so that `submit -- python train.py` is enough; and what the
//! operator's chart says for everyone.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Api;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::files;

/// The file's name; the nearest one upwards counts.
const NAME: &str = ".cultivar.yaml";

/// What the arguments do not say.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    pub namespace: Option<String>,
    pub image: Option<String>,
    pub gpu: Option<u32>,
    pub queue: Option<String>,
    /// A requirements file of pip, from the top of the code.
    pub requirements: Option<String>,
    /// Name to `experiment/artifact` or a uri.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// Name to path.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// Where the chart has its defaults, in the operator's namespace.
const OF_THE_CHART: (&str, &str) = ("cultivar-submit", "defaults.yaml");

/// What the chart says. Where it says nothing, or whoever asks may not read it, there is nothing.
pub async fn of_the_chart(cluster: &Cluster, operator_namespace: &str) -> Result<Defaults> {
    let (name, key) = OF_THE_CHART;
    let found = Api::<ConfigMap>::namespaced(cluster.client.clone(), operator_namespace).get_opt(name).await;
    let Some(text) = found.ok().flatten().and_then(|found| found.data?.remove(key)) else {
        return Ok(Defaults::default());
    };
    serde_yaml::from_str(&text).map_err(|error| {
        let what = format!("{key} of ConfigMap {operator_namespace}/{name} cannot be read");
        Error::new(what).why(error).hint("is this program as new as the operator? the chart's submit.defaults makes it")
    })
}

impl Defaults {
    /// With what others say where this says nothing.
    pub fn or(self, others: Self) -> Self {
        // What comes later counts.
        let with =
            |own: BTreeMap<String, String>, others: BTreeMap<String, String>| others.into_iter().chain(own).collect();
        Self {
            namespace: self.namespace.or(others.namespace),
            image: self.image.or(others.image),
            gpu: self.gpu.or(others.gpu),
            queue: self.queue.or(others.queue),
            requirements: self.requirements.or(others.requirements),
            inputs: with(self.inputs, others.inputs),
            outputs: with(self.outputs, others.outputs),
            env: with(self.env, others.env),
        }
    }
}

/// Reads the nearest file upwards from a folder.
pub fn find(folder: &Path) -> Result<Defaults> {
    let Some(path) = folder.ancestors().map(|folder| folder.join(NAME)).find(|path| path.is_file()) else {
        return Ok(Defaults::default());
    };
    let path = path.to_string_lossy().into_owned();
    let Some(read) = files::read(&path)?.into_iter().next() else {
        return Ok(Defaults::default());
    };
    serde_json::from_value(read).map_err(|error| {
        let hint = "it has namespace, image, gpu, queue, requirements, inputs, outputs and env; values of env are text";
        Error::refused(format!("{path} cannot be read")).why(error).hint(hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_folder_does_not_say_is_said_for_everyone() {
        let read = |text: &str| serde_yaml::from_str::<Defaults>(text).unwrap();
        let found = read("{image: own, env: {A: a}}").or(read("{image: all, gpu: 2, env: {A: b, C: c}}"));
        assert_eq!(found, read("{image: own, gpu: 2, env: {A: a, C: c}}"));
    }

    #[test]
    fn the_nearest_file_upwards_counts_and_a_slip_in_it_is_named() {
        let top = tempfile::tempdir().unwrap();
        let below = top.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        assert_eq!(find(&below).unwrap(), Defaults::default());
        std::fs::write(top.path().join(NAME), "image: far\n").unwrap();
        std::fs::write(top.path().join("a").join(NAME), "image: near\ngpu: 2\ninputs: {data: prep/data}\n").unwrap();
        let found = find(&below).unwrap();
        assert_eq!(
            (found.image.as_deref(), found.gpu, found.inputs["data"].as_str()),
            (Some("near"), Some(2), "prep/data")
        );
        std::fs::write(below.join(NAME), "imge: x\n").unwrap();
        let error = find(&below).unwrap_err().to_string();
        assert!(error.contains("imge") && error.contains("requirements"), "{error}");
    }
}
