//! `cultivar-runner log acc=0.9 loss=0.1 --step 3`: one more way to report metrics, for shell scripts.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;

/// The variable that names the metrics file.
pub const METRICS_ENV: &str = "CULTIVAR_METRICS";

/// Why nothing was logged.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not inside a run.
    #[error("{METRICS_ENV} is not set: `log` works inside a run, where the runner names the metrics file")]
    Outside,
    /// Not name=value.
    #[error("{0:?} is not name=value with a finite number, like acc=0.93; nothing was logged")]
    Value(String),
    /// The file.
    #[error("cannot append to {path:?}: {error}")]
    File {
        /// The metrics file.
        path: OsString,
        /// The cause.
        error: std::io::Error,
    },
}

/// Appends values to the file that `CULTIVAR_METRICS` names: all of them, or none.
///
/// # Errors
/// What is wrong with the values, or with the file.
pub fn log(values: &[String], step: Option<i64>) -> Result<(), LogError> {
    let path = std::env::var_os(METRICS_ENV).ok_or(LogError::Outside)?;
    let lines = lines(values, step)?;
    let file = std::fs::OpenOptions::new().append(true).create(true).open(&path);
    // One write, so that lines of several processes do not mix.
    file.and_then(|mut file| file.write_all(lines.as_bytes())).map_err(|error| LogError::File { path, error })
}

fn lines(values: &[String], step: Option<i64>) -> Result<String, LogError> {
    let now = jiff::Timestamp::now().as_millisecond();
    let mut text = String::new();
    for value in values {
        let bad = || LogError::Value(value.clone());
        // The last '=': a name may hold one.
        let (name, number) = value.rsplit_once('=').ok_or_else(bad)?;
        let number: f64 = number.trim().parse().map_err(|_| bad())?;
        if name.is_empty() || !number.is_finite() {
            return Err(bad());
        }
        let mut line = serde_json::json!({"name": name, "value": number, "timestamp": now});
        if let Some(step) = step {
            line["step"] = step.into();
        }
        let _ = writeln!(text, "{line}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_nothing() {
        let text = lines(&["acc=0.9".into(), "a=b=-1e3".into()], Some(3)).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains(r#""name":"a=b""#) && text.contains("-1000.0") && text.contains(r#""step":3"#));
        for bad in ["acc", "=1", "acc=x", "acc=nan", "acc="] {
            assert!(lines(&["ok=1".into(), bad.into()], None).is_err(), "{bad}");
        }
    }
}
