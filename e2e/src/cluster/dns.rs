//! The cluster's name server: CoreDNS as a process on the host, listening on the host's end of the pair.
//!
//! In: the layout. Out: a process that answers for services and pods of `cluster.local`, at the address
//! that the kubelet gives to pods. Names outside the cluster are refused: tests ask nobody else's servers.

use std::path::Path;

use super::certs::{kubeconfig, write};
use super::layout::Layout;
use super::process::{self, Spec};
use crate::error::Result;

/// The domain that service names end with.
pub(crate) const DOMAIN: &str = "cluster.local";

/// Starts the name server if it does not run.
pub(crate) fn start(layout: &Layout, coredns: &Path) -> Result<()> {
    let file = layout.conf().join("Corefile");
    let client = kubeconfig(layout, "coredns");
    let text = format!(
        "{DOMAIN}:53 in-addr.arpa:53 ip6.arpa:53 {{
    bind {address}
    errors
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {client}
        pods insecure
        ttl 5
    }}
}}
",
        address = layout.host_end(),
        client = client.display(),
    );
    write(&file, &text)?;
    let args = vec!["-conf".to_owned(), file.display().to_string()];
    let spec = Spec { name: "coredns", program: coredns.to_owned(), args, netns: None, reads: vec![file, client] };
    process::ensure(layout, &spec)
}
