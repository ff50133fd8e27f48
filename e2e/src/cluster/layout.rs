//! Where a cluster lives: every folder, port, address and name of it, all derived from its own name.
//!
//! In: the cluster's name and its slot (a small number, taken from the name's hash; the next free one
//! when two names meet). Out: paths, ports, ranges. Two clusters never share any of them.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::tools::home_folder;

/// How many clusters can stand side by side: one /16 of 10.0.0.0/8 each.
const SLOTS: u8 = 100;
const FIRST_OCTET: u8 = 150;
const FIRST_PORT: u16 = 21_000;
const PORTS_EACH: u16 = 10;

/// The listening ports of a cluster on this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Port {
    ApiServer = 0,
    EtcdClient = 1,
    EtcdPeer = 2,
    ControllerManager = 3,
    Scheduler = 4,
    Kwok = 5,
    Registry = 6,
}

/// The places of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub name: String,
    pub slot: u8,
}

impl Layout {
    pub fn new(name: &str, slot: u8) -> Self {
        Self { name: name.to_owned(), slot }
    }

    /// The folder that holds everything the cluster writes.
    pub fn dir(&self) -> PathBuf {
        clusters_dir().join(&self.name)
    }

    pub fn logs(&self) -> PathBuf {
        self.dir().join("logs")
    }

    pub fn run(&self) -> PathBuf {
        self.dir().join("run")
    }

    pub fn pki(&self) -> PathBuf {
        self.dir().join("pki")
    }

    pub fn conf(&self) -> PathBuf {
        self.dir().join("conf")
    }

    pub fn bin(&self) -> PathBuf {
        self.dir().join("bin")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir().join("kubeconfig")
    }

    pub fn port(&self, port: Port) -> u16 {
        FIRST_PORT + u16::from(self.slot) * PORTS_EACH + port as u16
    }

    /// The range of Service addresses; its first is the API server's.
    pub fn services(&self) -> String {
        format!("{}/18", self.address(128, 0))
    }

    pub fn api_service(&self) -> Ipv4Addr {
        self.address(128, 1)
    }

    /// The range of pods on the real node, routed to it.
    pub fn pods(&self) -> String {
        format!("{}/18", self.address(0, 0))
    }

    /// The range that simulated pods get their addresses from; nothing answers there.
    pub fn simulated_pods(&self) -> String {
        format!("{}/18", self.address(64, 1))
    }

    /// The host's end of the pair of interfaces between it and the real node.
    pub fn host_end(&self) -> Ipv4Addr {
        self.address(255, 1)
    }

    /// The real node's end of that pair: the node's address.
    pub fn node_end(&self) -> Ipv4Addr {
        self.address(255, 2)
    }

    /// The network namespace of the real node.
    pub fn netns(&self) -> String {
        format!("cultivar-{}", self.name)
    }

    /// The host's and the node's interface; the kernel allows 15 characters.
    pub fn interfaces(&self) -> (String, String) {
        (format!("cultivar{}h", self.slot), format!("cultivar{}n", self.slot))
    }

    /// The cgroup below which all pods of the real node run.
    pub fn cgroup(&self) -> String {
        format!("cultivar-{}", self.name)
    }

    /// The real node's name in the cluster.
    pub fn node_name(&self) -> String {
        format!("{}-node", self.name)
    }

    pub fn containerd_socket(&self) -> PathBuf {
        self.run().join("containerd.sock")
    }

    /// Where the registry listens: the real node and its pods reach it there, and so does the host.
    pub fn registry(&self) -> String {
        format!("{}:{}", self.host_end(), self.port(Port::Registry))
    }

    fn address(&self, third: u8, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, FIRST_OCTET + self.slot, third, last)
    }

    /// The text that every address of the cluster starts with.
    pub fn prefix(&self) -> String {
        format!("10.{}.", FIRST_OCTET + self.slot)
    }
}

/// The folder with one folder a cluster.
pub(crate) fn clusters_dir() -> PathBuf {
    home_folder("XDG_STATE_HOME", ".local/state").join("cultivar/clusters")
}

/// The slots in the order in which a name tries them.
pub(crate) fn slots(name: &str) -> impl Iterator<Item = u8> {
    // FNV-1a: the same on every machine and in every version of Rust.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    let first = u8::try_from(hash % u32::from(SLOTS)).unwrap_or(0);
    (0..SLOTS).map(move |step| (first + step) % SLOTS)
}

/// Refuses a name that could not be part of a host name, a cgroup or a folder.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let letters = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if letters
        && (1..=30).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
    {
        return Ok(());
    }
    Err(Error::new(format!("{name:?} cannot be the name of a cluster"))
        .hint("use 1 to 30 lower-case letters, digits and dashes, starting with a letter"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_cover_all_and_start_from_the_name() {
        let mut all: Vec<u8> = slots("cultivar").collect();
        assert_ne!(all[0], slots("verify").next().unwrap_or(0), "the two usual names meet");
        all.sort_unstable();
        assert_eq!(all, (0..SLOTS).collect::<Vec<_>>());
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        let (host, node) = Layout::new("a", SLOTS - 1).interfaces();
        assert!(host.len() <= 15 && node.len() <= 15);
    }

    #[test]
    fn names_that_would_break_a_path_are_refused() {
        assert!(check_name("cultivar-2").is_ok());
        for bad in ["", "-a", "a-", "A", "a/b", "../a", "1a", &"a".repeat(31)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
