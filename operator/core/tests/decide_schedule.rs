//! Deciding about schedules: the tables in `cases/schedule`, and that whatever happens no time gets two runs.
//!
//! Comes in: a schedule and its runs in short. Goes out: the plan, compared with what the case expects.

mod support;

use cultivar_core::decide::experiment::Refusal;
use cultivar_core::decide::schedule::{Snapshot, decide};
use cultivar_core::decide::{Action, NewScheduled};
use cultivar_core::domain::{RunRecord, names};
use cultivar_core::render;
use cultivar_crds::{Phase, PipelineRunStatus, PipelineStatus, Reason, ScheduleStatus, labels};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use support::{Expect, cases, differences, from, in_words, record};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    given: Given,
    /// When it looks again.
    wakes: Option<Timestamp>,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    now: Timestamp,
    created: Option<Timestamp>,
    generation: Option<i64>,
    spec: Value,
    #[serde(default)]
    status: Value,
    /// By its time.
    #[serde(default)]
    runs: BTreeMap<Timestamp, Phase>,
    #[serde(default)]
    backfilled: BTreeMap<Timestamp, Phase>,
    pipeline: Option<Value>,
    #[serde(default)]
    without_pipeline: bool,
    /// Seconds ago.
    refused: Option<i64>,
}

fn pipeline_spec() -> Value {
    json!({"params": {"lr": 1}, "stages": [{"name": "train", "image": "busybox"}]})
}

fn run(time: Timestamp, phase: Phase, backfill: bool) -> Arc<RunRecord> {
    let status = PipelineRunStatus { phase, ..PipelineRunStatus::default() };
    let mut run = record(&names::scheduled_run("nightly", time), json!({"pipeline": "digits"}), status);
    run.meta.labels.insert(labels::SCHEDULE.to_owned(), "nightly".to_owned());
    if backfill {
        run.meta.annotations.insert(labels::BACKFILL.to_owned(), "of some days".to_owned());
    }
    Arc::new(run)
}

impl Given {
    fn snapshot(&self) -> Snapshot {
        let mut schedule = record("nightly", self.spec.clone(), from::<ScheduleStatus>(&self.status));
        schedule.meta.created = self.created.or(schedule.meta.created);
        schedule.meta.generation = self.generation.unwrap_or(1);
        let spec = self.pipeline.clone().unwrap_or_else(pipeline_spec);
        let pipeline = Arc::new(record("digits", spec, PipelineStatus::default()));
        let of = |runs: &BTreeMap<Timestamp, Phase>, backfill| -> Vec<Arc<RunRecord>> {
            runs.iter().map(|(time, phase)| run(*time, *phase, backfill)).collect()
        };
        Snapshot {
            schedule,
            pipeline: Some(pipeline).filter(|_| !self.without_pipeline),
            runs: [of(&self.runs, false), of(&self.backfilled, true)].concat(),
            refusal: self.refused.map(|ago| Refusal {
                reason: Reason::RunRefused,
                message: "the API server refuses run x".to_owned(),
                at: self.now.checked_sub(SignedDuration::from_secs(ago)).unwrap(),
            }),
            now: self.now,
        }
    }
}

#[test]
fn every_case_of_the_tables() {
    let (mut wrong, mut standing) = (Vec::new(), Vec::new());
    for (file, case) in cases::<Case>("schedule") {
        let snapshot = case.given.snapshot();
        let mut plan = decide(&snapshot);
        let woken = plan.wake_at.take();
        let words = in_words(&plan.actions, &snapshot.schedule.meta);
        let object = support::standing::object("Schedule", &snapshot.schedule, &plan.status);
        standing.push((format!("{file}: {}", case.name), object));
        let mut found = differences(&plan, &words, &case.expect);
        if case.wakes.is_some() && woken != case.wakes {
            found.push(format!("looks again at {woken:?}, not {:?}", case.wakes));
        }
        let mut again = snapshot.clone();
        again.schedule.status = Arc::new(plan.status.clone());
        again.runs.extend(made(&plan.actions).map(|new| run(time_of(new), Phase::Running, new.backfill.is_some())));
        let second = decide(&again);
        if plan.actions.is_empty() && second.status != plan.status {
            found.push(format!("the second pass gives another status: {:?}", second.status));
        }
        if made(&second.actions).next().is_some() {
            found.push(format!("the second pass makes {:?}", second.actions));
        }
        wrong.extend(found.into_iter().map(|difference| format!("{file}: {}:\n    {difference}", case.name)));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    support::standing::agreed("Schedule", standing);
}

fn made(actions: &[Action]) -> impl Iterator<Item = &NewScheduled> {
    actions.iter().filter_map(|action| if let Action::CreateScheduled(new) = action { Some(&**new) } else { None })
}

fn time_of(new: &NewScheduled) -> Timestamp {
    cultivar_core::domain::time::parse_moment(&new.time).unwrap().timestamp()
}

#[test]
fn a_run_says_what_it_is_for() {
    let given = json!({"now": "2026-11-25T01:00:00Z", "created": "2026-11-24T10:00:00Z",
        "spec": {"pipeline": "digits", "cron": ["0 2 * * *"], "timeZone": "Europe/Berlin", "params": {"lr": 2}, "concurrencyPolicy": "Allow"}});
    let snapshot = Given::deserialize(given).unwrap().snapshot();
    let plan = decide(&snapshot);
    let manifest = render::scheduled(&snapshot.schedule.meta, made(&plan.actions).next().unwrap());
    let time = "2026-11-25T02:00:00+01:00[Europe/Berlin]";
    assert_eq!(manifest["metadata"]["name"], "nightly-202611250100");
    assert_eq!(manifest["metadata"]["labels"][labels::SCHEDULE], "nightly");
    assert_eq!(manifest["metadata"]["annotations"][labels::SCHEDULED_TIME], time);
    assert_eq!(manifest["metadata"]["annotations"][labels::CONCURRENCY], "Allow");
    // It outlives its pipeline, unless that says otherwise.
    assert!(manifest["metadata"]["ownerReferences"].is_null());
    let owned = NewScheduled { owned: true, ..made(&plan.actions).next().unwrap().clone() };
    let manifest = render::scheduled(&snapshot.schedule.meta, &owned);
    assert_eq!(manifest["metadata"]["ownerReferences"][0]["uid"], support::uid("digits"));
    assert_eq!(manifest["spec"], json!({"pipeline": "digits", "params": {"lr": 2}, "scheduledTime": time}));
}

fn end(run: &mut Arc<RunRecord>, phase: Phase) {
    let ended = PipelineRunStatus { phase, ..PipelineRunStatus::default() };
    *run = Arc::new(RunRecord { status: Arc::new(ended), ..(**run).clone() });
}

/// What may happen between two passes.
#[derive(Clone, Debug)]
enum Happens {
    /// The clock goes on, or back.
    Time(i64),
    /// The run at this place ends.
    End(usize),
    /// The clock goes on, and the operator crashes after it has made so many of the runs of the pass, before the status is
    /// stored.
    Crash(i64, usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (1_i64..7200).prop_map(Happens::Time),
        1 => (-7200_i64..0).prop_map(Happens::Time),
        1 => (1_i64..400_000).prop_map(Happens::Time),
        3 => (0_usize..8).prop_map(Happens::End),
        2 => (1_i64..20_000, 0_usize..3).prop_map(|(seconds, made)| Happens::Crash(seconds, made)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    // However the clock goes and whenever the operator crashes: no time gets two runs, every run is for a time of the
    // schedule, no more than the policy lets there be, and every time has had its run or was counted.
    #[test]
    fn no_time_gets_two_runs(
        policy in prop::sample::select(vec!["Queue", "Allow", "Forbid", "Replace"]),
        cron in prop::sample::select(vec!["*/20 * * * *", "0 * * * *", "30 2 * * *"]),
        most in 1_u32..4, limit in 0_u32..4,
        events in prop::collection::vec(happens(), 1..40),
    ) {
        let spec = json!({"pipeline": "digits", "cron": [cron], "timeZone": "Europe/Berlin", "concurrencyPolicy": policy,
            "catchUp": {"limit": limit}, "backfill": {"from": "2026-10-24", "to": "2026-10-25", "maxParallel": most}});
        let begin: Timestamp = "2026-10-26T10:00:00Z".parse().unwrap();
        let given = json!({"now": begin.to_string(), "created": begin.to_string(), "spec": spec});
        let mut snapshot = Given::deserialize(given).unwrap().snapshot();
        let mut made_once: BTreeSet<String> = BTreeSet::new();
        let mut latest = begin;
        for event in events {
            let mut crash = None;
            match event {
                Happens::Time(seconds) => {
                    snapshot.now = snapshot.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
                }
                Happens::End(place) => {
                    snapshot.runs.get_mut(place).into_iter().for_each(|run| end(run, Phase::Completed));
                }
                Happens::Crash(seconds, after) => {
                    snapshot.now = snapshot.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
                    crash = Some(after);
                }
            }
            latest = latest.max(snapshot.now);
            let plan = decide(&snapshot);
            let news: Vec<&NewScheduled> = made(&plan.actions).take(crash.unwrap_or(usize::MAX)).collect();
            for action in &plan.actions {
                if let Action::CancelRun { name, .. } = action {
                    let cancelled = snapshot.runs.iter_mut().filter(|run| run.meta.name == *name);
                    cancelled.for_each(|run| end(run, Phase::Cancelled));
                }
            }
            for new in news {
                prop_assert!(made_once.insert(new.name.clone()), "{} is made twice", new.name);
                prop_assert!(time_of(new) <= snapshot.now, "{} is made before its time", new.name);
                snapshot.runs.push(run(time_of(new), Phase::Running, new.backfill.is_some()));
            }
            let unfinished = |backfill: bool| {
                let runs = snapshot.runs.iter().filter(|run| !run.status.phase.is_terminal());
                runs.filter(|run| run.meta.annotations.contains_key(labels::BACKFILL) == backfill).count()
            };
            prop_assert!(unfinished(true) <= most as usize);
            if matches!(policy, "Forbid" | "Replace") {
                prop_assert!(unfinished(false) <= 1, "{policy}: {} at once", unfinished(false));
            }
            if crash.is_none() {
                snapshot.schedule.status = Arc::new(plan.status);
            }
        }
        // All that has passed is accounted for.
        snapshot.now = latest.checked_add(SignedDuration::from_hours(1)).unwrap();
        let status = decide(&snapshot).status;
        let known: Timestamp = status.considered_until.unwrap().parse().unwrap();
        let spec = Deserialize::deserialize(&*snapshot.schedule.spec).unwrap();
        let times = cultivar_core::decide::schedule::Times::of(&spec).unwrap();
        let passed = times.after(begin).take_while(|time| *time <= known).count() as u64;
        let fired = made_once.iter().filter(|name| **name > names::scheduled_run("nightly", begin)).count() as u64;
        let last = made(&decide(&snapshot).actions).filter(|new| new.backfill.is_none()).count() as u64;
        prop_assert_eq!(passed, fired + last + status.missed);
    }
}
