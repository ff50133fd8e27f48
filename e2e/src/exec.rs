//! Short-lived child processes: run one, wait, and keep what it wrote.
//!
//! In: a program, its arguments, perhaps its standard input. Out: its standard output, or an error
//! that quotes the end of what it wrote to standard error.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::error::{Context as _, Error, Result};

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// It does not start, or ends with another code than 0.
pub fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: &[S]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    output(&mut command, None)
}

/// Runs a prepared command, giving it `input`, and returns its standard output.
///
/// # Errors
/// It does not start, or ends with another code than 0.
pub fn output(command: &mut Command, input: Option<&str>) -> Result<String> {
    let shown = shown(command);
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().doing(|| format!("cannot start `{shown}`"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that ends early closes its end; its exit code says why, not the broken pipe.
        let _ = stdin.write_all(text.as_bytes());
    }
    let done = child.wait_with_output().doing(|| format!("lost `{shown}`"))?;
    let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&done.stderr);
    let said = if stderr.trim().is_empty() { stdout.as_str() } else { &stderr };
    Err(Error::new(format!("`{shown}` failed")).why(done.status).log(last_lines(said, 15)))
}

/// The cargo that runs us, or that of `PATH`, to add arguments to.
///
/// `cargo run` describes our own package in variables. They would reach build scripts, and `ring`'s is run again
/// whenever they differ: each of two commands that take turns would compile half of the tree anew.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(ours) {
            command.env_remove(name);
        }
    }
    command
}

/// The last `count` lines of a text.
#[must_use]
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The first of the folders in `PATH` (and the administrator's) that holds the program.
#[must_use]
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A plain user's PATH lacks the administrator's folders; `ip` and `iptables` live there.
    let extra = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    let text = words.join(" ");
    match text.char_indices().nth(200) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
