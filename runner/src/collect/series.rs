//! The whole series of every metric, as a Parquet file: `name`, `step`, `value`, `timestamp`.
//!
//! Comes in: metrics files, of any size. Goes out: `<prefix>/metrics-<attempt>.parquet`, written batch by batch.

use crate::metrics;
use cultivar_data::{DataError, Mover, Store};
use cultivar_protocol::RunSpec;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SCHEMA: &str = "message metrics {
    REQUIRED BYTE_ARRAY name (UTF8);
    OPTIONAL INT64 step;
    REQUIRED DOUBLE value;
    OPTIONAL INT64 timestamp (TIMESTAMP_MILLIS);
}";
/// Rows that are held before they are written.
const ROWS: usize = 50_000;

/// Writes and uploads the series; comes back with its uri, or nothing when there are no metrics.
///
/// # Errors
/// When the file cannot be written or the store does not take it.
pub async fn store(
    spec: &RunSpec,
    files: Vec<PathBuf>,
    store: &Store,
    mover: &Mover,
) -> Result<Option<String>, DataError> {
    let target = Path::new(&spec.run_dir).join("metrics.parquet");
    let path = target.clone();
    let rows = tokio::task::spawn_blocking(move || write(&files, &path)).await;
    let rows = rows.map_err(|error| error.to_string()).and_then(|done| done.map_err(|error| error.to_string()));
    let rows = rows
        .map_err(|why| DataError::Invalid(format!("the metrics cannot be written to {}: {why}", target.display())))?;
    if rows == 0 {
        return Ok(None);
    }
    let key = super::key(spec, &format!("metrics-{}.parquet", spec.attempt));
    mover.upload(store, &key, &target).await.map(|done| Some(done.uri))
}

#[derive(Default)]
struct Batch {
    names: Vec<ByteArray>,
    steps: Vec<Option<i64>>,
    values: Vec<f64>,
    timestamps: Vec<Option<i64>>,
}

// A name that an earlier file has is passed over in a later one: the same values, logged twice.
fn write(files: &[PathBuf], to: &Path) -> Result<u64, ParquetError> {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let mut writer = SerializedFileWriter::new(File::create(to)?, schema, Arc::new(properties))?;
    let (mut batch, mut rows, mut failed) = (Batch::default(), 0, Ok(()));
    let mut earlier: HashSet<String> = HashSet::new();
    for file in files {
        let mut names: HashSet<String> = HashSet::new();
        metrics::read(file, |point| {
            if failed.is_err() || earlier.contains(point.name) {
                return;
            }
            if !names.contains(point.name) {
                names.insert(point.name.to_owned());
            }
            batch.names.push(point.name.into());
            batch.steps.push(point.step);
            batch.values.push(point.value);
            batch.timestamps.push(point.timestamp);
            rows += 1;
            if batch.values.len() >= ROWS {
                failed = flush(&mut writer, &mut batch);
            }
        })?;
        earlier.extend(names);
    }
    failed?;
    flush(&mut writer, &mut batch)?;
    writer.close()?;
    Ok(rows)
}

fn flush(writer: &mut SerializedFileWriter<File>, batch: &mut Batch) -> Result<(), ParquetError> {
    if batch.values.is_empty() {
        return Ok(());
    }
    let batch = std::mem::take(batch);
    let levels = |column: &[Option<i64>]| column.iter().map(|value| i16::from(value.is_some())).collect::<Vec<i16>>();
    let present = |column: &[Option<i64>]| column.iter().filter_map(|value| *value).collect::<Vec<i64>>();
    let mut group = writer.next_row_group()?;
    for number in 0_usize.. {
        let Some(mut column) = group.next_column()? else { break };
        match number {
            0 => column.typed::<ByteArrayType>().write_batch(&batch.names, None, None)?,
            1 => column.typed::<Int64Type>().write_batch(&present(&batch.steps), Some(&levels(&batch.steps)), None)?,
            2 => column.typed::<DoubleType>().write_batch(&batch.values, None, None)?,
            _ => column.typed::<Int64Type>().write_batch(
                &present(&batch.timestamps),
                Some(&levels(&batch.timestamps)),
                None,
            )?,
        };
        column.close()?;
    }
    group.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    #[test]
    fn every_value_is_kept_in_order() {
        let root = tempfile::tempdir().unwrap();
        let (one, two, to) = (root.path().join("1"), root.path().join("2"), root.path().join("p"));
        let lines: String = (0..ROWS + 10).map(|n| format!("{{\"a\": {n}, \"step\": {n}}}\n")).collect();
        std::fs::write(&one, lines + "{\"b\": 1}\n").unwrap();
        std::fs::write(&two, "{\"a\": 5}\n{\"c\": 2, \"timestamp\": 1700000000000}\n").unwrap();
        assert_eq!(write(&[one, two], &to).unwrap(), ROWS as u64 + 12);
        let reader = SerializedFileReader::new(File::open(&to).unwrap()).unwrap();
        let rows: Vec<String> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert_eq!(rows.len(), ROWS + 12);
        assert_eq!(rows[7], "{name: \"a\", step: 7, value: 7.0, timestamp: null}");
        assert!(rows[ROWS + 10].starts_with("{name: \"b\", step: null, value: 1.0"), "{}", rows[ROWS + 10]);
        assert!(rows[ROWS + 11].contains("\"c\"") && rows[ROWS + 11].contains("2023-11-14"), "{}", rows[ROWS + 11]);
    }
}
