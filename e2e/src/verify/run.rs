//! Runs a program with its output shown as it comes, and reads the closing lines of test runners from it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::{Count, Outcome};
use crate::error::Context as _;

/// `cargo` with these arguments, in the repository.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = crate::exec::cargo();
    command.args(args).current_dir(crate::chart::repository());
    command
}

/// One check: the program ends well.
pub fn check(mut command: Command) -> Outcome {
    let status = command.status().doing(|| format!("cannot start {command:?}"))?;
    Ok(Count::one(status.success()))
}

/// Runs `cargo test` and counts what its closing lines say. A run that fails without a failed test (it does not
/// compile, a runner crashed) counts as one failure.
pub fn tests(mut command: Command) -> Outcome {
    let mut child = command.stdout(Stdio::piped()).spawn().doing(|| format!("cannot start {command:?}"))?;
    let mut count = Count::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            println!("{line}");
            if let Some(closing) = closing(&line) {
                count.add(closing);
            }
        }
    }
    let status = child.wait().doing(|| "lost the test runner")?;
    if !status.success() && count.failed == 0 {
        count.failed = 1;
    }
    Ok(count)
}

// `test result: ok. 12 passed; 0 failed; 1 ignored; …`: an ignored test counts as failed, since it proves nothing.
fn closing(line: &str) -> Option<Count> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let number = |word: &str| -> usize {
        let before = rest.split(&[';', '.'][..]).find_map(|part| part.trim().strip_suffix(word));
        before.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    };
    Some(Count { passed: number("passed"), failed: number("failed") + number("ignored") })
}

#[cfg(test)]
mod tests {
    use super::closing;

    #[test]
    fn reads_the_closing_line() {
        let count = closing("test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out").unwrap();
        assert_eq!((count.passed, count.failed), (12, 4));
        assert!(closing("running 3 tests").is_none());
    }
}
