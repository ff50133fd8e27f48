//! The metrics file: JSON lines that the program, `cultivar-runner log` and the local endpoint append to.
//!
//! Comes in: the file, of any size and any content. Goes out: one [`Point`] after the other, so that memory does not grow
//! with the file, and a count of the lines that were not understood. Two shapes are read:
//! `{"name": "acc", "value": 0.9, "step": 3}` and `{"acc": 0.9, "loss": 0.1, "step": 3}`; both may have `timestamp`
//! (milliseconds since 1970).

use cultivar_protocol::Metric;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// A longer line is no metric.
const MAX_LINE: usize = 64 * 1024;
/// More names than this are not kept: they are data, not metrics.
const MAX_NAMES: usize = 10_000;

/// One value of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Point<'a> {
    /// The series.
    pub name: &'a str,
    /// Finite.
    pub value: f64,
    /// Where the program counts steps.
    pub step: Option<i64>,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
}

/// The lines that were not understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// How many.
    pub lines: u64,
    /// The number of the first, from 1 on.
    pub first: u64,
}

impl Garbage {
    /// In words; nothing when there is none.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        (self.lines > 0).then(|| {
            format!(
                "{} line(s) of the metrics file are no metrics, the first is line {}; a line is {{\"name\": …, \"value\": number, \"step\": …}} or {{\"acc\": 0.9, \"step\": 3}}",
                self.lines, self.first
            )
        })
    }
}

/// Calls `each` for every value in the file, in order. A file that is not there has none.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path, mut each: impl FnMut(Point<'_>)) -> io::Result<Garbage> {
    let mut garbage = Garbage::default();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(garbage),
        Err(error) => return Err(error),
    };
    let (mut reader, mut line, mut number) = (BufReader::new(file), Vec::new(), 0);
    while read_line(&mut reader, &mut line)? {
        number += 1;
        let blank = line.iter().all(u8::is_ascii_whitespace);
        let understood = blank || (line.len() <= MAX_LINE && understand(&line, &mut each));
        if !understood {
            garbage.first = if garbage.lines == 0 { number } else { garbage.first };
            garbage.lines += 1;
        }
    }
    Ok(garbage)
}

// One line; of one that is too long only the beginning is kept, and the rest is passed over. False at the end.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    if reader.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    while line.len() > MAX_LINE && line.last() != Some(&b'\n') {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            break;
        }
        match buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                reader.consume(end + 1);
                break;
            }
            None => {
                let all = buffer.len();
                reader.consume(all);
            }
        }
    }
    Ok(true)
}

// Whether the whole line was understood. What is understood of it counts all the same.
fn understand(line: &[u8], each: &mut impl FnMut(Point<'_>)) -> bool {
    let Ok(object) = serde_json::from_slice::<Map<String, Value>>(line) else { return false };
    let step = object.get("step").map(whole);
    let timestamp = object.get("timestamp").and_then(whole);
    if step == Some(None) {
        return false;
    }
    let step = step.flatten();
    if let (Some(Value::String(name)), Some(value)) = (object.get("name"), object.get("value")) {
        let Some(value) = value.as_f64().filter(|_| !name.is_empty()) else { return false };
        each(Point { name, value, step, timestamp });
        return true;
    }
    let mut sound = true;
    let mut any = false;
    for (name, value) in object.iter().filter(|(name, _)| *name != "step" && *name != "timestamp") {
        match value.as_f64() {
            Some(value) if !name.is_empty() => {
                any = true;
                each(Point { name, value, step, timestamp });
            }
            _ => sound = false,
        }
    }
    sound && any
}

// 3 and 3.0 are whole; what a double cannot count exactly is none.
fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let float = value.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15)?;
        format!("{float:.0}").parse().ok()
    })
}

/// The series of a file, condensed, and what was wrong in words.
#[must_use]
pub fn condense(path: &Path) -> (BTreeMap<String, Metric>, Vec<String>) {
    let (mut metrics, mut problems, mut left_out) = (BTreeMap::<String, Metric>::new(), Vec::new(), 0_u64);
    let read = read(path, |point| {
        if let Some(metric) = metrics.get_mut(point.name) {
            metric.push(point.value, point.step);
        } else if metrics.len() < MAX_NAMES && point.name.len() <= 256 {
            metrics.insert(point.name.to_owned(), Metric::of(point.value, point.step));
        } else {
            left_out += 1;
        }
    });
    match read {
        Ok(garbage) => problems.extend(garbage.problem()),
        Err(error) => problems.push(format!("the metrics file {} cannot be read: {error}", path.display())),
    }
    if left_out > 0 {
        problems.push(format!(
            "{left_out} metric value(s) are left out: a name has at most 256 bytes, and a run at most {MAX_NAMES} names"
        ));
    }
    (metrics, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condensed(text: &[u8]) -> (BTreeMap<String, Metric>, Vec<String>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        condense(file.path())
    }

    #[test]
    fn both_shapes_are_read() {
        let (metrics, problems) = condensed(
            b"{\"name\": \"acc\", \"value\": 0.9, \"step\": 3}\n\n{\"acc\": 0.5, \"loss\": 1, \"step\": 4.0}\n{\"val/x\": -1}",
        );
        assert_eq!(metrics["acc"], Metric { last: 0.5, min: 0.5, max: 0.9, step: Some(4) });
        assert_eq!(metrics["loss"], Metric::of(1.0, Some(4)));
        assert_eq!(metrics["val/x"], Metric::of(-1.0, None));
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn garbage_is_counted_and_the_rest_is_read() {
        let mut text =
            b"{\"a\": 1}\nnonsense\n{\"a\": NaN}\n[1]\n{}\n{\"a\": \"x\"}\n{\"a\": 1, \"step\": \"y\"}\n\xff\xfe\n"
                .to_vec();
        text.extend(std::iter::repeat_n(b'x', 3 * MAX_LINE));
        text.extend(b"\n{\"a\": 2}");
        let (metrics, problems) = condensed(&text);
        assert_eq!(metrics["a"], Metric { last: 2.0, min: 1.0, max: 2.0, step: None });
        assert!(problems[0].starts_with("8 line(s)") && problems[0].contains("line 2"), "{problems:?}");
    }

    #[test]
    fn names_are_bounded() {
        let text: String = (0..MAX_NAMES + 5).map(|n| format!("{{\"m{n}\": 1}}\n")).collect();
        let (metrics, problems) = condensed(text.as_bytes());
        assert_eq!(metrics.len(), MAX_NAMES);
        assert!(problems[0].starts_with("5 metric"), "{problems:?}");
    }

    #[test]
    fn no_file_is_no_metrics() {
        assert_eq!(condense(Path::new("/nonexistent/m")), (BTreeMap::new(), Vec::new()));
    }
}
