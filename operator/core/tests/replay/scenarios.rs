//! Scenarios that are replayed, and how each ends.

use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::cluster::Kind;
use super::kubelet::Play;
use super::world::{Deed, Scenario};

pub fn ends(code: i32) -> Play {
    Play { seconds: 5, code, ..Play::default() }
}

fn reports(result: &Value) -> Play {
    Play { seconds: 5, output: result.to_string(), ..Play::default() }
}

pub fn script(plays: &[(&str, &[Play])]) -> BTreeMap<String, Vec<Play>> {
    plays.iter().map(|(name, plays)| ((*name).to_owned(), plays.to_vec())).collect()
}

pub fn pipeline(spec: &Value) -> Deed {
    Deed::Apply(json!({"kind": "Pipeline", "metadata": {"name": "digits"}, "spec": spec}))
}

fn experiment(name: &str, spec: &Value) -> Deed {
    Deed::Apply(json!({"kind": "Experiment", "metadata": {"name": name}, "spec": spec}))
}

fn diamond() -> Value {
    let mut spec = diamond_on_conditions();
    for stage in spec["stages"].as_array_mut().expect("stages") {
        stage.as_object_mut().expect("a stage").remove("when");
    }
    spec
}

fn diamond_on_conditions() -> Value {
    json!({"outputs": {"model": "${stages.d.artifacts.model.uri}"}, "stages": [
        {"name": "d", "image": "x", "when": "stages.b.metrics.acc.last > 0.5", "args": ["${stages.b.metrics.acc.last}", "${stages.c.experiment}"]},
        {"name": "b", "image": "x", "after": [{"stage": "a"}]},
        {"name": "c", "image": "x", "params": {"data": "${stages.a.artifacts.data.uri}"}},
        {"name": "a", "image": "x"},
        {"name": "never", "image": "x", "after": [{"stage": "c"}], "when": "stages.b.metrics.acc.last > 0.99"},
    ]})
}

fn diamond_script() -> BTreeMap<String, Vec<Play>> {
    script(&[
        ("a", &[reports(&json!({"artifacts": [{"name": "data", "uri": "s3://d"}]}))]),
        ("b", &[Play { seconds: 9, ..reports(&json!({"metrics": {"acc": 0.9}})) }]),
        ("d", &[reports(&json!({"artifacts": [{"name": "model", "uri": "s3://m"}]}))]),
    ])
}

// Long enough for what runs to be recorded, since status writes are shared: what is not recorded when
// somebody deletes it is done again after a crash.
fn with_long_b() -> BTreeMap<String, Vec<Play>> {
    let mut script = diamond_script();
    for stage in ["b", "c"] {
        script.insert(stage.to_owned(), vec![Play { seconds: 60, ..reports(&json!({"metrics": {"acc": 0.9}})) }]);
    }
    script
}

// A failure that another stage deals with, a value from whichever branch ran, and a stage of the end; cancelled or not.
fn handled(cancel: Option<u64>) -> Scenario {
    let spec = json!({
        "stages": [
            {"name": "a", "image": "x"},
            {"name": "mend", "image": "x", "after": [{"stage": "a", "until": "Failed"}]},
            {"name": "praise", "image": "x", "when": "stages.a.phase == 'Completed'"},
            {"name": "use", "image": "x", "args": ["${stages.praise.metrics.acc.last ?? stages.mend.metrics.acc.last ?? 0}"]},
        ],
        "finally": [
            {"name": "tell", "image": "x", "args": ["${pipeline.phase}", "${stages.use.phase}"]},
            {"name": "alarm", "image": "x", "when": "pipeline.phase == 'Failed'"},
        ],
    });
    let mut deeds = vec![(0, pipeline(&spec))];
    deeds.extend(cancel.map(|second| (second, Deed::Cancel(Kind::Run, "digits-1"))));
    let acc = Play { seconds: if cancel.is_some() { 60 } else { 5 }, ..reports(&json!({"metrics": {"acc": 0.9}})) };
    Scenario {
        name: if cancel.is_some() { "a run that is cancelled and finishes" } else { "failures that are dealt with" },
        deeds,
        script: script(&[("a", &[ends(1)]), ("mend", &[acc]), ("tell", &[ends(3)])]),
    }
}

// One member fails, one is left out; two at once, and three of the whole run.
fn fan_out() -> Scenario {
    let spec = json!({"maxParallel": 3, "stages": [
        {"name": "split", "image": "x"},
        {"name": "train", "image": "x", "maxParallel": 2, "when": "matrix.lr != 3",
            "matrix": {"axes": {"lr": [1, 2, 3, 4, 5], "of": "${= [stages.split.metrics.parts.last]}"}}},
        {"name": "none", "image": "x", "count": "${= int(stages.split.metrics.parts.last) - 1}"},
        {"name": "report", "image": "x", "after": [{"stage": "train", "until": "Ended"}],
            "args": ["${= best(stages.train, {\"metric\": \"acc\"}).index}", "${stages.train.metrics.acc.last}"]},
        {"name": "other", "image": "x", "count": 2},
    ]});
    let acc = |acc: f64| reports(&json!({"metrics": {"acc": acc}}));
    Scenario {
        name: "a fan-out with a failure, a gap and a join",
        deeds: vec![(0, pipeline(&spec))],
        script: script(&[
            ("split", &[reports(&json!({"metrics": {"parts": 1}}))]),
            ("train-0", &[acc(0.5)]),
            ("train-1", &[ends(3)]),
            ("train-3", &[Play { seconds: 9, ..acc(0.75) }]),
            ("train-4", &[acc(0.25)]),
        ]),
    }
}

fn module(name: &str, mut spec: Value) -> Deed {
    spec["runOn"] = "Demand".into();
    Deed::Apply(json!({"kind": "Pipeline", "metadata": {"name": name}, "spec": spec}))
}

// A pipeline within another one, in two places and for two members of a fan-out; what it hands up is read.
fn nested(cancel: Option<u64>) -> Scenario {
    let inner = json!({
        "params": {"data": "s3://none"},
        "stages": [
            {"name": "fit", "image": "x", "params": {"data": "${pipeline.params.data}"}},
            {"name": "check", "image": "x", "args": ["${stages.fit.artifacts.model.uri}"]},
        ],
        "outputs": {"model": "${stages.fit.artifacts.model.uri}"},
    });
    let outer = json!({"stages": [
        {"name": "prepare", "image": "x"},
        {"name": "one", "pipeline": "fit-and-check", "params": {"data": "${stages.prepare.artifacts.data.uri}"}},
        {"name": "many", "pipeline": "fit-and-check", "after": [{"stage": "one"}], "matrix": {"axes": {"data": ["s3://a", "s3://b"]}}},
        {"name": "deploy", "image": "x", "args": ["${stages.one.outputs.model}", "${stages.many.outputs.model}"]},
    ]});
    let mut deeds = vec![(0, module("fit-and-check", inner)), (0, pipeline(&outer))];
    deeds.extend(cancel.map(|moment| (moment, Deed::Cancel(Kind::Run, "digits-1"))));
    Scenario {
        name: if cancel.is_some() { "a run that is cancelled with the runs in it" } else { "pipelines of pipelines" },
        deeds,
        script: script(&[
            ("prepare", &[reports(&json!({"artifacts": [{"name": "data", "uri": "s3://d"}]}))]),
            ("fit", &[Play { seconds: 15, ..reports(&json!({"artifacts": [{"name": "model", "uri": "s3://m"}]})) }]),
        ]),
    }
}

// Turns until a metric is good enough, turns that are counted, turns in vain.
fn loops() -> Scenario {
    let acc = |acc: f64| reports(&json!({"metrics": {"acc": acc}}));
    let spec = json!({"stages": [
        {"name": "data", "image": "x"},
        {"name": "train", "image": "x", "after": [{"stage": "data"}], "retries": {"limit": 1}, "args": ["${repeat.last.metrics.acc.last ?? 0}"],
            "repeat": {"until": "repeat.last.metrics.acc.last > 0.8", "max": 5}},
        {"name": "three", "image": "x", "args": ["${repeat.index}"], "repeat": {"max": 3}},
        {"name": "vain", "image": "x", "repeat": {"until": "repeat.last.metrics.acc.last > 0.8", "max": 2}},
        {"name": "report", "image": "x", "args": ["${stages.train.metrics.acc.last}"]},
    ]});
    Scenario {
        name: "loops",
        deeds: vec![(0, pipeline(&spec))],
        script: script(&[
            ("train-0", &[acc(0.5)]),
            ("train-1", &[ends(1), acc(0.7)]),
            ("train-2", &[acc(0.9)]),
            ("vain", &[acc(0.5)]),
        ]),
    }
}

pub fn run_by_hand(name: &str, spec: &Value) -> Deed {
    Deed::Apply(json!({"kind": "PipelineRun", "metadata": {"name": name}, "spec": spec}))
}

// A run fails, and another one goes on from it: what completed is not done again.
fn resumed() -> Scenario {
    let spec = json!({"params": {"lr": 1}, "stages": [
        {"name": "prepare", "image": "x"},
        {"name": "many", "image": "x", "count": 3, "after": [{"stage": "prepare"}]},
        {"name": "train", "image": "x", "after": [{"stage": "prepare"}], "params": {"lr": "${pipeline.params.lr}"},
            "args": ["${stages.prepare.artifacts.data.uri}"]},
        {"name": "report", "image": "x", "args": ["${stages.train.metrics.acc.last}", "${= size(stages.many.members)}"]},
    ]});
    Scenario {
        name: "a run that goes on where another one failed",
        deeds: vec![
            (0, pipeline(&spec)),
            // Before the first has ended: it waits.
            (8, run_by_hand("again", &json!({"pipeline": "digits", "resumeOf": "digits-1", "params": {"lr": 2}}))),
            (300, run_by_hand("part", &json!({"pipeline": "digits", "only": ["train"]}))),
        ],
        script: script(&[
            ("prepare", &[reports(&json!({"artifacts": [{"name": "data", "uri": "s3://d"}]}))]),
            ("digits-1-many-1-*", &[ends(1)]),
            ("digits-1-train-*", &[ends(1)]),
            ("train", &[reports(&json!({"metrics": {"acc": 0.9}}))]),
        ]),
    }
}

// The run's deadline ends what runs and what has not started; the stages of the end run after it.
fn overdue() -> Scenario {
    let spec = json!({"timeouts": {"run": "20s"}, "stages": [
        {"name": "quick", "image": "x"},
        {"name": "slow", "image": "x"},
        {"name": "later", "image": "x", "after": [{"stage": "slow"}]},
        {"name": "many", "image": "x", "count": 9, "maxParallel": 1},
    ], "finally": [{"name": "tell", "image": "x", "args": ["${pipeline.phase}", "${stages.slow.phase}"]}]});
    let long = |seconds| Play { seconds, ..Play::default() };
    Scenario {
        name: "a run that takes too long",
        deeds: vec![(0, pipeline(&spec))],
        script: script(&[("slow", &[long(500)]), ("many", &[long(300)]), ("tell", &[long(60)])]),
    }
}

// Two pipelines of one group: their runs never overlap, see the check of what is created.
fn grouped() -> Scenario {
    let spec = |stage: &str| {
        json!({"concurrency": {"group": "deploy-${pipeline.params.to}"}, "params": {"to": "north"}, "stages": [
            {"name": stage, "image": "x"},
            {"name": "last", "image": "x", "after": [{"stage": stage}]},
        ]})
    };
    let named =
        |name: &str, spec: Value| Deed::Apply(json!({"kind": "Pipeline", "metadata": {"name": name}, "spec": spec}));
    Scenario {
        name: "two pipelines that share a group",
        deeds: vec![(0, named("one", spec("a"))), (1, named("two", spec("b"))), (2, named("three", spec("c")))],
        script: BTreeMap::new(),
    }
}

pub fn all() -> Vec<Scenario> {
    vec![
        Scenario { name: "a diamond", deeds: vec![(0, pipeline(&diamond_on_conditions()))], script: diamond_script() },
        retries(),
        Scenario {
            name: "a retry that is in vain",
            deeds: vec![(0, experiment("train", &json!({"image": "x", "retries": {"limit": 1}})))],
            script: script(&[("train", &[ends(1)])]),
        },
        cancel(),
        cancelled_run(),
        clones(),
        branches(false),
        branches(true),
        two_revisions(),
        brief(),
        handled(None),
        fan_out(),
        nested(None),
        nested(Some(25)),
        loops(),
        resumed(),
        grouped(),
        overdue(),
        super::reuse::revisions(),
        super::reuse::joined(),
        super::reuse::tags(),
        super::gates::answered(),
        super::gates::unanswered(None),
        super::gates::unanswered(Some(50)),
        handled(Some(25)),
        Scenario {
            name: "an experiment is deleted mid-run",
            deeds: vec![(0, pipeline(&diamond())), (25, Deed::DeleteStage("b"))],
            script: with_long_b(),
        },
        Scenario {
            name: "a pod and a Job are deleted",
            deeds: vec![(0, pipeline(&diamond())), (25, Deed::DeletePod("c")), (26, Deed::DeleteJob("b"))],
            script: with_long_b(),
        },
        Scenario {
            // The run waits, and what it waits for comes before that wait is stored.
            name: "a pipeline and its roots, applied together, that end at once",
            deeds: vec![
                (
                    0,
                    pipeline(
                        &json!({"stages": [{"name": "one", "from": {"experiment": "first"}}, {"name": "two", "from": {"experiment": "second"}}]}),
                    ),
                ),
                (0, experiment("second", &json!({"from": {"experiment": "first"}, "params": {"x": 1}}))),
                (0, experiment("first", &json!({"image": "x"}))),
            ],
            script: script(&[
                ("first", &[Play { seconds: 0, ..Play::default() }]),
                ("second", &[Play { seconds: 0, ..Play::default() }]),
            ]),
        },
        Scenario {
            name: "a time limit, and a Job that cannot be rendered",
            deeds: vec![
                (0, experiment("slow", &json!({"image": "x", "timeouts": {"run": "3s"}, "retries": {"limit": 1}}))),
                (
                    0,
                    experiment(
                        "wrong",
                        &json!({"image": "x", "podTemplate": {"spec": {"containers": [{"name": "main", "$patch": "delete"}]}}}),
                    ),
                ),
            ],
            script: script(&[("slow", &[Play { seconds: 60, ..Play::default() }])]),
        },
    ]
}

fn retries() -> Scenario {
    let evicted = Play { evicted: true, ..ends(0) };
    Scenario {
        name: "both budgets",
        deeds: vec![(
            0,
            experiment(
                "train",
                &json!({"image": "x", "retries": {"limit": 2, "infrastructure": 1}, "outputs": [{"name": "m"}]}),
            ),
        )],
        script: script(&[(
            "train",
            &[ends(1), evicted, ends(0), reports(&json!({"artifacts": [{"name": "m", "uri": "s3://m"}]}))],
        )]),
    }
}

fn cancel() -> Scenario {
    Scenario {
        name: "cancelled experiments",
        deeds: vec![
            (0, experiment("running", &json!({"image": "x"}))),
            (0, experiment("waiting", &json!({"from": {"experiment": "nobody"}}))),
            (
                0,
                experiment(
                    "retrying",
                    &json!({"image": "x", "retries": {"limit": 5, "backoff": {"initial": "1h", "max": "1h"}}}),
                ),
            ),
            (20, Deed::Cancel(Kind::Experiment, "running")),
            (20, Deed::Cancel(Kind::Experiment, "waiting")),
            (20, Deed::Cancel(Kind::Experiment, "retrying")),
        ],
        script: script(&[("running", &[Play { seconds: 500, ..Play::default() }]), ("retrying", &[ends(1)])]),
    }
}

fn cancelled_run() -> Scenario {
    Scenario {
        name: "a cancelled run",
        deeds: vec![(0, pipeline(&diamond())), (8, Deed::Cancel(Kind::Run, "digits-1"))],
        script: diamond_script(),
    }
}

fn clones() -> Scenario {
    let label = |name: &str, spec: Value| {
        Deed::Apply(json!({"kind": "Experiment", "metadata": {"name": name, "labels": {"team": "a"}}, "spec": spec}))
    };
    Scenario {
        name: "a chain of clones, the last first",
        deeds: vec![
            (0, experiment("third", &json!({"from": {"experiment": "second"}, "args": ["3"]}))),
            (
                1,
                experiment(
                    "best",
                    &json!({"from": {"selector": {"matchLabels": {"team": "a"}, "pick": "Best", "best": {"metric": "acc"}}}}),
                ),
            ),
            (2, experiment("second", &json!({"from": {"experiment": "root"}, "params": {"lr": 2}}))),
            (3, experiment("fix", &json!({"from": {"experiment": "broken", "require": "Ended"}}))),
            (3, experiment("never", &json!({"from": {"experiment": "broken"}}))),
            (4, label("root", json!({"image": "x", "params": {"lr": 1}, "args": ["1"]}))),
            (4, experiment("broken", &json!({"image": "x"}))),
        ],
        script: script(&[("root", &[reports(&json!({"metrics": {"acc": 1}}))]), ("broken", &[ends(1)])]),
    }
}

fn branches(stop: bool) -> Scenario {
    let spec = json!({"onFailure": if stop { "Stop" } else { "Continue" }, "stages": [
        {"name": "bad", "image": "x"},
        {"name": "next", "image": "x", "after": [{"stage": "bad"}]},
        {"name": "last", "image": "x", "after": [{"stage": "next"}]},
        {"name": "long", "image": "x"},
        {"name": "longer", "image": "x", "after": [{"stage": "long"}]},
    ]});
    Scenario {
        name: if stop { "a failing branch that stops the rest" } else { "a failing branch" },
        deeds: vec![(0, pipeline(&spec))],
        script: script(&[("bad", &[ends(2)]), ("long", &[Play { seconds: 30, ..Play::default() }])]),
    }
}

// The run goes while its pipeline stays: nothing is run again, until an edit.
fn brief() -> Scenario {
    let spec = |image: &str| json!({"ttlAfterFinished": "20s", "stages": [{"name": "a", "image": image}]});
    Scenario {
        name: "runs that go when their time is over",
        deeds: vec![(0, pipeline(&spec("one"))), (60, pipeline(&spec("two")))],
        script: script(&[]),
    }
}

fn two_revisions() -> Scenario {
    let spec = |image: &str| json!({"historyLimit": 1, "stages": [{"name": "a", "image": image}, {"name": "b", "image": image, "after": [{"stage": "a"}]}]});
    Scenario {
        name: "three revisions, of which the second never starts",
        deeds: vec![(0, pipeline(&spec("one"))), (2, pipeline(&spec("two"))), (4, pipeline(&spec("three")))],
        script: script(&[]),
    }
}
