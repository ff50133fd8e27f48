//! The samples, as they are applied.
//!
//! In: files of `config/samples`. Out: the same text, unless the cluster asks for something else: images under another
//! name, no GPU where there is none, and for simulated nodes the annotations that say how to play the program.

use std::fs;
use std::path::{Path, PathBuf};

use serde_yaml::{Mapping, Value};

use super::target::Target;
use crate::error::{Context as _, Result};
use crate::image::DIGITS;

/// The experiments, in the order in which they need each other.
pub const ROOTS: [&str; 3] = ["digits-prepare", "digits-train", "digits-evaluate"];
/// The stages of the pipeline.
pub const STAGES: [&str; 3] = ["prepare", "train", "evaluate"];
/// The pipeline.
pub const PIPELINE: &str = "digits";

/// What a simulated node reports in place of each program, as it was measured on a real one. The rest of the text is
/// references, which are resolved when the pod is made: artifacts are named after the run, and C decides.
const PLAYED: [(&str, &str, &str); 3] = [
    (
        "digits-prepare",
        "1.5s",
        r#"{"artifacts": [{"name": "dataset", "type": "Dataset", "uri": "s3://cultivar/cultivar-demo/${run.name}/digits.npz"}]}"#,
    ),
    (
        "digits-train",
        "2s",
        r#"{"metrics": {"SVC_score_x_val": ${= params.C < 10 ? 0.936508 : 0.97619 }}, "artifacts": [{"name": "model", "type": "Model", "uri": "s3://cultivar/cultivar-demo/${run.name}/model/"}]}"#,
    ),
    (
        "digits-evaluate",
        "1s",
        r#"{"metrics": {"acc": ${= run.name.startsWith("digits-2") ? 0.981481 : 0.95 }, "errors": ${= run.name.startsWith("digits-2") ? 10 : 27 }}}"#,
    ),
];

/// The path of a sample as a person types it from the root of the repository.
pub fn shown(name: &str) -> String {
    format!("config/samples/{name}.yaml")
}

/// A sample as it is written.
///
/// # Errors
/// It cannot be read.
pub fn text(name: &str) -> Result<String> {
    let path = repository().join(shown(name));
    fs::read_to_string(&path).doing(|| format!("cannot read {}", path.display()))
}

/// A sample as this cluster needs it.
///
/// # Errors
/// It cannot be read, or is not YAML.
pub fn fitted(name: &str, target: &Target, gpus: bool) -> Result<String> {
    let text = text(name)?;
    let image = target.image(DIGITS);
    let played = PLAYED.iter().find(|(root, ..)| *root == name && target.simulated());
    if image == DIGITS && gpus && played.is_none() {
        return Ok(text);
    }
    let mut object: Value = serde_yaml::from_str(&text).doing(|| format!("{} is not YAML", shown(name)))?;
    let spec = &mut object["spec"];
    if spec.get("image").is_some() {
        spec["image"] = image.into();
    }
    if !gpus && let Some(limits) = spec.get_mut("resources").and_then(|resources| resources.get_mut("limits")) {
        limits.as_mapping_mut().map(|limits| limits.remove("nvidia.com/gpu"));
    }
    if let Some((_, duration, message)) = played {
        let notes = [("sim/duration", *duration), ("sim/message", *message)];
        let notes: Mapping = notes.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        spec["podTemplate"]["metadata"]["annotations"] = Value::Mapping(notes);
    }
    serde_yaml::to_string(&object).doing(|| format!("cannot write {}", shown(name)))
}

/// The part of the pipeline's file that wires the stages, without comments.
///
/// # Errors
/// The file cannot be read.
pub fn wiring() -> Result<Vec<String>> {
    let text = text("digits-pipeline")?;
    let stages = text.lines().skip_while(|line| line.trim() != "stages:");
    Ok(stages.filter(|line| !line.trim_start().starts_with('#')).map(str::to_owned).collect())
}

/// The root of the repository that the demo was built in.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize as _;

    #[test]
    fn every_sample_is_kept_from_flux() {
        for file in fs::read_dir(repository().join("config/samples")).unwrap() {
            let path = file.unwrap().path();
            for document in serde_yaml::Deserializer::from_str(&fs::read_to_string(&path).unwrap()) {
                let object = Value::deserialize(document).unwrap();
                let note = &object["metadata"]["annotations"]["kustomize.toolkit.fluxcd.io/substitute"];
                assert_eq!(note.as_str(), Some("disabled"), "{}", path.display());
            }
        }
    }

    #[test]
    fn a_cluster_without_gpus_gets_samples_without() {
        let target = Target::Own {
            context: "x".into(),
            kubectl: "kubectl".into(),
            helm: "helm".into(),
            repository: Some("registry.example.com/me".into()),
        };
        let text = fitted("digits-train", &target, false).unwrap();
        assert!(
            text.contains("image: registry.example.com/me/digits:1\n") && !text.contains("nvidia.com/gpu"),
            "{text}"
        );
    }
}
