//! Inputs that experiments made: pinned to a uri and a digest when a template is frozen, traced when a run has ended.

use cultivar_crds::{Phase, Reason};
use serde_json::{Value, json};

use super::freeze::{Frozen, Query, Sources};
use crate::domain::inputs::{uris as uris_of, written as inputs};
use crate::domain::{names, text};
use cultivar_protocol::CHECKPOINT_POINTER;

/// The experiments that a spec's inputs name, and the one whose checkpoint it starts from.
pub fn makers(spec: &Value) -> impl Iterator<Item = &str> {
    let restored = spec.pointer("/checkpoint/restore/experiment").and_then(Value::as_str);
    inputs(spec).filter_map(|input| input.get("experiment")?.as_str()).chain(restored)
}

/// What a spec or template refers to: uris, and artifacts by their experiment as `experiment/artifact`.
pub fn uses(spec: &Value) -> impl Iterator<Item = String> {
    let artifact = |input: &Value| {
        let word = |key: &str| input.get(key).and_then(Value::as_str);
        Some(artifact_of(word("experiment")?, word("artifact")?))
    };
    inputs(spec).filter_map(artifact).chain(uris(spec).map(str::to_owned)).collect::<Vec<_>>().into_iter()
}

/// How [`uses`] names an artifact of an experiment.
#[must_use]
pub fn artifact_of(experiment: &str, artifact: &str) -> String {
    format!("{experiment}/{artifact}")
}

/// The uris of a template's inputs and of its code that are known without resolving references.
pub fn uris(template: &Value) -> impl Iterator<Item = &str> {
    let packed = template.pointer("/source/packed/uri").and_then(Value::as_str);
    let of = |input| uris_of(input).unwrap_or_default().iter().chain(input.get("uri")).filter_map(Value::as_str);
    let all = inputs(template).flat_map(of).chain(packed);
    all.filter(|uri| !uri.contains("${"))
}

/// Replaces `experiment` and `artifact` of every input by where that artifact lies and its digest.
pub fn pin(mut template: Value, sources: &Sources) -> Frozen<Value> {
    if let Some(Err(outcome)) = pin_checkpoint(&mut template, sources) {
        return outcome;
    }
    let Some(inputs) = template.get_mut("inputs").and_then(Value::as_array_mut) else {
        return Frozen::Ready(template);
    };
    for input in inputs {
        if let Some(Err(outcome)) = pin_one(input, sources) {
            return outcome;
        }
    }
    Frozen::Ready(template)
}

fn pin_one(input: &mut Value, sources: &Sources) -> Option<Result<(), Frozen<Value>>> {
    let word = |key: &str| input.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (name, maker, artifact) = (word("name"), word("experiment"), word("artifact"));
    if maker.is_empty() {
        return None;
    }
    let waits = |message: String| Frozen::Waiting { reason: Reason::WaitingForInput, message };
    let never = |message: String| Frozen::Refused { reason: Reason::ReferenceUnresolved, message };
    let found = sources.get(&Query::Name(maker.clone())).and_then(|found| found.first());
    let Some(source) = found else {
        return Some(Err(waits(format!("input {name}: experiment {maker} does not exist in this namespace"))));
    };
    let status = &source.status;
    if !status.phase.is_terminal() {
        return Some(Err(waits(format!("input {name}: experiment {maker} is {}", status.phase))));
    }
    if status.phase != Phase::Completed {
        return Some(Err(never(format!(
            "input {name}: experiment {maker} is {}: name a completed one, or give the artifact's uri",
            status.phase
        ))));
    }
    let Some(made) = status.artifacts.iter().find(|made| made.name == artifact) else {
        let names: Vec<&str> = status.artifacts.iter().map(|made| made.name.as_str()).collect();
        let has = if names.is_empty() { "none".to_owned() } else { text::some_of(&names, 8) };
        return Some(Err(never(format!(
            "input {name}: experiment {maker} has no artifact {artifact:?}; it has: {has}"
        ))));
    };
    let fields = input.as_object_mut()?;
    fields.remove("experiment");
    fields.remove("artifact");
    fields.insert("uri".to_owned(), made.uri.clone().into());
    if let Some(digest) = made.digest.as_ref().filter(|digest| digest.starts_with("sha256:")) {
        fields.entry("digest").or_insert_with(|| digest.clone().into());
    }
    Some(Ok(()))
}

// However the experiment ended: to go on from a failed one is what this is for. It may have been killed before it could
// report, so where its checkpoints lie is told by its name, not by its status.
fn pin_checkpoint(template: &mut Value, sources: &Sources) -> Option<Result<(), Frozen<Value>>> {
    let restore = template.pointer_mut("/checkpoint/restore")?;
    let maker = restore.get("experiment")?.as_str()?.to_owned();
    let waits = |message: String| Frozen::Waiting { reason: Reason::WaitingForInput, message };
    let Some(source) = sources.get(&Query::Name(maker.clone())).and_then(|found| found.first()) else {
        return Some(Err(waits(format!("checkpoint: experiment {maker} does not exist in this namespace"))));
    };
    if !source.status.phase.is_terminal() {
        return Some(Err(waits(format!("checkpoint: experiment {maker} is {}", source.status.phase))));
    }
    *restore = json!({"uri": format!("{}/{CHECKPOINT_POINTER}", names::store_prefix(&source.meta))});
    Some(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ExperimentRecord, Meta, Record};
    use cultivar_crds::{Artifact, ExperimentStatus};
    use serde_json::json;
    use std::sync::Arc;

    fn maker(phase: Phase, artifacts: &[&str]) -> Sources {
        let made = |name: &&str| Artifact {
            name: (*name).to_owned(),
            uri: format!("s3://b/{name}"),
            digest: Some(format!("sha256:{name}")),
            ..Artifact::default()
        };
        let status = ExperimentStatus { phase, artifacts: artifacts.iter().map(made).collect(), ..Default::default() };
        let meta = Meta { name: "prepare".into(), ..Meta::default() };
        let record: ExperimentRecord = Record { meta, spec: Arc::default(), status: Arc::new(status) };
        Sources::from([(Query::Name("prepare".into()), vec![Arc::new(record)])])
    }

    #[test]
    fn a_checkpoint_is_pinned_by_its_place_however_the_run_ended() {
        let wanted = json!({"checkpoint": {"path": "/ckpt", "restore": {"experiment": "prepare"}}});
        assert_eq!(makers(&wanted).collect::<Vec<_>>(), ["prepare"]);
        for phase in [Phase::Failed, Phase::Completed, Phase::Cancelled] {
            let Frozen::Ready(template) = pin(wanted.clone(), &maker(phase, &[])) else { panic!("{phase}") };
            let uri = template["checkpoint"]["restore"]["uri"].as_str().unwrap();
            assert!(uri.contains("/prepare-") && uri.ends_with("/checkpoint.json"), "{uri}");
        }
        for sources in [Sources::new(), maker(Phase::Running, &[])] {
            assert!(matches!(pin(wanted.clone(), &sources), Frozen::Waiting { reason: Reason::WaitingForInput, .. }));
        }
    }

    #[test]
    fn an_artifact_is_pinned_by_uri_and_digest_once_it_is_there() {
        let wanted = json!({"inputs": [{"name": "data", "experiment": "prepare", "artifact": "d"}, {"name": "x", "uri": "s3://x"}]});
        assert_eq!(makers(&wanted).collect::<Vec<_>>(), ["prepare"]);
        let pinned = json!({"inputs": [{"name": "data", "uri": "s3://b/d", "digest": "sha256:d"}, {"name": "x", "uri": "s3://x"}]});
        assert_eq!(pin(wanted.clone(), &maker(Phase::Completed, &["d"])), Frozen::Ready(pinned));
        for (sources, reason) in [
            (Sources::new(), Reason::WaitingForInput),
            (maker(Phase::Running, &["d"]), Reason::WaitingForInput),
            (maker(Phase::Failed, &["d"]), Reason::ReferenceUnresolved),
            (maker(Phase::Completed, &["e"]), Reason::ReferenceUnresolved),
        ] {
            match pin(wanted.clone(), &sources) {
                Frozen::Waiting { reason: found, message } | Frozen::Refused { reason: found, message } => {
                    assert_eq!(found, reason, "{message}");
                    assert!(message.contains("data") && message.contains("prepare"), "{message}");
                }
                Frozen::Ready(template) => panic!("{template}"),
            }
        }
    }
}
