//! How Argo CD and kstatus judge objects, on the statuses that the operator's decisions came to in its own tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use cultivar_e2e::chart::repository;
use cultivar_e2e::error::{Context as _, Result};
use cultivar_e2e::gitops::argocd;
use cultivar_e2e::{exec, tools};
use serde::Deserialize;
use serde_json::{Value, json};

/// Where the operator's core writes down an object for each way in which a kind can stand.
const STANDING: &str = "operator/core/tests/cases/standing";

/// What was said of an object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Verdict {
    status: String,
    message: String,
    error: String,
}

/// What Argo CD and kstatus say of an object.
#[derive(Debug, Deserialize)]
struct Verdicts {
    health: Verdict,
    kstatus: Verdict,
}

/// An object that was decided about, and the case of the table that it comes from.
#[derive(Deserialize)]
struct Standing {
    case: String,
    object: Value,
}

fn standing() -> Result<Vec<Standing>> {
    let folder = repository().join(STANDING);
    let mut all = Vec::new();
    for entry in fs::read_dir(&folder).doing(|| format!("cannot read {}", folder.display()))?.flatten() {
        let text = fs::read_to_string(entry.path()).doing(|| format!("cannot read {}", entry.path().display()))?;
        for line in text.lines() {
            all.push(serde_json::from_str(line).doing(|| format!("{} has no objects", entry.path().display()))?);
        }
    }
    Ok(all)
}

fn judge(objects: &[Value]) -> Result<Vec<Verdicts>> {
    let task = json!({"checks": argocd::checks()?, "objects": objects});
    let said = exec::output(&mut Command::new(tools::health()?), Some(&task.to_string()))?;
    let verdicts: Vec<Verdicts> = serde_json::from_str(&said).doing(|| "the verdicts are not JSON")?;
    assert_eq!(verdicts.len(), objects.len());
    Ok(verdicts)
}

/// What a person would say of an object, by its phase and its reason: Argo CD's word, and that of kstatus.
fn expected(object: &Value) -> (&'static str, &'static str) {
    let (spec, status) = (&object["spec"], &object["status"]);
    let reason = status["reason"].as_str().unwrap_or_default();
    let latest = status["latestRun"]["phase"].as_str().unwrap_or_default();
    match (object["kind"].as_str().unwrap_or_default(), status["phase"].as_str().unwrap_or_default()) {
        (_, "Completed") => ("Healthy", "Current"),
        ("Experiment", _) if reason == "Invalid" => ("Degraded", "Failed"),
        (_, "Failed" | "Cancelled" | "Skipped") => ("Degraded", "Failed"),
        ("PipelineRun", _) if matches!(reason, "Suspended" | "WaitingForApproval") => ("Suspended", "InProgress"),
        ("Experiment" | "PipelineRun", _) => ("Progressing", "InProgress"),
        ("Pipeline", _) if reason == "Invalid" => ("Degraded", "Failed"),
        // What kstatus waits for is that the run is there, not that it ends.
        ("Pipeline", _) if latest == "Failed" => ("Degraded", "Current"),
        ("Pipeline", _) if spec["suspend"] == true || latest == "Cancelled" => ("Suspended", "Current"),
        ("Pipeline", _) if latest == "Completed" || latest.is_empty() => ("Healthy", "Current"),
        ("Pipeline", _) if status["latestRun"]["reason"].is_string() => ("Suspended", "Current"),
        ("Pipeline", _) => ("Progressing", "Current"),
        ("Queue", _) => match status["conditions"][0]["reason"].as_str() {
            Some("Admits") => ("Healthy", "Current"),
            Some("QueueHeld") => ("Suspended", "InProgress"),
            _ => ("Degraded", "Failed"),
        },
        ("Schedule", _) if status["conditions"][0]["status"] == "False" => ("Degraded", "Failed"),
        ("Schedule", _) if spec["suspend"] == true => ("Suspended", "Current"),
        ("Schedule", _) if status["conditions"][1]["status"] == "True" => ("Healthy", "Current"),
        ("Schedule", _) => ("Progressing", "InProgress"),
        (kind, _) => panic!("nobody has said how a {kind} is judged"),
    }
}

#[test]
fn every_way_to_stand_is_judged_as_a_person_would() -> Result<()> {
    let all = standing()?;
    let objects: Vec<Value> = all.iter().map(|one| one.object.clone()).collect();
    let (mut wrong, mut seen) = (Vec::new(), BTreeMap::<String, BTreeSet<String>>::new());
    for (one, verdicts) in all.iter().zip(judge(&objects)?) {
        let (health, kstatus) = expected(&one.object);
        let kind = one.object["kind"].as_str().unwrap_or_default();
        if (health, kstatus) != (&verdicts.health.status, &verdicts.kstatus.status) {
            wrong.push(format!(
                "{kind}: {}: {health} and {kstatus}, not {verdicts:?}\n    {}",
                one.case, one.object["status"]
            ));
        }
        // A word alone helps nobody.
        if verdicts.health.message.is_empty() {
            wrong.push(format!("{kind}: {}: {health} without a message", one.case));
        }
        let reason = one.object["status"]["reason"].as_str().filter(|_| verdicts.health.status == "Degraded");
        if reason.is_some_and(|reason| !verdicts.health.message.starts_with(reason)) && kind != "Pipeline" {
            wrong.push(format!("{kind}: {}: {:?} does not say {reason:?}", one.case, verdicts.health.message));
        }
        seen.entry(kind.to_owned()).or_default().insert(verdicts.health.status);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let of = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<String>>();
    let four = of(&["Degraded", "Healthy", "Progressing", "Suspended"]);
    let wanted = [
        ("Experiment", of(&["Degraded", "Healthy", "Progressing"])),
        ("Pipeline", four.clone()),
        ("PipelineRun", four.clone()),
        ("Queue", of(&["Degraded", "Healthy", "Suspended"])),
        ("Schedule", four),
    ];
    assert_eq!(seen, wanted.map(|(kind, words)| (kind.to_owned(), words)).into(), "what the tables come to");
    Ok(())
}

#[test]
fn every_phase_of_an_experiment_and_a_run_is_among_them() -> Result<()> {
    let mut phases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for one in standing()? {
        if let Some(phase) = one.object["status"]["phase"].as_str() {
            phases
                .entry(one.object["kind"].as_str().unwrap_or_default().to_owned())
                .or_default()
                .insert(phase.to_owned());
        }
    }
    // Only stages are skipped, and those that are have no experiment.
    for phase in ["Pending", "Queued", "Starting", "Running", "Completed", "Failed", "Cancelled"] {
        assert!(phases["Experiment"].contains(phase), "no Experiment is {phase}");
    }
    for phase in ["Pending", "Running", "Completed", "Failed", "Cancelled"] {
        assert!(phases["PipelineRun"].contains(phase), "no PipelineRun is {phase}");
    }
    Ok(())
}

#[test]
fn a_generation_that_was_not_seen_yet_is_under_way() -> Result<()> {
    let mut objects: Vec<Value> = standing()?.into_iter().map(|one| one.object).collect();
    for object in &mut objects {
        let generation = object["metadata"]["generation"].as_i64().unwrap_or_default();
        object["metadata"]["generation"] = json!(generation + 1);
    }
    for (object, verdicts) in objects.iter().zip(judge(&objects)?) {
        assert_eq!(
            (verdicts.health.status.as_str(), verdicts.kstatus.status.as_str()),
            ("Progressing", "InProgress"),
            "{object}"
        );
    }
    // Just applied.
    objects.iter_mut().for_each(|object| drop(object.as_object_mut().and_then(|object| object.remove("status"))));
    for (object, verdicts) in objects.iter().zip(judge(&objects)?) {
        assert_eq!(verdicts.health.status, "Progressing", "{object}");
    }
    Ok(())
}

#[test]
fn every_kind_has_a_check_and_the_config_map_has_them_all() -> Result<()> {
    let (checks, mut kinds) = (argocd::checks()?, BTreeSet::new());
    let folder = repository().join("crds/generated");
    for entry in fs::read_dir(&folder).doing(|| "cannot read the definitions")?.flatten() {
        let text = fs::read_to_string(entry.path()).doing(|| "cannot read a definition")?;
        if entry.path().extension().is_some_and(|extension| extension == "yaml") {
            let definition: Value = serde_yaml::from_str(&text).doing(|| "a definition is no YAML")?;
            kinds.insert(definition["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned());
        }
    }
    assert_eq!(checks.keys().cloned().collect::<BTreeSet<_>>(), kinds);
    let patch = fs::read_to_string(repository().join(argocd::PATCH)).doing(|| "cannot read the patch")?;
    let patch: Value = serde_yaml::from_str(&patch).doing(|| "the patch is no YAML")?;
    let data = patch["data"].as_object().cloned().unwrap_or_default();
    let of = |(kind, check): (&String, &String)| {
        (format!("resource.customizations.health.cultivar.dev_{kind}"), json!(check))
    };
    let wanted: serde_json::Map<String, Value> = checks.iter().map(of).collect();
    assert_eq!(data, wanted);
    Ok(())
}

#[test]
fn what_has_no_status_is_healthy_at_once() -> Result<()> {
    let store =
        json!({"kind": "ArtifactStore", "metadata": {"name": "default", "generation": 1}, "spec": {"url": "s3://b/p"}});
    let spec = json!({"run": "digits-1", "stage": "check", "verdict": "Approve", "by": "ana"});
    let approval = json!({"kind": "Approval", "metadata": {"name": "yes", "generation": 1}, "spec": spec});
    for verdicts in judge(&[store, approval])? {
        assert_eq!(
            (verdicts.health.status.as_str(), verdicts.kstatus.status.as_str()),
            ("Healthy", "Current"),
            "{verdicts:?}"
        );
    }
    Ok(())
}
