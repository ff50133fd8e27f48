//! What the API server has, followed live by `kubectl get --watch`.
//!
//! In: kinds of the demo's namespace. Out: the newest version of each object, at hand at any moment. kubectl and not a
//! client of our own, so that `cargo demo` compiles in seconds.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::target::{NAMESPACE, Target};
use crate::error::{Context as _, Result};

/// The kinds that the demo shows.
const KINDS: [&str; 2] = ["experiments.cultivar.dev", "pipelineruns.cultivar.dev"];

type Objects = BTreeMap<(String, String), Value>;

/// Follows the demo's objects until it is dropped.
pub struct Watch {
    objects: Arc<Mutex<Objects>>,
    stop: Arc<AtomicBool>,
    children: Vec<Arc<Mutex<Child>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Starts to follow.
    ///
    /// # Errors
    /// kubectl does not start.
    pub fn start(target: &Target) -> Result<Self> {
        let mut watch =
            Self { objects: Arc::default(), stop: Arc::default(), children: Vec::new(), threads: Vec::new() };
        for kind in KINDS {
            watch.follow(target, kind)?;
        }
        Ok(watch)
    }

    /// The newest version of an object, if there is one: by kind, such as `Experiment`, and name.
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        lock(&self.objects).get(&(kind.to_owned(), name.to_owned())).cloned()
    }

    /// The newest version of the experiment that plays a stage of a run, if there is one.
    pub fn stage(&self, run: &str, stage: &str) -> Option<Value> {
        let objects = lock(&self.objects);
        let ours = |object: &&Value| {
            let labels = &object["metadata"]["labels"];
            object["kind"] == "Experiment"
                && labels["cultivar.dev/pipeline-run"] == run
                && labels["cultivar.dev/stage"] == stage
        };
        objects.values().find(ours).cloned()
    }

    fn follow(&mut self, target: &Target, kind: &'static str) -> Result<()> {
        let mut first = spawn(target, kind)?;
        let mut stdout = first.stdout.take();
        let child = Arc::new(Mutex::new(first));
        self.children.push(Arc::clone(&child));
        let (objects, stop, target) = (Arc::clone(&self.objects), Arc::clone(&self.stop), target.clone());
        self.threads.push(std::thread::spawn(move || {
            loop {
                if let Some(out) = stdout.take() {
                    read(out, &objects);
                }
                // The API server ends a watch now and then, and a restart of it ends all.
                let _ = lock(&child).wait();
                std::thread::sleep(Duration::from_millis(200));
                // Under the lock, so that whoever sets `stop` finds the newest child to end.
                let mut child = lock(&child);
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(mut next) = spawn(&target, kind) {
                    stdout = next.stdout.take();
                    *child = next;
                }
            }
        }));
        Ok(())
    }
}

fn spawn(target: &Target, kind: &str) -> Result<Child> {
    let mut command = target.kubectl_command();
    command.args(["--namespace", NAMESPACE, "get", kind, "--watch", "--output-watch-events", "--output=json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().doing(|| format!("cannot watch {kind}"))
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for child in &self.children {
            // It may have ended by itself.
            let _ = lock(child).kill();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Keeps what a stream of watch events says, until it ends.
fn read(from: impl std::io::Read, objects: &Mutex<Objects>) {
    let events = serde_json::Deserializer::from_reader(BufReader::new(from)).into_iter::<Value>();
    for mut event in events.map_while(Result::ok) {
        let object = event["object"].take();
        let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = (part(&object["kind"]), part(&object["metadata"]["name"]));
        if event["type"] == "DELETED" {
            lock(objects).remove(&key);
        } else {
            lock(objects).insert(key, object);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_stays_and_what_is_deleted_goes() {
        let event = |kind: &str, name: &str, phase: &str| {
            format!(
                r#"{{"type": "{kind}", "object": {{"kind": "Experiment", "metadata": {{"name": "{name}"}}, "status": {{"phase": "{phase}"}}}}}}"#
            )
        };
        let stream = [
            event("ADDED", "a", "Pending"),
            event("ADDED", "b", "Running"),
            event("MODIFIED", "a", "Completed"),
            event("DELETED", "b", ""),
        ];
        let objects = Mutex::default();
        read(stream.join("\n").as_bytes(), &objects);
        let objects = objects.into_inner().unwrap();
        assert_eq!(objects.len(), 1);
        assert_eq!(objects[&("Experiment".to_owned(), "a".to_owned())]["status"]["phase"], "Completed");
    }
}
