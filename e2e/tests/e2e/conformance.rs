//! The cases of `e2e/cases/conformance` on simulated nodes: programs play as annotations of their pods say.
//!
//! In: a case. Out: what is different from what it says has to come of it.

use cultivar_conformance::{Act, Case as Written, Deed, Object, PIPELINE, Play, RUN, Seen, has_ended};
use cultivar_e2e::error::Result;
use serde_json::{Value, json};

use crate::ensure;
use crate::kit::{Case, condition, name, with};

/// Plays a case.
pub async fn conforms(case: &Case, written: &Written) -> Result<()> {
    let seen = match applied(case, written).await? {
        Some(refusal) => refused(case, refusal).await?,
        None => {
            for deed in &written.deeds {
                act(case, written, deed).await?;
            }
            ended(case, &written.expect.gone).await?
        }
    };
    let lines = written.differs(&seen);
    ensure!(lines.is_empty(), "{}", lines.join("\n"));
    Ok(())
}

// Why the API server or the operator does not take the pipeline, if one of them does not.
async fn applied(case: &Case, written: &Written) -> Result<Option<String>> {
    for object in &written.objects {
        case.server.apply(&playing(written, object).manifest(&case.namespace)).await?;
    }
    let pipeline = playing(written, &written.applied()).manifest(&case.namespace);
    if written.expect.verdict.is_some() {
        return case.server.apply(&pipeline).await.map(|_| None);
    }
    match case.server.apply(&pipeline).await {
        Err(error) => Ok(Some(error.to_string())),
        Ok(_) => {
            let judged = |pipeline: &Value| condition(pipeline, "Accepted")["status"].is_string();
            let pipeline = case.wait("Pipeline", PIPELINE, judged).await?;
            let accepted = condition(&pipeline, "Accepted");
            ensure!(accepted["status"] == "False", "the pipeline is accepted: {accepted}");
            Ok(accepted["message"].as_str().map(str::to_owned))
        }
    }
}

async fn refused(case: &Case, refusal: String) -> Result<Seen> {
    let run = case.server.get("PipelineRun", &case.namespace, RUN).await?.unwrap_or_default();
    let experiments = case.server.list("Experiment", &case.namespace, "").await?;
    Ok(Seen { run, experiments, refusal: Some(refusal), ..Seen::default() })
}

async fn ended(case: &Case, gone: &[String]) -> Result<Seen> {
    let run = case.wait("PipelineRun", RUN, has_ended).await?;
    // Those that a deed has made.
    for other in case.server.list("PipelineRun", &case.namespace, "").await? {
        case.wait("PipelineRun", &name(&other), has_ended).await?;
    }
    for name in gone {
        case.wait("Experiment", name, Value::is_null).await?;
    }
    let mut experiments = Vec::new();
    for experiment in case.server.list("Experiment", &case.namespace, "").await? {
        experiments.push(case.wait("Experiment", &name(&experiment), has_ended).await?);
    }
    Ok(Seen::of(run, experiments))
}

async fn act(case: &Case, written: &Written, deed: &Deed) -> Result<()> {
    let phase = deed.when.phase.as_str();
    match &deed.when.stage {
        None => drop(case.wait("PipelineRun", RUN, |run| run["status"]["phase"] == phase).await?),
        Some(stage) => {
            let experiment = experiment_of(case, stage).await?;
            // Under load it may be recorded only at the end that a program has run: its pod is asked.
            if phase == "Running" {
                runs(case, &experiment).await?;
            } else {
                case.wait("Experiment", &experiment, |experiment| experiment["status"]["phase"] == phase).await?;
            }
        }
    }
    let cancel = json!({"spec": {"cancel": true}});
    match &deed.act {
        Act::CancelRun => case.server.patch("PipelineRun", &case.namespace, RUN, &cancel).await.map(drop),
        Act::CancelStage(stage) => {
            let experiment = experiment_of(case, stage).await?;
            case.server.patch("Experiment", &case.namespace, &experiment, &cancel).await.map(drop)
        }
        Act::DeletePod(stage) => {
            let pod = case.pod(&experiment_of(case, stage).await?, 1, "Running").await?;
            case.server.delete("Pod", &case.namespace, &pod).await
        }
        Act::Apply(object) => case.server.apply(&playing(written, object).manifest(&case.namespace)).await.map(drop),
    }
}

async fn runs(case: &Case, experiment: &str) -> Result<()> {
    let labels = format!("cultivar.dev/experiment={experiment}");
    let deadline = tokio::time::Instant::now() + crate::kit::SOON;
    loop {
        let pods = case.server.list("Pod", &case.namespace, &labels).await?;
        if pods.iter().any(|pod| pod["status"]["phase"] == "Running") {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < deadline, "{experiment} has no pod that runs");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

// The experiment of a stage or of a member, as soon as it is there.
async fn experiment_of(case: &Case, stage: &str) -> Result<String> {
    let deadline = tokio::time::Instant::now() + crate::kit::SOON;
    loop {
        let experiments = case.server.list("Experiment", &case.namespace, "").await?;
        let is_meant = |experiment: &&Value| {
            let labels = &experiment["metadata"]["labels"];
            let (of, index) = (labels["cultivar.dev/stage"].as_str(), labels["cultivar.dev/member"].as_str());
            of == Some(stage) || of.zip(index).is_some_and(|(of, index)| format!("{of}-{index}") == stage)
        };
        if let Some(experiment) = experiments.iter().find(is_meant) {
            return Ok(name(experiment));
        }
        ensure!(tokio::time::Instant::now() < deadline, "stage {stage} has no experiment");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

// The object with annotations that say how its pods play.
fn playing(written: &Written, object: &Object) -> Object {
    let mut object = object.clone();
    match object.kind.as_str() {
        "Experiment" => play_into(written, &object.name, false, &mut object.spec),
        "Pipeline" => {
            for list in ["stages", "finally"] {
                for stage in object.spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                    let stage_name = stage["name"].as_str().unwrap_or_default().to_owned();
                    let several = ["matrix", "count", "repeat"].into_iter().any(|field| stage.get(field).is_some());
                    // A pipeline within the pipeline has stages of its own.
                    if stage.get("pipeline").is_none() {
                        play_into(written, &stage_name, several, stage);
                    }
                }
            }
        }
        _ => {}
    }
    object
}

fn play_into(written: &Written, name: &str, several: bool, spec: &mut Value) {
    let short = vec![Play::default()];
    let of_all = written.plays.get(name).unwrap_or(&short);
    let members: Vec<(u32, &[Play])> = written
        .plays
        .iter()
        .filter_map(|(key, plays)| {
            let index = key.strip_prefix(name)?.strip_prefix('-')?.parse().ok()?;
            several.then_some((index, plays.as_slice()))
        })
        .collect();
    let annotations: serde_json::Map<String, Value> = ["duration", "outcome", "exit-code", "message"]
        .into_iter()
        .map(|key| (format!("sim/{key}"), Value::String(annotation(key, of_all, &members))))
        .collect();
    if of_all.iter().any(|play| play.unscheduled) {
        spec["podTemplate"]["spec"]["nodeSelector"] = json!({"nowhere": "true"});
    }
    let known = spec["podTemplate"]["metadata"]["annotations"].take();
    let known = if known.is_null() { json!({}) } else { known };
    spec["podTemplate"]["metadata"]["annotations"] = with(known, Value::Object(annotations));
}

// One text, or an expression that finds it by member and attempt when the pod is rendered.
fn annotation(key: &str, of_all: &[Play], members: &[(u32, &[Play])]) -> String {
    let plain = |plays: &[Play]| plays.iter().map(|play| value(key, play)).collect::<Vec<_>>();
    let mut all = vec![plain(of_all)];
    all.extend(members.iter().map(|(_, plays)| plain(plays)));
    let first = all[0][0].clone();
    if all.iter().flatten().all(|text| *text == first) {
        return first.replace("${", "$${");
    }
    let rest = by_attempt(&all[0]);
    let expression = members
        .iter()
        .zip(&all[1..])
        .fold(rest, |rest, ((index, _), plays)| format!("run.member == {index} ? {} : {rest}", by_attempt(plays)));
    format!("${{= {expression}}}")
}

fn by_attempt(texts: &[String]) -> String {
    let quoted = |text: &String| Value::String(text.clone()).to_string();
    let (last, others) = texts.split_last().expect("a play");
    if others.iter().all(|text| text == last) {
        return quoted(last);
    }
    let chain = others.iter().enumerate().rev().fold(quoted(last), |rest, (before, text)| {
        format!("run.attempt == {} ? {} : {rest}", before + 1, quoted(text))
    });
    format!("({chain})")
}

fn value(key: &str, play: &Play) -> String {
    match key {
        "duration" => play.seconds.map_or_else(|| "200ms".to_owned(), |seconds| format!("{seconds}s")),
        "outcome" if play.evicted => "evict".to_owned(),
        "outcome" if play.oom => "oom".to_owned(),
        "outcome" if play.exit != 0 => "fail".to_owned(),
        "outcome" => "succeed".to_owned(),
        "exit-code" => play.exit.to_string(),
        _ => play.message(),
    }
}
