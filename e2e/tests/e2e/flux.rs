//! Flux itself as the tool that follows a repository.

use cultivar_e2e::error::Result;
use cultivar_e2e::gitops::flux::{Flux, NAME, revision};
use cultivar_e2e::gitops::repository::Repository;
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, condition, name, root, stage, with};
use crate::reuse::{digits, jobs_of};

const DIGITS: &str = "apps/digits.yaml";

fn manifest(case: &Case, name: &str, spec: &Value) -> Option<String> {
    Some(case.manifest("Pipeline", name, spec).to_string())
}

/// Waits until Flux is done with a commit.
async fn applied(case: &Case, commit: &str) -> Result<()> {
    let revision = revision(commit);
    let done = |flux: &Value| {
        condition(flux, "Ready")["status"] == "True" && flux["status"]["lastAppliedRevision"] == revision.as_str()
    };
    case.wait("Kustomization", NAME, done).await.map(drop)
}

/// Waits until Flux says of a commit why it cannot be.
async fn refused(case: &Case, commit: &str, words: &str) -> Result<()> {
    let revision = revision(commit);
    let told = |flux: &Value| {
        let ready = condition(flux, "Ready");
        ready["status"] == "False"
            && ready["message"].as_str().is_some_and(|why| why.contains(words))
            && flux["status"]["lastAttemptedRevision"] == revision.as_str()
    };
    case.wait("Kustomization", NAME, told).await.map(drop)
}

async fn runs(case: &Case) -> Result<Vec<String>> {
    let mut names: Vec<String> = case.server.list("PipelineRun", &case.namespace, "").await?.iter().map(name).collect();
    names.sort();
    Ok(names)
}

/// Flux is ready when the run of a commit is there, though it runs; a change and a revert run what they must; a wrong commit
/// is refused, or found to be stalled at once; a removed file prunes its Pipeline.
pub async fn flux_keeps_a_namespace_as_the_repository_says(case: &Case) -> Result<()> {
    let repository = Repository::create(case.cluster().dir().join("repositories").join(&case.namespace))?;
    let flux = Flux::start(&repository, case.cluster(), &case.namespace, "./apps")?;
    let push = |message: &str, files: &[(&str, Option<String>)]| {
        let commit = repository.commit(message, files)?;
        flux.publish(&repository, &commit)?;
        Ok(commit)
    };
    let long = json!({"runOn": "Change", "stages": [stage("a", root(&[("outcome", "hang")]))]});
    let files =
        [(DIGITS, manifest(case, "digits", &digits(0.1, None))), ("apps/long.yaml", manifest(case, "long", &long))];
    let commit = push("Two", &files)?;
    applied(case, &commit).await?;
    let run = case.get("PipelineRun", "long-1").await?;
    ensure!(condition(&run, "Complete").is_null() && condition(&run, "Failed").is_null(), "{}", run["status"]);
    case.run_ends("digits-1", "Completed").await?;

    let commit = push("Faster", &[(DIGITS, manifest(case, "digits", &digits(0.2, None)))])?;
    applied(case, &commit).await?;
    case.run_ends("digits-2", "Completed").await?;
    ensure!(jobs_of(case, "digits-2").await? == 2, "train and tell run, not {} Jobs", jobs_of(case, "digits-2").await?);
    let commit = repository.revert()?;
    flux.publish(&repository, &commit)?;
    applied(case, &commit).await?;
    case.run_ends("digits-3", "Completed").await?;
    ensure!(jobs_of(case, "digits-3").await? == 1, "only tell runs, not {} Jobs", jobs_of(case, "digits-3").await?);

    let good = case.get("Pipeline", "digits").await?["metadata"]["generation"].clone();
    let twice = json!({"stages": [stage("a", root(&[])), stage("a", root(&[]))]});
    let files =
        [(DIGITS, manifest(case, "digits", &digits(0.3, None))), ("apps/wrong.yaml", manifest(case, "wrong", &twice))];
    let commit = push("Wrong", &files)?;
    refused(case, &commit, ".spec.stages: duplicate entries for key [name=\"a\"]").await?;
    ensure!(case.get("Pipeline", "digits").await?["metadata"]["generation"] == good, "half of it was applied");

    // Flux waits for nothing that will not come.
    let unknown = json!({"stages": [stage("a", with(root(&[]), json!({"args": ["${stages.b.metrics.acc.last}"]})))]});
    let commit = push("Wrong still", &[(DIGITS, manifest(case, "digits", &unknown)), ("apps/wrong.yaml", None)])?;
    refused(case, &commit, "stalled resources: [Pipeline/").await?;

    let commit = push("One", &[(DIGITS, None)])?;
    applied(case, &commit).await?;
    case.wait("Pipeline", "digits", Value::is_null).await?;
    ensure!(runs(case).await? == ["digits-1", "digits-2", "digits-3", "long-1"], "{:?}", runs(case).await?);
    ensure!(case.stage("digits-1", "train").await?["status"]["phase"] == "Completed", "its experiments are gone");
    Ok(())
}
