//! What to run: from the operator to the runner.

use crate::duration::Span;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// One attempt of an experiment, as the runner needs to know it. Holds no secret: credentials are files, named by
/// [`StoreSpec::secret_dir`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunSpec {
    /// [`crate::VERSION`].
    pub version: u32,
    /// Whose run this is.
    pub experiment: ExperimentRef,
    /// From 1 on.
    pub attempt: u32,
    /// How many pods run the program together; one unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
    /// Which of them this is, from 0 on: what the Job says, in [`WORKER_ENV`]. The first reports for all.
    #[serde(skip)]
    pub worker: u32,
    /// The pipeline, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// The pipeline's run, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline_run: Option<String>,
    /// The stage, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Where everything goes that the run leaves. Without one only the termination message is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreSpec>,
    /// Key prefix of this experiment inside the store, without a slash at either end.
    #[serde(default)]
    pub prefix: String,
    /// The program's code, where it is not in the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<crate::Source>,
    /// What to fetch before the program starts.
    #[serde(default)]
    pub inputs: Vec<Input>,
    /// Folders that are there even if nothing is fetched into them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub folders: Vec<String>,
    /// What the program is expected to leave.
    #[serde(default)]
    pub outputs: Vec<Output>,
    /// `CULTIVAR_OUTPUTS` of the program: whatever lies directly in it is an output by its file name.
    #[serde(default = "outputs_dir")]
    pub outputs_dir: String,
    /// A folder of the runner's own, writable: metrics, spooled logs.
    #[serde(default = "run_dir")]
    pub run_dir: String,
    /// Where the result is written to.
    #[serde(default = "termination_log")]
    pub termination_log: String,
    /// What to keep between attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// How long a failed run's container stays, for a look inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_on_failure: Option<Span>,
    /// Folders to look for TensorBoard event files in.
    #[serde(default)]
    pub tensorboard: Vec<String>,
    /// The pod's grace period between SIGTERM and SIGKILL; 30 s unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Span>,
    /// The frozen template, for the record.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub template: Value,
    /// The parameters, for the record.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
}

/// The object in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExperimentRef {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
}

/// A store and how to open it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreSpec {
    /// `s3://bucket/prefix`, `gs://…`, `az://…`, `file:///folder`.
    pub url: String,
    /// Options by the keys of the `object_store` crate, such as `aws_endpoint`, `aws_region`, `aws_allow_http`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// A folder with one file per secret option; the file's name is the option's key, such as `aws_access_key_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_dir: Option<String>,
}

/// Something to fetch before the program starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// Its name.
    pub name: String,
    /// `s3://`, `gs://`, `az://`, `http(s)://`, `file://`; one that ends in `/` is a prefix.
    pub uri: String,
    /// Where it goes: a file's path, or a folder's for a prefix or what is unpacked.
    pub path: String,
    /// `sha256:…` of the file, or of the directory's manifest. Checked when given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Whether it is a tar or tar.gz archive that `path` receives the contents of.
    #[serde(default)]
    pub unpack: bool,
    /// How to open the store that the uri lives in, where it is not public and not the run's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreSpec>,
}

/// Something that the program is expected to leave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Its name; unique in the run.
    pub name: String,
    /// A file, a folder, or a pattern with `*` and `?` in its last part. Absent: whatever the program reports or leaves
    /// in its outputs folder under this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What it is, such as `Model`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// Whether the run is fine without it.
    #[serde(default)]
    pub optional: bool,
    /// The content it gets when the program left nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// A folder or file that is saved from time to time and given back to the next attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Where the program keeps it.
    pub path: String,
    /// How often it is saved.
    pub every: Span,
    /// What to start from when this experiment has saved none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<String>,
}

/// Why a spec cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum BadSpec {
    /// Not JSON, or not of this shape.
    #[error("the run's specification in {env} is not readable: {0}", env = crate::SPEC_ENV)]
    Unreadable(#[from] serde_json::Error),
    /// Written by something newer.
    #[error(
        "the run's specification has version {0}, and this runner knows version 1; operator and runner must come from the same release"
    )]
    Version(u32),
    /// A name that cannot be a part of a key.
    #[error(
        "{what} {name:?} cannot be used: a name has 1 to 200 bytes, no '/', no control character, and is not . or .."
    )]
    Name {
        /// What it names.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Two things of one name.
    #[error("{what} {name:?} is given twice")]
    Twice {
        /// What it names.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Code that would go elsewhere.
    #[error("the source's path {path:?} must be absolute, and {below:?} in it a relative path of plain parts")]
    Source {
        /// Where it goes.
        path: String,
        /// What is named in it.
        below: String,
    },
    /// A prefix that leaves its place.
    #[error("the prefix {0:?} is no relative path of plain parts")]
    Prefix(String),
}

impl RunSpec {
    /// Reads and checks a specification.
    ///
    /// # Errors
    /// What makes it unusable.
    pub fn read(text: &str) -> Result<Self, BadSpec> {
        let spec: Self = serde_json::from_str(text)?;
        if spec.version != crate::VERSION {
            return Err(BadSpec::Version(spec.version));
        }
        if !spec.prefix.is_empty() && !crate::is_safe_relative(&spec.prefix) {
            return Err(BadSpec::Prefix(spec.prefix));
        }
        if let Some(source) = &spec.source {
            check_source(source)?;
            if let Some(cache) = source.cache.as_ref().filter(|cache| !crate::is_safe_relative(cache)) {
                return Err(BadSpec::Prefix(cache.clone()));
            }
        }
        check_names("input", spec.inputs.iter().map(|input| input.name.as_str()), true)?;
        check_names("output", spec.outputs.iter().map(|output| output.name.as_str()), false)?;
        Ok(spec)
    }
}

fn check_source(source: &crate::Source) -> Result<(), BadSpec> {
    let absolute = source.path.strip_prefix('/').is_some_and(crate::is_safe_relative);
    let mut below = [&source.subdirectory, &source.requirements].into_iter().flatten();
    match below.find(|path| !crate::is_safe_relative(path)) {
        None if absolute => Ok(()),
        odd => Err(BadSpec::Source { path: source.path.clone(), below: odd.cloned().unwrap_or_default() }),
    }
}

// Of a folder of several the entries are named `models/0`, `models/1` and so on.
fn check_names<'a>(
    what: &'static str,
    names: impl Iterator<Item = &'a str>,
    may_be_in_folders: bool,
) -> Result<(), BadSpec> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        let entry = name.split_once('/').filter(|(_, number)| may_be_in_folders && number.parse::<u32>().is_ok());
        let part = entry.map_or(name, |(folder, _)| folder);
        let sound = crate::is_safe_relative(part) && !part.contains('/') && !part.contains(char::is_control);
        if !sound || name.len() > 200 {
            return Err(BadSpec::Name { what, name: name.to_owned() });
        }
        if !seen.insert(name) {
            return Err(BadSpec::Twice { what, name: name.to_owned() });
        }
    }
    Ok(())
}

fn outputs_dir() -> String {
    "/cultivar/outputs".to_owned()
}

fn run_dir() -> String {
    "/cultivar/run".to_owned()
}

fn termination_log() -> String {
    "/dev/termination-log".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = r#"{"version": 1, "experiment": {"name": "a", "namespace": "b", "uid": "c"}, "attempt": 1}"#;

    #[test]
    fn the_smallest_has_the_defaults_and_unknown_fields_are_ignored() {
        let spec = RunSpec::read(SMALLEST).unwrap();
        assert_eq!(spec.outputs_dir, "/cultivar/outputs");
        assert_eq!(spec.termination_log, "/dev/termination-log");
        let more = SMALLEST.replace("\"attempt\": 1", "\"attempt\": 1, \"future\": {\"x\": 1}");
        assert_eq!(RunSpec::read(&more).unwrap(), spec);
        assert_eq!(RunSpec::read(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
    }

    #[test]
    fn unusable_ones_say_why() {
        let with = |field: &str| SMALLEST.replace("\"attempt\": 1", &format!("\"attempt\": 1, {field}"));
        for (text, why) in [
            (SMALLEST.replace("\"version\": 1", "\"version\": 2"), "version 2"),
            (with(r#""outputs": [{"name": "../x"}]"#), "../x"),
            (with(r#""outputs": [{"name": "x"}, {"name": "x"}]"#), "twice"),
            (with(r#""inputs": [{"name": "a/b", "uri": "s3://x", "path": "/p"}]"#), "a/b"),
            (with(r#""inputs": [{"name": "../0", "uri": "s3://x", "path": "/p"}]"#), "../0"),
            (with(r#""outputs": [{"name": "a/0"}]"#), "a/0"),
            (with(r#""prefix": "../other""#), "../other"),
            (with(r#""keepOnFailure": "soon""#), "soon"),
            (
                with(r#""source": {"path": "/a/../b", "origin": {"packed": {"uri": "s3://x", "digest": "sha256:0"}}}"#),
                "/a/../b",
            ),
            (
                with(
                    r#""source": {"path": "/a", "subdirectory": "../b", "origin": {"packed": {"uri": "s3://x", "digest": "d"}}}"#,
                ),
                "../b",
            ),
            (
                with(
                    r#""source": {"path": "/a", "cache": "../c", "origin": {"packed": {"uri": "s3://x", "digest": "d"}}}"#,
                ),
                "../c",
            ),
        ] {
            assert!(RunSpec::read(&text).unwrap_err().to_string().contains(why), "{text}");
        }
    }
}
