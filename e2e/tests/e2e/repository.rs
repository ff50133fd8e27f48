//! A cluster that follows a repository: what commits, reverts and removed files come to.

use cultivar_e2e::error::Result;
use cultivar_e2e::gitops::follower::{Follow, Follower, Progress};
use cultivar_e2e::gitops::repository::Repository;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

use crate::ensure;
use crate::kit::{Case, LIMIT, condition, name, root, stage, with};
use crate::reuse::{digits, jobs_of};

fn repository(case: &Case) -> Result<Repository> {
    Repository::create(case.cluster().dir().join("repositories").join(&case.namespace))
}

fn follow(case: &Case, repository: &Repository, name: &str, folder: &str, prune: bool) -> Result<Follower> {
    let (name, folder, namespace) = (name.to_owned(), folder.to_owned(), case.namespace.clone());
    Follower::start(repository, case.cluster(), Follow { name, folder, namespace, prune })
}

/// Waits until the tool has made a round of the kind.
async fn reaches(follower: &Follower, what: &str, holds: impl Fn(&Progress) -> bool) -> Result<Progress> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let progress = follower.progress();
        if holds(&progress) {
            return Ok(progress);
        }
        ensure!(Instant::now() < deadline, "{what}: {progress:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn applied(follower: &Follower, commit: &str) -> Result<()> {
    let done = |progress: &Progress| progress.commit == commit && progress.refused.is_none();
    reaches(follower, &format!("commit {commit} is not applied"), done).await.map(drop)
}

async fn refused(follower: &Follower, commit: &str) -> Result<String> {
    let done = |progress: &Progress| progress.commit == commit && progress.refused.is_some();
    let progress = reaches(follower, &format!("commit {commit} is not refused"), done).await?;
    Ok(progress.refused.unwrap_or_default())
}

/// Some more rounds, in which the tool applies what is there already.
async fn rounds(follower: &Follower, more: u64) -> Result<()> {
    let goal = follower.progress().rounds + more;
    reaches(follower, "it makes no rounds", |progress| progress.rounds >= goal).await.map(drop)
}

async fn runs(case: &Case) -> Result<Vec<String>> {
    let mut names: Vec<String> = case.server.list("PipelineRun", &case.namespace, "").await?.iter().map(name).collect();
    names.sort();
    Ok(names)
}

fn manifest(case: &Case, name: &str, spec: &Value) -> Option<String> {
    Some(case.manifest("Pipeline", name, spec).to_string())
}

const DIGITS: &str = "apps/digits.yaml";

/// A commit runs what depends on what it changes, a revert nothing but what is wanted for its doing, `rerun` all; applying
/// again and again does nothing.
pub async fn a_commit_runs_what_depends_on_it(case: &Case) -> Result<()> {
    let repository = repository(case)?;
    let commit = repository.commit("Digits", &[(DIGITS, manifest(case, "digits", &digits(0.1, None)))])?;
    let tool = follow(case, &repository, "gitops", "apps", true)?;
    applied(&tool, &commit).await?;
    case.run_ends("digits-1", "Completed").await?;
    ensure!(jobs_of(case, "digits-1").await? == 4, "the first run has {} Jobs", jobs_of(case, "digits-1").await?);

    let commit = repository.commit("Faster", &[(DIGITS, manifest(case, "digits", &digits(0.2, None)))])?;
    applied(&tool, &commit).await?;
    case.run_ends("digits-2", "Completed").await?;
    ensure!(jobs_of(case, "digits-2").await? == 2, "train and tell run, not {} Jobs", jobs_of(case, "digits-2").await?);

    let commit = repository.revert()?;
    applied(&tool, &commit).await?;
    case.run_ends("digits-3", "Completed").await?;
    ensure!(jobs_of(case, "digits-3").await? == 1, "only tell runs, not {} Jobs", jobs_of(case, "digits-3").await?);

    let commit = repository.commit("Again", &[(DIGITS, manifest(case, "digits", &digits(0.1, Some("again"))))])?;
    applied(&tool, &commit).await?;
    case.run_ends("digits-4", "Completed").await?;
    ensure!(jobs_of(case, "digits-4").await? == 4, "rerun runs all, not {} Jobs", jobs_of(case, "digits-4").await?);

    let before = case.get("Pipeline", "digits").await?["metadata"]["generation"].clone();
    rounds(&tool, 5).await?;
    let pipeline = case.get("Pipeline", "digits").await?;
    ensure!(pipeline["metadata"]["generation"] == before, "it was changed: {}", pipeline["metadata"]);
    ensure!(runs(case).await?.len() == 4, "there are {:?}", runs(case).await?);
    Ok(())
}

/// A removed file takes its Pipeline away, and leaves what has been done; what runs on demand does not run by itself.
pub async fn a_removed_file_prunes_its_pipeline(case: &Case) -> Result<()> {
    let repository = repository(case)?;
    let one = |more: Value| with(json!({"stages": [stage("a", root(&[]))]}), more);
    let commit = repository.commit(
        "Two",
        &[
            (DIGITS, manifest(case, "digits", &one(json!({})))),
            ("apps/demand.yaml", manifest(case, "demand", &one(json!({"runOn": "Demand"})))),
        ],
    )?;
    let tool = follow(case, &repository, "gitops", "apps", true)?;
    applied(&tool, &commit).await?;
    let run = case.run_ends("digits-1", "Completed").await?;
    case.wait("Pipeline", "demand", |pipeline| condition(pipeline, "Ready")["status"] == "True").await?;

    let commit = repository.commit("One", &[(DIGITS, None)])?;
    applied(&tool, &commit).await?;
    case.wait("Pipeline", "digits", Value::is_null).await?;
    rounds(&tool, 2).await?;
    ensure!(case.get("PipelineRun", "digits-1").await?["status"] == run["status"], "its run was touched");
    ensure!(case.stage("digits-1", "a").await?["status"]["phase"] == "Completed", "its experiment is gone");
    ensure!(runs(case).await? == ["digits-1"], "what runs on demand has run: {:?}", runs(case).await?);
    Ok(())
}

/// A commit that cannot be is refused as a whole and says why; the cluster stays as it was, and takes the next one.
pub async fn a_wrong_commit_changes_nothing(case: &Case) -> Result<()> {
    let repository = repository(case)?;
    let one = |n: i32| json!({"stages": [stage("a", with(root(&[]), json!({"params": {"n": n}})))]});
    let commit = repository.commit("Right", &[(DIGITS, manifest(case, "digits", &one(1)))])?;
    let tool = follow(case, &repository, "gitops", "apps", true)?;
    applied(&tool, &commit).await?;
    case.run_ends("digits-1", "Completed").await?;
    let before = case.get("Pipeline", "digits").await?;

    // The first file of this commit would do.
    let twice = json!({"stages": [stage("a", root(&[])), stage("a", root(&[]))]});
    let files = [(DIGITS, manifest(case, "digits", &one(2))), ("apps/wrong.yaml", manifest(case, "wrong", &twice))];
    let commit = repository.commit("Wrong", &files)?;
    let why = refused(&tool, &commit).await?;
    ensure!(why.contains("spec.stages") && why.contains("duplicate entries for key [name=\"a\"]"), "{why}");
    rounds(&tool, 2).await?;
    let after = case.get("Pipeline", "digits").await?;
    ensure!(after["metadata"]["generation"] == before["metadata"]["generation"], "half of it was applied");
    ensure!(runs(case).await? == ["digits-1"], "there are {:?}", runs(case).await?);

    // What only the operator can tell, where no webhook asks it: nothing runs, and the Pipeline says why.
    let unknown = json!({"stages": [stage("a", with(root(&[]), json!({"args": ["${stages.b.metrics.acc.last}"]})))]});
    let files = [(DIGITS, manifest(case, "digits", &unknown)), ("apps/wrong.yaml", None)];
    let commit = repository.commit("Wrong still", &files)?;
    applied(&tool, &commit).await?;
    let told = case.wait("Pipeline", "digits", |pipeline| condition(pipeline, "Stalled")["status"] == "True").await?;
    let why = condition(&told, "Accepted")["message"].as_str().unwrap_or_default();
    ensure!(why.starts_with("spec.stages[0].args[0]"), "{why}");
    ensure!(runs(case).await? == ["digits-1"], "there are {:?}", runs(case).await?);

    let commit = repository.commit("Right again", &[(DIGITS, manifest(case, "digits", &one(3)))])?;
    applied(&tool, &commit).await?;
    case.run_ends("digits-2", "Completed").await?;
    let is_well = |pipeline: &Value| condition(pipeline, "Stalled").is_null();
    case.wait("Pipeline", "digits", is_well).await.map(drop)
}

/// Two tools that own different fields of one Pipeline do not fight, however often both apply.
pub async fn two_tools_do_not_fight(case: &Case) -> Result<()> {
    let repository = repository(case)?;
    let whole = json!({"params": {"lr": 0.1}, "stages": [stage("a", with(root(&[]), json!({"params": {"lr": "${pipeline.params.lr}"}})))]});
    let files = [
        (DIGITS, manifest(case, "digits", &whole)),
        (
            "tuning/digits.yaml",
            manifest(
                case,
                "digits",
                &json!({"params": {"epochs": 3}, "stages": [{"name": "a", "env": [{"name": "TUNED", "value": "yes"}]}]}),
            ),
        ),
    ];
    let commit = repository.commit("Both", &files)?;
    let one = follow(case, &repository, "one", "apps", true)?;
    applied(&one, &commit).await?;
    let two = follow(case, &repository, "two", "tuning", false)?;
    applied(&two, &commit).await?;
    let both = case.get("Pipeline", "digits").await?;
    ensure!(both["spec"]["params"] == json!({"lr": 0.1, "epochs": 3}), "{}", both["spec"]["params"]);
    let tuned = &both["spec"]["stages"][0];
    ensure!(tuned["env"][0]["name"] == "TUNED" && tuned["image"] == "train:1", "{tuned}");
    for tool in [&one, &two, &one, &two] {
        rounds(tool, 3).await?;
    }
    let after = case.get("Pipeline", "digits").await?;
    ensure!(after["metadata"]["generation"] == both["metadata"]["generation"], "they fight: {}", after["metadata"]);

    // Each goes on changing its own.
    let faster = with(whole.clone(), json!({"params": {"lr": 0.5}}));
    let commit = repository.commit("Faster", &[(DIGITS, manifest(case, "digits", &faster))])?;
    applied(&one, &commit).await?;
    applied(&two, &commit).await?;
    let after = case.get("Pipeline", "digits").await?;
    ensure!(after["spec"]["params"] == json!({"lr": 0.5, "epochs": 3}), "{}", after["spec"]["params"]);
    Ok(())
}
