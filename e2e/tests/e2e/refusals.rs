//! What is refused, where, and whether the words help. The operator runs without its webhook here: what the schema does
//! not catch must come out as a condition.

use cultivar_e2e::error::{Error, Result};
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, condition, root, stage, with};

async fn refused(case: &Case, kind: &str, spec: Value, words: &[&str]) -> Result<()> {
    match case.server.create(&case.manifest(kind, "refused", &spec)).await {
        Ok(_) => Err(Error::new(format!("the API server took {kind} {spec:.200}"))),
        Err(error) => {
            let text = error.to_string();
            ensure!(words.iter().all(|word| text.contains(word)), "{words:?} is not in: {text:.1000}");
            Ok(())
        }
    }
}

/// A stage that needs itself, directly or around a corner: not accepted, with the path; nothing runs.
pub async fn a_pipeline_that_refers_to_itself_is_not_accepted(case: &Case) -> Result<()> {
    let direct = json!({"stages": [stage("a", with(root(&[]), json!({"args": ["${stages.a.artifacts.x.uri}"]})))]});
    let around = json!({"stages": [
        stage("a", with(root(&[]), json!({"after": [{"stage": "b"}]}))),
        stage("b", with(root(&[]), json!({"args": ["${stages.a.artifacts.x.uri}"]}))),
    ]});
    let unknown =
        json!({"stages": [stage("a", with(root(&[]), json!({"args": ["${stages.nobody.artifacts.x.uri}"]})))]});
    for (name, spec, word) in
        [("direct", direct, "stages"), ("around", around, "stages"), ("unknown", unknown, "nobody")]
    {
        case.pipeline(name, spec).await?;
        let pipeline = case.wait("Pipeline", name, |object| condition(object, "Accepted")["status"] == "False").await?;
        let message = condition(&pipeline, "Accepted")["message"].as_str().unwrap_or_default().to_owned();
        ensure!(message.contains("spec.stages[") && message.contains(word), "{name}: {message}");
        ensure!(condition(&pipeline, "Ready")["status"] == "False", "{name}: {}", pipeline["status"]);
    }
    let runs = case.server.list("PipelineRun", &case.namespace, "").await?;
    ensure!(runs.is_empty(), "{} runs of pipelines that are not accepted", runs.len());
    // The pipeline is mended by an edit, and goes on.
    case.pipeline("direct", json!({"stages": [stage("a", root(&[]))]})).await?;
    case.run_ends("direct-1", "Completed").await.map(drop)
}

/// Far too much: refused by the API server; more than a template may have: refused by the operator, in words.
pub async fn two_megabytes_are_refused(case: &Case) -> Result<()> {
    let huge = with(root(&[]), json!({"params": {"data": "x".repeat(2 << 20)}}));
    let Err(refusal) = case.experiment("huge", huge).await else {
        return Err(Error::new("the API server took 2 MB"));
    };
    let words = refusal.to_string();
    ensure!(words.contains("too large") || words.contains("larger than max"), "{words:.500}");
    let large = with(root(&[]), json!({"params": {"data": "x".repeat(300 << 10)}}));
    case.experiment("large", large).await?;
    let failed = case.ends("large", "Failed").await?;
    let message = failed["status"]["message"].as_str().unwrap_or_default();
    ensure!(failed["status"]["reason"] == "InvalidTemplate" && message.contains("262144"), "{message}");
    Ok(())
}

/// The schema's own refusals: each names the field.
pub async fn what_the_schema_forbids_is_named_with_its_path(case: &Case) -> Result<()> {
    refused(case, "Experiment", json!({"params": {"a": 1}}), &["image", "from"]).await?;
    refused(
        case,
        "Experiment",
        json!({"from": {"experiment": "a", "selector": {"matchLabels": {"a": "b"}}}}),
        &["spec.from", "either"],
    )
    .await?;
    refused(case, "Experiment", json!({"image": "a:1", "timeouts": {"run": "soon"}}), &["spec.timeouts.run"]).await?;
    refused(case, "Experiment", json!({"image": "a:1", "retries": {"limit": -1}}), &["spec.retries.limit"]).await?;
    refused(case, "Experiment", json!({"image": "a:1", "args": [1]}), &["spec.args[0]"]).await?;
    sources(case).await?;
    refused(case, "Pipeline", json!({"stages": []}), &["spec.stages"]).await?;
    let twice = json!({"stages": [stage("a", root(&[])), stage("a", root(&[]))]});
    refused(case, "Pipeline", twice, &["spec.stages[1]", "Duplicate"]).await?;
    let many: Vec<Value> = (0..101).map(|index| stage(&format!("s{index}"), root(&[]))).collect();
    refused(case, "Pipeline", json!({"stages": many}), &["spec.stages", "100"]).await
}

// Code that cannot be fetched, or would go elsewhere, or would show a password to everyone.
async fn sources(case: &Case) -> Result<()> {
    let git = |url: &str| json!({"git": {"url": url}});
    let https = || git("https://example.org/a");
    let packed = |uri: &str, remote: &str| json!({"packed": {"uri": uri, "digest": format!("sha256:{}", "0".repeat(64)), "remote": remote}});
    let with_path = |path: &str| with(https(), json!({"path": path}));
    for (source, words) in [
        (git("file:///etc"), &["spec.source.git.url", "https://, http:// or ssh://"][..]),
        (git("/srv/code"), &["spec.source.git.url", "https://, http:// or ssh://"]),
        (git("ssh://me:word@example.org/a"), &["spec.source.git.url", "secret"]),
        (git("https://me:word@example.org/a"), &["spec.source.git.url", "secret"]),
        (json!({"git": {"url": "https://example.org/a", "commit": "abc"}}), &["spec.source.git.commit"]),
        (with(https(), packed("s3://a/b", "x")), &["spec.source", "git or packed"]),
        (with(https(), json!({"subdirectory": "a/../../b"})), &["spec.source.subdirectory", "without .."]),
        (with(https(), json!({"subdirectory": "/a"})), &["spec.source.subdirectory"]),
        (with(https(), json!({"python": {"requirements": "../r.txt"}})), &["spec.source.python.requirements"]),
        (with_path("/a/../b"), &["spec.source.path", "absolute"]),
        (with_path("/"), &["spec.source.path", "absolute"]),
        (packed("pvc://claim/code", "x"), &["spec.source.packed.uri", "not a claim"]),
        (packed("s3://a/b", "https://token@example.org/a"), &["spec.source.packed.remote", "leave user"]),
        (json!({"packed": {"uri": "s3://a/b"}}), &["spec.source.packed.digest"]),
    ] {
        refused(case, "Experiment", json!({"image": "a:1", "command": ["a"], "source": source}), words).await?;
    }
    Ok(())
}

/// A Queue whose numbers contradict each other is refused, with the field.
pub async fn a_queue_whose_numbers_do_not_fit_is_refused(case: &Case) -> Result<()> {
    let share = |share: Value| json!({"resources": {"nvidia.com/gpu": share}});
    let flavor = json!([{"name": "a100", "resources": {"nvidia.com/gpu": {"quota": 1}}}]);
    for (spec, words) in [
        (share(json!({"quota": 2, "reserved": 3})), &["spec.resources", "reserved is a part of quota"][..]),
        (share(json!({"quota": "1500m", "cap": "1"})), &["spec.resources", "cap includes quota"]),
        (share(json!({"reserved": 1})), &["spec.resources", "quota"]),
        (share(json!({"quota": -1})), &["spec.resources", "quota"]),
        (share(json!({"quota": "lots"})), &["spec.resources", "quota"]),
        (with(share(json!({"quota": 1})), json!({"flavors": flavor})), &["spec", "either resources, or flavors"]),
        (json!({"cohort": "gpus"}), &["spec", "either resources, or flavors"]),
        (with(share(json!({"quota": 1})), json!({"stop": "Off"})), &["spec.stop"]),
        (with(share(json!({"quota": 1})), json!({"weight": 0})), &["spec.weight"]),
    ] {
        let manifest = json!({"apiVersion": "cultivar.dev/v1alpha1", "kind": "Queue", "metadata": {"name": "refused"}, "spec": spec});
        match case.server.create(&manifest).await {
            Ok(object) => {
                case.server.delete("Queue", "", "refused").await?;
                return Err(Error::new(format!("it was taken: {object}")));
            }
            Err(error) => {
                let text = error.to_string();
                ensure!(words.iter().all(|word| text.contains(word)), "{text}: without {words:?}");
            }
        }
    }
    Ok(())
}
