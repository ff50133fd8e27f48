//! Every value of a metric, as the runner has left them in the store.

use cultivar_data::{DataError, Mover, Place, Remote};
use jiff::Timestamp;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Row, RowAccessor as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;

use super::quoted;
use crate::error::{Error, Result};
use crate::output::{self, number};
use crate::store::Reached;

/// The runner's columns, in their order: name, step, value, timestamp.
const COLUMNS: [&str; 4] = ["name", "step", "value", "timestamp"];
/// Blocks in a line.
const WIDTH: usize = 60;
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A value of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    step: Option<i64>,
    value: f64,
    timestamp: Option<Timestamp>,
}

/// The series of every metric, by its name, as they were reported.
pub type Series = BTreeMap<String, Vec<Point>>;

/// Fetches them from where a status says that they lie.
pub async fn fetch(reached: &Reached, uri: &str) -> Result<Series> {
    let failed = |error: DataError| Error::new(format!("the series {uri} cannot be fetched")).why(error);
    let (store, key) = reached.of_object(uri)?;
    let folder = tempfile::tempdir().map_err(|error| Error::new("no temporary folder").why(error))?;
    let place = Place::of(&folder.path().join("metrics.parquet")).map_err(failed)?;
    Mover::default().fetch(&Remote::Object(store, key), place.part(), None).await.map_err(failed)?;
    let file = File::open(place.part()).map_err(|error| Error::new("the series cannot be read").why(error))?;
    read(file).map_err(|error| Error::new(format!("the series {uri} cannot be read")).why(error))
}

fn read(file: File) -> std::result::Result<Series, ParquetError> {
    let reader = SerializedFileReader::new(file)?;
    let columns = reader.metadata().file_metadata().schema_descr();
    let names: Vec<&str> = columns.columns().iter().map(|column| column.name()).collect();
    if names != COLUMNS {
        return Err(ParquetError::General(format!("its columns are {}", names.join(", "))));
    }
    let mut all = Series::new();
    for row in reader.get_row_iter(None)? {
        let (name, point) = point(&row?)?;
        all.entry(name).or_default().push(point);
    }
    Ok(all)
}

fn point(row: &Row) -> std::result::Result<(String, Point), ParquetError> {
    let timestamp = row.get_timestamp_millis(3).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    // One that is absent is no number.
    let point = Point { step: row.get_long(1).ok(), value: row.get_double(2)?, timestamp };
    Ok((row.get_string(0)?.clone(), point))
}

pub fn table(series: &Series) -> String {
    let rows = series.iter().map(|(name, points)| {
        let last = points.last().map(|point| number(point.value)).unwrap_or_default();
        let values: Vec<f64> = points.iter().map(|point| point.value).collect();
        vec![name.clone(), points.len().to_string(), sparkline(&values), last]
    });
    output::table(&["METRIC", "VALUES", "SERIES", "LAST"], rows.collect())
}

pub fn csv(series: &Series) -> String {
    let mut out = "metric,step,value,timestamp\n".to_owned();
    for (name, points) in series {
        let name = quoted(name);
        for point in points {
            let step = point.step.map(|step| step.to_string()).unwrap_or_default();
            let time = point.timestamp.map(|time| time.to_string()).unwrap_or_default();
            out += &format!("{name},{step},{},{time}\n", point.value);
        }
    }
    out
}

pub fn json(series: &Series) -> Value {
    let point = |point: &Point| json!({"step": point.step, "value": point.value, "timestamp": point.timestamp});
    let all = series.iter().map(|(name, points)| (name.clone(), points.iter().map(point).collect::<Value>()));
    all.collect::<serde_json::Map<_, _>>().into()
}

// From the least to the greatest value; of many the mean of each part. What is no number is a gap.
fn sparkline(values: &[f64]) -> String {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (least, greatest) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let width = values.len().min(WIDTH);
    let part = |index: usize| {
        let part = &values[index * values.len() / width..(index + 1) * values.len() / width];
        let finite: Vec<f64> = part.iter().copied().filter(|value| value.is_finite()).collect();
        (!finite.is_empty()).then(|| finite.iter().sum::<f64>() / finite.len() as f64)
    };
    let block = |mean: f64| {
        let height = if greatest > least { (mean - least) / (greatest - least) } else { 0.5 };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let index = (height * BLOCKS.len() as f64) as usize;
        BLOCKS[index.min(BLOCKS.len() - 1)]
    };
    (0..width).map(|index| part(index).map_or(' ', block)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::data_type::{ByteArrayType, DoubleType, Int64Type};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    // As the runner writes it.
    fn file() -> File {
        let schema = "message metrics { REQUIRED BYTE_ARRAY name (UTF8); OPTIONAL INT64 step; REQUIRED DOUBLE value;
            OPTIONAL INT64 timestamp (TIMESTAMP_MILLIS); }";
        let file = tempfile::tempfile().unwrap();
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut writer = SerializedFileWriter::new(file.try_clone().unwrap(), schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let names = ["loss", "acc", "loss"].map(Into::into);
        column.typed::<ByteArrayType>().write_batch(&names, None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[1, 2], Some(&[1, 0, 1]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&[0.5, 0.9, 0.25], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[1_700_000_000_000], Some(&[0, 0, 1]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        file
    }

    #[test]
    fn every_value_is_read_with_what_it_has() {
        let series = read(file()).unwrap();
        let expected = "metric,step,value,timestamp\nacc,,0.9,\nloss,1,0.5,\nloss,2,0.25,2023-11-14T22:13:20Z\n";
        assert_eq!(csv(&series), expected);
        assert_eq!(json(&series)["loss"][0], json!({"step": 1, "value": 0.5, "timestamp": null}));
        assert!(table(&series).contains("loss     2        █▁       0.25\n"), "{}", table(&series));
    }

    #[test]
    fn a_line_is_bounded_and_has_gaps() {
        assert_eq!(sparkline(&[0.0, 1.0, f64::NAN, 0.5]), "▁█ ▅");
        assert_eq!(sparkline(&[2.0, 2.0]), "▅▅");
        assert_eq!(sparkline(&[]), "");
        let many: Vec<f64> = (0..1000).map(f64::from).collect();
        assert_eq!(sparkline(&many).chars().count(), WIDTH);
    }
}
