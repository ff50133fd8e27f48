//! Jobs and pods, by the experiment that they are of. Most experiments have one of each, long after they have ended too: so
//! these are short lists, and no maps.

use cultivar_core::domain::{JobRecord, JobState, PodRecord};
use std::collections::HashMap;
use std::sync::Arc;

use super::store::Name;

/// All Jobs and pods.
#[derive(Default)]
pub struct Work {
    of: HashMap<Name, Children>,
}

/// Those of one experiment, each in the order of their names.
#[derive(Default)]
struct Children {
    jobs: Vec<Arc<JobRecord>>,
    pods: Vec<Arc<PodRecord>>,
}

impl Work {
    /// The Jobs of an experiment.
    pub fn jobs(&self, experiment: &Name) -> &[Arc<JobRecord>] {
        self.of.get(experiment).map_or(&[], |children| &children.jobs)
    }

    /// The pods of an experiment; one that is gone stays until its attempt's end is recorded.
    pub fn pods(&self, experiment: &Name) -> &[Arc<PodRecord>] {
        self.of.get(experiment).map_or(&[], |children| &children.pods)
    }

    /// Experiments that have Jobs or pods.
    pub fn experiments(&self) -> impl Iterator<Item = &Name> {
        self.of.keys()
    }

    /// Every Job, with its experiment.
    pub fn all_jobs(&self) -> impl Iterator<Item = (&Name, &Arc<JobRecord>)> {
        self.of.iter().flat_map(|(name, children)| children.jobs.iter().map(move |job| (name, job)))
    }

    /// Every pod.
    pub fn all_pods(&self) -> impl Iterator<Item = &Arc<PodRecord>> {
        self.of.values().flat_map(|children| &children.pods)
    }

    /// Takes in a Job; true when it is news.
    pub fn apply_job(&mut self, job: JobRecord) -> bool {
        let jobs = &mut self.of.entry((job.namespace.clone(), job.experiment.clone())).or_default().jobs;
        let place = jobs.binary_search_by(|known| known.name.cmp(&job.name));
        if let Ok(place) = place {
            let known = &jobs[place];
            // A late answer to our own POST must not undo what the watch has said since.
            let is_late = known.uid == job.uid && known.state != JobState::Active && job.state == JobState::Active;
            if **known == job || is_late {
                return false;
            }
        }
        put(jobs, place, job);
        true
    }

    /// Takes in a pod; true when it is news.
    pub fn apply_pod(&mut self, pod: PodRecord) -> bool {
        let pods = &mut self.of.entry((pod.namespace.clone(), pod.experiment.clone())).or_default().pods;
        let place = pods.binary_search_by(|known| known.name.cmp(&pod.name));
        if let Ok(place) = place {
            let known = &pods[place];
            // A late answer must not bring back what the watch has seen go.
            let is_late = known.uid == pod.uid && known.gone && !pod.gone;
            if **known == pod || is_late {
                return false;
            }
        }
        put(pods, place, pod);
        true
    }

    /// A Job is gone.
    pub fn remove_job(&mut self, experiment: &Name, job: &str) {
        self.change(experiment, |children| children.jobs.retain(|known| known.name != job));
    }

    /// Forgets the pods of an experiment that are gone and need not be remembered.
    pub fn forget_pods(&mut self, experiment: &Name, remembered: impl Fn(&PodRecord) -> bool) {
        self.change(experiment, |children| children.pods.retain(|pod| !pod.gone || remembered(pod)));
    }

    fn change(&mut self, experiment: &Name, change: impl FnOnce(&mut Children)) {
        let Some(children) = self.of.get_mut(experiment) else { return };
        change(children);
        if children.jobs.is_empty() && children.pods.is_empty() {
            self.of.remove(experiment);
        }
    }
}

fn put<T>(list: &mut Vec<Arc<T>>, place: Result<usize, usize>, one: T) {
    match place {
        Ok(place) => list[place] = Arc::new(one),
        Err(place) => {
            // Hardly any has a second one: a list that grows by itself has room for four at once.
            if list.is_empty() {
                list.reserve_exact(1);
            }
            list.insert(place, Arc::new(one));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, uid: &str, state: JobState) -> JobRecord {
        let (name, uid) = (name.to_owned(), uid.to_owned());
        JobRecord { namespace: "n".into(), experiment: "e".into(), name, uid, state, ..JobRecord::default() }
    }

    fn pod(name: &str, attempt: u32, gone: bool) -> PodRecord {
        let (name, uid) = (name.to_owned(), format!("uid-{name}"));
        PodRecord { namespace: "n".into(), experiment: "e".into(), name, uid, attempt, gone, ..PodRecord::default() }
    }

    #[test]
    fn what_is_known_is_not_undone_and_what_is_gone_is_forgotten_in_time() {
        let (mut work, of) = (Work::default(), ("n".to_owned(), "e".to_owned()));
        assert!(work.apply_job(job("e-2", "b", JobState::Active)) && work.apply_job(job("e-1", "a", JobState::Active)));
        assert!(work.apply_job(job("e-1", "a", JobState::Complete)));
        assert!(!work.apply_job(job("e-1", "a", JobState::Complete)), "no news");
        assert!(!work.apply_job(job("e-1", "a", JobState::Active)), "a late answer");
        assert!(work.apply_job(job("e-1", "another", JobState::Active)), "made again under its name");
        assert_eq!(work.jobs(&of).iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["e-1", "e-2"]);
        assert!(work.apply_pod(pod("p", 1, false)) && work.apply_pod(pod("p", 1, true)));
        assert!(!work.apply_pod(pod("p", 1, false)), "a late answer");
        work.forget_pods(&of, |pod| pod.attempt > 0);
        assert_eq!(work.pods(&of).len(), 1, "its end is not recorded yet");
        work.forget_pods(&of, |pod| pod.attempt > 1);
        assert!(work.pods(&of).is_empty());
        work.remove_job(&of, "e-1");
        work.remove_job(&of, "e-2");
        assert_eq!(work.experiments().count(), 0, "nothing is left of it");
    }
}
