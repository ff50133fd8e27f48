//! The real node's network: a namespace of its own, joined to the host by a pair of interfaces.
//!
//! In: the layout. Out: the namespace, the pair with its addresses, and routes on the host for the pod
//! and the service range. All of the node's bridges, rules and ports live in the namespace, so removing
//! it removes them, and neither the host nor another cluster ever meets them.

use std::fs;
use std::path::{Path, PathBuf};

use super::layout::Layout;
use crate::error::Result;
use crate::exec;

/// Makes what is missing.
pub(crate) fn ensure(layout: &Layout) -> Result<()> {
    let (netns, (host, node)) = (layout.netns(), layout.interfaces());
    if !file(layout).exists() {
        ip(&["netns", "add", &netns])?;
    }
    if !Path::new("/sys/class/net").join(&host).exists() {
        ip(&["link", "add", &host, "type", "veth", "peer", "name", &node, "netns", &netns])?;
    }
    ip(&["addr", "replace", &format!("{}/30", layout.host_end()), "dev", &host])?;
    ip(&["link", "set", &host, "up"])?;
    let (host_end, node_end) = (layout.host_end().to_string(), layout.node_end().to_string());
    let inside = |args: &[&str]| ip(&[&["-netns", netns.as_str()], args].concat());
    inside(&["link", "set", "lo", "up"])?;
    inside(&["addr", "replace", &format!("{node_end}/30"), "dev", &node])?;
    inside(&["link", "set", &node, "up"])?;
    inside(&["route", "replace", "default", "via", &host_end])?;
    // The API server reaches webhooks as pods do: kube-proxy's rules act on what comes in here.
    ip(&["route", "replace", &layout.pods(), "via", &node_end, "dev", &host])?;
    ip(&["route", "replace", &layout.services(), "via", &node_end, "dev", &host])?;
    let forward = ["net", "ipv4", "ip_forward"].iter().fold("/proc/sys".to_owned(), |path, part| path + "/" + part);
    exec::run("nsenter", &[&format!("--net={}", file(layout).display()), "sh", "-c", &format!("echo 1 > {forward}")])?;
    Ok(())
}

/// Removes the namespace and the pair; the routes go with the interface.
pub(crate) fn remove(layout: &Layout) -> Result<()> {
    let (host, _) = layout.interfaces();
    if Path::new("/sys/class/net").join(&host).exists() {
        ip(&["link", "delete", &host])?;
    }
    if file(layout).exists() {
        ip(&["netns", "delete", &layout.netns()])?;
    }
    forget_pods(&layout.netns());
    Ok(())
}

/// Removes what the CNI library remembers of pods that were killed rather than deleted. Its files are
/// `NETWORK-SANDBOX-INTERFACE`; the loopback network, which all clusters share, has one a sandbox too.
fn forget_pods(network: &str) {
    let dir = Path::new("/var/lib/cni/results");
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let sandbox = name.strip_prefix(network).and_then(|rest| rest.strip_prefix('-')?.strip_suffix("-eth0"));
        if let Some(sandbox) = sandbox.filter(|id| !id.contains('-')) {
            let _ = fs::remove_file(entry.path());
            let _ = fs::remove_file(dir.join(format!("cni-loopback-{sandbox}-lo")));
        }
    }
}

fn file(layout: &Layout) -> PathBuf {
    Path::new("/var/run/netns").join(layout.netns())
}

fn ip(args: &[&str]) -> Result<()> {
    exec::run("ip", args).map(|_| ())
}
