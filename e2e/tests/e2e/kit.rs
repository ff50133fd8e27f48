//! What cases work with: the world (cluster and operator) and a case's own namespace in it.
//!
//! In: a case's name and body. Out: its result; a namespace of a failed case is left to look at.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use cultivar_conformance::has_ended;
use cultivar_e2e::api::Server;
use cultivar_e2e::cluster::Cluster;
use cultivar_e2e::error::{Context as _, Error, Result};
use cultivar_e2e::image::{Build, compile_operator};
use cultivar_e2e::operator::{self, Operator, Options};
use cultivar_e2e::tools;
use cultivar_e2e::ui::Ui;
use serde_json::{Value, json};

/// How long anything may take that is not about time: far longer than it does on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);
/// A shorter one, for what follows at once.
pub const SOON: Duration = Duration::from_secs(60);

/// A case that is being played.
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Fails the case with a message unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(cultivar_e2e::error::Error::new(format!($($message)+)));
        }
    };
}

/// The cluster, and the operator that all cases share.
pub struct World {
    cluster: Cluster,
    binary: PathBuf,
    was_up: bool,
    operator: Mutex<Option<Operator>>,
    // Whether a case has had it started anew so that it asks a registry.
    asks_registry: AtomicBool,
    company: RwLock<()>,
}

impl World {
    /// Brings the cluster up and starts the operator.
    pub fn up() -> Result<Arc<Self>> {
        let name = std::env::var("CULTIVAR_E2E_CLUSTER").unwrap_or_else(|_| "e2e".to_owned());
        let was_up = Cluster::find(&name).is_ok();
        let ui = Ui::new("e2e");
        let binary = ui.step("compile the operator", |_| compile_operator(Build::Debug))?;
        // Not while cases are played: a build takes the machine for minutes.
        ui.step("Flux's controller", |step| tools::KUSTOMIZE_CONTROLLER.ensure(&|note| step.note(note)))?;
        let cluster = Cluster::builder(&name)?.nodes(60).real_node(false).up(&ui)?;
        operator::install_definitions(&cluster)?;
        let world = Self {
            cluster,
            binary,
            was_up,
            operator: Mutex::default(),
            asks_registry: AtomicBool::new(false),
            company: RwLock::default(),
        };
        world.start_operator()?;
        Ok(Arc::new(world))
    }

    /// Stops the operator; takes the cluster down unless it was up before.
    pub fn down(&self, failed: bool) -> Result<()> {
        let operator = self.running().take();
        if failed && let Some(operator) = &operator {
            eprintln!("the operator's last words:\n{}", operator.log_tail(15));
        }
        operator.map_or(Ok(()), Operator::stop)?;
        if self.was_up {
            return Ok(());
        }
        Cluster::down(self.cluster.name(), &Ui::silent())
    }

    fn running(&self) -> MutexGuard<'_, Option<Operator>> {
        self.operator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_operator(&self) -> Result<()> {
        let mut running = self.running();
        if running.is_none() {
            *running = Some(Operator::start(&self.binary, &self.cluster, &Options::default())?);
        }
        Ok(())
    }

    fn restart_operator(&self, options: &Options) -> Result<()> {
        let mut running = self.running();
        running.take().map_or(Ok(()), Operator::stop)?;
        *running = Some(Operator::start(&self.binary, &self.cluster, options)?);
        Ok(())
    }

    async fn remove_queues(&self) -> Result<()> {
        let server = Server::connect(&self.cluster).await?;
        for queue in server.list("Queue", "", "").await? {
            // Its runs may be left to look at, and would hold it.
            let patch = json!({"metadata": {"finalizers": null}});
            server.delete("Queue", "", &name(&queue)).await?;
            let _ = server.patch("Queue", "", &name(&queue), &patch).await;
        }
        Ok(())
    }

    /// Plays a case, alone if it has to be.
    pub fn play(
        self: &Arc<Self>,
        name: &str,
        alone: bool,
        body: impl for<'a> FnOnce(&'a Case) -> Running<'a>,
    ) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.doing(|| "no runtime")?;
        // A case that failed says so itself; what it held is whole.
        let _alone = alone.then(|| self.company.write().unwrap_or_else(PoisonError::into_inner));
        let _shared = (!alone).then(|| self.company.read().unwrap_or_else(PoisonError::into_inner));
        let result = runtime.block_on(async {
            let case = Case::begin(self, name).await?;
            body(&case).await.map_err(|error| Error::new(format!("in namespace {}", case.namespace)).why(error))?;
            case.server.delete("Namespace", "", &case.namespace).await
        });
        // Whatever a case did to the world, the next one finds it as it was: a Queue that is left would make every
        // experiment wait that names none.
        if alone {
            self.cluster.start_api_server()?;
            if self.asks_registry.swap(false, Ordering::Relaxed) {
                self.restart_operator(&Options::default())?;
            }
            self.start_operator()?;
            runtime.block_on(self.remove_queues())?;
        }
        result
    }
}

/// A case's own place.
pub struct Case {
    world: Arc<World>,
    /// The API server.
    pub server: Server,
    /// The case's namespace.
    pub namespace: String,
}

impl Case {
    async fn begin(world: &Arc<World>, name: &str) -> Result<Self> {
        let server = Server::connect(&world.cluster).await?;
        let short: String = name.rsplit("::").next().unwrap_or(name).replace('_', "-").chars().take(48).collect();
        let namespace = format!("{}-{:x}", short.trim_end_matches('-'), std::process::id());
        server.namespace(&namespace).await?;
        Ok(Self { world: Arc::clone(world), server, namespace })
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.world.cluster
    }

    /// An object of ours as a manifest.
    pub fn manifest(&self, kind: &str, name: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "cultivar.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        })
    }

    /// Creates an Experiment.
    pub async fn experiment(&self, name: &str, spec: Value) -> Result<Value> {
        self.server.create(&self.manifest("Experiment", name, &spec)).await
    }

    /// Creates an Experiment and waits until it has completed.
    pub async fn completed(&self, name: &str, spec: Value) -> Result<Value> {
        self.experiment(name, spec).await?;
        self.ends(name, "Completed").await
    }

    /// Applies a Pipeline.
    pub async fn pipeline(&self, name: &str, spec: Value) -> Result<Value> {
        self.server.apply(&self.manifest("Pipeline", name, &spec)).await
    }

    /// Waits until an Experiment has ended, and checks how.
    pub async fn ends(&self, name: &str, phase: &str) -> Result<Value> {
        self.ended("Experiment", name, phase).await
    }

    /// Waits until a run has ended, and checks how.
    pub async fn run_ends(&self, name: &str, phase: &str) -> Result<Value> {
        self.ended("PipelineRun", name, phase).await
    }

    async fn ended(&self, kind: &str, name: &str, phase: &str) -> Result<Value> {
        let object = self.server.wait(kind, &self.namespace, name, LIMIT, has_ended).await?;
        let status = &object["status"];
        ensure!(
            status["phase"] == phase,
            "{kind} {name} is {}, not {phase}: {} {}",
            status["phase"],
            status["reason"],
            status["message"]
        );
        Ok(object)
    }

    /// Waits until an object of ours satisfies a condition.
    pub async fn wait(&self, kind: &str, name: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        self.server.wait(kind, &self.namespace, name, LIMIT, holds).await
    }

    /// An object that must be there.
    pub async fn get(&self, kind: &str, name: &str) -> Result<Value> {
        let found = self.server.get(kind, &self.namespace, name).await?;
        found.ok_or_else(|| Error::new(format!("{kind} {name} does not exist")))
    }

    /// The Experiment of a run's stage. Of a run that has ended it has ended too, which is stored beside the run's end.
    pub async fn stage(&self, run: &str, stage: &str) -> Result<Value> {
        let labels = format!("cultivar.dev/pipeline-run={run},cultivar.dev/stage={stage}");
        let mut found = self.server.list("Experiment", &self.namespace, &labels).await?;
        ensure!(found.len() == 1, "stage {stage} of run {run} has {} experiments", found.len());
        let found = found.remove(0);
        if has_ended(&found) || !has_ended(&self.get("PipelineRun", run).await?) {
            return Ok(found);
        }
        self.server.wait("Experiment", &self.namespace, &name(&found), LIMIT, has_ended).await
    }

    /// Names of the Jobs of an Experiment (of all with an empty name).
    pub async fn jobs(&self, experiment: &str) -> Result<Vec<String>> {
        let labels = match experiment {
            "" => "cultivar.dev/experiment".to_owned(),
            name => format!("cultivar.dev/experiment={name}"),
        };
        let jobs = self.server.list("Job", &self.namespace, &labels).await?;
        Ok(jobs.iter().map(name).collect())
    }

    /// Waits for the pod of an Experiment's newest attempt to be in a phase, and returns its name.
    pub async fn pod(&self, experiment: &str, attempt: u32, phase: &str) -> Result<String> {
        let object = self
            .wait("Experiment", experiment, |object| {
                let attempts = object["status"]["attempts"].as_array();
                attempts.is_some_and(|attempts| attempts.iter().any(|one| one["number"] == attempt))
            })
            .await?;
        let job = object["status"]["attempts"][attempt as usize - 1]["job"].as_str().unwrap_or_default().to_owned();
        let labels = format!("job-name={job}");
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let pods = self.server.list("Pod", &self.namespace, &labels).await?;
            if let Some(pod) = pods.first() {
                let wanted = |pod: &Value| pod["status"]["phase"] == phase;
                let name = name(pod);
                return self.server.wait("Pod", &self.namespace, &name, SOON, wanted).await.map(|_| name);
            }
            ensure!(tokio::time::Instant::now() < deadline, "job {job} has no pod");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends the operator as a crash would.
    pub fn kill_operator(&self) {
        self.world.running().take().into_iter().for_each(Operator::kill);
    }

    /// Starts the operator again.
    pub fn start_operator(&self) -> Result<()> {
        self.world.start_operator()
    }

    /// Starts the operator anew, so that it asks the registry of this name at that URL, until the case, which is alone, ends.
    pub fn ask_registry(&self, name: &str, url: &str) -> Result<()> {
        let registry = Some((name.to_owned(), url.to_owned()));
        self.world.asks_registry.store(true, Ordering::Relaxed);
        self.world.restart_operator(&Options { registry, ..Options::default() })
    }

    /// A replica of its own, that takes part in the election.
    pub fn replica(&self, name: &str) -> Result<Operator> {
        let options = Options { name: name.to_owned(), elect: true, ..Options::default() };
        Operator::start(&self.world.binary, &self.world.cluster, &options)
    }

    /// The shared operator's writes so far.
    pub fn writes(&self) -> Result<u64> {
        let running = self.world.running();
        let operator = running.as_ref().ok_or_else(|| Error::new("the operator is down"))?;
        let total: f64 = operator.metrics()?.writes().values().sum();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Ok(total as u64)
    }
}

/// An object's name.
pub fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// A root whose pod plays as the annotations say: `sim("duration", "200ms")`.
pub fn root(plays: &[(&str, &str)]) -> Value {
    json!({"image": "train:1", "podTemplate": played(plays)})
}

/// The same with more fields, and an image that is known by its digest: what a tag names may change.
pub fn pinned(plays: &[(&str, &str)], more: Value) -> Value {
    with(with(root(plays), json!({"image": format!("registry.example/train@sha256:{}", "7f".repeat(32))})), more)
}

/// A pod template whose annotations say how the pod plays.
pub fn played(plays: &[(&str, &str)]) -> Value {
    let mut annotations = json!({"sim/duration": "200ms"});
    for (key, value) in plays {
        annotations[format!("sim/{key}")] = json!(value);
    }
    json!({"metadata": {"annotations": annotations}})
}

/// An object with more fields.
pub fn with(mut object: Value, more: Value) -> Value {
    if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
        object.extend(more);
    }
    object
}

/// A stage: a root under a name.
pub fn stage(name: &str, spec: Value) -> Value {
    with(json!({"name": name}), spec)
}

/// The condition of a type, or null.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

/// The summary of a stage in a run's status.
pub fn summary<'a>(run: &'a Value, stage: &str) -> &'a Value {
    let stages = run["status"]["stages"].as_array().map_or(&[][..], Vec::as_slice);
    stages.iter().find(|summary| summary["name"] == stage).unwrap_or(&Value::Null)
}
