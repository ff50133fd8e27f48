//! Printing: tables for people, JSON, YAML and names for programs. Colour only on a terminal.

use comfy_table::{Table, presets};
use serde_json::Value;
use std::io::IsTerminal as _;

use crate::args::Format;
use crate::cluster::text;
use crate::error::{Error, Result};

/// A table without borders, as kubectl's.
pub fn table<S: AsRef<str>>(head: &[S], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(head.iter().map(AsRef::as_ref));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let lines = table.to_string();
    lines.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Objects in a format that is no table; false for one that is.
pub fn objects(format: Option<Format>, objects: &[Value]) -> Result<bool> {
    match format {
        None | Some(Format::Wide) => return Ok(false),
        Some(Format::Name) => {
            for object in objects {
                let kind = text(object, "/kind").to_lowercase();
                println!("{kind}.cultivar.dev/{}", text(object, "/metadata/name"));
            }
        }
        Some(Format::Json) if objects.len() == 1 => println!("{:#}", objects[0]),
        Some(Format::Json) => {
            println!("{:#}", serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects}))
        }
        Some(Format::Yaml) => {
            for (index, object) in objects.iter().enumerate() {
                print!("{}{}", if index > 0 { "---\n" } else { "" }, yaml(object)?);
            }
        }
    }
    Ok(true)
}

/// A manifest as YAML.
pub fn yaml(value: &Value) -> Result<String> {
    serde_yaml::to_string(value).map_err(|error| Error::new("it cannot be printed as YAML").why(error))
}

/// A phase in its colour.
pub fn phase(phase: &str) -> String {
    let colour = match phase {
        "Completed" | "Reused" => 32,
        "Failed" | "Fails" => 31,
        "Running" | "Starting" | "Runs" => 36,
        "Queued" | "Pending" | "Waits" | "Follows" => 33,
        _ => 90,
    };
    let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    if coloured { format!("\x1b[{colour}m{phase}\x1b[0m") } else { phase.to_owned() }
}

/// A value as people write it: text without quotes.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A time as how long ago it is: `3m`, `2d`.
pub fn ago(moment: Option<jiff::Timestamp>, now: jiff::Timestamp) -> String {
    moment.map_or_else(|| "-".to_owned(), |moment| length(now.duration_since(moment).as_secs()))
}

/// Seconds as a length of time: `42s`, `3m`, `5h`, `2d`.
pub fn length(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}

/// A number as short as it is exact enough to compare.
pub fn number(value: f64) -> String {
    let text = format!("{value:.5}");
    if value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e7) {
        return format!("{value:.4e}");
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lengths_are_short() {
        assert_eq!([0.95, 1.0, 0.0, 1234.5, 0.000_012].map(number), ["0.95", "1", "0", "1234.5", "1.2000e-5"]);
        assert_eq!([5, 119, 300, 7200, 200_000, -3].map(length), ["5s", "119s", "5m", "2h", "2d", "0s"]);
    }

    #[test]
    fn a_table_has_no_borders_and_no_trailing_blanks() {
        let text =
            table(&["NAME", "PHASE"], vec![vec!["a".into(), "Completed".into()], vec!["longer".into(), String::new()]]);
        assert_eq!(text, "NAME     PHASE\na        Completed\nlonger\n");
    }
}
