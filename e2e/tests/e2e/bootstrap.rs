//! A new cluster that is given everything at once.

use cultivar_e2e::error::{Context as _, Error, Result};
use cultivar_e2e::exec;
use futures::{Stream, StreamExt as _};
use kube_runtime::watcher::{self, Event};
use kube_runtime::{WatchStreamExt as _, watcher as watch};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ensure;
use crate::kit::{Case, name, root, stage, with};

const PIPELINES: usize = 40;
const GPUS: u64 = 6;
const PARALLEL: usize = 2;
const GPU: &str = "nvidia.com/gpu";
const LONG: Duration = Duration::from_secs(600);

/// What is seen of pods and runs, change by change, as the API server stored them.
#[derive(Default)]
struct Seen {
    /// By pod: its run, and how many GPUs it has.
    holding: BTreeMap<String, (String, u64)>,
    most: u64,
    /// By run: how many pods it had at once.
    most_of: BTreeMap<String, usize>,
    /// How often nothing ran although more waited than could run.
    idle: usize,
    ended: BTreeMap<String, String>,
}

impl Seen {
    fn gpus(&self) -> u64 {
        self.holding.values().map(|(_, gpus)| gpus).sum()
    }

    fn take_in(&mut self, kind: &str, object: &Value, gone: bool) {
        let phase = object["status"]["phase"].as_str().unwrap_or_default();
        if kind == "PipelineRun" {
            if matches!(phase, "Completed" | "Failed" | "Cancelled") {
                self.ended.insert(name(object), phase.to_owned());
            }
            return;
        }
        let before = self.gpus();
        if gone || matches!(phase, "Succeeded" | "Failed") {
            self.holding.remove(&name(object));
        } else {
            let run = object["metadata"]["labels"]["cultivar.dev/pipeline-run"].as_str().unwrap_or_default().to_owned();
            let limit = object["spec"]["containers"][0]["resources"]["limits"][GPU].as_str();
            let gpus = limit.and_then(|limit| limit.parse().ok()).unwrap_or_default();
            self.holding.insert(name(object), (run, gpus));
        }
        self.most = self.most.max(self.gpus());
        for (run, _) in self.holding.values() {
            let now = self.holding.values().filter(|(other, _)| other == run).count();
            let most = self.most_of.entry(run.clone()).or_default();
            *most = now.max(*most);
        }
        if before > 0 && self.gpus() == 0 && PIPELINES - self.ended.len() > 2 * usize::try_from(GPUS).unwrap_or(0) {
            self.idle += 1;
        }
    }
}

/// Every change of the kind in the case's namespace: the object, and whether it is gone.
fn changes(case: &Case, kind: &'static str) -> impl Stream<Item = (&'static str, Value, bool)> {
    let watched = watch(case.server.objects(kind, &case.namespace), watcher::Config::default()).default_backoff();
    watched.filter_map(move |event| async move {
        let (object, gone) = match event.ok()? {
            Event::Apply(object) | Event::InitApply(object) => (object, false),
            Event::Delete(object) => (object, true),
            Event::Init | Event::InitDone => return None,
        };
        Some((kind, serde_json::to_value(object).ok()?, gone))
    })
}

/// Every second one a chain, the others as wide as they may be: with one GPU a stage, or two.
fn pipeline(index: usize) -> Value {
    // They do not all end at once.
    let duration = format!("{}ms", 600 + index * 37 % 900);
    let gpus = if index.is_multiple_of(4) { 2 } else { 1 };
    let work = || with(root(&[("duration", &duration)]), json!({"resources": {"limits": {GPU: gpus}}}));
    if index.is_multiple_of(2) {
        let after = json!({"after": [{"stage": "a"}]});
        return json!({"queue": "bootstrap", "stages": [stage("a", work()), stage("b", with(work(), after))]});
    }
    let stages: Vec<Value> = ["a", "b", "c", "d"].iter().map(|name| stage(name, work())).collect();
    json!({"queue": "bootstrap", "maxParallel": PARALLEL, "stages": stages})
}

/// Forty pipelines at once start no more than their queue has and each of them may, as much as that all the while, and all
/// complete.
pub async fn a_bootstrapped_cluster_starts_what_fits(case: &Case) -> Result<()> {
    let quota = json!({"resources": {GPU: {"quota": GPUS}}});
    let mut queue = case.manifest("Queue", "bootstrap", &quota);
    queue["metadata"] = json!({"name": "bootstrap"});
    let pipelines = (0..PIPELINES).map(|index| case.manifest("Pipeline", &format!("p{index}"), &pipeline(index)));
    let all = json!({"apiVersion": "v1", "kind": "List", "items": pipelines.chain([queue]).collect::<Vec<_>>()});
    let mut kubectl = case.cluster().kubectl_command();
    kubectl.args(["apply", "--server-side", "-f", "-"]);
    let applying = tokio::task::spawn_blocking(move || exec::output(&mut kubectl, Some(&all.to_string())));

    let mut seen = Seen::default();
    let mut news = std::pin::pin!(futures::stream::select(changes(case, "Pod"), changes(case, "PipelineRun")));
    let watching = async {
        while seen.ended.len() < PIPELINES {
            let Some((kind, object, gone)) = news.next().await else { break };
            seen.take_in(kind, &object, gone);
        }
    };
    let in_time = tokio::time::timeout(LONG, watching).await;
    applying.await.doing(|| "kubectl was lost")??;
    in_time.map_err(|_| Error::new(format!("in {LONG:?} only {} of {PIPELINES} have ended", seen.ended.len())))?;

    let how: BTreeSet<&String> = seen.ended.values().collect();
    ensure!(how.iter().all(|phase| *phase == "Completed"), "{:?}", seen.ended);
    ensure!(seen.most == GPUS, "the queue has {GPUS} GPUs, and at most {} were in use at once", seen.most);
    let wide = |run: &str| {
        run.strip_prefix('p')
            .and_then(|rest| rest.split('-').next()?.parse::<usize>().ok())
            .is_some_and(|index| !index.is_multiple_of(2))
    };
    let too_wide: Vec<_> = seen.most_of.iter().filter(|(run, most)| wide(run) && **most > PARALLEL).collect();
    ensure!(too_wide.is_empty(), "maxParallel is {PARALLEL}: {too_wide:?}");
    ensure!(seen.most_of.values().any(|most| *most == PARALLEL), "no run had {PARALLEL} at once: {:?}", seen.most_of);
    // A machine that is busy may hold up everything for once; one batch after the other would be idle after each.
    ensure!(seen.idle <= 2, "{} times nothing ran though more waited than fits", seen.idle);
    case.server.delete("Queue", "", "bootstrap").await
}
