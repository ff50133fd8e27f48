//! What a child process takes: time, and memory at its peak.
//!
//! In: a prepared command. Out: [`Spent`], or an error with the end of what the command wrote. The peak is `VmHWM`, which
//! only grows, read every few milliseconds while the process lives: what it grew by in its last few is not seen.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::error::{Context as _, Error, Result};
use crate::exec;

/// How often the memory is read.
const LOOK: Duration = Duration::from_millis(5);

/// What one process took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// Wall-clock time.
    pub seconds: f64,
    /// Most resident memory of the process itself, in bytes.
    pub peak_memory: u64,
}

/// Runs a command whose output goes to `/dev/null`, and reads its memory.
pub fn spend(command: &mut Command) -> Result<Spent> {
    command.stdout(Stdio::null());
    listen(command).map(|(spent, _)| spent)
}

/// Runs a command, reads its memory, and returns what it wrote to its standard output too.
pub fn listen(command: &mut Command) -> Result<(Spent, String)> {
    let begun = Instant::now();
    let child = start(command)?;
    let pid = child.id();
    let (stop, stopped) = channel::<()>();
    let watch = std::thread::spawn(move || {
        let mut peak = 0;
        loop {
            peak = peak_memory(pid).unwrap_or(peak);
            if stopped.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout) {
                return peak;
            }
        }
    });
    let done = child.wait_with_output().doing(|| "lost the process that is measured");
    let seconds = begun.elapsed().as_secs_f64();
    drop(stop);
    let peak_memory = watch.join().map_err(|_| Error::new("the watch over the memory failed"))?;
    let done = done?;
    if !done.status.success() {
        return Err(failed(command, done.status, &done.stderr));
    }
    Ok((Spent { seconds, peak_memory }, String::from_utf8_lossy(&done.stdout).into_owned()))
}

/// Runs a command with nothing beside it, and returns its seconds.
pub fn bare(command: &mut Command) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let status = command.status().doing(|| format!("cannot start {}", command.get_program().display()))?;
    let seconds = begun.elapsed().as_secs_f64();
    if status.success() { Ok(seconds) } else { Err(failed(command, status, &[])) }
}

fn start(command: &mut Command) -> Result<Child> {
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command.spawn().doing(|| format!("cannot start {}", command.get_program().display()))
}

fn failed(command: &Command, status: std::process::ExitStatus, stderr: &[u8]) -> Error {
    let said = exec::last_lines(&String::from_utf8_lossy(stderr), 15);
    Error::new(format!("{} failed", command.get_program().display())).why(status).log(said)
}

fn peak_memory(pid: u32) -> Option<u64> {
    high_water(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_that_of_the_child() {
        let status = "Name:\tx\nVmPeak:\t   9 kB\nVmHWM:\t    1234 kB\n";
        assert_eq!(high_water(status), Some(1234 * 1024));
        // A process that has ended and is not waited for yet has no memory.
        assert_eq!(high_water("Name:\tx\nState:\tZ\n"), None);
        let spent = spend(Command::new("sleep").arg("0.1")).unwrap();
        assert!(spent.seconds >= 0.1 && spent.peak_memory > 0, "{spent:?}");
    }

    #[test]
    fn a_failure_quotes_what_was_said() {
        let error = spend(Command::new("sh").args(["-c", "echo no room >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh failed") && error.contains("no room"), "{error}");
        assert!(bare(&mut Command::new("false")).is_err());
    }
}
