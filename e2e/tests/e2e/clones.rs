//! Clones: whose copy, what is overridden, what is waited for, what is frozen.

use cultivar_e2e::error::Result;
use serde_json::json;

use crate::ensure;
use crate::kit::{Case, LIMIT, played, root, with};

/// A chain a → b → c: each knows its source exactly, also when the source is gone; overrides reach the program.
pub async fn a_chain_of_clones_knows_whose_copy_each_is(case: &Case) -> Result<()> {
    let spec = with(root(&[]), json!({"params": {"lr": 0.1, "epochs": 3}, "args": ["--lr", "${params.lr}"]}));
    let a = case.completed("a", spec).await?;
    let b = case.completed("b", json!({"from": {"experiment": "a"}, "params": {"lr": 0.2}})).await?;
    let c = case.completed("c", json!({"from": {"experiment": "b"}, "params": {"epochs": 5}})).await?;
    for (clone, source) in [(&b, &a), (&c, &b)] {
        let expected = json!({
            "name": source["metadata"]["name"], "uid": source["metadata"]["uid"], "digest": source["status"]["digest"],
        });
        ensure!(
            clone["status"]["clonedFrom"] == expected,
            "clonedFrom is {}, not {expected}",
            clone["status"]["clonedFrom"]
        );
    }
    ensure!(c["status"]["template"]["params"] == json!({"lr": 0.2, "epochs": 5}), "{}", c["status"]["template"]);
    let jobs = case.server.list("Job", &case.namespace, "cultivar.dev/experiment=c").await?;
    let args = &jobs[0]["spec"]["template"]["spec"]["containers"][0]["args"];
    ensure!(*args == json!(["--lr", "0.2"]), "the program's args are {args}");
    case.server.delete("Experiment", &case.namespace, "a").await?;
    case.wait("Experiment", "a", serde_json::Value::is_null).await?;
    let after = case.get("Experiment", "b").await?;
    ensure!(after["status"]["clonedFrom"] == b["status"]["clonedFrom"], "deleting the source changed the clone");
    case.completed("d", json!({"from": {"experiment": "b"}})).await.map(drop)
}

/// A clone that comes before its source waits, says for what, and goes on by itself.
pub async fn a_missing_source_is_waited_for(case: &Case) -> Result<()> {
    case.experiment("copy", json!({"from": {"experiment": "later"}})).await?;
    let waits = case.wait("Experiment", "copy", |object| object["status"]["reason"] == "TemplateNotFound").await?;
    let message = waits["status"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("later"), "the message does not name what is waited for: {message}");
    case.experiment("later", root(&[("duration", "5s")])).await?;
    case.wait("Experiment", "copy", |object| object["status"]["reason"] == "WaitingForTemplate").await?;
    case.ends("copy", "Completed").await?;
    let gives_up = json!({"from": {"experiment": "never"}, "timeouts": {"template": "1s"}});
    case.experiment("impatient", gives_up).await?;
    let failed = case.ends("impatient", "Failed").await?;
    ensure!(failed["status"]["reason"] == "TemplateNotFound", "{}", failed["status"]);
    Ok(())
}

/// Only `require: Ended` takes a source that failed.
pub async fn a_failed_source_is_cloned_only_on_request(case: &Case) -> Result<()> {
    case.experiment("bad", root(&[("outcome", "fail")])).await?;
    case.ends("bad", "Failed").await?;
    case.experiment("copy", json!({"from": {"experiment": "bad"}})).await?;
    let copy = case.ends("copy", "Failed").await?;
    ensure!(copy["status"]["reason"] == "TemplateNotCompleted", "{}", copy["status"]);
    let fixed = json!({
        "from": {"experiment": "bad", "require": "Ended"},
        "podTemplate": played(&[("outcome", "succeed")]),
    });
    case.completed("fixed", fixed).await.map(drop)
}

/// An edit that races with the start is either frozen or refused: what is recorded is what runs.
pub async fn an_edit_before_the_start_is_in_or_refused(case: &Case) -> Result<()> {
    let spec = with(root(&[]), json!({"params": {"lr": 0.1}, "args": ["${params.lr}"]}));
    let mut refused = 0;
    for index in 0..12 {
        let name = format!("race-{index}");
        case.experiment(&name, spec.clone()).await?;
        // More and more time for the operator to be faster.
        tokio::time::sleep(std::time::Duration::from_millis(index * 4)).await;
        let edit = json!({"spec": {"params": {"lr": 0.2}}});
        refused += u32::from(case.server.patch("Experiment", &case.namespace, &name, &edit).await.is_err());
    }
    for index in 0..12 {
        let name = format!("race-{index}");
        let object = case.ends(&name, "Completed").await?;
        let (spec, frozen) = (&object["spec"]["params"]["lr"], &object["status"]["template"]["params"]["lr"]);
        ensure!(spec == frozen, "{name}: the spec says {spec}, the record says {frozen}");
        let jobs = case.server.list("Job", &case.namespace, &format!("cultivar.dev/experiment={name}")).await?;
        let ran = &jobs[0]["spec"]["template"]["spec"]["containers"][0]["args"][0];
        ensure!(ran.as_str() == Some(&frozen.to_string()), "{name}: {ran} ran, {frozen} is recorded");
    }
    eprintln!("{refused} of 12 edits came too late and were refused");
    Ok(())
}

/// Once started, the spec is frozen; the refusal names the field and says what to do.
pub async fn a_started_experiment_is_immutable(case: &Case) -> Result<()> {
    case.completed("done", with(root(&[]), json!({"params": {"lr": 0.1}}))).await?;
    for (field, edit) in [
        ("spec.params", json!({"params": {"lr": 0.3}})),
        ("spec.image", json!({"image": "other:2"})),
        ("spec.podTemplate", json!({"podTemplate": null})),
        ("spec.retries", json!({"retries": {"limit": 5}})),
    ] {
        let answer = case.server.patch("Experiment", &case.namespace, "done", &json!({"spec": edit})).await;
        let Err(refusal) = answer else {
            return Err(cultivar_e2e::error::Error::new(format!("an edit of {field} was taken")));
        };
        let words = refusal.to_string();
        ensure!(words.contains(field) && words.contains("clone it"), "the refusal does not help: {words}");
    }
    let ttl = json!({"spec": {"ttlAfterFinished": "30d"}});
    case.server.patch("Experiment", &case.namespace, "done", &ttl).await?;
    case.server.patch("Experiment", &case.namespace, "done", &json!({"spec": {"cancel": true}})).await?;
    let back = case.server.patch("Experiment", &case.namespace, "done", &json!({"spec": {"cancel": false}})).await;
    ensure!(back.is_err_and(|error| error.to_string().contains("final")), "cancel was taken back");
    let after = case.get("Experiment", "done").await?;
    ensure!(after["status"]["phase"] == "Completed", "a terminal phase changed: {}", after["status"]["phase"]);
    Ok(())
}

/// Names at their limits run; one character more is refused.
pub async fn names_of_the_greatest_length_work(case: &Case) -> Result<()> {
    let long = |length: usize| "n".repeat(length);
    case.completed(&long(52), root(&[])).await?;
    let stages = json!({"stages": [{"name": long(40), "from": {"experiment": long(52)}}]});
    case.pipeline(&long(40), stages.clone()).await?;
    case.run_ends(&format!("{}-1", long(40)), "Completed").await?;
    let stage = case.stage(&format!("{}-1", long(40)), &long(40)).await?;
    case.server
        .wait("Experiment", &case.namespace, &crate::kit::name(&stage), LIMIT, |o| o["status"]["phase"] == "Completed")
        .await?;
    let refusals = [
        case.experiment(&long(53), root(&[])).await,
        case.pipeline(&long(41), stages).await,
        case.pipeline("short", json!({"stages": [{"name": long(41), "image": "train:1"}]})).await,
        case.experiment("1starts-with-a-digit", root(&[])).await,
    ];
    for (index, refusal) in refusals.into_iter().enumerate() {
        ensure!(refusal.is_err(), "name {index} beyond the limits was taken");
    }
    Ok(())
}
