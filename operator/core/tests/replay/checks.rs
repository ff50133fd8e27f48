//! The invariants, checked at each write against the truth.
//!
//! Comes in: what is stored and what is about to be. Goes out: violations in words.

use cultivar_core::decide::pipeline_run::{FrozenPipeline, FrozenStage};
use cultivar_core::domain::{ExperimentRecord, JobRecord, JobState, Member, names};
use cultivar_crds::{ExperimentStatus, Phase, PipelineRunStatus, Until, labels};
use serde_json::Value;

use super::cluster::Cluster;

fn rank(phase: Phase) -> usize {
    Phase::ALL.iter().position(|other| *other == phase).unwrap_or_default().min(3)
}

/// Terminal records are final, templates too, and phases go forward; a new attempt starts over.
pub fn experiment(old: &ExperimentStatus, new: &ExperimentStatus) -> Vec<String> {
    let mut found = Vec::new();
    let mut hold = |holds: bool, words: String| {
        if !holds {
            found.push(words);
        }
    };
    if old.phase.is_terminal() {
        let same = old.phase == new.phase && old.reason == new.reason && old.template == new.template;
        hold(same, format!("it had ended {} and became {}", old.phase, new.phase));
        hold(
            old.artifacts == new.artifacts && old.metrics == new.metrics,
            "the result of what had ended changed".to_owned(),
        );
        hold(old.attempts == new.attempts, "the attempts of what had ended changed".to_owned());
        return found;
    }
    let retried = new.attempts.iter().filter(|attempt| attempt.finished_at.is_some()).count()
        > old.attempts.iter().filter(|attempt| attempt.finished_at.is_some()).count();
    hold(retried || rank(new.phase) >= rank(old.phase), format!("from {} back to {}", old.phase, new.phase));
    hold(new.attempt >= old.attempt, format!("from attempt {:?} back to {:?}", old.attempt, new.attempt));
    for attempt in old.attempts.iter().filter(|attempt| attempt.finished_at.is_some()) {
        let kept = new.attempts.iter().find(|other| other.number == attempt.number);
        hold(kept.is_none_or(|kept| kept == attempt), format!("the end of attempt {} changed", attempt.number));
    }
    if let Some(template) = &old.template {
        // At its end the image is pinned.
        let mut unpinned = new.template.as_deref().cloned().unwrap_or_default();
        if new.phase.is_terminal() && unpinned["image"].as_str().is_some_and(|image| image.contains('@')) {
            unpinned["image"] = template["image"].clone();
        }
        hold(unpinned == **template, "the frozen template changed".to_owned());
    }
    if new.phase != Phase::Running && !new.phase.is_terminal() {
        let explained = new.reason.is_some() && new.message.is_some() || new.phase == Phase::Starting;
        hold(explained, format!("{} without a reason", new.phase));
    }
    found
}

/// The same for runs and their stages.
pub fn run(old: &PipelineRunStatus, new: &PipelineRunStatus) -> Vec<String> {
    let mut found = Vec::new();
    if old.phase.is_terminal()
        && (old.phase, old.reason, &old.outputs, &old.stages) != (new.phase, new.reason, &new.outputs, &new.stages)
    {
        found.push(format!("it had ended {} and became {}", old.phase, new.phase));
    }
    if rank(new.phase) < rank(old.phase) {
        found.push(format!("from {} back to {}", old.phase, new.phase));
    }
    if old.pipeline_spec.is_some() && old.pipeline_spec != new.pipeline_spec {
        found.push("the frozen pipeline changed".to_owned());
    }
    for stage in old.stages.iter().filter(|stage| stage.phase.is_terminal()) {
        let now = new.stages.iter().find(|other| other.name == stage.name);
        if now.is_none_or(|now| (now.phase, now.reason, &now.gate) != (stage.phase, stage.reason, &stage.gate)) {
            found.push(format!(
                "stage {} had ended {} and became {:?}",
                stage.name,
                stage.phase,
                now.map(|now| now.phase)
            ));
        }
    }
    found
}

/// A stage starts only when what it needs has come to the end that it waits for; a run's stage has the name that the run gives it.
pub fn created(cluster: &mut Cluster, manifest: &Value) {
    if manifest["kind"] != "Experiment" {
        return;
    }
    let meta = &manifest["metadata"];
    let stage = meta["labels"][labels::STAGE].as_str().unwrap_or_default().to_owned();
    let run = meta["ownerReferences"][0]["uid"].as_str().unwrap_or_default().to_owned();
    let Some(record) = cluster.runs.values().find(|record| record.meta.uid == run).cloned() else {
        return cluster.violated(format!("stage {stage} was created for a run that is gone"));
    };
    if record.status.phase.is_terminal() {
        cluster.violated(format!("stage {stage} was created after its run had ended"));
    }
    let index = meta["labels"][labels::MEMBER].as_str().map(|index| index.parse().expect("an index"));
    let member = Member { stage: stage.clone(), index };
    if meta["name"] != names::stage_experiment(&record.meta.name, &run, &member).as_str() {
        cluster.violated(format!("stage {stage} is called {}", meta["name"]));
    }
    let frozen = record.status.pipeline_spec.clone().unwrap_or_default();
    let Ok(frozen) = serde_json::from_value::<FrozenPipeline>(frozen) else {
        return cluster.violated(format!("stage {stage} was created before its pipeline was frozen"));
    };
    if let Some(group) = frozen.concurrency.as_ref().map(|concurrency| concurrency.group.clone()) {
        alone_in_its_group(cluster, &run, &group);
    }
    // What comes finally needs all others to have ended.
    let ends = frozen.stages.iter().map(|other| (other.name.clone(), Until::Ended));
    let needs: Vec<(String, Until)> = match frozen.stages.iter().find(|frozen| frozen.name == stage) {
        Some(frozen) => frozen.needs.iter().map(|need| (need.clone(), frozen.until(need))).collect(),
        None => ends.collect(),
    };
    for (need, until) in needs {
        let many = |other: &FrozenStage| other.fan_out.is_some() || other.repeat.is_some() || other.nested.is_some();
        if frozen.all().any(|other| other.name == need && many(other)) {
            members_have_ended(cluster, &record.status, &run, &need);
            continue;
        }
        let name = names::stage_experiment(&record.meta.name, &run, &Member::stage(&need));
        let recorded = record.status.stages.iter().any(|stage| stage.name == need && until.is_met_by(stage.phase));
        let ended = cluster.experiments.get(&name).is_some_and(|needed| {
            let succeeded = cluster.succeeded.contains(&needed.meta.uid) && until.is_met_by(Phase::Completed);
            let failed = cluster.failed.contains(&needed.meta.uid) && until.is_met_by(Phase::Failed);
            // Cancelled, and nothing of it runs any more.
            let asked = needed.spec.get("cancel").and_then(Value::as_bool).unwrap_or(false);
            let runs = cluster.pods.values().any(|pod| pod.experiment == name && !pod.is_over());
            let cancelled = asked && !runs && until.is_met_by(Phase::Cancelled);
            let taken_away = was_taken_away(cluster, needed) && until.is_met_by(Phase::Failed);
            until.is_met_by(needed.status.phase) || succeeded || failed || cancelled || taken_away
        });
        let gone = cluster.succeeded_names.contains(&name) && until.is_met_by(Phase::Completed);
        // Skipped, which nobody has recorded yet.
        let old = record.spec["resumeOf"].as_str().and_then(|old| cluster.runs.get(old));
        let taken_over = old.is_some_and(|old| {
            let name = names::stage_experiment(&old.meta.name, &old.meta.uid, &Member::stage(&need));
            cluster.experiments.get(&name).is_some_and(|old| until.is_met_by(old.status.phase))
        });
        let never = !cluster.experiments.contains_key(&name) && until.is_met_by(Phase::Skipped);
        if !recorded && !ended && !gone && !never && !taken_over {
            cluster.violated(format!("stage {stage} was created before {need} had come to the end {until:?}"));
        }
    }
}

/// One live Job per experiment, named after uid and attempt, never again once it is recorded.
pub fn job(cluster: &mut Cluster, job: &JobRecord) {
    let Some(experiment) =
        cluster.experiments.get(&job.experiment).filter(|record| record.meta.uid == job.owner_uid).cloned()
    else {
        return cluster.violated(format!("Job {} was created for an experiment that is gone", job.name));
    };
    let status = &experiment.status;
    if job.name != names::job(&job.experiment, &job.owner_uid, job.attempt) {
        cluster.violated(format!("the Job of attempt {} is called {}", job.attempt, job.name));
    }
    if status.attempts.iter().any(|attempt| attempt.number == job.attempt) {
        cluster.violated(format!("Job {} was created again after its attempt was recorded", job.name));
    }
    if status.phase.is_terminal() {
        cluster.violated(format!("Job {} was created after its experiment had ended", job.name));
    }
    let frozen = status.template.is_some() || experiment.meta.owner.is_some();
    if !frozen {
        cluster.violated(format!("Job {} was created before its template was stored", job.name));
    }
    let lives = |other: &&JobRecord| other.owner_uid == job.owner_uid && other.state == JobState::Active;
    if let Some(other) = cluster.jobs.values().find(lives).map(|other| other.name.clone()) {
        cluster.violated(format!("Job {} was created while {other} is alive", job.name));
    }
    let pod = cluster.pods.values().find(|pod| pod.experiment == job.experiment && !pod.is_over());
    if let Some(pod) = pod.map(|pod| pod.name.clone()) {
        cluster.violated(format!("Job {} was created while pod {pod} can still run", job.name));
    }
}

// Perhaps once too often: whether it may try again is for its own decision, and nothing of it runs.
fn was_taken_away(cluster: &Cluster, experiment: &ExperimentRecord) -> bool {
    let pods = || cluster.pods.values().filter(|pod| pod.experiment == experiment.meta.name);
    let tried = !experiment.status.attempts.is_empty() || pods().next().is_some();
    tried && pods().all(|pod| pod.is_over())
}

/// What joins on a fan-out starts when all of its members have ended.
fn members_have_ended(cluster: &mut Cluster, status: &PipelineRunStatus, run: &str, stage: &str) {
    if status.stages.iter().any(|recorded| recorded.name == stage && recorded.phase.is_terminal()) {
        return;
    }
    let members = cluster
        .experiments
        .values()
        .filter(|record| record.meta.is_owned_by(run) && record.meta.label(labels::STAGE) == Some(stage));
    let runs = |record: &&ExperimentRecord| {
        let over = cluster.succeeded.contains(&record.meta.uid)
            || cluster.failed.contains(&record.meta.uid)
            || was_taken_away(cluster, record);
        let pod = cluster.pods.values().any(|pod| pod.experiment == record.meta.name && !pod.is_over());
        let asked = record.spec.get("cancel").and_then(Value::as_bool).unwrap_or(false);
        !record.status.phase.is_terminal() && !over && (pod || !asked)
    };
    let running: Vec<String> = members.filter(runs).map(|record| record.meta.name.clone()).collect();
    for name in running {
        cluster.violated(format!("what joins on {stage} was created before {name} had ended"));
    }
}

/// While a stage of a run of a group is created, no stage of another run of the group runs.
fn alone_in_its_group(cluster: &mut Cluster, run: &str, group: &str) {
    let in_group = |record: &&cultivar_core::domain::RunRecord| {
        let frozen = record.status.pipeline_spec.as_ref();
        record.meta.uid != run && frozen.is_some_and(|frozen| frozen["concurrency"]["group"] == group)
    };
    let others: Vec<String> = cluster.runs.values().filter(in_group).map(|record| record.meta.uid.clone()).collect();
    let of_others = |name: &str| {
        let owner = cluster.experiments.get(name).and_then(|record| record.meta.owner.as_ref());
        owner.is_some_and(|owner| others.contains(&owner.uid))
    };
    let running = cluster.pods.values().filter(|pod| !pod.is_over() && of_others(&pod.experiment));
    let running: Vec<String> = running.map(|pod| pod.name.clone()).collect();
    for pod in running {
        cluster.violated(format!("a stage of group {group} was created while {pod} of another run of it can run"));
    }
}
