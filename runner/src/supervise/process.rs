//! The program's process, its group, and whatever it leaves behind.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long killed processes may take to be gone; one that waits for a broken disk takes longer, and is left.
const CLEAR: Duration = Duration::from_secs(3);

/// Why the program did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system's answer.
    #[error(
        "cannot start {program:?}: {error}; the command must be in the image, executable, and built for this machine"
    )]
    Spawn {
        /// As given.
        program: OsString,
        /// The cause.
        error: io::Error,
    },
    /// A process number that is none.
    #[error("the system started {0:?} under a process number that does not fit")]
    Number(OsString),
}

/// Makes orphans of the program children of the runner, also where it is not the first process of its container.
pub fn prepare() -> Result<(), Errno> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// The running program.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    ended: Option<i32>,
}

impl Child {
    /// Starts a program in a process group of its own, its output going to the two pipes that are handed back.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(
        command: &[OsString],
        environment: impl IntoIterator<Item = (&'static str, OsString)>,
        without: &[&str],
    ) -> Result<(Self, OwnedFd, OwnedFd), StartError> {
        let program = command.first().cloned().unwrap_or_default();
        let fail = |error| StartError::Spawn { program: program.clone(), error };
        let mut builder = Command::new(&program);
        builder.args(command.iter().skip(1)).envs(environment).process_group(0);
        builder.stdin(Stdio::inherit()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in without {
            builder.env_remove(name);
        }
        // Never waited for through std: one loop of ours reaps it along with the orphans.
        let mut child = builder.spawn().map_err(fail)?;
        let pid = i32::try_from(child.id()).map_err(|_| StartError::Number(program.clone()))?;
        match (child.stdout.take(), child.stderr.take()) {
            (Some(out), Some(err)) => Ok((Self { pid: Pid::from_raw(pid), ended: None }, out.into(), err.into())),
            _ => Err(fail(io::Error::other("no pipes"))),
        }
    }

    /// Passes a signal on to the program's whole group. One that is gone already is no error.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            let _ = killpg(self.pid, signal);
        }
    }

    /// Reaps everything that has ended, orphans too; the program's exit code once it has: its own, or 128 and the
    /// signal's number.
    pub fn reap(&mut self) -> Option<i32> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.pid => self.ended = Some(code),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.pid => self.ended = Some(128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return self.ended,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return self.ended,
            }
        }
    }

    /// Kills what is left of the program's group, and orphans that left the group, as the end of a container's first
    /// process would.
    pub fn clear(&mut self) {
        let until = Instant::now() + CLEAR;
        let _ = killpg(self.pid, Signal::SIGKILL);
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => {
                    if Instant::now() > until {
                        return;
                    }
                    for pid in children() {
                        let _ = kill(pid, Signal::SIGKILL);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(Errno::ECHILD) => return,
                _ => {}
            }
        }
    }
}

// The runner's children now. Read from /proc, for a process can leave its group but not its parent.
fn children() -> Vec<Pid> {
    let own = std::process::id().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            // "pid (name) state parent …"; the name may hold anything, so what counts starts after the last ')'.
            std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
                stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)) == Some(own.as_str())
            })
        })
        .map(Pid::from_raw)
        .collect()
}
