//! `submit`: from a folder of this machine to a recorded run in the cluster.
//!
//! The code is packed by digest into the namespace's store, once, or named by its commit; values of the command become
//! params.

mod code;
mod defaults;
mod lift;

use cultivar_core::validate;
use cultivar_data::{Mover, pack_files};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::ExitCode;

use super::{assignments, fresh, run::make, valid};
use crate::args::Format;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::output;
use crate::store::{self, Operator};
use defaults::Defaults;
use lift::Lifted;

/// What an archive of code may have: more than that is data.
const MOST: u64 = 256 * 1024 * 1024;
/// Where the code is in the pod, and the program starts.
const SOURCE: &str = "/cultivar/source";

/// Run a command of this folder in the cluster.
///
/// The files that git tracks or does not ignore are packed and run there. Values such as --lr 0.1 become params, which a
/// clone can change. A .cultivar.yaml here or further up has defaults: namespace, image, gpu, queue, requirements, inputs,
/// outputs, env.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  kubectl cultivar submit --image python:3.13 --gpu 1 --follow -- python train.py --lr 0.1\n  kubectl cultivar submit --input data=prepare-7f3a/dataset --out model=model.pkl -- python train.py --data '${inputs.data.path}'"
)]
pub struct Submit {
    /// Name of the experiment; one is made up by default.
    #[arg(long)]
    name: Option<String>,
    /// Image that it runs in.
    #[arg(long)]
    image: Option<String>,
    /// GPUs of NVIDIA.
    #[arg(long)]
    gpu: Option<u32>,
    /// Queue that it waits in.
    #[arg(long)]
    queue: Option<String>,
    /// An input: name=experiment/artifact, or name=uri.
    #[arg(long = "input")]
    inputs: Vec<String>,
    /// An artifact that it leaves: name=path, from where the command starts, or only a name.
    #[arg(long = "out")]
    outputs: Vec<String>,
    /// An environment variable, name=value.
    #[arg(long)]
    env: Vec<String>,
    /// A parameter that the command does not have, name=value.
    #[arg(short, long = "param")]
    params: Vec<String>,
    /// A requirements file of pip, from the top of the code: what it names is installed first.
    #[arg(long)]
    requirements: Option<String>,
    /// Name the commit that is checked out instead of packing the files.
    #[arg(long)]
    git: bool,
    /// Secret of the namespace that the repository is read with.
    #[arg(long, requires = "git")]
    git_secret: Option<String>,
    /// Leave the command as it is.
    #[arg(long)]
    no_lift: bool,
    /// Print the manifest; nothing is sent.
    #[arg(long)]
    dry_run: bool,
    /// Wait until it has ended; the exit code says how.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    operator: Operator,
    /// The command, after --.
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

pub async fn submit(mut cluster: Cluster, named: bool, format: Option<Format>, asked: &Submit) -> Result<ExitCode> {
    let folder = std::env::current_dir().map_err(|error| Error::new("no current folder").why(error))?;
    let defaults = defaults::find(&folder)?;
    if let Some(namespace) = defaults.namespace.as_ref().filter(|_| !named) {
        cluster.namespace.clone_from(namespace);
    }
    let lifted = if asked.no_lift { lift::plain(&asked.command) } else { lift::lift(&asked.command) };
    let mut spec = spec(asked, &defaults, lifted)?;
    let below = if asked.git {
        let (git, below) = code::reference(&folder, asked.git_secret.as_deref())?;
        spec["source"]["git"] = git;
        below
    } else {
        let tree = code::tree(&folder)?;
        spec["source"]["packed"] = packed(&cluster, asked, &tree).await?;
        tree.below
    };
    place(&mut spec, &below);
    valid("the experiment", &validate::experiment(&spec))?;
    let name = asked.name.clone().unwrap_or_else(|| fresh(&base(&asked.command), 52));
    let manifest = cluster.manifest("Experiment", json!({"name": name}), spec);
    if asked.dry_run {
        print!("{}", output::yaml(&manifest)?);
        return Ok(ExitCode::SUCCESS);
    }
    make(&cluster, format, &manifest, &format!("experiment {name} is made"), asked.follow).await
}

// Packs the code and brings it into the store, unless it is there already.
async fn packed(cluster: &Cluster, asked: &Submit, tree: &code::Tree) -> Result<Value> {
    let folder = tempfile::tempdir().map_err(|error| Error::new("no temporary folder").why(error))?;
    let archive = folder.path().join("code.tar.gz");
    let digest = pack_files(&tree.top, &tree.files, &archive, MOST).map_err(|error| {
        Error::refused("the code cannot be packed").why(error).hint("what is not needed goes into .gitignore")
    })?;
    let digest = digest.ok_or_else(|| {
        let what = format!("the files of {} have more than {} MiB", tree.top.display(), MOST >> 20);
        Error::refused(what)
            .hint("data belongs into a store, given as --input; what is not needed goes into .gitignore")
    })?;
    let mut found = Map::from_iter([("digest".to_owned(), Value::from(digest.clone()))]);
    found.extend(tree.record.clone());
    let key = key(&cluster.namespace, &digest);
    if !asked.dry_run {
        store::prepare(cluster).await?;
    }
    let reached = store::reach(cluster, &asked.operator).await?;
    let store = reached.store()?;
    if !asked.dry_run && !store.exists(&key).await.map_err(store::failed)? {
        let uploaded = Mover::default().upload(&store, &key, &archive).await.map_err(store::failed)?;
        eprintln!("{} file(s), {} bytes packed, are in the store", tree.files.len(), uploaded.size);
    }
    found.insert("uri".to_owned(), store.uri(&key).into());
    Ok(found.into())
}

// Credentials of the operator's own store open what lies below the namespace's name.
fn key(namespace: &str, digest: &str) -> String {
    format!("{namespace}/code/{}.tar.gz", digest.replace(':', "/"))
}

fn spec(asked: &Submit, defaults: &Defaults, lifted: Lifted) -> Result<Value> {
    let image = asked.image.as_ref().or(defaults.image.as_ref()).ok_or_else(|| {
        Error::refused("which image does it run in?").hint("--image says so, or image in .cultivar.yaml")
    })?;
    let mut spec = json!({"image": image, "command": lifted.command});
    let mut params = lifted.params;
    for (name, value) in assignments(&asked.params)? {
        if params.insert(name.clone(), value).is_some() {
            let what = format!("{name} is a parameter of the command, and of --param");
            return Err(Error::refused(what).hint("give it once"));
        }
    }
    if !lifted.args.is_empty() {
        spec["args"] = json!(lifted.args);
    }
    if !params.is_empty() {
        spec["params"] = params.into();
    }
    if let Some(gpu) = asked.gpu.or(defaults.gpu).filter(|gpu| *gpu > 0) {
        spec["resources"] = json!({"limits": {"nvidia.com/gpu": gpu}});
    }
    if let Some(queue) = asked.queue.as_ref().or(defaults.queue.as_ref()) {
        spec["queue"] = queue.clone().into();
    }
    if let Some(requirements) = asked.requirements.as_ref().or(defaults.requirements.as_ref()) {
        spec["source"]["python"] = json!({"requirements": requirements});
    }
    let lists = [
        ("inputs", named(&defaults.inputs, &asked.inputs, input)?),
        ("outputs", named(&defaults.outputs, &asked.outputs, |name, path| Ok(artifact(name, path)))?),
        ("env", named(&defaults.env, &asked.env, |name, value| Ok(json!({"name": name, "value": value})))?),
    ];
    for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        spec[key] = list.into();
    }
    Ok(spec)
}

// A list by name: the file's, and those of the arguments instead of or after them.
fn named(
    defaults: &std::collections::BTreeMap<String, String>,
    given: &[String],
    read: impl Fn(&str, &str) -> Result<Value>,
) -> Result<Vec<Value>> {
    let mut all = defaults.clone();
    for text in given {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        all.insert(name.to_owned(), value.to_owned());
    }
    all.iter().map(|(name, value)| read(name, value)).collect()
}

fn input(name: &str, from: &str) -> Result<Value> {
    if from.contains("://") {
        return Ok(json!({"name": name, "uri": from}));
    }
    match from.split_once('/').filter(|(experiment, artifact)| !experiment.is_empty() && !artifact.is_empty()) {
        Some((experiment, artifact)) => Ok(json!({"name": name, "experiment": experiment, "artifact": artifact})),
        None => Err(Error::refused(format!("input {name}: {from:?} is neither experiment/artifact nor a uri"))
            .hint("such as --input data=prepare-7f3a/dataset or --input data=s3://lake/digits.npz")),
    }
}

fn artifact(name: &str, path: &str) -> Value {
    if path.is_empty() { json!({"name": name}) } else { json!({"name": name, "path": path}) }
}

// The folder that the command was typed in, and the paths that start from it.
fn place(spec: &mut Value, below: &str) {
    if !below.is_empty() {
        spec["source"]["subdirectory"] = below.into();
    }
    let start = Path::new(SOURCE).join(below);
    for output in spec["outputs"].as_array_mut().into_iter().flatten() {
        let path = output["path"].as_str().filter(|path| !path.starts_with(['/', '$']));
        if let Some(path) = path.map(|path| start.join(path.trim_start_matches("./"))) {
            output["path"] = path.to_string_lossy().into_owned().into();
        }
    }
}

// A name from that of the script.
fn base(command: &[String]) -> String {
    let words = lift::plain(command).command;
    let script = words.last().map(String::as_str).unwrap_or_default();
    let stem = Path::new(script).file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = name.trim_matches('-');
    if name.starts_with(|c: char| c.is_ascii_lowercase()) { name.to_owned() } else { format!("run-{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        submit: Submit,
    }

    fn asked(words: &str) -> Submit {
        Alone::try_parse_from(words.split(' ')).unwrap_or_else(|error| panic!("{error}")).submit
    }

    fn of(words: &str, defaults: &Defaults) -> Result<Value> {
        let asked = asked(words);
        spec(&asked, defaults, lift::lift(&asked.command))
    }

    #[test]
    fn a_submission_is_an_experiment_whose_values_can_be_changed() {
        let line = "submit --image a:1 --gpu 2 --queue q --input data=prep/data --out model=out/m.pkl --out log \
                    --env A=b=c -p seed=7 -- python train.py --lr 0.1";
        let mut found = of(line, &Defaults::default()).unwrap();
        place(&mut found, "src");
        let expected = json!({
            "image": "a:1", "command": ["python", "train.py"], "args": ["--lr", "${params.lr}"],
            "params": {"lr": 0.1, "seed": 7}, "queue": "q", "resources": {"limits": {"nvidia.com/gpu": 2}},
            "inputs": [{"name": "data", "experiment": "prep", "artifact": "data"}],
            "outputs": [{"name": "log"}, {"name": "model", "path": "/cultivar/source/src/out/m.pkl"}],
            "env": [{"name": "A", "value": "b=c"}], "source": {"subdirectory": "src"},
        });
        assert_eq!(found, expected);
        found["source"]["packed"] = json!({"uri": "s3://b/a.tar.gz", "digest": format!("sha256:{}", "0".repeat(64))});
        valid("the experiment", &validate::experiment(&found)).unwrap();
    }

    #[test]
    fn arguments_come_before_the_file_and_names_before_both() {
        let file = json!({"image": "file:1", "gpu": 1, "inputs": {"data": "s3://lake/a", "more": "s3://lake/b"}});
        let defaults: Defaults = serde_json::from_value(file).unwrap();
        let found = of("submit --gpu 0 --input data=prep/x -- ./train", &defaults).unwrap();
        assert_eq!((&found["image"], found.get("resources")), (&json!("file:1"), None));
        let inputs =
            json!([{"name": "data", "experiment": "prep", "artifact": "x"}, {"name": "more", "uri": "s3://lake/b"}]);
        assert_eq!(found["inputs"], inputs);
    }

    #[test]
    fn what_is_missing_or_said_twice_is_refused_with_what_to_do() {
        let refused = |words: &str, what: &str| {
            let error = of(words, &Defaults::default()).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        refused("submit -- ./train", "image in .cultivar.yaml");
        refused("submit --image a --input data -- ./train", "neither experiment/artifact nor a uri");
        refused("submit --image a -p lr=1 -- ./train --lr 2", "give it once");
    }

    #[test]
    fn a_name_and_a_key_come_from_the_script_and_the_digest() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let names = ["python -u src/Train_Digits.py --lr 1", "./1st", "python -m acme", "bash -c x"]
            .map(|line| base(&words(line)));
        assert_eq!(names, ["train-digits", "run-1st", "acme", "bash"]);
        assert_eq!(key("ns", "sha256:ab"), "ns/code/sha256/ab.tar.gz");
    }
}
