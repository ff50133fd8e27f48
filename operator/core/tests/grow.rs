//! Growing a pipeline from experiments, planning it, exporting it: none of them changes what is done.

use cultivar_core::domain::{ExperimentRecord, Meta, PipelineRecord, Record, names};
use cultivar_core::dry_run::{Outcome, dry_run, sources};
use cultivar_core::grow::grow;
use cultivar_core::reuse::{digest_of_template, key};
use cultivar_core::{export, validate};
use cultivar_crds::{Artifact, ExperimentStatus, InputUsed, Phase, PhaseTimes};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

// An experiment that ran by hand; `reads`: inputs with the experiment that made them, `makes`: artifacts.
fn ran(
    name: &str,
    minute: u32,
    params: Value,
    reads: &[(&str, &ExperimentRecord)],
    makes: &[&str],
) -> ExperimentRecord {
    let meta = Meta { namespace: "vision".into(), name: name.into(), uid: format!("uid-{name}"), ..Meta::default() };
    let prefix = names::store_prefix(&meta);
    let mut template = json!({
        "image": format!("ghcr.io/acme/digits@sha256:{}", "7f".repeat(32)),
        "command": ["python", format!("{name}.py")], "args": ["--lr", "${params.lr}"], "params": params, "queue": "gpus",
    });
    let mut inputs = Vec::new();
    for (input, maker) in reads {
        let made = &maker.status.artifacts[0];
        let read = json!({"name": input, "uri": made.uri, "digest": made.digest});
        template["inputs"]
            .as_array_mut()
            .map(|list| list.push(read.clone()))
            .unwrap_or_else(|| template["inputs"] = json!([read]));
        inputs.push(InputUsed {
            name: (*input).into(),
            uri: made.uri.clone(),
            digest: made.digest.clone(),
            experiment: Some(maker.meta.name.clone()),
            artifact: Some(made.name.clone()),
            ..InputUsed::default()
        });
    }
    let artifact = |made: &&str| Artifact {
        name: (*made).into(),
        uri: format!("s3://lake/{prefix}/1/{made}"),
        digest: Some(format!("sha256:{}", "ab".repeat(32))),
        ..Artifact::default()
    };
    let status = ExperimentStatus {
        phase: Phase::Completed,
        digest: Some(digest_of_template(&template)),
        template: Some(std::sync::Arc::new(template)),
        artifacts: makes.iter().map(artifact).collect(),
        inputs,
        times: Some(PhaseTimes { finished: Some(format!("2023-01-01T00:{minute:02}:00Z")), ..PhaseTimes::default() }),
        ..ExperimentStatus::default()
    };
    Record { meta, status: Arc::new(status), ..Record::default() }
}

fn digits() -> Vec<Arc<ExperimentRecord>> {
    let prepare = ran("digits-prepare", 1, json!({"seed": 7, "lr": 0}), &[], &["data"]);
    let train = ran("digits-train", 2, json!({"seed": 7, "lr": 0.1}), &[("data", &prepare)], &["model"]);
    let evaluate = ran("digits-evaluate", 3, json!({"lr": 1}), &[("model", &train), ("data", &prepare)], &["report"]);
    let other = ran("elsewhere", 4, json!({}), &[], &["data"]);
    [prepare, train, evaluate, other].into_iter().map(Arc::new).collect()
}

fn grown(known: &[Arc<ExperimentRecord>]) -> Value {
    let by_name: BTreeMap<String, &ExperimentRecord> =
        known.iter().map(|record| (record.meta.name.clone(), &**record)).collect();
    grow(&["digits-evaluate".to_owned()], &by_name, true).unwrap().spec
}

fn pipeline(spec: &Value) -> PipelineRecord {
    let meta = Meta { namespace: "vision".into(), name: "digits".into(), generation: 1, ..Meta::default() };
    Record { meta, spec: Arc::new(spec.clone()), ..Record::default() }
}

fn outcomes(spec: &Value, known: &[Arc<ExperimentRecord>]) -> Vec<(String, Outcome, String)> {
    let planned = dry_run(&pipeline(spec), &json!({}), known, now()).unwrap();
    planned.into_iter().map(|planned| (planned.stage, planned.outcome, planned.why)).collect()
}

#[test]
fn what_made_the_inputs_becomes_the_stages_before() {
    let spec = grown(&digits());
    assert_eq!(
        spec,
        json!({
            "params": {"seed": 7},
            "stages": [
                {"name": "prepare", "from": {"experiment": "digits-prepare"}, "params": {"seed": "${pipeline.params.seed}"}},
                {"name": "train", "from": {"experiment": "digits-train"}, "params": {"seed": "${pipeline.params.seed}"},
                    "inputs": [{"name": "data", "uri": "${stages.prepare.artifacts.data.uri}"}]},
                {"name": "evaluate", "from": {"experiment": "digits-evaluate"}, "inputs": [
                    {"name": "model", "uri": "${stages.train.artifacts.model.uri}"},
                    {"name": "data", "uri": "${stages.prepare.artifacts.data.uri}"},
                ]},
            ],
        })
    );
    assert_eq!(validate::pipeline(&spec).refusal(), None);
}

// What compares two models that were trained by hand, and one from elsewhere.
fn compared() -> Vec<Arc<ExperimentRecord>> {
    let small = ran("digits-small", 1, json!({"lr": 0.1}), &[], &["model"]);
    let large = ran("digits-large", 2, json!({"lr": 0.2}), &[], &["model"]);
    let mut evaluate = ran("digits-evaluate", 3, json!({"lr": 1}), &[("0", &small), ("1", &large)], &["report"]);
    let status = Arc::make_mut(&mut evaluate.status);
    let uris = [&small.status.artifacts[0].uri, &large.status.artifacts[0].uri, "https://models.example/base"];
    let mut template = status.template.as_deref().unwrap().clone();
    template["inputs"] = json!([{"name": "models", "uris": uris}]);
    status.digest = Some(digest_of_template(&template));
    status.template = Some(Arc::new(template));
    for input in &mut status.inputs {
        input.name = format!("models/{}", input.name);
    }
    [small, large, evaluate].into_iter().map(Arc::new).collect()
}

#[test]
fn a_folder_of_what_several_made_needs_them_all() {
    let known = compared();
    let spec = grown(&known);
    let uris =
        ["${stages.small.artifacts.model.uri}", "${stages.large.artifacts.model.uri}", "https://models.example/base"];
    assert_eq!(spec["stages"][2]["inputs"], json!([{"name": "models", "uris": uris}]));
    assert_eq!(validate::pipeline(&spec).refusal(), None);
    // What is known of the two is known by itself; the third is named.
    let told = outcomes(&spec, &known);
    assert!(told[..2].iter().all(|(_, outcome, _)| *outcome == Outcome::Reused), "{told:?}");
    assert!(told[2].2.starts_with("inputs[models/2]: nothing is known"), "{told:?}");
}

#[test]
fn run_unchanged_every_stage_is_reused() {
    let known = digits();
    let told = outcomes(&grown(&known), &known);
    let expected = ["prepare", "train", "evaluate"]
        .map(|stage| (stage.to_owned(), Outcome::Reused, format!("from digits-{stage}")));
    assert_eq!(told, expected);
}

#[test]
fn a_change_runs_its_stage_and_those_after_it_follow() {
    let known = digits();
    let mut spec = grown(&known);
    spec["stages"][1]["params"]["lr"] = json!(0.2);
    let told = outcomes(&spec, &known);
    assert_eq!((told[0].1, told[1].1, told[2].1), (Outcome::Reused, Outcome::Runs, Outcome::Follows), "{told:?}");
    // Nothing of this pipeline has run yet; the next thing to compare with is what the stage is a clone of.
    assert_eq!(told[1].2, "params.lr: 0.2 here, 0.1 in digits-train");
    spec["stages"][0]["params"]["seed"] = json!(8);
    let told = outcomes(&spec, &known);
    assert_eq!((told[0].1, told[1].1), (Outcome::Runs, Outcome::Follows), "{told:?}");
    let anew = dry_run(&pipeline(&grown(&known)), &json!({"cache": "Refresh"}), &known, now()).unwrap();
    assert!(anew[0].outcome == Outcome::Runs && anew[0].why.contains("anew"), "{anew:?}");
}

// An experiment that ran by its tag, which stood for this digest.
fn ran_by_tag(name: &str, minute: u32, digest: &str) -> Arc<ExperimentRecord> {
    let mut record = ran(name, minute, json!({}), &[], &[]);
    let status = Arc::make_mut(&mut record.status);
    let image = format!("ghcr.io/acme/train:1@{digest}");
    let template = json!({"image": image});
    status.digest = Some(cultivar_core::reuse::digest_of_template(&template));
    status.template = Some(std::sync::Arc::new(template));
    Arc::new(record)
}

#[test]
fn an_exported_tag_is_named() {
    let spec = json!({
        "stages": [{"name": "a", "image": "busybox:1.37"}, {"name": "b", "image": "${pipeline.params.image}"}, {"name": "c", "gate": {}}],
        "finally": [{"name": "z", "image": "busybox:1.37"}, {"name": "y", "image": "curl@sha256:1"}],
    });
    assert_eq!(export::tags(&spec).into_iter().collect::<Vec<_>>(), ["busybox:1.37"]);
    assert_eq!(export::tags(&json!({"image": "train:1"})).len(), 1);
}

#[test]
fn a_tag_is_taken_for_what_it_was_and_that_is_said() {
    let spec = json!({"stages": [{"name": "train", "image": "ghcr.io/acme/train:1"}]});
    let told = outcomes(&spec, &[]);
    let unknown = "ghcr.io/acme/train:1 is looked up when the run begins; nothing here ran with it yet";
    assert_eq!(told, [("train".to_owned(), Outcome::Runs, unknown.to_owned())]);
    let known = [
        ran_by_tag("older", 1, &format!("sha256:{}", "0".repeat(64))),
        ran_by_tag("newer", 2, &format!("sha256:{}", "1".repeat(64))),
    ];
    let told = outcomes(&spec, &known);
    let same = "from newer; if ghcr.io/acme/train:1 is still the image that ran last";
    assert_eq!(told, [("train".to_owned(), Outcome::Reused, same.to_owned())]);
    let mut changed = spec;
    changed["stages"][0]["params"] = json!({"lr": 1});
    let told = outcomes(&changed, &known);
    assert_eq!(told[0].1, Outcome::Runs);
    assert!(told[0].2.ends_with("; if ghcr.io/acme/train:1 is still the image that ran last"), "{told:?}");
}

#[test]
fn faults_and_missing_sources_are_told() {
    let known = digits();
    let fault = dry_run(
        &pipeline(&json!({"stages": [{"name": "a", "image": "x", "args": ["${stages.b.uri}"]}]})),
        &json!({}),
        &known,
        now(),
    );
    assert!(fault.unwrap_err().contains("stages[0].args[0]"));
    let gone = json!({"stages": [{"name": "a", "from": {"experiment": "gone"}}]});
    let told = dry_run(&pipeline(&gone), &json!({}), &known, now()).unwrap_err();
    assert!(told.contains("experiment gone does not exist"), "{told}");
    let by_name: BTreeMap<String, &ExperimentRecord> = BTreeMap::new();
    assert_eq!(
        grow(&["gone".to_owned()], &by_name, true).unwrap_err(),
        "experiment gone does not exist in this namespace"
    );
}

#[test]
fn what_is_exported_does_the_same() {
    let known = digits();
    let spec = grown(&known);
    let inline = export::pipeline("digits", &spec, &sources(export::wanted(&spec), &known)).unwrap();
    assert_eq!(validate::pipeline(&inline).refusal(), None);
    assert!(!inline.to_string().contains("digits-train\"") && !inline.to_string().contains("queue"), "{inline}");
    for (stage, record) in inline["stages"].as_array().unwrap().iter().zip(&known) {
        assert_eq!(stage["image"], record.status.template.as_ref().unwrap()["image"]);
    }
    assert!(export::tags(&inline).is_empty(), "{:?}", export::tags(&inline));
    // In a cluster where the same has run it is all reused.
    let told = outcomes(&inline, &known);
    assert!(told.iter().all(|(_, outcome, _)| *outcome == Outcome::Reused), "{told:?}");
    let train = export::experiment(&known[1]).unwrap();
    assert_eq!(Some(key(&train, |_| None).digest()), known[1].status.digest);
    assert!(train.get("queue").is_none() && train["inputs"][0]["digest"].is_string(), "{train}");
}
