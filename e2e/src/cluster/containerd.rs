//! containerd for the real node: its own root, state, socket and CNI configuration, all in the cluster's
//! folder.
//!
//! In: the layout; images as tar files. Out: a container runtime with the pause image in it, which asks the cluster's own
//! registry for the images of its name. `stop` ends
//! the shims too, which outlive containerd by design: they are found by the socket in their arguments.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::certs::write;
use super::layout::Layout;
use super::registry::{self, Pushed};
use super::{node, process};
use crate::error::{Context as _, Error, Result};
use crate::exec;
use crate::image::{BUSYBOX, Entry, ImageSpec, Layer, busybox_image, write_oci_tar};
use crate::ui::Step;

/// The image that keeps a pod's namespaces.
const PAUSE: &str = "cultivar.dev/e2e/pause:1";
/// The longest path of a socket that Linux takes.
pub(crate) const SOCKET_LIMIT: usize = 108;
const LIMIT: Duration = Duration::from_secs(30);

/// Starts containerd and gives it the pause image, and busybox, which tests and people need first.
pub(crate) fn start(layout: &Layout, step: &Step) -> Result<()> {
    let config = layout.conf().join("containerd.toml");
    write(&config, &configuration(layout))?;
    cni(layout)?;
    hosts(layout)?;
    if !matches!(process::state(layout, "containerd"), process::State::Running(_)) && shims(layout).is_empty() {
        // What a containerd that was killed, or a machine that was switched off, believed to be running.
        unmount(&state_dir(layout))?;
        let _ = fs::remove_dir_all(state_dir(layout));
    }
    let program = exec::find("containerd").ok_or_else(|| Error::new("containerd is missing"))?;
    let args = vec![format!("--config={}", config.display())];
    process::ensure(layout, &node::inside(layout, "containerd", program, args, vec![config]))?;
    process::wait(layout, "containerd", LIMIT, || ctr(layout, &["version"]).is_ok())?;
    let images = ctr(layout, &["images", "list", "--quiet"])?;
    let missing = |image: &str| !images.lines().any(|line| line == image);
    if missing(PAUSE) {
        let tar = layout.dir().join("pause.tar");
        pause_image(&tar)?;
        load(layout, &tar)?;
    }
    if missing(BUSYBOX) {
        load(layout, &busybox_image(&|line| step.say(line))?)?;
    }
    Ok(())
}

/// Puts an image into the node from a tar file (an OCI layout). One of our registry's goes through it, so that the node
/// knows by which digest it was pulled; what is only imported has none.
pub(crate) fn load(layout: &Layout, tar: &Path) -> Result<()> {
    match registry::push(layout, tar)? {
        Some(pushed) => pull(layout, &pushed),
        None => ctr(layout, &["images", "import", &tar.display().to_string()]).map(|_| ()),
    }
}

/// The kubelet finds an image by the names that it has: by its tag, and by its digest, which pods report.
fn pull(layout: &Layout, image: &Pushed) -> Result<()> {
    let hosts = hosts_dir(layout).display().to_string();
    ctr(layout, &["images", "pull", "--hosts-dir", &hosts, &image.reference])?;
    ctr(layout, &["images", "tag", "--force", &image.reference, &image.by_digest()]).map(|_| ())
}

/// Where containerd reads who answers for a registry.
fn hosts_dir(layout: &Layout) -> PathBuf {
    layout.conf().join("registries")
}

fn hosts(layout: &Layout) -> Result<()> {
    let dir = hosts_dir(layout).join(registry::NAME);
    fs::create_dir_all(&dir).doing(|| format!("cannot make {}", dir.display()))?;
    let url = format!("http://{}", layout.registry());
    let text = format!("server = \"{url}\"\n\n[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    write(&dir.join("hosts.toml"), &text)
}

/// Stops containerd and every shim of it.
pub(crate) fn stop(layout: &Layout) -> Result<()> {
    process::stop(layout, "containerd", Duration::from_secs(5))?;
    let begun = Instant::now();
    loop {
        let left = shims(layout);
        if left.is_empty() {
            return Ok(());
        }
        let late = begun.elapsed();
        // A shim that is asked to end removes its socket; one that is killed leaves it.
        for pid in &left {
            if late < Duration::from_secs(3) { process::ask(*pid) } else { process::kill(*pid) }
        }
        if late > Duration::from_secs(10) {
            return Err(Error::new("containerd's shims do not end").why(format!("{left:?}")).hint("run `down` again"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Unmounts everything below a folder, the deepest first.
pub(crate) fn unmount(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let mut below: Vec<PathBuf> =
        points.map(|p| PathBuf::from(p.replace("\\040", " "))).filter(|p| p.starts_with(dir)).collect();
    below.sort();
    for point in below.iter().rev() {
        let path = point.display().to_string();
        // Lazily if it is busy: the last process that holds it may still be on its way out.
        exec::run("umount", &[&path]).or_else(|_| exec::run("umount", &["--lazy", &path]))?;
    }
    Ok(())
}

fn ctr(layout: &Layout, args: &[&str]) -> Result<String> {
    let socket = layout.containerd_socket().display().to_string();
    exec::run("ctr", &[&["--address", socket.as_str(), "--namespace", "k8s.io"], args].concat())
}

fn state_dir(layout: &Layout) -> PathBuf {
    layout.dir().join("containerd/state")
}

fn configuration(layout: &Layout) -> String {
    let home = layout.dir().join("containerd");
    format!(
        r#"version = 2
root = "{home}/root"
state = "{state}"
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Without CAP_SYS_RESOURCE runc dies when a pod asks for a lower score than ours.
  restrict_oom_score_adj = true
  # Pods' network namespaces are mounts: here they go with the cluster's folder.
  netns_mounts_under_state_dir = true
  enable_selinux = false

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
  Root = "{home}/runc"

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "{hosts}"

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{cni}"
"#,
        home = home.display(),
        state = state_dir(layout).display(),
        socket = layout.containerd_socket().display(),
        cni = layout.conf().join("cni").display(),
        hosts = hosts_dir(layout).display(),
    )
}

/// Pods are joined to the node by a pair of interfaces each, not by a bridge: so all traffic passes the
/// node's routing, and kube-proxy's rules hold without the kernel's bridge filter.
fn cni(layout: &Layout) -> Result<()> {
    let dir = layout.conf().join("cni");
    fs::create_dir_all(&dir).doing(|| format!("cannot make {}", dir.display()))?;
    let conflist = json!({
        "cniVersion": "0.4.0",
        "name": layout.netns(),
        "plugins": [
            {"type": "ptp", "ipMasq": false, "ipam": {
                "type": "host-local",
                "dataDir": layout.dir().join("ipam"),
                "ranges": [[{"subnet": layout.pods()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            }},
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
        ],
    });
    write(&dir.join("10-cultivar.conflist"), &conflist.to_string())
}

/// The shims of this containerd: their arguments name its socket.
fn shims(layout: &Layout) -> Vec<i32> {
    let socket = layout.containerd_socket().display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        if words.next().is_some_and(|program| program.contains("containerd-shim")) && words.any(|word| word == socket) {
            found.push(pid);
        }
    }
    found
}

/// The pause image: busybox's `sleep` keeps a pod's namespaces as well as any other program.
fn pause_image(path: &Path) -> Result<()> {
    let content = fs::read("/bin/busybox").doing(|| "cannot read /bin/busybox")?;
    let program = Entry::File { path: "sleep".to_owned(), mode: 0o755, content };
    let spec = ImageSpec {
        reference: PAUSE.to_owned(),
        layers: vec![Layer::Entries(vec![program])],
        // busybox has no "infinity"; 68 years will do.
        entrypoint: vec!["/sleep".to_owned(), "2147483647".to_owned()],
        ..ImageSpec::default()
    };
    write_oci_tar(&spec, path).map(drop)
}
