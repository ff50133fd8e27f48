//! The log: text for people or one JSON object a line, filtered.
//!
//! Comes in: the settings. Goes out: lines on standard error for text, on standard output for JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, Settings};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The filter does not parse. Settings were checked, so this is only for a filter from elsewhere.
    #[error("--log-filter: {0}; write a level such as info, or levels by module")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// A log was set up before.
    #[error("the log is set up twice: {0}")]
    Twice(String),
}

/// Sends the process's log lines where the settings say. Call it once, before anything logs.
///
/// # Errors
/// When it was called before.
pub fn install(settings: &Settings) -> Result<(), LogsError> {
    let filter = EnvFilter::try_new(&settings.log_filter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    match settings.log_format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            lines.with_ansi(colours).with_writer(std::io::stderr).try_init()
        }
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    }
    .map_err(|error| LogsError::Twice(error.to_string()))
}
