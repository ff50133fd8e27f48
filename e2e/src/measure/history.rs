//! What a long history costs: an operator in a cluster with tens of thousands of finished experiments.
//!
//! In: a session, and the command line. Out: the operator's memory, its time to begin, how soon it finds a result to reuse, and
//! how long people wait for a list, with few and with many finished experiments. One experiment is run for real; the others are made with what it came to, so that nothing is
//! left for the operator to do. Every second one did the same work, the others work of their own.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::{Value, json};

use super::report::{Report, rounded, seconds};
use super::scenario::{Session, settled};
use super::stats::percentile;
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::operator::{Operator, Options};

/// Finished experiments.
pub const FINISHED: usize = 50_000;
const FEW: usize = 10;
/// Requests in flight while they are made.
const CREATORS: usize = 32;
const MEBIBYTES: f64 = 256.0;
/// When they ended.
const LONG_AGO: &str = "2026-01-01T12:00:00Z";
const MODEL: &str = "model";
const VERDICT: &str = "cultivar.dev/verdict";
/// Experiments that look for a result, one after the other.
const LOOKS: usize = 20;
/// How often each command is called; the middle one counts.
const CALLS: usize = 3;
/// Longest that a command takes.
const COMMAND_SECONDS: f64 = 1.0;
/// CPU seconds in a second of an operator that has nothing to do, at most.
const IDLE: f64 = 0.05;

/// An operator that has begun beside so many finished experiments.
struct Begun {
    finished: usize,
    ready_seconds: f64,
    cpu_seconds: f64,
    memory: u64,
    peak_memory: u64,
    writes: f64,
    look_ups: LookUps,
    /// What is typed, and seconds until it has ended.
    commands: Vec<(String, f64)>,
}

/// What it took to find a result among them.
struct LookUps {
    // From the request that creates an experiment until it is seen to have completed with the result.
    seconds: Vec<f64>,
    cpu_seconds: f64,
}

/// What it came to.
pub struct Played {
    begun: Vec<Begun>,
    object_bytes: usize,
}

/// Makes the history, and begins beside it. It goes with the cluster: so many objects take longer to delete than to make.
///
/// # Errors
/// The API server or the operator fails.
pub fn play(session: &Session, cli: &Path, finished: usize) -> Result<Played> {
    let namespace = session.namespace();
    let made = make_one(session, &namespace)?;
    let mut begun = Vec::new();
    let mut there = 0;
    for count in [FEW, finished] {
        session.runtime.block_on(fill(session, &namespace, &made, there..count))?;
        there = count;
        let commands = commands(&Cli::new(cli, &session.cluster.kubeconfig(), &namespace))?;
        begun.push(Begun { commands, ..begin(session, &namespace, &made, count)? });
    }
    Ok(Played { begun, object_bytes: serde_json::to_string(&made).map_or(0, |text| text.len()) })
}

// Runs one experiment, and returns it as it ended.
fn make_one(session: &Session, namespace: &str) -> Result<Value> {
    session.runtime.block_on(session.server.namespace(namespace))?;
    let options = Options { log_filter: session.log_filter.clone(), ..Options::default() };
    let operator = Operator::start(&session.operator, &session.cluster, &options)?;
    let made = session.runtime.block_on(async {
        session.server.create(&experiment(namespace, MODEL)).await?;
        let completed = |object: &Value| object["status"]["phase"] == "Completed";
        session.server.wait("Experiment", namespace, MODEL, Duration::from_secs(60), completed).await?;
        // Some seconds later it has a verdict, and nothing more is to be done about it.
        session.server.wait("Experiment", namespace, MODEL, Duration::from_secs(60), noted).await?;
        settled(&operator).await?;
        let made = session.server.get("Experiment", namespace, MODEL).await?;
        let mut made = made.ok_or_else(|| Error::new("the experiment that was run is gone"))?;
        made["status"]["times"]["finished"] = LONG_AGO.into();
        Ok::<_, Error>(made)
    })?;
    operator.stop()?;
    Ok(made)
}

fn noted(object: &Value) -> bool {
    object["metadata"]["annotations"][VERDICT].is_string()
}

// Of a usual size: a program with some parameters, inputs and outputs, that reports some metrics.
fn experiment(namespace: &str, name: &str) -> Value {
    let metric = |index: i32| {
        (format!("val/metric-{index}"), json!({"last": 0.5, "min": 0.1, "max": 0.9, "step": 1000 + index}))
    };
    let artifact = |name: &str| {
        let uri = format!("s3://artifacts/{namespace}/experiments/7f3a41c0/1/{name}.bin");
        let digest = format!("sha256:{}", "a1".repeat(32));
        json!({"name": name, "type": "Model", "uri": uri, "digest": digest, "size": 123_456_789})
    };
    let result = json!({
        "metrics": (0..8).map(metric).collect::<serde_json::Map<_, _>>(),
        "artifacts": [artifact("model"), artifact("report")],
    });
    let params: serde_json::Map<String, Value> =
        (0..8).map(|index| (format!("parameter-{index}"), json!(0.001 * f64::from(index)))).collect();
    json!({
        "apiVersion": "cultivar.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": name, "namespace": namespace, "labels": {"team": "vision", "dataset": "digits"}},
        "spec": {
            "image": format!("registry.example/vision/train@sha256:{}", "b2".repeat(32)),
            "command": ["python", "-m", "vision.train"],
            "args": (0..8).map(|index| format!("--parameter-{index}=${{params[\"parameter-{index}\"]}}")).collect::<Vec<_>>(),
            "params": params,
            "env": [{"name": "OMP_NUM_THREADS", "value": "4"}, {"name": "PYTHONUNBUFFERED", "value": "1"}],
            "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "16Gi"}, "requests": {"cpu": 4}},
            "timeouts": {"run": "8h"},
            "podTemplate": {"metadata": {"annotations": {"sim/duration": "100ms", "sim/message": result.to_string()}}},
        },
    })
}

// Each is created, and then ends: the API server takes no status with a new object.
async fn fill(session: &Session, namespace: &str, made: &Value, which: std::ops::Range<usize>) -> Result<()> {
    let status = json!({"status": made["status"]});
    let mut answers = futures::stream::iter(which)
        .map(|index| {
            let (server, name) = (session.server.clone(), format!("run-{index:06}"));
            let mut status = status.clone();
            if index % 2 == 1 {
                status["status"]["digest"] = format!("sha256:{index:064x}").into();
                status["status"]["template"]["params"]["index"] = index.into();
            }
            // It is told for one name.
            let verdict = made["metadata"]["annotations"][VERDICT].as_str().unwrap_or_default();
            let verdict = verdict.replace(&format!("\"name\":\"{MODEL}\""), &format!("\"name\":\"{name}\""));
            async move {
                let manifest = json!({
                    "apiVersion": made["apiVersion"], "kind": made["kind"], "spec": made["spec"],
                    "metadata": {
                        "name": name, "namespace": namespace, "labels": made["metadata"]["labels"],
                        "annotations": {VERDICT: verdict},
                    },
                });
                server.create(&manifest).await?;
                server.patch_status("Experiment", namespace, &name, &status).await
            }
        })
        .buffer_unordered(CREATORS);
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(())
}

// One that has begun looks at everything once, and writes nothing about it.
async fn idle(operator: &Operator) -> Result<()> {
    let mut used = operator.usage()?.cpu_seconds;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = operator.usage()?.cpu_seconds;
        if now - used < IDLE {
            return Ok(());
        }
        used = now;
    }
}

// Each does what was done before, is created when the one before it has ended, and has no Job.
async fn look_up(
    session: &Session,
    operator: &Operator,
    namespace: &str,
    made: &Value,
    finished: usize,
) -> Result<LookUps> {
    idle(operator).await?;
    let cpu_before = operator.usage()?.cpu_seconds;
    let mut seconds = Vec::new();
    for index in 0..LOOKS {
        let name = format!("look-{finished}-{index}");
        let mut manifest = json!({
            "apiVersion": made["apiVersion"], "kind": made["kind"], "spec": made["spec"],
            "metadata": {"name": name, "namespace": namespace},
        });
        manifest["spec"]["cache"] = json!({"mode": "Use"});
        let begun = Instant::now();
        session.server.create(&manifest).await?;
        let completed = |object: &Value| object["status"]["phase"] == "Completed";
        let ended = session.server.wait("Experiment", namespace, &name, Duration::from_secs(60), completed).await?;
        seconds.push(begun.elapsed().as_secs_f64());
        if ended["status"]["reusedFrom"].is_null() {
            return Err(Error::new(format!("{name} ran")).log(ended["status"]["cache"].to_string()));
        }
    }
    let used = operator.usage()?.cpu_seconds;
    // The next operator shall find nothing to do.
    for index in 0..LOOKS {
        let name = format!("look-{finished}-{index}");
        session.server.wait("Experiment", namespace, &name, Duration::from_secs(60), noted).await?;
    }
    settled(operator).await?;
    Ok(LookUps { seconds, cpu_seconds: used - cpu_before })
}

// What people type to find their way among them.
fn commands(cli: &Cli) -> Result<Vec<(String, f64)>> {
    let typed = [
        "list --limit 20",
        "list --phase Completed --where params.parameter-1>0 --sort metric:val/metric-1 --limit 20",
        "list -o json --limit 20",
        "compare model run-000000 run-000001",
    ];
    let timed = typed.map(|typed| {
        let words: Vec<&str> = typed.split(' ').collect();
        let mut seconds = Vec::new();
        for _ in 0..CALLS {
            let begun = Instant::now();
            cli.run(&words)?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        Ok((typed.to_owned(), percentile(&seconds, 0.5).unwrap_or_default()))
    });
    timed.into_iter().collect()
}

fn begin(session: &Session, namespace: &str, made: &Value, finished: usize) -> Result<Begun> {
    let options = Options { log_filter: session.log_filter.clone(), ..Options::default() };
    let started = Instant::now();
    let operator = Operator::start(&session.operator, &session.cluster, &options)?;
    let ready_seconds = started.elapsed().as_secs_f64();
    let metrics = session.runtime.block_on(settled(&operator))?;
    let usage = operator.usage()?;
    let look_ups = session.runtime.block_on(look_up(session, &operator, namespace, made, finished))?;
    operator.stop()?;
    Ok(Begun {
        finished,
        look_ups,
        commands: Vec::new(),
        ready_seconds,
        cpu_seconds: usage.cpu_seconds,
        memory: usage.memory,
        peak_memory: usage.peak_memory,
        writes: metrics.writes().iter().filter(|(name, _)| !name.starts_with("Lease")).map(|(_, count)| count).sum(),
    })
}

/// Its lines.
pub fn report(played: &Played) -> Report {
    let mut report = Report::default();
    for begun in &played.begun {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let name = format!("{} finished experiments of {} bytes", begun.finished, played.object_bytes);
        report.line(
            format!("{name}: operator's memory / peak"),
            format!("{:.0} / {:.0} MiB", mebibytes(begun.memory), mebibytes(begun.peak_memory)),
            String::new(),
            "< 256 MiB",
            Some(mebibytes(begun.peak_memory) < MEBIBYTES),
        );
        report.line(
            format!("{name}: until it is ready / CPU / writes"),
            format!("{} / {} / {}", seconds(begun.ready_seconds), seconds(begun.cpu_seconds), begun.writes),
            String::new(),
            "no write",
            Some(begun.writes == 0.0),
        );
        let [middle, most] = [0.5, 1.0].map(|share| percentile(&begun.look_ups.seconds, share).unwrap_or_default());
        let cpu = begun.look_ups.cpu_seconds / LOOKS as f64;
        report.line(
            format!("{name}: until a result is reused, p50 / max, and the operator's CPU for it"),
            format!("{} / {} / {:.1} ms", seconds(middle), seconds(most), cpu * 1e3),
            String::new(),
            "the same for all",
            None,
        );
        let key = format!("finished_{}", begun.finished);
        for (typed, taken) in &begun.commands {
            let goal = (begun.finished <= 10_000).then_some(*taken < COMMAND_SECONDS);
            report.line(format!("{name}: {typed}"), seconds(*taken), String::new(), "< 1 s with 10,000", goal);
            report.put(&key, &format!("{typed} seconds"), rounded(*taken));
        }
        report.put(&key, "reuse_p50_seconds", rounded(middle));
        report.put(&key, "reuse_max_seconds", rounded(most));
        report.put(&key, "reuse_cpu_seconds", rounded(cpu));
        report.put(&key, "ready_seconds", rounded(begun.ready_seconds));
        report.put(&key, "cpu_seconds", rounded(begun.cpu_seconds));
        report.put(&key, "memory", json!(begun.memory));
        report.put(&key, "peak_memory", json!(begun.peak_memory));
    }
    report
}
