//! The operator as a process on this machine: started against a cluster, watched, killed.
//!
//! In: a cluster and how the operator is to run. Out: a process that is ready, its metrics, what it has used of the
//! machine. It ends with its handle.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::Cluster;
use crate::error::{Context as _, Error, Result};
use crate::exec;

/// With tens of thousands of objects to read it takes half a minute.
const READY: Duration = Duration::from_secs(180);

/// How an operator is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tells its log from those of other operators at the same cluster.
    pub name: String,
    /// Whether it takes part in an election.
    pub elect: bool,
    /// What it logs.
    pub log_filter: String,
    /// The kubeconfig to use instead of the administrator's.
    pub kubeconfig: Option<PathBuf>,
    /// Where the registry of this name is asked what tags stand for; nothing: none is asked.
    pub registry: Option<(String, String)>,
    /// Its writes a second, at most; 0 for no limit.
    pub write_limit: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "operator".to_owned(),
            elect: false,
            log_filter: "info".to_owned(),
            kubeconfig: None,
            registry: None,
            write_limit: 0,
        }
    }
}

/// A running operator.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    http: SocketAddr,
    log: PathBuf,
}

/// What a process has used.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// CPU time of user and system, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory now, in bytes.
    pub memory: u64,
    /// Most resident memory so far, in bytes.
    pub peak_memory: u64,
}

/// Metrics in Prometheus' text format, read.
#[derive(Debug, Clone, Default)]
pub struct Metrics(BTreeMap<String, f64>);

/// Applies the definitions of our kinds and makes the operator's namespace.
///
/// # Errors
/// The API server refuses them.
pub fn install_definitions(cluster: &Cluster) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/generated");
    let folder = folder.display().to_string();
    cluster.define(&folder)?;
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: cultivar-system}}").map(drop)
}

impl Operator {
    /// Starts the binary against a cluster and waits until it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready in time; the error quotes its log.
    pub fn start(binary: &Path, cluster: &Cluster, options: &Options) -> Result<Self> {
        let mut operator = Self::launch(binary, cluster, options)?;
        let begun = Instant::now();
        while operator.get("/readyz").is_err() {
            if let Ok(Some(status)) = operator.child.try_wait() {
                return Err(Error::new("the operator ended").why(status).log(operator.log_tail(20)));
            }
            if begun.elapsed() > READY {
                let why = operator.get("/readyz").err().map_or_else(String::new, |error| error.to_string());
                return Err(Error::new("the operator is not ready").why(why).log(operator.log_tail(20)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(operator)
    }

    /// Starts the binary and does not wait: the API server may be away.
    ///
    /// # Errors
    /// It does not start.
    pub fn launch(binary: &Path, cluster: &Cluster, options: &Options) -> Result<Self> {
        let log = cluster.dir().join("logs").join(format!("{}.log", options.name));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.doing(|| format!("cannot write {}", log.display()))?;
        let http = free_port()?;
        let child = Command::new(binary)
            .args(["--webhook=off", &format!("--leader-elect={}", options.elect)])
            .args(["--http-bind", &http.to_string(), "--log-filter", &options.log_filter])
            .args(["--identity", &options.name, "--write-limit", &options.write_limit.to_string()])
            .args(match &options.registry {
                Some((name, url)) => vec!["--resolve-images=on".to_owned(), format!("--image-mirror={name}={url}")],
                // Simulated nodes pull nothing, and their images are nowhere.
                None => vec!["--resolve-images=off".to_owned()],
            })
            .env("KUBECONFIG", options.kubeconfig.clone().unwrap_or_else(|| cluster.kubeconfig()))
            .stdin(Stdio::null())
            .stdout(file.try_clone().doing(|| "cannot share the log")?)
            .stderr(file)
            .spawn()
            .doing(|| format!("cannot start {}", binary.display()))?;
        Ok(Self { child, http, log })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        exec::last_lines(&fs::read_to_string(&self.log).unwrap_or_default(), lines)
    }

    /// Ends it without a warning, as a crash would.
    pub fn kill(mut self) {
        self.end();
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It does not end within 20 seconds, or not well.
    pub fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).doing(|| "cannot ask the operator to end")?;
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(Error::new("the operator did not end well").why(status).log(self.log_tail(20)));
                }
                Err(error) => return Err(Error::new("lost the operator").why(error)),
            }
        }
        Err(Error::new("the operator does not end").log(self.log_tail(20)))
    }

    fn end(&mut self) {
        // It may have ended by itself; nothing is left to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The body of a page that it serves.
    ///
    /// # Errors
    /// It does not answer, or not with 200.
    pub fn get(&self, path: &str) -> Result<String> {
        let failed = || format!("no answer from http://{}{path}", self.http);
        let limit = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&self.http, limit).doing(failed)?;
        stream.set_read_timeout(Some(limit)).doing(failed)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http);
        stream.write_all(request.as_bytes()).doing(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).doing(failed)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if head.starts_with("HTTP/1.1 200") {
            return Ok(body.to_owned());
        }
        Err(Error::new(failed()).why(body.trim()))
    }

    /// Its metrics now.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metrics(&self) -> Result<Metrics> {
        self.get("/metrics").map(|text| Metrics::read(&text))
    }

    /// What it has used of the machine so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn usage(&self) -> Result<Usage> {
        let folder = PathBuf::from(format!("/proc/{}", self.pid()));
        let read = |file: &str| fs::read_to_string(folder.join(file)).doing(|| "the operator is gone");
        let stat = read("stat")?;
        // The name in parentheses may hold spaces; utime and stime are the 12th and 13th field after it.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks: f64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<f64>().ok()).sum();
        let status = read("status")?;
        let bytes = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kilobytes.unwrap_or(0) * 1024
        };
        // Linux counts 100 ticks a second on every architecture that it shows them on.
        Ok(Usage { cpu_seconds: ticks / 100.0, memory: bytes("VmRSS:"), peak_memory: bytes("VmHWM:") })
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.end();
    }
}

/// A port of this machine that nobody listens on.
pub(crate) fn free_port() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing(|| "no free port")?;
    listener.local_addr().doing(|| "no free port")
}

impl Metrics {
    fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(series.collect())
    }

    /// The value of one series, named as Prometheus shows it.
    #[must_use]
    pub fn value(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or(0.0)
    }

    /// Writes to the API server that succeeded, as `"Kind verb" → count`.
    #[must_use]
    pub fn writes(&self) -> BTreeMap<String, f64> {
        let mut writes = BTreeMap::new();
        for (series, value) in &self.0 {
            let Some(labels) = series.strip_prefix("cultivar_api_writes_total{") else { continue };
            let of = |name: &str| labels.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
            let name = match (of("kind"), of("verb"), of("outcome")) {
                (Some(kind), Some(verb), Some("ok")) => format!("{kind} {verb}"),
                (Some(kind), Some(verb), Some(outcome)) => format!("{kind} {verb} ({outcome})"),
                _ => continue,
            };
            *writes.entry(name).or_default() += value;
        }
        writes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_told_apart_by_kind_verb_and_outcome() {
        let metrics = Metrics::read(
            "# HELP x y\ncultivar_api_writes_total{kind=\"Job\",outcome=\"ok\",verb=\"create\"} 5\n\
             cultivar_api_writes_total{kind=\"Job\",outcome=\"conflict\",verb=\"create\"} 1\ncultivar_leader 1\n",
        );
        assert_eq!(metrics.writes().get("Job create"), Some(&5.0));
        assert_eq!(metrics.writes().get("Job create (conflict)"), Some(&1.0));
        assert!((metrics.value("cultivar_leader") - 1.0).abs() < f64::EPSILON);
    }
}
