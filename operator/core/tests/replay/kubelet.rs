//! Everybody else in the cluster: the Job controller, the kubelet, the garbage collector.
//!
//! Comes in: the cluster. Goes out: the moves that somebody could make now, and the cluster after one.

use cultivar_core::domain::{ContainerState, Disruption, JobState, Meta, PodPhase, PodRecord, Terminated, time};
use cultivar_crds::{ExperimentStatus, PipelineRunStatus};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;

use super::cluster::{Cluster, Event, Managed, NAMESPACE};

/// How an attempt plays.
#[derive(Clone, Debug, Default)]
pub struct Play {
    pub seconds: u64,
    pub code: i32,
    pub output: String,
    pub evicted: bool,
    /// The kernel kills it for its memory.
    pub oom: bool,
    /// No node takes its pod.
    pub unscheduled: bool,
}

/// Something that somebody could do now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Move {
    /// The Job controller makes a Job's pod.
    Spawn(String),
    /// The scheduler finds no node for a pod.
    Refuse(String),
    /// The kubelet starts a pod.
    Start(String),
    /// The program ends.
    End(String),
    /// The Job controller notices that the pod has ended.
    Conclude(String),
    /// The kubelet ends a pod that is being deleted.
    Kill(String),
    /// A pod that is being deleted and has ended is removed.
    Remove(String),
    /// The garbage collector deletes what has lost its owner.
    Collect(String),
}

impl Cluster {
    /// What could happen now.
    pub fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for job in self.jobs.values().filter(|job| job.state == JobState::Active) {
            if !self.spawned.contains(&job.uid) {
                moves.push(Move::Spawn(job.name.clone()));
            } else if self.pods.values().filter(|pod| pod.job_uid == job.uid).all(PodRecord::is_over) {
                moves.push(Move::Conclude(job.name.clone()));
            }
        }
        for pod in self.pods.values() {
            let job = self.jobs.values().find(|job| job.uid == pod.job_uid);
            match &pod.main {
                // The Job controller's finalizer keeps the pod until it is counted.
                _ if pod.deleting && pod.is_over() && job.is_some_and(|job| job.state == JobState::Active) => {}
                _ if pod.deleting && pod.is_over() => moves.push(Move::Remove(pod.name.clone())),
                _ if pod.deleting => moves.push(Move::Kill(pod.name.clone())),
                ContainerState::Unknown if self.play(pod).unscheduled => {
                    moves.extend(pod.unschedulable.is_none().then(|| Move::Refuse(pod.name.clone())));
                }
                ContainerState::Unknown => moves.push(Move::Start(pod.name.clone())),
                ContainerState::Running(_) if self.ends(pod).is_some_and(|end| end <= self.now) => {
                    moves.push(Move::End(pod.name.clone()));
                }
                _ => {}
            }
        }
        moves.extend(self.orphans().into_iter().map(Move::Collect));
        moves
    }

    /// When the next program ends by itself.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.pods.values().filter_map(|pod| self.ends(pod)).filter(|end| *end > self.now).min()
    }

    fn ends(&self, pod: &PodRecord) -> Option<Timestamp> {
        let ContainerState::Running(Some(since)) = pod.main else { return None };
        Some(time::after(since, Duration::from_secs(self.play(pod).seconds)))
    }

    fn play(&self, pod: &PodRecord) -> Play {
        // A member of a fan-out plays its own part, or that of its stage.
        let member = self.stage_of.get(&pod.experiment);
        let names = [member.map(ToString::to_string), member.map(|member| member.stage.clone())];
        let mut names = names.into_iter().flatten().chain([pod.experiment.clone()]);
        // In a certain run: `again-train-*`.
        let in_run = self
            .script
            .iter()
            .find(|(name, _)| name.strip_suffix('*').is_some_and(|start| pod.experiment.starts_with(start)));
        let plays = in_run.map(|(_, plays)| plays).or_else(|| names.find_map(|name| self.script.get(&name)));
        let plays = plays.map_or(&[][..], Vec::as_slice);
        let index = (pod.attempt as usize).saturating_sub(1).min(plays.len().saturating_sub(1));
        plays.get(index).cloned().unwrap_or_default()
    }

    // Objects whose owner is gone, with their kind.
    fn orphans(&self) -> Vec<String> {
        let metas = || {
            let pipelines = self.pipelines.values().map(|record| &record.meta);
            let runs = self.runs.values().map(|record| &record.meta);
            pipelines.chain(runs).chain(self.experiments.values().map(|record| &record.meta))
        };
        let uids: BTreeSet<&str> =
            metas().map(|meta| meta.uid.as_str()).chain(self.jobs.values().map(|job| job.uid.as_str())).collect();
        let lost = |meta: &&Meta| meta.owner.as_ref().is_some_and(|owner| !uids.contains(owner.uid.as_str()));
        let ours = metas().filter(lost).map(|meta| meta.name.clone());
        let jobs = self.jobs.values().filter(|job| !uids.contains(job.owner_uid.as_str())).map(|job| job.name.clone());
        let pods = self.pods.values().filter(|pod| !pod.deleting && !uids.contains(pod.job_uid.as_str()));
        ours.chain(jobs).chain(pods.map(|pod| pod.name.clone())).collect()
    }

    /// Makes a move.
    pub fn make(&mut self, move_: &Move) {
        self.note(format!("{move_:?}"));
        match move_ {
            Move::Spawn(job) => self.spawn(job),
            Move::Refuse(pod) => {
                self.change_pod(pod, |pod| pod.unschedulable = Some("0/60 nodes are available".to_owned()));
            }
            Move::Start(pod) => {
                let since = self.second();
                self.change_pod(pod, |pod| {
                    pod.phase = PodPhase::Running;
                    pod.node = Some("node-1".to_owned());
                    pod.image_id = Some("registry.example/image@sha256:1234".to_owned());
                    pod.main = ContainerState::Running(Some(since));
                });
            }
            Move::End(pod) => self.end(pod),
            Move::Conclude(job) => self.conclude(job),
            Move::Kill(pod) => self.terminate(pod, 143, ""),
            Move::Remove(pod) => {
                let gone = self.pods.remove(pod).expect("a pod");
                self.tell(Event::Pod(gone, true));
            }
            Move::Collect(name) => self.collect(name),
        }
    }

    fn spawn(&mut self, job: &str) {
        let job = self.jobs[job].clone();
        self.spawned.insert(job.uid.clone());
        let name = format!("{}-pod", job.name);
        let pod = PodRecord {
            namespace: NAMESPACE.to_owned(),
            uid: self.next_uid("Pod", &name),
            job_uid: job.uid,
            experiment: job.experiment,
            attempt: job.attempt,
            created: Some(self.second()),
            name: name.clone(),
            ..PodRecord::default()
        };
        // Its predecessor of the same name belonged to a Job that is gone.
        self.pods.insert(name.clone(), pod);
        self.change_pod(&name, |_| {});
    }

    fn change_pod(&mut self, name: &str, change: impl FnOnce(&mut PodRecord)) {
        let pod = self.pods.get_mut(name).expect("a pod");
        change(pod);
        let pod = pod.clone();
        self.tell(Event::Pod(pod, false));
    }

    fn end(&mut self, name: &str) {
        let play = self.play(&self.pods[name]);
        if play.evicted {
            self.change_pod(name, |pod| {
                pod.deleting = true;
                pod.disruption =
                    Some(Disruption { reason: "EvictionByEvictionAPI".to_owned(), message: "drained".to_owned() });
            });
            return self.terminate(name, 143, "");
        }
        if play.code == 0 && !play.oom {
            let experiment = self.experiments.get(&self.pods[name].experiment).map(|record| record.meta.uid.clone());
            self.succeeded.extend(experiment);
            // Also when its experiment was deleted a moment before: the operator may know of the end first.
            let name = self.pods[name].experiment.clone();
            self.succeeded_names.insert(name);
        }
        if play.code != 0 || play.oom {
            let experiment = self.experiments.get(&self.pods[name].experiment).map(|record| record.meta.uid.clone());
            self.failed.extend(experiment);
        }
        match play.oom {
            true => self.terminate_for(name, 137, "OOMKilled", &play.output),
            false => self.terminate(name, play.code, &play.output),
        }
    }

    fn terminate(&mut self, name: &str, exit_code: i32, output: &str) {
        self.terminate_for(name, exit_code, "", output);
    }

    fn terminate_for(&mut self, name: &str, exit_code: i32, reason: &str, output: &str) {
        let finished = Some(self.second());
        self.change_pod(name, |pod| {
            pod.phase = if exit_code == 0 { PodPhase::Succeeded } else { PodPhase::Failed };
            let started = if let ContainerState::Running(since) = pod.main { since } else { None };
            pod.main = ContainerState::Terminated(Terminated {
                exit_code,
                reason: reason.to_owned(),
                message: output.to_owned(),
                started,
                finished,
            });
        });
    }

    fn conclude(&mut self, name: &str) {
        let uid = self.jobs[name].uid.clone();
        let pod = self.pods.values().find(|pod| pod.job_uid == uid);
        let state = match pod.map(|pod| (&pod.main, &pod.disruption)) {
            Some((ContainerState::Terminated(end), None)) if end.exit_code == 0 => JobState::Complete,
            Some((ContainerState::Terminated(end), None)) => {
                failed(&format!("Container main for pod failed with exit code {} matching", end.exit_code))
            }
            Some((_, Some(_))) => failed("Pod has condition DisruptionTarget matching FailJob rule at index 0"),
            _ => JobState::Failed {
                reason: "BackoffLimitExceeded".to_owned(),
                message: "Job has reached the limit".to_owned(),
            },
        };
        let job = self.jobs.get_mut(name).expect("a Job");
        job.state = state;
        let job = job.clone();
        self.tell(Event::Job(job, false));
    }

    fn collect(&mut self, name: &str) {
        if self.pods.contains_key(name) {
            return self.change_pod(name, |pod| pod.deleting = true);
        }
        if self.drop_job(name) {
            return;
        }
        if self.experiments.remove(name).is_some() {
            return self.tell(ExperimentStatus::event(name, None));
        }
        self.runs.remove(name);
        self.tell(PipelineRunStatus::event(name, None));
    }
}

fn failed(message: &str) -> JobState {
    JobState::Failed { reason: "PodFailurePolicy".to_owned(), message: message.to_owned() }
}
