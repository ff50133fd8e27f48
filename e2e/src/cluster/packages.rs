//! The Debian packages that a real node needs.
//!
//! In: nothing. Out: all of them installed, after a line that names what is being added; or an error
//! that says what to install by hand.

use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};
use crate::exec;

/// What must be there, and the package that brings it.
const NEEDED: [(&str, &str); 9] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("/bin/busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
];

/// Installs what is missing; `say` hears about it first.
pub(crate) fn ensure(say: &dyn Fn(&str)) -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if exec::find("apt-get").is_none() {
        return Err(Error::new("a real node needs programs that are missing")
            .why(&list)
            .hint("install them (these are Debian's names), or run `cargo cluster up --simulated-only`"));
    }
    say(&format!("installing Debian packages for the real node: {list}"));
    apt(&["update", "-qq"])?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(&missing);
    apt(&args)?;
    let still = self::missing();
    if still.is_empty() {
        return Ok(());
    }
    Err(Error::new("apt-get installed the packages, yet these are missing").why(still.join(" ")))
}

fn missing() -> Vec<&'static str> {
    let there = |what: &str| {
        if what.starts_with('/') { Path::new(what).exists() } else { exec::find(what).is_some() }
    };
    NEEDED.iter().filter(|(what, _)| !there(what)).map(|(_, package)| *package).collect()
}

fn apt(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    // The node runs its own containerd: the packages need not start theirs, nor ask anybody anything.
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    exec::output(&mut command, None).map(|_| ()).map_err(|error| {
        Error::new("cannot install the real node's packages")
            .why(error)
            .hint("install them by hand, or run `cargo cluster up --simulated-only`")
    })
}
