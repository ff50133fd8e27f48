//! What the store is told when it starts.
//!
//! Comes in: the command line and the environment (every flag `--a-b` is also `CULTIVAR_STORE_A_B`). Goes out:
//! [`Settings`], checked, or a [`SettingsError`] that names the flag, what is wrong with it and what to write instead.
//! [`Args`] is only the shape of the flags; nothing but this file reads it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// The flags as clap sees them: text, not yet judged.
#[derive(Parser, Clone, Debug)]
#[command(name = "cultivar-store", version, about = "An S3 endpoint on one volume, for the artifacts of experiments.")]
pub struct Args {
    /// Folder that everything is kept in: the mount point of a volume that nothing else uses.
    #[arg(long, env = "CULTIVAR_STORE_DATA_DIR", value_name = "FOLDER", default_value = "/data")]
    data_dir: PathBuf,

    /// File with the root key that all credentials are derived from, or a folder with a file root-key: a mounted Secret.
    #[arg(long, env = "CULTIVAR_STORE_CREDENTIALS", value_name = "PATH", default_value = "/credentials")]
    credentials: PathBuf,

    /// The bucket. There is one, and it is there from the start.
    #[arg(long, env = "CULTIVAR_STORE_BUCKET", value_name = "NAME", default_value = "cultivar")]
    bucket: String,

    /// Address and port of S3.
    #[arg(long, env = "CULTIVAR_STORE_S3_BIND", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9000")]
    s3_bind: String,

    /// Address and port of /healthz and /metrics.
    #[arg(long, env = "CULTIVAR_STORE_HTTP_BIND", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8080")]
    http_bind: String,

    /// How much of the volume stays free: writes that would go below are refused, reads and deletes go on.
    #[arg(long, env = "CULTIVAR_STORE_RESERVE", value_name = "BYTES|Mi|Gi", default_value = "256Mi")]
    reserve: String,

    /// Days after which an upload in parts that was neither completed nor aborted is ended.
    #[arg(long, env = "CULTIVAR_STORE_ABANDONED_DAYS", value_name = "DAYS", default_value = "7")]
    abandoned_days: String,

    /// Connections served at the same time; more wait.
    #[arg(long, env = "CULTIVAR_STORE_CONNECTIONS", value_name = "N", default_value = "512")]
    connections: String,

    /// Seconds that requests under way have after SIGTERM; keep it below the Pod's grace period.
    #[arg(long, env = "CULTIVAR_STORE_GRACE_SECONDS", value_name = "SECONDS", default_value = "25")]
    grace_seconds: String,

    /// How log lines are written: text or json.
    #[arg(long, env = "CULTIVAR_STORE_LOG_FORMAT", value_name = "text|json", default_value = "text")]
    log_format: String,

    /// What is logged: a level, or levels by module. The protocol's library logs every refused request as an error.
    #[arg(long, env = "CULTIVAR_STORE_LOG_FILTER", value_name = "FILTER", default_value = "info,s3s=off")]
    log_filter: String,
}

/// What the store runs with. Everything in it has been checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where the root key is.
    pub credentials: PathBuf,
    /// The bucket.
    pub bucket: String,
    /// Where S3 is served.
    pub s3_bind: SocketAddr,
    /// Where /healthz and /metrics are served.
    pub http_bind: SocketAddr,
    /// Bytes of the volume that stay free.
    pub reserve: u64,
    /// The age at which an upload is ended.
    pub abandoned: Duration,
    /// Connections at the same time, at least 1.
    pub connections: usize,
    /// Time for requests under way after the stop.
    pub grace: Duration,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// What is logged; it has been parsed once, so it parses again.
    pub log_filter: String,
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
    pub why: &'static str,
    /// What to write instead.
    pub todo: &'static str,
}

fn env_name(flag: &str) -> String {
    format!("CULTIVAR_STORE_{}", flag.replace('-', "_").to_uppercase())
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
        let days = number("abandoned-days", &args.abandoned_days, 1, 3650)?;
        let connections = number("connections", &args.connections, 1, 65_536)?;
        Ok(Self {
            data_dir: args.data_dir,
            credentials: args.credentials,
            bucket: bucket(args.bucket)?,
            s3_bind: address("s3-bind", &args.s3_bind)?,
            http_bind: address("http-bind", &args.http_bind)?,
            reserve: bytes("reserve", &args.reserve)?,
            abandoned: Duration::from_secs(days * 24 * 60 * 60),
            connections: usize::try_from(connections).unwrap_or(usize::MAX),
            grace: Duration::from_secs(number("grace-seconds", &args.grace_seconds, 0, 3600)?),
            log_format: log_format(&args.log_format)?,
            log_filter: log_filter(args.log_filter)?,
        })
    }
}

fn wrong(flag: &'static str, value: &str, why: &'static str, todo: &'static str) -> SettingsError {
    SettingsError { flag, value: value.to_owned(), why, todo }
}

fn bucket(name: String) -> Result<String, SettingsError> {
    let why = "it is no bucket name of S3: 3 to 63 lower-case letters, digits, dots and dashes";
    if s3s::path::check_bucket_name(&name) { Ok(name) } else { Err(wrong("bucket", &name, why, "write such a name")) }
}

fn address(flag: &'static str, value: &str) -> Result<SocketAddr, SettingsError> {
    let todo = "write an IP address and a port, such as 0.0.0.0:9000 or [::]:9000";
    value.parse().map_err(|_| wrong(flag, value, "it is not an IP address with a port", todo))
}

fn number(flag: &'static str, value: &str, least: u64, most: u64) -> Result<u64, SettingsError> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number
        .ok_or_else(|| wrong(flag, value, "it is no whole number, or out of range", "write a smaller or larger number"))
}

/// Bytes in Kubernetes' writing: a whole number, or one with Ki, Mi, Gi or Ti.
fn bytes(flag: &'static str, value: &str) -> Result<u64, SettingsError> {
    let digits = value.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &value[digits.len()..] {
        "" => Some(0),
        "Ki" => Some(10),
        "Mi" => Some(20),
        "Gi" => Some(30),
        "Ti" => Some(40),
        _ => None,
    };
    let read = shift.and_then(|shift| digits.parse::<u64>().ok()?.checked_mul(1 << shift));
    read.ok_or_else(|| {
        wrong(flag, value, "it is no number of bytes", "write a number such as 1073741824, 256Mi or 1Gi")
    })
}

fn log_format(value: &str) -> Result<LogFormat, SettingsError> {
    match value {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(wrong("log-format", other, "it is neither text nor json", "write text or json")),
    }
}

fn log_filter(value: String) -> Result<String, SettingsError> {
    let todo = "write a level such as info, or levels by module such as info,cultivar_store=debug";
    match EnvFilter::try_new(&value) {
        Ok(_) => Ok(value),
        Err(_) => Err(wrong("log-filter", &value, "it is no filter", todo)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(flags: &[&str]) -> Result<Settings, SettingsError> {
        Args::try_parse_from([&["cultivar-store"], flags].concat()).unwrap().try_into()
    }

    #[test]
    fn the_defaults_are_good() {
        let settings = read(&[]).unwrap();
        assert_eq!((settings.bucket.as_str(), settings.reserve), ("cultivar", 256 << 20));
        assert_eq!(settings.abandoned, Duration::from_secs(604_800));
    }

    #[test]
    fn errors_name_the_flag_and_the_variable() {
        let error = read(&["--reserve", "1GB"]).unwrap_err().to_string();
        let told = "--reserve (or CULTIVAR_STORE_RESERVE) is \"1GB\": it is no number of bytes; write a number such as \
                    1073741824, 256Mi or 1Gi";
        assert_eq!(error, told);
        for bad in [
            ["--bucket", "../x"],
            ["--s3-bind", "9000"],
            ["--http-bind", "localhost:1"],
            ["--abandoned-days", "0"],
            ["--connections", "-1"],
            ["--grace-seconds", "soon"],
            ["--log-format", "xml"],
            ["--log-filter", "a=b=c"],
            ["--reserve", "99999999Ti"],
        ] {
            let flag = bad[0].trim_start_matches('-');
            let given = format!("{}={}", bad[0], bad[1]);
            assert_eq!(read(&[given.as_str()]).unwrap_err().flag, flag);
        }
    }

    #[test]
    fn bytes_have_binary_units() {
        for (text, value) in [("0", 0), ("17", 17), ("2Ki", 2048), ("3Gi", 3 << 30)] {
            assert_eq!(read(&["--reserve", text]).unwrap().reserve, value);
        }
    }
}
