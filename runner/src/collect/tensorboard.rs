//! TensorBoard event files: the scalars of them, as lines of a metrics file.
//!
//! Comes in: folders. Goes out: a file in the shape of [`crate::metrics`], so that everything after reads one shape. The
//! format is TensorFlow's record file (`tensorflow/core/lib/io/record_writer.cc`: length, its checksum, bytes, their
//! checksum) of `Event` messages (`tensorflow/core/util/event.proto`), of which four fields matter here. Checksums are not
//! compared: the files were just written on this machine, and a torn end is an end.

use cultivar_data::{WalkedFile, walk};
use cultivar_protocol::RunSpec;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A larger event holds a picture or a graph, not a scalar.
const MAX_EVENT: u64 = 1024 * 1024;
/// More files than this are not read.
const MAX_FILES: usize = 1000;
/// A file's time may be earlier than the clock said when it was written: the kernel stamps files by its last tick, and some
/// file systems keep whole or every other second only.
const TIME_STAMP_GRAIN: Duration = Duration::from_secs(2);

/// Where the scalars of a run go.
#[must_use]
pub fn scalars_file(spec: &RunSpec) -> PathBuf {
    Path::new(&spec.run_dir).join("tensorboard.jsonl")
}

/// Reads every event file that was written since `since`; comes back with what went wrong, in words.
#[must_use]
pub fn collect(spec: &RunSpec, since: SystemTime) -> Vec<String> {
    let mut problems = Vec::new();
    let files = event_files(spec, since);
    if files.is_empty() {
        return problems;
    }
    if files.len() > MAX_FILES {
        problems.push(format!("{} TensorBoard files; the first {MAX_FILES} are read", files.len()));
    }
    let folder = |path: &str| path.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
    // With one folder only there is nothing to tell apart.
    let several = files.iter().map(|file| folder(&file.path)).collect::<BTreeSet<_>>().len() > 1;
    let written = File::create(scalars_file(spec)).map(BufWriter::new).and_then(|mut out| {
        for file in files.iter().take(MAX_FILES) {
            let prefix = Some(folder(&file.path)).filter(|folder| several && !folder.is_empty());
            let read = scalars(&file.from, |scalar| {
                let name =
                    prefix.as_ref().map_or_else(|| scalar.tag.clone(), |prefix| format!("{prefix}/{}", scalar.tag));
                if !scalar.value.is_finite() {
                    return Ok(());
                }
                #[expect(clippy::cast_possible_truncation, reason = "a time in this century")]
                let timestamp = (scalar.time * 1000.0) as i64;
                writeln!(
                    out,
                    "{}",
                    json!({"name": name, "value": scalar.value, "step": scalar.step, "timestamp": timestamp})
                )
            });
            if let Err(error) = read {
                problems
                    .push(format!("the TensorBoard file {:?} is read up to a damaged place only: {error}", file.path));
            }
        }
        out.flush()
    });
    if let Err(error) = written {
        problems.push(format!("TensorBoard scalars are not recorded: {}: {error}", scalars_file(spec).display()));
    }
    problems
}

// Where they were said to be; or where they usually are: the outputs, PyTorch's and Lightning's folders.
fn event_files(spec: &RunSpec, since: SystemTime) -> Vec<WalkedFile> {
    let since = since.checked_sub(TIME_STAMP_GRAIN).unwrap_or(since);
    let usual = [spec.outputs_dir.clone(), "runs".to_owned(), "lightning_logs".to_owned()];
    let folders: &[String] = if spec.tensorboard.is_empty() { &usual } else { &spec.tensorboard };
    let mut seen = BTreeSet::new();
    let mut files: Vec<WalkedFile> = folders
        .iter()
        .filter_map(|folder| walk(Path::new(folder)).ok())
        .flat_map(|found| found.files)
        .filter(|file| file.path.rsplit('/').next().is_some_and(|name| name.contains("tfevents")))
        .filter(|file| std::fs::metadata(&file.from).and_then(|meta| meta.modified()).is_ok_and(|at| at >= since))
        .filter(|file| seen.insert(file.from.clone()))
        .collect();
    files.sort();
    files
}

#[derive(Debug, PartialEq)]
struct Scalar {
    tag: String,
    value: f64,
    step: i64,
    time: f64,
}

fn scalars(path: &Path, mut each: impl FnMut(Scalar) -> io::Result<()>) -> io::Result<()> {
    let file = File::open(path)?;
    let mut left = file.metadata()?.len();
    let (mut reader, mut event) = (BufReader::new(file), Vec::new());
    // Twelve bytes before and four behind each event.
    while left >= 16 {
        let mut head = [0; 12];
        reader.read_exact(&mut head)?;
        let length = u64::from_le_bytes(head[..8].try_into().map_err(io::Error::other)?);
        if length > left - 16 {
            // A record that is not all there: the writer was stopped, or the length is damaged.
            return if length > 1 << 40 { Err(io::Error::other("a record's length cannot be right")) } else { Ok(()) };
        }
        if length > MAX_EVENT {
            reader.seek_relative(i64::try_from(length + 4).map_err(io::Error::other)?)?;
        } else {
            event.clear();
            reader.by_ref().take(length).read_to_end(&mut event)?;
            reader.seek_relative(4)?;
            for scalar in read_event(&event).ok_or_else(|| io::Error::other("an event cannot be read"))? {
                each(scalar)?;
            }
        }
        left -= 16 + length;
    }
    Ok(())
}

fn read_event(bytes: &[u8]) -> Option<Vec<Scalar>> {
    let (mut time, mut step, mut found) = (0.0, 0, Vec::new());
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Fixed64(bits)) => time = f64::from_bits(bits),
            (2, Wire::Varint(number)) => step = number.cast_signed(),
            (5, Wire::Bytes(summary)) => {
                for field in Fields(summary) {
                    if let (1, Wire::Bytes(value)) = field? {
                        found.extend(read_value(value)?);
                    }
                }
            }
            _ => {}
        }
    }
    Some(found.into_iter().map(|(tag, value)| Scalar { tag, value, step, time }).collect())
}

// A summary value: its tag, and a number of the old kind or a tensor of one element.
fn read_value(bytes: &[u8]) -> Option<Option<(String, f64)>> {
    let (mut tag, mut value) = (String::new(), None);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(text)) => tag = String::from_utf8_lossy(text).into_owned(),
            (2, Wire::Fixed32(bits)) => value = Some(f64::from(f32::from_bits(bits))),
            (8, Wire::Bytes(tensor)) => value = read_tensor(tensor)?.or(value),
            _ => {}
        }
    }
    Some(value.filter(|_| !tag.is_empty()).map(|value| (tag, value)))
}

fn read_tensor(bytes: &[u8]) -> Option<Option<f64>> {
    let (mut kind, mut content) = (0, None);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Varint(number)) => kind = number,
            (4..=6, Wire::Bytes(bytes)) => content = Some(bytes.to_vec()),
            (5, Wire::Fixed32(bits)) => content = Some(bits.to_le_bytes().to_vec()),
            (6, Wire::Fixed64(bits)) => content = Some(bits.to_le_bytes().to_vec()),
            _ => {}
        }
    }
    // 1 is float, 2 is double.
    Some(content.and_then(|content| match kind {
        1 => Some(f64::from(f32::from_le_bytes(content.try_into().ok()?))),
        2 => Some(f64::from_le_bytes(content.try_into().ok()?)),
        _ => None,
    }))
}

enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

// The fields of a protobuf message; a field that cannot be read is `None`, once.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(head)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Wire<'a>)> {
        let key = self.varint()?;
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Wire<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend(content);
        out
    }

    fn record(event: &[u8]) -> Vec<u8> {
        let mut out = (event.len() as u64).to_le_bytes().to_vec();
        out.extend([0; 4]);
        out.extend(event);
        out.extend([0; 4]);
        out
    }

    fn event(step: u8, value: &[u8]) -> Vec<u8> {
        let mut out = vec![1 << 3 | 1];
        out.extend(1.7e9_f64.to_le_bytes());
        out.extend([2 << 3, step]);
        out.extend(bytes(5, &bytes(1, value)));
        record(&out)
    }

    fn old(tag: &str, value: f32) -> Vec<u8> {
        [bytes(1, tag.as_bytes()), vec![2 << 3 | 5], value.to_le_bytes().to_vec()].concat()
    }

    fn new(tag: &str, value: f64) -> Vec<u8> {
        [bytes(1, tag.as_bytes()), bytes(8, &[vec![1 << 3, 2], bytes(4, &value.to_le_bytes())].concat())].concat()
    }

    fn read(content: &[u8]) -> (Vec<(String, f64, i64)>, io::Result<()>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let mut found = Vec::new();
        let done = scalars(file.path(), |scalar| {
            found.push((scalar.tag, scalar.value, scalar.step));
            Ok(())
        });
        (found, done)
    }

    #[test]
    fn both_kinds_of_scalars_are_read_and_a_torn_end_is_an_end() {
        let mut content = [record(&[]), event(3, &old("loss", 0.5)), event(4, &new("acc", 0.75))].concat();
        content.extend(&event(5, &old("loss", 1.0))[..20]);
        let (found, done) = read(&content);
        done.unwrap();
        assert_eq!(found, [("loss".to_owned(), 0.5, 3), ("acc".to_owned(), 0.75, 4)]);
    }

    #[test]
    fn large_events_are_passed_over_and_garbage_is_told() {
        let (found, done) = read(&[record(&vec![0; 2 << 20]), event(1, &old("a", 1.0))].concat());
        done.unwrap();
        assert_eq!(found.len(), 1);
        assert!(read(&[0xff; 64]).1.is_err());
        assert!(read(&record(&[0xff; 30])).1.is_err());
    }
}
