//! Everything before the first step: the cluster, the operator and the store in it, and the namespace of the demo.
//!
//! In: the options. Out: a [`Target`] with an operator that is ready and nothing left of an earlier demo; or, for
//! `--down`, nothing at all.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::Options;
use super::images::{self, Images, VERSION};
use super::samples::{PIPELINE, ROOTS};
use super::target::{NAMESPACE, SYSTEM, Target};
use super::volume;
use crate::cluster::{self, Cluster};
use crate::error::{Error, Result};
use crate::image::{Build, OPERATOR, compile_operator};
use crate::ui::{Step, Ui};
use crate::{chart, exec, operator};

const RELEASE: &str = "cultivar";
/// The operator beside a cluster of simulated nodes: a simulated pod would play it, not run it.
const BESIDE: &str = "cultivar-operator";

/// Brings up what the demo needs.
///
/// # Errors
/// Something does not come up; the error says what to do.
pub fn install(options: &Options) -> Result<Target> {
    let ui = Ui::new("demo");
    let target = match &options.context {
        Some(context) => own(context, options, &ui)?,
        None => local(options, &ui)?,
    };
    ui.step("namespace", |step| prepare(&target, step))?;
    Ok(target)
}

/// Takes down what the demo made.
///
/// # Errors
/// Something stays; the error names it.
pub fn down(options: &Options) -> Result<()> {
    let ui = Ui::new("demo down");
    let Some(context) = &options.context else {
        Cluster::down(&options.name, &ui)?;
        ui.say(format!("{} is down", options.name));
        return Ok(());
    };
    let target = Target::own(context, None)?;
    target.check()?;
    let mut delete = target.kubectl_command();
    delete.args(["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s"]);
    ui.step("namespace", |_| exec::output(&mut delete, None))?;
    let mut helm = target.helm_command()?;
    helm.args(["uninstall", RELEASE, "--namespace", SYSTEM, "--ignore-not-found", "--wait"]);
    ui.step("operator", |_| exec::output(&mut helm, None))?;
    ui.say(format!("namespace {NAMESPACE} and release {RELEASE} are gone; the definitions stay: they hold every experiment of yours"));
    ui.say("  kubectl delete crd experiments.cultivar.dev pipelines.cultivar.dev pipelineruns.cultivar.dev approvals.cultivar.dev artifactstores.cultivar.dev queues.cultivar.dev schedules.cultivar.dev   removes them too");
    ui.say(format!(
        "so does the store's volume: it holds every artifact, and `kubectl -n {SYSTEM} delete pvc {}` removes it",
        volume::CLAIM
    ));
    Ok(())
}

fn local(options: &Options, ui: &Ui) -> Result<Target> {
    let mut builder = Cluster::builder(&options.name)?;
    if options.simulated {
        if Cluster::find(&options.name).is_ok_and(|cluster| cluster.real_node().is_some()) {
            return Err(Error::new(format!("the cluster {} has a real node", options.name)).hint(
                "`--name another` makes a simulated one beside it; without --simulated the demo runs on the real node",
            ));
        }
        builder = builder.real_node(false);
    }
    let cluster = builder.up(ui)?;
    let target = Target::Local(Box::new(cluster.clone()));
    if cluster.real_node().is_none() {
        ui.step("operator", |step| beside(&cluster, step))?;
        return Ok(target);
    }
    let images = images::build(Build::Debug, ui)?;
    images::load(&cluster, &images, ui)?;
    cluster.stop_beside(BESIDE)?;
    ui.step("helm install", |step| release(&target, Some(&images), step))?;
    Ok(target)
}

fn own(context: &str, options: &Options, ui: &Ui) -> Result<Target> {
    let target = Target::own(context, options.image_repository.as_deref())?;
    target.check()?;
    ui.step("helm install", |step| release(&target, None, step))?;
    Ok(target)
}

/// Installs or upgrades the chart, and waits until the operator is ready.
fn release(target: &Target, images: Option<&Images>, step: &Step) -> Result<()> {
    step.note("the store's volume");
    volume::prepare(target)?;
    let image = target.image(OPERATOR);
    let mut helm = target.helm_command()?;
    helm.args(["upgrade", "--install", RELEASE]).arg(chart::chart_dir());
    helm.args(["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout=180s"]);
    helm.args(["--set", &format!("image.repository={image}"), "--set", &format!("image.tag={VERSION}")]);
    if let Some(images) = images {
        // The image was loaded, and no registry has it. The file's name changes with what is in it, and so do the pods.
        let key = images.operator.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        helm.args(["--set", "image.pullPolicy=Never", "--set", &format!("podAnnotations.demo-image={key}")]);
        helm.args(["--set", &format!("store.podAnnotations.demo-image={key}")]);
        // A cluster that is here to be played with: definitions that somebody applied by hand are no obstacle.
        helm.args(["--take-ownership", "--force-conflicts"]);
    }
    match target.cluster().and_then(Cluster::registry) {
        Some(registry) => {
            let name = cluster::REGISTRY.replace('.', "\\.");
            helm.args(["--set-string", &format!("images.mirrors.{name}={registry}")]);
        }
        // Images that were loaded onto nodes lie in no registry.
        None if image == OPERATOR => drop(helm.args(["--set", "images.resolve=false"])),
        None => {}
    }
    step.note("until the operator and the store are ready");
    exec::output(&mut helm, None).map(drop).map_err(|error| {
        Error::new("the operator was not installed").why(error).log(operator_log(target)).hint(format!(
            "`{}` shows its pod. If Helm says that another operation is in progress, it was interrupted: `helm -n {SYSTEM} uninstall {RELEASE}`, then again",
            target.shown_kubectl().replace(NAMESPACE, SYSTEM) + " describe pods"
        ))
    })
}

/// Why its pod does not become ready, and the end of its log.
fn operator_log(target: &Target) -> String {
    let ask = |args: &[&str]| {
        let mut command = target.kubectl_command();
        let said = exec::output(command.args(["--request-timeout=10s", "--namespace", SYSTEM]).args(args), None);
        said.unwrap_or_default()
    };
    let pods = ask(&["get", "pods"]);
    let log = ask(&["logs", "deployment/cultivar-operator", "--tail=12"]);
    let store = ask(&["logs", "statefulset/cultivar-store", "--tail=6"]);
    format!("{pods}{log}{store}").trim().to_owned()
}

/// Runs the operator as a process: simulated nodes play pods, they do not run them.
fn beside(cluster: &Cluster, step: &Step) -> Result<()> {
    step.note("definitions");
    operator::install_definitions(cluster)?;
    step.note("compiling it");
    let program = compile_operator(Build::Debug)?;
    let port = port(cluster)?;
    let stamp = fs::metadata(&program).ok().and_then(|meta| meta.modified().ok()?.duration_since(UNIX_EPOCH).ok());
    // A newer binary changes the command, and that restarts it.
    let args = [
        format!("CULTIVAR_DEMO_BUILD={}", stamp.unwrap_or_default().as_millis()),
        format!("KUBECONFIG={}", cluster.kubeconfig().display()),
        program.display().to_string(),
        "--webhook=off".to_owned(),
        "--leader-elect=false".to_owned(),
        // What simulated nodes play lies in no registry.
        "--resolve-images=off".to_owned(),
        format!("--http-bind=127.0.0.1:{port}"),
    ];
    cluster.start_beside(BESIDE, Path::new("/usr/bin/env"), &args)?;
    step.note("until it is ready");
    let begun = Instant::now();
    while !ready(port) {
        if begun.elapsed() > Duration::from_secs(30) {
            let log = cluster.dir().join("logs").join(format!("{BESIDE}.log"));
            let said = exec::last_lines(&fs::read_to_string(&log).unwrap_or_default(), 12);
            return Err(Error::new("the operator is not ready").log(said).hint(format!("read {}", log.display())));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The last of the ports that the cluster's name reserves, which no component uses.
fn port(cluster: &Cluster) -> Result<u16> {
    let server = cluster.server();
    let port: Option<u16> = server.rsplit(':').next().and_then(|text| text.parse().ok());
    port.map(|port| port + 9).ok_or_else(|| Error::new(format!("{server} has no port")))
}

fn ready(port: u16) -> bool {
    use std::io::{Read as _, Write as _};
    let address = ([127, 0, 0, 1], port).into();
    let limit = Duration::from_secs(1);
    let Ok(mut stream) = std::net::TcpStream::connect_timeout(&address, limit) else { return false };
    let _ = stream.set_read_timeout(Some(limit));
    let _ = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.starts_with("HTTP/1.1 200")
}

/// The namespace without the objects of an earlier demo.
fn prepare(target: &Target, step: &Step) -> Result<()> {
    let mut create = target.kubectl_command();
    create.args(["apply", "--server-side", "--filename=-"]);
    exec::output(&mut create, Some(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}")))?;
    if clean(target)? {
        step.say(format!("removed what an earlier demo had left in the namespace {NAMESPACE}"));
    }
    Ok(())
}

/// Deletes what the demo makes, and nothing else of the namespace; tells whether there was anything.
fn clean(target: &Target) -> Result<bool> {
    let label = format!("--selector=cultivar.dev/pipeline={PIPELINE}");
    let delete = |args: &[&str]| {
        let common = ["delete", "--ignore-not-found", "--timeout=60s"];
        target.kubectl(&[&common, args].concat()).map(|said| said.contains("deleted"))
    };
    // From the top: a pipeline that is there would start a run for what is missing.
    let pipeline = delete(&["pipelines.cultivar.dev", PIPELINE])?;
    let runs = delete(&["pipelineruns.cultivar.dev,experiments.cultivar.dev", &label])?;
    let roots = delete(&[&["experiments.cultivar.dev"], ROOTS.as_slice()].concat())?;
    Ok(pipeline || runs || roots)
}
