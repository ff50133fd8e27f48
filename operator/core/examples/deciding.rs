//! How long deciding about a large run takes: wide fan-outs and long chains, one pass at a time.
//!
//! In: nothing. Out: JSON on standard output: per shape the milliseconds of a pass, p50 and max, and the bytes of the status that it
//! wants. `cargo measure language` compiles and runs it.

use cultivar_core::decide::pipeline_run::{Child, FrozenPipeline, FrozenStage, Snapshot, decide};
use cultivar_core::decide::{Action, NewStage};
use cultivar_core::domain::{ExperimentRecord, Member, Meta, Owner};
use cultivar_crds::{ExperimentStatus, MembersStatus, Metric, Phase, PipelineRunStatus, StageStatus};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

const PASSES: usize = 30;

// That of the operator: half of a pass over ten thousand members is what it allocates.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn experiment(new: &NewStage, phase: Phase) -> ExperimentRecord {
    let mut status = ExperimentStatus { phase, ..ExperimentStatus::default() };
    if phase == Phase::Completed {
        let acc = f64::from(new.member.index.unwrap_or_default() % 977);
        for name in ["acc", "loss"] {
            status.metrics.insert(name.to_owned(), Metric { last: acc, ..Metric::default() });
        }
    }
    let owner = Owner { kind: "PipelineRun".to_owned(), name: "run".to_owned(), uid: "run".to_owned() };
    ExperimentRecord {
        meta: Meta { name: new.name.clone(), uid: new.name.clone(), owner: Some(owner), ..Meta::default() },
        spec: Arc::new(new.spec.clone()),
        status: Arc::new(status),
    }
}

fn started(pipeline: &FrozenPipeline) -> Snapshot {
    let mut snapshot = Snapshot { now: Timestamp::UNIX_EPOCH, ..Snapshot::default() };
    snapshot.run.meta = Meta { name: "run".to_owned(), uid: "run".to_owned(), ..Meta::default() };
    snapshot.run.spec = Arc::new(json!({"pipeline": "wide"}));
    snapshot.run.status = Arc::new(PipelineRunStatus {
        phase: Phase::Running,
        pipeline_spec: serde_json::to_value(pipeline).ok(),
        started_at: Some("1970-01-01T00:00:00Z".to_owned()),
        ..PipelineRunStatus::default()
    });
    snapshot
}

fn stage(name: String, needs: Vec<String>, fan_out: Option<Value>) -> FrozenStage {
    let fan_out = fan_out.map(|fan_out| serde_json::from_value(fan_out).expect("a fan-out"));
    FrozenStage { name, needs, fan_out, template: json!({"image": "x", "args": ["a"]}), ..FrozenStage::default() }
}

/// A fan-out whose members have ended up to the given one, and a join.
fn fan(members: u32, ended: u32) -> Snapshot {
    let mut join = stage("join".to_owned(), vec!["train".to_owned()], None);
    join.template["args"] =
        json!(["${= best(stages.train, {\"metric\": \"acc\"}).experiment}", "${= size(stages.train.members)}"]);
    let train = stage("train".to_owned(), Vec::new(), Some(json!({"count": members, "maxParallel": 500})));
    let pipeline = FrozenPipeline { stages: vec![train, join], ..FrozenPipeline::default() };
    let mut snapshot = started(&pipeline);
    let there = (ended + 500).min(members);
    for index in 0..there {
        let member = Member::of("train", index);
        let new = NewStage {
            name: format!("run-{member}"),
            member: member.clone(),
            coordinates: None,
            pipeline: "wide".to_owned(),
            spec: json!({"image": "x", "args": ["a"], "params": {"index": index}}),
            cloned_from: None,
        };
        let phase = if index < ended { Phase::Completed } else { Phase::Running };
        snapshot.children.insert(member, Child::Experiment(Arc::new(experiment(&new, phase))));
    }
    let recorded = MembersStatus { total: members, started: there, ..MembersStatus::default() };
    let train = StageStatus {
        name: "train".to_owned(),
        phase: Phase::Running,
        members: Some(recorded),
        ..StageStatus::default()
    };
    Arc::make_mut(&mut snapshot.run.status).stages = vec![train];
    snapshot
}

/// A chain of stages of which the first half has completed.
fn chain(stages: usize) -> Snapshot {
    let name = |index: usize| format!("s{index}");
    let one = |index| stage(name(index), if index == 0 { Vec::new() } else { vec![name(index - 1)] }, None);
    let pipeline = FrozenPipeline { stages: (0..stages).map(one).collect(), ..FrozenPipeline::default() };
    let mut snapshot = started(&pipeline);
    for index in 0..stages / 2 {
        let plan = decide(&snapshot);
        let created =
            plan.actions.iter().find_map(|action| if let Action::CreateStage(new) = action { Some(new) } else { None });
        let new = created.expect("the next stage of the chain");
        snapshot
            .children
            .insert(Member::stage(name(index)), Child::Experiment(Arc::new(experiment(new, Phase::Completed))));
        snapshot.run.status = Arc::new(plan.status);
    }
    snapshot
}

fn measured(name: &str, snapshot: &Snapshot) -> Value {
    let mut times = Vec::new();
    let mut plan = decide(snapshot);
    for _ in 0..PASSES {
        let begun = Instant::now();
        plan = decide(snapshot);
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let bytes = serde_json::to_vec(&plan.status).map_or(0, |status| status.len());
    json!({"shape": name, "p50_ms": times[PASSES / 2], "max_ms": times[PASSES - 1], "actions": plan.actions.len(), "status_bytes": bytes})
}

fn main() {
    let shapes = [
        ("10,000 members, the first 500 run", fan(10_000, 0)),
        ("10,000 members, half have ended", fan(10_000, 5000)),
        ("10,000 members, all have ended and the best is picked", fan(10_000, 10_000)),
        ("a chain of 100 stages", chain(100)),
        ("a chain of 1,000 stages", chain(1000)),
    ];
    let shapes: Vec<Value> = shapes.iter().map(|(name, snapshot)| measured(name, snapshot)).collect();
    println!("{}", json!({"shapes": shapes}));
}
