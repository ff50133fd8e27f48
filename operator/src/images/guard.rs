//! Whom the operator may be made to ask: users write the hosts of registries, and the operator stands in another network
//! than they do.
//!
//! Comes in: an address. Goes out: a client that may ask it, or why nobody is asked. Hosts that the operator's own settings
//! name are asked as they are; all others over TLS, and never at an address of this machine or this link.

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// A registry that cannot be connected to is taken for away: a run waits for its answer.
const CONNECT: Duration = Duration::from_secs(4);
/// Connections that are kept to each host.
const KEPT: usize = 2;

/// The clients.
pub struct Guard {
    // Hosts and ports that the settings name.
    trusted: BTreeSet<(String, u16)>,
    open: reqwest::Client,
    guarded: reqwest::Client,
}

impl Guard {
    /// Asks the hosts of these addresses as they are.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new<'u>(trusted: impl IntoIterator<Item = &'u Url>, limit: Duration) -> Result<Self, reqwest::Error> {
        // Who is followed where is decided here, hop by hop.
        let builder = || {
            let builder = cultivar_data::client_builder(limit).redirect(Policy::none());
            let builder = builder.user_agent(concat!("cultivar-operator/", env!("CARGO_PKG_VERSION")));
            builder.connect_timeout(CONNECT).pool_max_idle_per_host(KEPT)
        };
        Ok(Self {
            trusted: trusted.into_iter().filter_map(place).collect(),
            open: builder().build()?,
            guarded: builder().https_only(true).dns_resolver(Arc::new(Public)).build()?,
        })
    }

    /// Whether the settings name this host.
    pub fn trusts(&self, url: &Url) -> bool {
        place(url).is_some_and(|place| self.trusted.contains(&place))
    }

    /// The client for an address.
    pub fn client(&self, url: &Url) -> Result<&reqwest::Client, String> {
        if self.trusts(url) {
            return Ok(&self.open);
        }
        let host = url.host().map(|host| host.to_owned());
        let address = match host {
            Some(url::Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(url::Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(url::Host::Domain(_)) => None,
            None => return Err(format!("{} has no host", url.scheme())),
        };
        if let Some(address) = address.filter(|address| is_forbidden(*address)) {
            return Err(refusal(&address.to_string()));
        }
        if url.scheme() != "https" {
            let host = url.host_str().unwrap_or_default();
            return Err(format!("{host} is asked over https alone, unless the operator's images.mirrors name it"));
        }
        Ok(&self.guarded)
    }
}

fn refusal(what: &str) -> String {
    format!(
        "{what} is an address of the operator's own machine or link, which is not asked for images unless images.mirrors name it"
    )
}

fn place(url: &Url) -> Option<(String, u16)> {
    Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
}

/// Names resolve to addresses that may be asked; what is connected to is what was checked.
struct Public;

impl Resolve for Public {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> = found.into_iter().filter(|found| !is_forbidden(found.ip())).collect();
            if allowed.is_empty() {
                return Err(refusal(name.as_str()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is of this machine or this link, where cloud providers keep credentials too, or of nobody in particular.
fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || address.octets()[0] == 0
                || address.is_broadcast()
                || address.is_multicast()
        }
        IpAddr::V6(address) => {
            let is_own = address.is_loopback() || address.is_unspecified() || address.is_multicast();
            let is_link = address.segments()[0] & 0xffc0 == 0xfe80;
            // The place of the instance's credentials in one large cloud.
            let is_metadata = address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
            is_own || is_link || is_metadata || within(address).is_some_and(|within| is_forbidden(IpAddr::V4(within)))
        }
    }
}

// The IPv4 address that an IPv6 address leads to: mapped, compatible, and of NAT64 and 6to4.
fn within(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, _, _, _, _, g, h] = address.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    if address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return Some(of(g, h));
    }
    if a == 0x2002 {
        return Some(of(b, address.segments()[2]));
    }
    address.to_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_this_link_are_nobodys_registry() {
        for address in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "::7f00:1",
            "fd00:ec2::254",
        ] {
            assert!(is_forbidden(address.parse().unwrap()), "{address}");
        }
        for address in
            ["10.0.0.1", "192.168.1.1", "172.16.0.1", "1.1.1.1", "fd00::1", "2606:4700::1", "64:ff9b::101:101"]
        {
            assert!(!is_forbidden(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn what_the_settings_do_not_name_is_asked_over_tls_and_elsewhere() {
        let mirror = Url::parse("http://127.0.0.1:5000").unwrap();
        let guard = Guard::new([&mirror], Duration::from_secs(1)).unwrap();
        let ask = |url: &str| guard.client(&Url::parse(url).unwrap()).map(|_| ()).map_err(|why| why.to_string());
        assert_eq!(ask("http://127.0.0.1:5000/v2/"), Ok(()));
        assert_eq!(ask("https://ghcr.io/v2/"), Ok(()));
        for (url, part) in [
            ("http://127.0.0.1:5001/v2/", "own machine"),
            ("https://127.0.0.1/v2/", "own machine"),
            ("https://2130706433/v2/", "own machine"),
            ("https://0x7f.1/v2/", "own machine"),
            ("https://[::ffff:169.254.169.254]/latest", "own machine"),
            ("http://ghcr.io/v2/", "over https alone"),
        ] {
            let why = ask(url).expect_err(url);
            assert!(why.contains(part), "{url}: {why}");
        }
    }
}
