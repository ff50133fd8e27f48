//! What the operator is told when it starts.
//!
//! Comes in: the command line and the environment (every flag `--a-b` is also `CULTIVAR_A_B`).
//! Goes out: [`Settings`], checked, or a [`SettingsError`] that names the flag, what is wrong with it and what to
//! write instead. [`Args`] is only the shape of the flags; nothing but this file reads it.

mod images;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use clap::Parser;
use tracing_subscriber::EnvFilter;

pub use self::images::ImageSettings;
use crate::leader::random;

/// The flags as clap sees them: text, not yet judged.
#[derive(Parser, Clone, Debug)]
#[command(name = "cultivar-operator", version, about = "Runs experiments, and grows pipelines from those that work.")]
pub struct Args {
    /// Namespaces to watch, separated by commas; all of them when empty.
    #[arg(long, env = "CULTIVAR_NAMESPACES", value_name = "A,B", default_value = "")]
    namespaces: String,

    /// Whether experiments wait in Queues: on or off. Off, no Queue is looked at, and no right to read them is needed.
    #[arg(long, env = "CULTIVAR_QUEUES", value_name = "on|off", default_value = "on")]
    queues: String,

    /// Whether to serve the admission webhook: on or off.
    #[arg(long, env = "CULTIVAR_WEBHOOK", value_name = "on|off", default_value = "on")]
    webhook: String,

    /// Address and port of the admission webhook.
    #[arg(long, env = "CULTIVAR_WEBHOOK_BIND", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9443")]
    webhook_bind: String,

    /// Service by which the API server reaches the webhook; its name goes into the certificate.
    #[arg(long, env = "CULTIVAR_WEBHOOK_SERVICE", value_name = "NAME", default_value = "cultivar-operator")]
    webhook_service: String,

    /// More DNS names or addresses for the webhook's certificate, for an operator outside the cluster.
    #[arg(long, env = "CULTIVAR_WEBHOOK_URL_HOST", value_name = "HOST", value_delimiter = ',')]
    webhook_url_host: Vec<String>,

    /// ValidatingWebhookConfiguration whose caBundle the operator keeps right.
    #[arg(long, env = "CULTIVAR_WEBHOOK_CONFIGURATION", value_name = "NAME", default_value = "cultivar")]
    webhook_configuration: String,

    /// Secret with the webhook's certificates, in the operator's namespace.
    #[arg(long, env = "CULTIVAR_WEBHOOK_SECRET", value_name = "NAME", default_value = "cultivar-webhook")]
    webhook_secret: String,

    /// Image that the runner is installed from into every pod, usually the operator's own; none: programs run as they
    /// are, and only what they report themselves is recorded.
    #[arg(long, env = "CULTIVAR_RUNNER_IMAGE", value_name = "IMAGE", default_value = "")]
    runner_image: String,

    /// The operator's own artifact store, such as s3://cultivar; none when empty.
    #[arg(long, env = "CULTIVAR_STORE_URL", value_name = "URL", default_value = "")]
    store_url: String,

    /// Where pods reach that store, such as http://cultivar-store.cultivar-system.svc:9000.
    #[arg(long, env = "CULTIVAR_STORE_ENDPOINT", value_name = "URL", default_value = "")]
    store_endpoint: String,

    /// Secret with that store's root key, in the operator's namespace; the leader makes it when it is missing.
    #[arg(long, env = "CULTIVAR_STORE_SECRET", value_name = "NAME", default_value = "cultivar-store-root")]
    store_secret: String,

    #[command(flatten)]
    images: images::ImageArgs,

    /// Address and port of /livez, /readyz and /metrics.
    #[arg(long, env = "CULTIVAR_HTTP_BIND", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8080")]
    http_bind: String,

    /// Whether to elect one leader among the replicas: true or false.
    #[arg(
        long,
        env = "CULTIVAR_LEADER_ELECT",
        value_name = "true|false",
        default_value = "true",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true
    )]
    leader_elect: String,

    /// Lease by which the leader is elected, in the operator's namespace.
    #[arg(long, env = "CULTIVAR_LEASE_NAME", value_name = "NAME", default_value = "cultivar-operator")]
    lease_name: String,

    /// Namespace of the operator itself: of its Lease, its Secret and its Service.
    #[arg(long, env = "CULTIVAR_OPERATOR_NAMESPACE", value_name = "NAME", default_value = "cultivar-system")]
    operator_namespace: String,

    /// Name of this replica in the Lease; the host's name when empty. A random ending is always added.
    #[arg(long, env = "CULTIVAR_IDENTITY", value_name = "NAME", default_value = "")]
    identity: String,

    /// How log lines are written: text or json.
    #[arg(long, env = "CULTIVAR_LOG_FORMAT", value_name = "text|json", default_value = "text")]
    log_format: String,

    /// What is logged: a level, or levels by module such as info,cultivar_operator=debug.
    #[arg(long, env = "CULTIVAR_LOG_FILTER", value_name = "FILTER", default_value = "info")]
    log_filter: String,

    /// How many objects of one kind are reconciled at the same time.
    #[arg(long, env = "CULTIVAR_CONCURRENCY", value_name = "N", default_value = "32")]
    concurrency: String,

    /// Writes to the API server a second, at most; 0: no limit but the API server's own. After a quiet second so many come
    /// at once. Leases are not counted.
    #[arg(long, env = "CULTIVAR_WRITE_LIMIT", value_name = "N", default_value = "0")]
    write_limit: String,
}

/// What the operator runs with. Everything in it has been checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespaces to watch; empty means all.
    pub namespaces: Vec<String>,
    /// Whether experiments wait in Queues.
    pub queues: bool,
    /// The webhook, unless it is off.
    pub webhook: Option<WebhookSettings>,
    /// Image of the runner; nothing: programs run as they are.
    pub runner_image: Option<String>,
    /// The operator's own artifact store.
    pub store: Option<StoreSettings>,
    /// How registries are asked for the digests of images.
    pub images: ImageSettings,
    /// Where /livez, /readyz and /metrics are served.
    pub http_bind: SocketAddr,
    /// How the leader is elected.
    pub leader: LeaderSettings,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// What is logged; it has been parsed once, so it parses again.
    pub log_filter: String,
    /// Parallel reconciles per kind, at least 1.
    pub concurrency: u16,
    /// Writes a second, at most.
    pub write_limit: Option<NonZeroU16>,
}

/// The operator's own artifact store.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Bucket and prefix.
    pub url: String,
    /// Where pods reach it.
    pub endpoint: String,
    /// Name of the Secret with the root key.
    pub secret: String,
    /// Namespace of that Secret.
    pub namespace: String,
}

/// The admission webhook.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// Where it listens.
    pub bind: SocketAddr,
    /// Service and namespace by which the API server reaches it.
    pub service: String,
    /// Namespace of the Service and of the Secret.
    pub namespace: String,
    /// More DNS names or addresses for the certificate.
    pub url_hosts: Vec<String>,
    /// Name of the ValidatingWebhookConfiguration.
    pub configuration: String,
    /// Name of the Secret.
    pub secret: String,
}

/// The election.
#[derive(Clone, Debug)]
pub struct LeaderSettings {
    /// False: this process acts as if it were alone.
    pub elect: bool,
    /// Name of the Lease.
    pub lease: String,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of this process in the Lease; no other process has the same.
    pub identity: String,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A flag that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("--{flag} (or {}) is {value:?}: {why}; {todo}", env_name(flag))]
pub struct SettingsError {
    /// The flag without its dashes.
    pub flag: &'static str,
    /// What was given.
    pub value: String,
    /// What is wrong with it.
    pub why: String,
    /// What to write instead.
    pub todo: &'static str,
}

fn env_name(flag: &str) -> String {
    format!("CULTIVAR_{}", flag.replace('-', "_").to_uppercase())
}

impl Settings {
    /// Reads the command line and the environment. `--help`, `--version` and an unknown flag end the process here,
    /// as clap does it.
    ///
    /// # Errors
    /// When a flag has a value that cannot be used.
    pub fn from_process() -> Result<Self, SettingsError> {
        Args::parse().try_into()
    }
}

impl TryFrom<Args> for Settings {
    type Error = SettingsError;

    fn try_from(args: Args) -> Result<Self, SettingsError> {
        let namespace = label("operator-namespace", &args.operator_namespace)?;
        let webhook = if on("webhook", &args.webhook)? { Some(webhook(&args, namespace.clone())?) } else { None };
        Ok(Self {
            queues: on("queues", &args.queues)?,
            namespaces: namespaces(&args.namespaces)?,
            webhook,
            runner_image: Some(args.runner_image.clone()).filter(|image| !image.is_empty()),
            store: store(&args, namespace.clone())?,
            images: (&args.images).try_into()?,
            http_bind: address("http-bind", &args.http_bind)?,
            leader: leader(&args, namespace)?,
            log_format: log_format(&args.log_format)?,
            log_filter: log_filter(args.log_filter)?,
            concurrency: concurrency(&args.concurrency)?,
            write_limit: write_limit(&args.write_limit)?,
        })
    }
}

fn on(flag: &'static str, value: &str) -> Result<bool, SettingsError> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(wrong(flag, other, "it is neither on nor off", "write on or off")),
    }
}

fn wrong(flag: &'static str, value: &str, why: impl Into<String>, todo: &'static str) -> SettingsError {
    SettingsError { flag, value: value.to_owned(), why: why.into(), todo }
}

fn store(args: &Args, namespace: String) -> Result<Option<StoreSettings>, SettingsError> {
    match (args.store_url.as_str(), args.store_endpoint.as_str()) {
        ("", "") => return Ok(None),
        ("", endpoint) => {
            return Err(wrong("store-endpoint", endpoint, "there is no --store-url", "give both or none"));
        }
        (url, "") => return Err(wrong("store-url", url, "there is no --store-endpoint", "give both or none")),
        _ => {}
    }
    if !args.store_url.strip_prefix("s3://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')) {
        return Err(wrong("store-url", &args.store_url, "it is no bucket", "write s3:// and the bucket's name"));
    }
    let is_http = |url: &str| url.starts_with("http://") || url.starts_with("https://");
    if !is_http(&args.store_endpoint) {
        let why = "it is no http address";
        return Err(wrong("store-endpoint", &args.store_endpoint, why, "write http://, a host and a port"));
    }
    Ok(Some(StoreSettings {
        url: args.store_url.trim_end_matches('/').to_owned(),
        endpoint: args.store_endpoint.clone(),
        secret: subdomain("store-secret", &args.store_secret)?,
        namespace,
    }))
}

fn webhook(args: &Args, namespace: String) -> Result<WebhookSettings, SettingsError> {
    let hosts = args.webhook_url_host.iter().map(|host| host.trim()).filter(|host| !host.is_empty());
    Ok(WebhookSettings {
        bind: address("webhook-bind", &args.webhook_bind)?,
        service: label("webhook-service", &args.webhook_service)?,
        namespace,
        url_hosts: hosts.map(url_host).collect::<Result<_, _>>()?,
        configuration: subdomain("webhook-configuration", &args.webhook_configuration)?,
        secret: subdomain("webhook-secret", &args.webhook_secret)?,
    })
}

fn leader(args: &Args, namespace: String) -> Result<LeaderSettings, SettingsError> {
    let elect = match args.leader_elect.as_str() {
        "true" => true,
        "false" => false,
        other => return Err(wrong("leader-elect", other, "it is neither true nor false", "write true or false")),
    };
    // Two processes of one name would each take the other's Lease for their own. A Pod's name survives a restart of
    // its container, and nobody checks a name that a person chose, so the ending is random and always there.
    let name = if args.identity.is_empty() { host_name() } else { args.identity.clone() };
    if name.len() > 200 || name.chars().any(char::is_control) {
        let why = "it is longer than 200 bytes or has control characters";
        return Err(wrong("identity", &name, why, "write a short name, such as the Pod's"));
    }
    let identity = format!("{name}_{:08x}", random::number() >> 32);
    Ok(LeaderSettings { elect, lease: subdomain("lease-name", &args.lease_name)?, namespace, identity })
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "operator".to_owned())
}

fn namespaces(list: &str) -> Result<Vec<String>, SettingsError> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    let mut names: Vec<String> = names.map(|name| label("namespaces", name)).collect::<Result<_, _>>()?;
    names.sort();
    names.dedup();
    Ok(names)
}

fn address(flag: &'static str, value: &str) -> Result<SocketAddr, SettingsError> {
    let todo = "write an IP address and a port, such as 0.0.0.0:8080 or [::]:8080";
    value.parse().map_err(|_| wrong(flag, value, "it is not an IP address with a port", todo))
}

/// A DNS label (RFC 1123): namespaces and Services.
fn label(flag: &'static str, value: &str) -> Result<String, SettingsError> {
    let why = "it is not a name of up to 63 lower-case letters, digits and dashes, with no dash at either end";
    if is_label(value) { Ok(value.to_owned()) } else { Err(wrong(flag, value, why, "write the object's name")) }
}

/// A DNS subdomain (RFC 1123): everything else that has a name.
fn subdomain(flag: &'static str, value: &str) -> Result<String, SettingsError> {
    let why = "it is not a name of up to 253 lower-case letters, digits, dashes and dots";
    if is_subdomain(value) { Ok(value.to_owned()) } else { Err(wrong(flag, value, why, "write the object's name")) }
}

fn is_label(value: &str) -> bool {
    let ends = value.starts_with('-') || value.ends_with('-');
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !value.is_empty() && value.len() <= 63 && !ends && value.chars().all(inside)
}

fn is_subdomain(value: &str) -> bool {
    value.len() <= 253 && value.split('.').all(is_label)
}

fn url_host(host: &str) -> Result<String, SettingsError> {
    if host.parse::<IpAddr>().is_ok() || is_subdomain(host) {
        return Ok(host.to_owned());
    }
    let why = "it is neither an IP address nor a DNS name";
    Err(wrong("webhook-url-host", host, why, "write the host alone, without https:// and without a port"))
}

fn log_format(value: &str) -> Result<LogFormat, SettingsError> {
    match value {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(wrong("log-format", other, "it is neither text nor json", "write text or json")),
    }
}

fn log_filter(value: String) -> Result<String, SettingsError> {
    let todo = "write a level (error, warn, info, debug, trace) or levels by module, as in info,kube=warn";
    match EnvFilter::try_new(&value) {
        Ok(_) => Ok(value),
        Err(error) => Err(wrong("log-filter", &value, error.to_string(), todo)),
    }
}

fn concurrency(value: &str) -> Result<u16, SettingsError> {
    match value.parse() {
        Ok(number @ 1..=1024) => Ok(number),
        _ => Err(wrong("concurrency", value, "it is not a number from 1 to 1024", "leave it out for 32")),
    }
}

fn write_limit(value: &str) -> Result<Option<NonZeroU16>, SettingsError> {
    let number = value.parse().ok().filter(|number| *number <= 10_000);
    let wrong = || wrong("write-limit", value, "it is not a number from 0 to 10000", "leave it out for no limit");
    number.map(NonZeroU16::new).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(flags: &[&str]) -> Result<Settings, SettingsError> {
        let flags = std::iter::once("cultivar-operator").chain(flags.iter().copied());
        Args::try_parse_from(flags).expect("clap takes the flags").try_into()
    }

    #[test]
    fn defaults_serve_all_namespaces_with_webhook_and_election() {
        let settings = settings(&[]).unwrap();
        assert!(settings.namespaces.is_empty());
        assert!(settings.leader.elect);
        assert_eq!((settings.concurrency, settings.write_limit), (32, None));
        let webhook = settings.webhook.unwrap();
        assert_eq!((webhook.secret.as_str(), webhook.namespace.as_str()), ("cultivar-webhook", "cultivar-system"));
    }

    #[test]
    fn the_flags_of_the_chart_are_understood() {
        let settings = settings(&[
            "--namespaces=vision,audio,vision",
            "--http-bind=0.0.0.0:8080",
            "--webhook=on",
            "--webhook-bind=0.0.0.0:9443",
            "--webhook-service=cultivar-operator",
            "--webhook-configuration=cultivar",
            "--webhook-secret=cultivar-webhook",
            "--webhook-url-host=127.0.0.1",
            "--webhook-url-host=host.docker.internal",
            "--leader-elect=false",
            "--lease-name=cultivar-operator",
            "--log-format=json",
            "--log-filter=info,kube=warn",
            "--concurrency=8",
            "--write-limit=50",
            "--runner-image=cultivar:1",
            "--store-url=s3://cultivar",
            "--store-endpoint=http://cultivar-store.cultivar-system.svc:9000",
            "--store-secret=cultivar-store-root",
            "--resolve-images=off",
            "--image-mirror=docker.io=https://mirror.example.com/hub",
            "--image-mirror=cultivar.dev=http://10.0.0.1:5000",
        ])
        .unwrap();
        assert_eq!(settings.runner_image.as_deref(), Some("cultivar:1"));
        assert_eq!(settings.store.unwrap().url, "s3://cultivar");
        let mirrors: Vec<_> =
            settings.images.mirrors.iter().map(|(registry, url)| format!("{registry} {url}")).collect();
        assert_eq!(mirrors, ["cultivar.dev http://10.0.0.1:5000/", "docker.io https://mirror.example.com/hub"]);
        assert!(!settings.images.resolve);
        assert_eq!(settings.namespaces, ["audio", "vision"]);
        assert_eq!(settings.webhook.unwrap().url_hosts, ["127.0.0.1", "host.docker.internal"]);
        assert!(!settings.leader.elect);
        assert_eq!((settings.log_format, settings.concurrency), (LogFormat::Json, 8));
        assert_eq!(settings.write_limit.map(NonZeroU16::get), Some(50));
    }

    #[test]
    fn two_processes_of_one_name_differ() {
        let identity = || settings(&["--identity=operator-0"]).unwrap().leader.identity;
        let (one, other) = (identity(), identity());
        assert!(one.starts_with("operator-0_") && one.len() == "operator-0_".len() + 8, "{one}");
        assert_ne!(one, other);
    }

    #[test]
    fn errors_say_which_flag_why_and_what_to_do() {
        for (flag, part) in [
            ("--webhook=yes", "--webhook (or CULTIVAR_WEBHOOK) is \"yes\": it is neither on nor off; write on or off"),
            ("--http-bind=8080", "CULTIVAR_HTTP_BIND"),
            ("--webhook-bind=localhost:9443", "not an IP address"),
            ("--namespaces=a,B", "\"B\""),
            ("--webhook-url-host=https://x", "without https://"),
            ("--leader-elect=on", "true or false"),
            ("--store-url=s3://cultivar", "--store-endpoint"),
            ("--store-endpoint=http://x", "--store-url"),
            ("--log-format=logfmt", "text or json"),
            ("--log-filter=info,=x=y=", "--log-filter"),
            ("--concurrency=0", "from 1 to 1024"),
            ("--write-limit=many", "from 0 to 10000"),
            ("--lease-name=", "--lease-name"),
            ("--resolve-images=true", "neither on nor off"),
            ("--image-mirror=docker.io", "there is no ="),
            ("--image-mirror=Docker.io=https://x", "no registry"),
            ("--image-mirror=docker.io/library=https://x", "no registry"),
            ("--image-mirror=docker.io=x", "no address"),
            ("--image-mirror=docker.io=ftp://x", "http:// or https://"),
            ("--image-mirror=docker.io=https://u:p@x", "at most a path"),
        ] {
            let error = settings(&[flag]).expect_err(flag).to_string();
            assert!(error.contains(part), "{flag}: {error}");
        }
    }

    #[test]
    fn a_webhook_that_is_off_is_not_checked() {
        assert!(settings(&["--webhook=off", "--webhook-bind=nonsense"]).unwrap().webhook.is_none());
    }
}
