//! Long-lived processes of a cluster: started once, recorded, found again, stopped.
//!
//! In: a component's command line. Out: a process that outlives us, in a session of its own, writing
//! to `logs/NAME.log`; and a record in `run/NAME.json` of its id, its start time and its command. The
//! start time makes the record certain: an id that the system has given to another program since is
//! never taken for ours, and never signalled.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use crate::error::{Context as _, Error, Result};
use crate::exec;

/// How to start a component.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub name: &'static str,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// The network namespace to run in; the host's if none.
    pub netns: Option<String>,
    /// Files whose change asks for a restart, as a change of the arguments does.
    pub reads: Vec<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    pid: i32,
    start: String,
    command: String,
}

/// Whether a component runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// With this process id.
    Running(i32),
    /// It was started and is gone.
    Dead,
    /// It was stopped, or never started.
    Stopped,
}

/// Starts a component, unless it runs already with this very command; one with another is replaced.
pub(crate) fn ensure(layout: &Layout, spec: &Spec) -> Result<()> {
    if runs(layout, spec) {
        return Ok(());
    }
    stop(layout, spec.name, Duration::from_secs(3))?;
    start(layout, spec)
}

/// Whether a component runs with this very command.
pub(crate) fn runs(layout: &Layout, spec: &Spec) -> bool {
    read(layout, spec.name).is_some_and(|record| alive(&record) && record.command == command_line(spec))
}

/// Stops a component if it runs: asks, waits up to `grace`, then kills.
pub(crate) fn stop(layout: &Layout, name: &str, grace: Duration) -> Result<()> {
    let Some(record) = read(layout, name) else {
        return Ok(());
    };
    signal(&record, Signal::TERM);
    if !gone_within(&record, grace) {
        signal(&record, Signal::KILL);
        if !gone_within(&record, Duration::from_secs(5)) {
            return Err(Error::new(format!("{name} (process {}) does not end", record.pid))
                .hint("it may hang in the kernel: look at /proc/PID/stack, then run `down` again"));
        }
    }
    let _ = fs::remove_file(record_file(layout, name));
    Ok(())
}

/// The state of a component, from its record.
pub(crate) fn state(layout: &Layout, name: &str) -> State {
    match read(layout, name) {
        None => State::Stopped,
        Some(record) if alive(&record) => State::Running(record.pid),
        Some(_) => State::Dead,
    }
}

/// The names of all components that were started and not stopped.
pub(crate) fn recorded(layout: &Layout) -> Vec<String> {
    let files = fs::read_dir(layout.run()).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".json")?.to_owned())).collect();
    names.sort();
    names
}

/// Waits until `ready` holds, while the component lives.
pub(crate) fn wait(layout: &Layout, name: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    loop {
        if ready() {
            return Ok(());
        }
        let ended = !matches!(state(layout, name), State::Running(_));
        if ended || begun.elapsed() > limit {
            let why = if ended { "it ended".to_owned() } else { format!("not ready after {} s", limit.as_secs()) };
            let log = layout.logs().join(format!("{name}.log"));
            return Err(Error::new(format!("{name} did not come up"))
                .why(why)
                .log(tail(&log, 12))
                .hint(format!("read {}; `cargo cluster down` and `up` start from nothing", log.display())));
        }
        // Asking is not free: most questions start a kubectl, on the processors that the answer needs.
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Kills a process that was found, just now, in our own cgroup or by our own socket.
pub(crate) fn kill(pid: i32) {
    send(pid, Signal::KILL);
}

/// Asks such a process to end.
pub(crate) fn ask(pid: i32) {
    send(pid, Signal::TERM);
}

fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn start(layout: &Layout, spec: &Spec) -> Result<()> {
    let failed = || format!("cannot start {}", spec.name);
    let log = layout.logs().join(format!("{}.log", spec.name));
    // The log of the run before says why it ended.
    let _ = fs::rename(&log, log.with_extension("log.1"));
    let out = File::create(&log).doing(failed)?;
    let err = out.try_clone().doing(failed)?;
    let mut words: Vec<String> = Vec::new();
    // A session of its own: closing the terminal, or Ctrl-C in it, does not reach the cluster.
    let setsid = exec::find("setsid");
    words.extend(setsid.iter().map(|program| program.display().to_string()));
    if let Some(netns) = &spec.netns {
        // Not `ip netns exec`: that mounts a /sys without cgroups.
        words.extend(["nsenter".to_owned(), format!("--net=/var/run/netns/{netns}")]);
    }
    words.push(spec.program.display().to_string());
    words.extend(spec.args.iter().cloned());
    let mut child = Command::new(&words[0]);
    if setsid.is_none() {
        // Second best. Never both: setsid(1) in a group of its own forks, and we would record the wrong id.
        child.process_group(0);
    }
    let child = child
        .args(&words[1..])
        .current_dir(layout.dir())
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .doing(failed)?;
    let pid = i32::try_from(child.id()).doing(failed)?;
    let start = started_at(pid).ok_or_else(|| Error::new(failed()).why("it ended at once").log(tail(&log, 12)))?;
    let record = Record { pid, start, command: command_line(spec) };
    let text = serde_json::to_string_pretty(&record).doing(failed)?;
    fs::write(record_file(layout, spec.name), text).doing(failed)
}

fn command_line(spec: &Spec) -> String {
    let files = spec.reads.iter().map(|file| fs::read_to_string(file).unwrap_or_default());
    let read: u64 = files
        .flat_map(String::into_bytes)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{} {} #{read:x}", spec.program.display(), spec.args.join(" "))
}

fn record_file(layout: &Layout, name: &str) -> PathBuf {
    layout.run().join(format!("{name}.json"))
}

fn read(layout: &Layout, name: &str) -> Option<Record> {
    serde_json::from_str(&fs::read_to_string(record_file(layout, name)).ok()?).ok()
}

fn alive(record: &Record) -> bool {
    // Children of a test process that have ended stay as zombies until somebody asks for their code.
    if let Some(pid) = Pid::from_raw(record.pid) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
    started_at(record.pid).is_some_and(|start| start == record.start)
}

fn gone_within(record: &Record, limit: Duration) -> bool {
    let begun = Instant::now();
    while alive(record) {
        if begun.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Signals the recorded process. Where the system has process descriptors, the check of the start time
/// and the signal refer to one and the same process even if it ends in between.
fn signal(record: &Record, signal: Signal) {
    let Some(pid) = Pid::from_raw(record.pid) else {
        return;
    };
    #[cfg(target_os = "linux")]
    if let Ok(handle) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        if alive(record) {
            let _ = rustix::process::pidfd_send_signal(&handle, signal);
        }
        return;
    }
    if alive(record) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// When a process started, in words that no two processes with the same id share.
#[cfg(target_os = "linux")]
pub(crate) fn started_at(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name is in brackets and may hold anything; the fields follow its last bracket.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let ticks = fields.nth(18)?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    (state != "Z").then(|| format!("{ticks} {}", boot.trim()))
}

/// When a process started, in words that no two processes with the same id share.
#[cfg(not(target_os = "linux"))]
pub(crate) fn started_at(pid: i32) -> Option<String> {
    let text = exec::run("ps", &["-o", "stat=,lstart=", "-p", &pid.to_string()]).ok()?;
    let (state, start) = text.trim().split_once(' ')?;
    (!state.starts_with('Z')).then(|| start.trim().to_owned())
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let text = fs::read(log).unwrap_or_default();
    exec::last_lines(&String::from_utf8_lossy(&text), lines)
}
