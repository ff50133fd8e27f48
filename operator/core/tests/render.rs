//! Rendering: golden manifests beside the cases in `cases/render`.
//!
//! Comes in: an experiment, pipeline or run in short. Goes out: the manifest, compared with the file
//! `<case>.golden.yaml`, which `UPDATE_GOLDEN=1` writes anew.

mod support;

use cultivar_core::decide::freeze::overrides;
use cultivar_core::decide::{NewRun, NewStage};
use cultivar_core::domain::queue::PodDefaults;
use cultivar_core::domain::{Equipment, Meta, Placement, StoreAccess, names};
use cultivar_core::render;
use cultivar_crds::{ClonedFrom, Reason};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

use support::{NAMESPACE, uid};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// An experiment whose Job is rendered: name, attempt, labels, template.
    job: Option<Job>,
    /// A stage whose Experiment is rendered.
    stage: Option<Stage>,
    /// A run of a pipeline.
    run: Option<Run>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    name: String,
    attempt: u32,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
    spec: Value,
    /// The runner's image and the store; nothing: the program runs as it is.
    equipment: Option<EquipmentInShort>,
    placement: Option<PlacementInShort>,
}

/// Where its queue admitted it to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlacementInShort {
    queue: String,
    flavor: String,
    node_selector: std::collections::BTreeMap<String, String>,
    tolerations: Vec<Value>,
    /// The queue's podTemplate, and whether it wins.
    pod: Option<(Value, bool)>,
}

impl PlacementInShort {
    fn placement(&self) -> Placement {
        Placement {
            queue: self.queue.as_str().into(),
            flavor: self.flavor.as_str().into(),
            since: "2026-11-23T10:00:00.25Z".parse().expect("a moment"),
            node_selector: self.node_selector.clone(),
            tolerations: self.tolerations.clone(),
            pod: self.pod.clone().map(|(patch, enforce)| std::sync::Arc::new(PodDefaults { patch, enforce })),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EquipmentInShort {
    runner_image: String,
    store: Option<String>,
    secret: Option<String>,
    #[serde(default)]
    digests: std::collections::BTreeMap<String, String>,
}

impl EquipmentInShort {
    fn equipment(&self) -> Equipment {
        let options = [("aws_endpoint".to_owned(), "http://store:9000".to_owned())];
        let store = self.store.clone().map(|url| StoreAccess {
            url,
            options: options.into(),
            secret: self.secret.clone(),
            own: false,
        });
        Equipment { runner_image: self.runner_image.clone(), store, digests: self.digests.clone() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stage {
    run: String,
    stage: String,
    pipeline: String,
    spec: Value,
    cloned_from: Option<ClonedFrom>,
    coordinates: Option<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    pipeline: String,
    revision: i64,
}

fn meta(name: &str) -> Meta {
    Meta { namespace: NAMESPACE.to_owned(), name: name.to_owned(), uid: uid(name), ..Meta::default() }
}

impl Case {
    fn manifest(&self) -> Value {
        if let Some(job) = &self.job {
            let experiment = Meta { labels: job.labels.clone(), ..meta(&job.name) };
            let equipment = job.equipment.as_ref().map(EquipmentInShort::equipment);
            let placement = job.placement.as_ref().map(PlacementInShort::placement);
            let job =
                render::job(&experiment, job.attempt, &overrides(&job.spec), equipment.as_ref(), placement.as_ref());
            return job.expect("it can be rendered");
        }
        if let Some(stage) = &self.stage {
            let new = NewStage {
                name: names::stage_experiment(&stage.run, &uid(&stage.run), &support::member(&stage.stage)),
                member: support::member(&stage.stage),
                coordinates: stage.coordinates.clone(),
                pipeline: stage.pipeline.clone(),
                spec: stage.spec.clone(),
                cloned_from: stage.cloned_from.clone(),
            };
            return render::stage(&meta(&stage.run), &new);
        }
        let run = self.run.as_ref().expect("a job, a stage or a run");
        let name = names::run(&run.pipeline, run.revision);
        render::run(
            &meta(&run.pipeline),
            &NewRun {
                name,
                revision: run.revision,
                digest: "v1:sha256:ab".to_owned(),
                generation: 3,
                rerun: None,
                refresh: false,
                owned: false,
                ttl: Some("30d".to_owned()),
            },
        )
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/render");
    let entries = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = entries.filter(|path| !path.to_string_lossy().ends_with(".golden.yaml")).collect();
    files.sort();
    files
}

fn case(path: &Path) -> Case {
    let text = std::fs::read_to_string(path).expect("a readable file");
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_manifest_is_as_agreed() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for path in files() {
        let manifest = case(&path).manifest();
        let golden = path.with_extension("golden.yaml");
        if update {
            std::fs::write(&golden, serde_yaml::to_string(&manifest).expect("YAML")).expect("a writable file");
        }
        let agreed = std::fs::read_to_string(&golden).unwrap_or_default();
        let agreed: Value = serde_yaml::from_str(&agreed).expect("YAML");
        if agreed != manifest {
            let text = serde_yaml::to_string(&manifest).expect("YAML");
            wrong.push(format!("{} should now be\n{text}", golden.display()));
        }
    }
    assert!(files().len() >= 10, "only {} cases were found", files().len());
    assert!(wrong.is_empty(), "UPDATE_GOLDEN=1 writes these, if they are right:\n{}", wrong.join("\n"));
}

// What holds for every Job, whatever is in its golden file.
#[test]
fn every_job_keeps_its_promises() {
    for path in files() {
        let case = case(&path);
        let Some(job) = &case.job else { continue };
        let manifest = case.manifest();
        let name = manifest["metadata"]["name"].as_str().expect("a name");
        assert!(name.len() <= 63, "{name}");
        for (key, value) in manifest["spec"]["template"]["metadata"]["labels"].as_object().expect("labels") {
            assert!(value.as_str().is_some_and(|value| value.len() <= 63), "{key}: {value}");
        }
        let pod = &manifest["spec"]["template"]["spec"];
        assert_eq!(pod["restartPolicy"], "Never", "{}", path.display());
        assert_eq!(manifest["spec"]["backoffLimit"], 0, "a failed pod is judged, not replaced");
        assert_eq!(manifest["spec"]["podReplacementPolicy"], "Failed");
        let main =
            pod["containers"].as_array().expect("containers").iter().find(|container| container["name"] == "main");
        let main = main.expect("the program's container");
        assert_eq!(main["terminationMessagePolicy"], "FallbackToLogsOnError");
        let equipment = job.equipment.as_ref().map(EquipmentInShort::equipment);
        let experiment = Meta { labels: job.labels.clone(), ..meta(&job.name) };
        let placement = job.placement.as_ref().map(PlacementInShort::placement);
        let again =
            render::job(&experiment, job.attempt, &overrides(&job.spec), equipment.as_ref(), placement.as_ref());
        assert_eq!(
            serde_json::to_string(&again.expect("rendered")).unwrap(),
            serde_json::to_string(&manifest).unwrap()
        );
    }
}

/// What the kubelet makes of a string in args or env: `$(NAME)` becomes the variable, `$$` becomes `$`.
fn kubelet(text: &str, variables: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.iter().find(|(known, _)| *known == name) {
                Some((_, value)) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

const HOSTILE: [&str; 12] = [
    "$(HOME)",
    "$$(HOME)",
    "$$",
    "$",
    "${params.other}",
    "${{",
    "$${x}",
    "a\"b'c\\",
    "two\nlines\ttab",
    "größe ✓ 🦀",
    "$(",
    ")$(HOME",
];

#[test]
fn values_arrive_byte_for_byte() {
    for text in HOSTILE {
        // A param's own text is the user's, so data reaches it as an outer reference would put it there.
        let escaped = cultivar_core::refs::escape(text);
        let template = json!({
            "image": "x",
            "params": {"text": escaped, "other": "secret"},
            "args": ["${params.text}", "--x=${params.text}", "pre ${params.text} post"],
            "env": [{"name": "X", "value": "${params.text}"}],
            "podTemplate": {"spec": {"containers": [{"name": "side", "image": "y", "args": ["${params.text}"]}]}},
        });
        let job = render::job(&meta("train"), 1, &template, None, None).expect("rendered");
        let pod = &job["spec"]["template"]["spec"];
        let find =
            |name: &str| pod["containers"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap().clone();
        let (main, side) = (find("main"), find("side"));
        let seen = |value: &Value| kubelet(value.as_str().expect("text"), &[("HOME", "/root")]);
        assert_eq!(seen(&main["args"][0]), text);
        assert_eq!(seen(&main["args"][1]), format!("--x={text}"));
        assert_eq!(seen(&main["args"][2]), format!("pre {text} post"));
        assert_eq!(seen(&side["args"][0]), text, "in a container of the patch");
        let env = |name: &str| {
            main["env"].as_array().unwrap().iter().find(|env| env["name"] == name).unwrap()["value"].clone()
        };
        assert_eq!(seen(&env("X")), text);
        let params: Value = serde_json::from_str(&seen(&env("CULTIVAR_PARAMS"))).expect("JSON");
        assert_eq!(params, json!({"text": text, "other": "secret"}));
    }
}

#[test]
fn what_the_user_wrote_keeps_the_meaning_that_kubernetes_gives_it() {
    let template = json!({"image": "x", "args": ["$(HOME)", "$$(HOME)", "$${HOME} ${HOME}"]});
    let job = render::job(&meta("train"), 1, &template, None, None).expect("rendered");
    let args = &job["spec"]["template"]["spec"]["containers"][0]["args"];
    assert_eq!(*args, json!(["$(HOME)", "$$(HOME)", "${HOME} ${HOME}"]));
}

#[test]
fn what_cannot_be_rendered_says_where() {
    let no = |template: Value| render::job(&meta("train"), 1, &template, None, None).expect_err("no Job");
    let error = no(json!({"image": "x", "args": ["a", "${params.nope}"], "params": {"lr": 1}}));
    assert_eq!(error.reason, Reason::ReferenceUnresolved);
    assert!(error.message.contains("spec.args[1]") && error.message.contains("lr"), "{error}");
    let error = no(json!({"image": "x", "params": {"a": "${params.b}", "b": "${params.a}"}}));
    assert_eq!(error.reason, Reason::ReferenceUnresolved);
    let error = no(json!({"image": "x", "params": {"a": "x".repeat(200_000)}}));
    assert_eq!(error.reason, Reason::InvalidTemplate);
    assert!(error.message.contains("CULTIVAR_PARAMS"), "{error}");
    let error =
        no(json!({"image": "x", "podTemplate": {"spec": {"containers": [{"name": "main", "$patch": "delete"}]}}}));
    assert_eq!(error.reason, Reason::InvalidTemplate);
    let error = no(json!({"image": "x", "args": ["${stages.a.experiment}"]}));
    assert_eq!(error.reason, Reason::ReferenceUnresolved);
}
