//! `.cultivar.yaml`: what a folder's submissions have in common, so that `submit -- python train.py` is enough.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

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
