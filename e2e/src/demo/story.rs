//! The five steps, in order: what is applied, what is waited for, what is shown.
//!
//! In: a cluster with the operator in it. Out: the demo's text, and the objects that it tells of.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::paint::{Look, Painter, Row};
use super::samples::{self, PIPELINE, ROOTS, STAGES};
use super::table::{self, Pair};
use super::target::Target;
use super::tree;
use super::watch::Watch;
use crate::error::{Error, Result};
use crate::ui::seconds;

/// How long nothing may change before the demo gives up: an image may have to be pulled to a cluster of somebody's own.
const PATIENCE: Duration = Duration::from_secs(240);
const CHANGE: &str = r#"{"spec": {"params": {"C": 10}}}"#;

/// The demo in one cluster.
pub struct Story<'a> {
    target: &'a Target,
    watch: Watch,
    painter: Painter,
    gpus: bool,
    begun: Instant,
}

impl<'a> Story<'a> {
    /// Ready to tell.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn new(target: &'a Target) -> Result<Self> {
        let gpus = target.gpus()? > 0;
        Ok(Self { target, watch: Watch::start(target)?, painter: Painter::new(), gpus, begun: Instant::now() })
    }

    /// All five steps.
    ///
    /// # Errors
    /// Something is refused, fails, or does not happen.
    pub fn tell(mut self) -> Result<()> {
        self.roots()?;
        self.ids()?;
        self.pipeline()?;
        self.result()?;
        self.change()?;
        self.next();
        Ok(())
    }

    fn roots(&mut self) -> Result<()> {
        self.painter.line(Look::Plain, "");
        self.painter.line(Look::Bold, "Cultivar grows pipelines from experiments that already work, in five steps");
        self.painter.heading(1, "Three experiments by hand: programs that work, on scikit-learn's handwritten digits");
        if self.target.simulated() {
            let text =
                "   (nodes are simulated: the samples are played, and their metrics are those of an earlier real run)";
            self.painter.line(Look::Dim, text);
        }
        if !self.gpus {
            self.painter.line(Look::Dim, "   (no node advertises nvidia.com/gpu: the training asks for none)");
        }
        self.painter.command(&format!(
            "kubectl apply -f {}   # one after the other",
            samples::shown("digits-{prepare,train,evaluate}")
        ));
        for name in ROOTS {
            let manifest = samples::fitted(name, self.target, self.gpus)?;
            self.apply(name, &manifest)?;
            self.wait(
                |watch| tree::experiments(watch, &ROOTS),
                |watch| watch.get("Experiment", name).and_then(ended),
                &format!("experiment {name}"),
            )?;
        }
        self.painter.settle();
        Ok(())
    }

    fn ids(&mut self) -> Result<()> {
        self.painter.heading(2, "They have completed. Each name is an id now: a frozen template, digests, metrics");
        for name in ROOTS {
            let object = self.watch.get("Experiment", name).unwrap_or_default();
            let status = &object["status"];
            let node = status["attempts"][0]["node"].as_str().unwrap_or("?");
            let gpus = &status["template"]["resources"]["limits"]["nvidia.com/gpu"];
            let gpu =
                if gpus.is_null() { String::new() } else { format!(", {} GPU", gpus.to_string().trim_matches('"')) };
            let digest: String = status["digest"].as_str().unwrap_or("?").chars().take(19).collect();
            self.painter.line(Look::Plain, &format!("   {name:<16}  on {node}{gpu}   template {digest}…"));
            for artifact in status["artifacts"].as_array().into_iter().flatten() {
                let part = |key: &str| artifact[key].as_str().unwrap_or_default().to_owned();
                let size = artifact["size"].as_i64().map_or(String::new(), |bytes| format!("  {} KiB", bytes / 1024));
                let line = format!("   {:<16}  └─ {} {}{size}", "", part("name"), part("uri"));
                self.painter.line(Look::Dim, &line);
            }
        }
        if self.gpus && !self.target.simulated() && self.target.cluster().is_some() {
            let text = "   (GPUs as the scheduler counts them: this node advertises them, and the digits are small enough for a CPU)";
            self.painter.line(Look::Dim, text);
        }
        Ok(())
    }

    fn pipeline(&mut self) -> Result<()> {
        self.painter.heading(3, "A pipeline names the three as its stages. No image, no command: only the wiring");
        for line in samples::wiring()? {
            self.painter.line(Look::Dim, &format!("   │ {line}"));
        }
        self.painter.command(&format!("kubectl apply -f {}", samples::shown("digits-pipeline")));
        let manifest = samples::fitted("digits-pipeline", self.target, true)?;
        self.apply("digits-pipeline", &manifest)?;
        self.follow(1)
    }

    fn result(&mut self) -> Result<()> {
        let run = self.watch.get("PipelineRun", &run_name(1)).unwrap_or_default();
        let outputs = &run["status"]["outputs"];
        let judged = self.watch.stage(&run_name(1), "evaluate").unwrap_or_default();
        let accuracy = judged["status"]["metrics"]["acc"]["last"].as_f64().unwrap_or(f64::NAN) * 100.0;
        let text = format!("The run has completed: it reads {accuracy:.1} % of the digits that it never saw");
        self.painter.heading(4, &text);
        for (name, value) in outputs.as_object().into_iter().flatten() {
            self.painter.line(Look::Plain, &format!("   {name:<10} {}", tree::number(value)));
        }
        let reused = STAGES.iter().filter_map(|stage| self.watch.stage(&run_name(1), stage));
        if reused.filter(|stage| !stage["status"]["reusedFrom"].is_null()).count() == STAGES.len() {
            let text = "   (no program ran for it: the same work was done by hand, and its results were taken over)";
            self.painter.line(Look::Dim, text);
        }
        self.gaps(1);
        Ok(())
    }

    fn gaps(&mut self, revision: u8) {
        let stages = STAGES.map(|stage| self.watch.stage(&run_name(revision), stage).unwrap_or_default());
        let gaps = stages.windows(2).filter_map(|pair| tree::gap(&pair[0], &pair[1]));
        let gaps: Vec<String> = gaps.map(|gap| format!("{} ms", gap.as_millis())).collect();
        if !gaps.is_empty() {
            let text = format!("   from the end of a stage to the next one's Job: {}", gaps.join(", "));
            self.painter.line(Look::Dim, &text);
        }
    }

    fn change(&mut self) -> Result<()> {
        self.painter.heading(5, "One parameter changes: a new revision, in which what depends on it runs");
        self.painter.command(&format!("kubectl patch pipeline {PIPELINE} --type=merge --patch '{CHANGE}'"));
        self.target.kubectl(&["patch", "pipelines.cultivar.dev", PIPELINE, "--type=merge", "--patch", CHANGE])?;
        self.follow(2)?;
        self.gaps(2);
        self.painter.line(Look::Plain, "");
        for (index, line) in self.compared().iter().enumerate() {
            let look = if index == 0 { Look::Bold } else { Look::Plain };
            self.painter.line(look, &format!("   {line}"));
        }
        Ok(())
    }

    /// Shows a run until it has ended.
    fn follow(&mut self, revision: u8) -> Result<()> {
        let name = run_name(revision);
        self.wait(|watch| tree::run(watch, &name, &STAGES), |watch| run_ended(watch, &name), &format!("run {name}"))?;
        self.painter.settle();
        Ok(())
    }

    fn compared(&self) -> Vec<String> {
        let names = (run_name(1), run_name(2));
        let run = |name: &str| self.watch.get("PipelineRun", name).unwrap_or_default();
        let runs = (run(&names.0), run(&names.1));
        let params = |run: &Value| run["status"]["pipelineSpec"]["params"].clone();
        let experiment = |run: &str, stage: &str| self.watch.stage(run, stage).unwrap_or_default();
        let pair =
            |stage: &str| -> Pair { (stage.to_owned(), experiment(&names.0, stage), experiment(&names.1, stage)) };
        let stages: Vec<Pair> = ["train", "evaluate"].into_iter().map(pair).collect();
        table::compare((&names.0, &names.1), (&params(&runs.0), &params(&runs.1)), &stages)
    }

    fn apply(&self, name: &str, manifest: &str) -> Result<()> {
        self.target.apply(manifest).map(drop).map_err(|error| {
            Error::new(format!("{} was refused", samples::shown(name)))
                .why(error)
                .hint(self.hint("get experiments,pipelines"))
        })
    }

    /// Draws until `done` says how it ended.
    fn wait(
        &mut self,
        rows: impl Fn(&Watch) -> Vec<Row>,
        done: impl Fn(&Watch) -> Option<Result<(), String>>,
        what: &str,
    ) -> Result<()> {
        let mut changed = Instant::now();
        let mut last = Vec::new();
        loop {
            // Asked first: what is drawn last is then never older than the end.
            let end = done(&self.watch);
            let rows = rows(&self.watch);
            self.painter.draw(&rows);
            match end {
                Some(Ok(())) => return Ok(()),
                Some(Err(why)) => {
                    return Err(Error::new(format!("{what} did not complete"))
                        .why(why)
                        .log(self.log_of(what))
                        .hint(self.hint(&describe(what))));
                }
                None => {}
            }
            let now: Vec<String> =
                rows.iter().map(|row| format!("{} {} {}", row.name, row.phase, row.detail)).collect();
            if now != last {
                (last, changed) = (now, Instant::now());
            }
            if changed.elapsed() > PATIENCE {
                let why = format!("nothing has changed for {}", seconds(PATIENCE));
                return Err(Error::new(format!("{what} does not end")).why(why).hint(self.hint(&describe(what))));
            }
            std::thread::sleep(self.painter.pause());
        }
    }

    /// The end of the log of the program that failed: an experiment's, or that of a stage of a run.
    fn log_of(&self, what: &str) -> String {
        let name = what.rsplit(' ').next().unwrap_or_default();
        let stages = STAGES.iter().filter_map(|stage| self.watch.stage(name, stage));
        let tail = |object: Value| {
            let attempts = object["status"]["attempts"].as_array()?;
            attempts.last()?["tail"].as_str().map(|tail| crate::exec::last_lines(tail, 12))
        };
        self.watch.get("Experiment", name).into_iter().chain(stages).find_map(tail).unwrap_or_default()
    }

    fn hint(&self, ask: &str) -> String {
        let env = self.environment().map_or(String::new(), |env| format!("{env}; "));
        format!("look at it with `{env}{} {ask}`; running the demo again starts it anew", self.target.shown_kubectl())
    }

    fn environment(&self) -> Option<String> {
        self.target.cluster().map(|_| format!("eval \"$(cargo cluster env{})\"", self.target.name_option()))
    }

    fn next(&mut self) {
        let took = seconds(self.begun.elapsed());
        self.painter.line(Look::Plain, "");
        self.painter.line(Look::Bold, &format!("Done in {took}. The cluster stays up. What to try next:"));
        let lines = self.suggestions();
        let width = lines.iter().map(|(why, _)| why.chars().count()).max().unwrap_or(0);
        for (why, command) in lines {
            self.painter.line(Look::Plain, &format!("   {why:<width$}   {command}"));
        }
    }

    fn suggestions(&self) -> Vec<(&'static str, String)> {
        let kubectl = self.target.shown_kubectl();
        let gamma = r#"'{"spec": {"params": {"gamma": 0.05}}}'"#;
        let mut lines = Vec::new();
        if let Some(environment) = self.environment() {
            lines.push(("point this shell to it", environment));
        }
        lines.push(("see all that is recorded", format!("{kubectl} get experiments,pipelines,pipelineruns")));
        lines.push(("read one record", format!("{kubectl} get experiment digits-train -o yaml")));
        lines.push(("run a third revision", format!("{kubectl} patch pipeline {PIPELINE} --type=merge -p {gamma}")));
        // Their image is in the clusters of this machine only.
        if let Target::Local(_) = self.target {
            let sample = |name: &str| format!("-f {}", samples::shown(name));
            let (hello, clone) = (sample("hello-experiment"), sample("hello-clone"));
            lines.push(("clone an experiment", format!("{kubectl} apply {hello} {clone}")));
            lines.push(("run by hand, with params", format!("{kubectl} apply {}", sample("on-demand-run"))));
        }
        lines.push(("watch phases change", format!("{kubectl} get experiments --watch")));
        lines.push((
            "take everything down",
            match self.target {
                Target::Local(_) => format!("cargo demo --down{}", self.target.name_option()),
                Target::Own { context, .. } => format!("cargo demo --down --context {context}"),
            },
        ));
        lines
    }
}

/// How an Experiment or a run has ended, if it has.
fn ended(object: Value) -> Option<Result<(), String>> {
    let status = &object["status"];
    match tree::phase(status) {
        "Completed" => Some(Ok(())),
        "Failed" | "Cancelled" | "Skipped" => Some(Err(tree::why(status))),
        _ => None,
    }
}

/// How a run has ended, once all that is to be shown of its stages has arrived: each kind has a watch of its own.
fn run_ended(watch: &Watch, name: &str) -> Option<Result<(), String>> {
    let run = watch.get("PipelineRun", name)?;
    let stages = run["status"]["stages"].as_array().cloned().unwrap_or_default();
    let end = ended(run)?;
    // A stage that was skipped may have no experiment.
    let mut started = stages.iter().filter_map(|stage| stage["experiment"].as_str());
    let arrived = |name: &str| watch.get("Experiment", name).and_then(ended).is_some();
    (end.is_err() || started.all(arrived)).then_some(end)
}

fn run_name(revision: u8) -> String {
    format!("{PIPELINE}-{revision}")
}

/// kubectl's words for looking at something that the demo calls `experiment x` or `run x`.
fn describe(what: &str) -> String {
    match what.split_once(' ') {
        Some(("run", name)) => format!("describe pipelinerun {name}"),
        _ => format!("describe {what}"),
    }
}
