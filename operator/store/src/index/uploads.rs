//! Changes of uploads in parts.
//!
//! Comes in: the tables, an upload, its parts. Goes out: the tables changed. Completing an upload moves no bytes: the
//! object consists of the parts' files, so it takes no room and cannot fail half way.

use redb::ReadableTable as _;

use super::objects::Condition;
use super::records::{Algorithm, Checksum, Data, Object, Part, Slice, Upload, from_row, to_row};
use super::{IndexError, Tables};

/// The smallest part that is not the last, as S3 has it.
pub const MIN_PART: u64 = 5 * 1024 * 1024;

/// Begins an upload.
///
/// # Errors
/// When the tables cannot be written.
pub fn begin(tables: &mut Tables<'_>, key: &str, id: u64, upload: &Upload) -> Result<(), IndexError> {
    tables.uploads.insert((key.as_bytes(), id), to_row(upload)?.as_slice())?;
    Ok(())
}

fn exists(tables: &Tables<'_>, key: &str, id: u64) -> Result<Upload, IndexError> {
    let row = tables.uploads.get((key.as_bytes(), id))?;
    row.map(|row| from_row(row.value())).transpose()?.ok_or(IndexError::NoUpload)
}

/// Puts a part with new data in the place of what the number had.
///
/// # Errors
/// When there is no such upload.
pub fn put_part(
    tables: &mut Tables<'_>,
    key: &str,
    id: (u64, u16),
    part: &Part,
    data: Option<&Data>,
) -> Result<(), IndexError> {
    exists(tables, key, id.0)?;
    if let Some(data) = data {
        tables.put_data(part.data, data)?;
    }
    replace_part(tables, id, part)
}

fn replace_part(tables: &mut Tables<'_>, id: (u64, u16), part: &Part) -> Result<(), IndexError> {
    let old = tables.parts.insert(id, to_row(part)?.as_slice())?.map(|row| from_row(row.value()));
    old.transpose()?.map_or(Ok(()), |old: Part| tables.release(old.data))
}

/// Puts a part that uses slices of another object's files, if that object is still what was read.
///
/// # Errors
/// When there is no such upload, or the source has changed.
pub fn put_part_of(
    tables: &mut Tables<'_>,
    key: &str,
    id: (u64, u16),
    part: &Part,
    source: (&str, &Object, Vec<Slice>),
) -> Result<(), IndexError> {
    exists(tables, key, id.0)?;
    let (from, read, slices) = source;
    if tables.object(from)?.is_none_or(|now| now.data != read.data) {
        return Err(IndexError::Precondition);
    }
    slices.iter().try_for_each(|slice| tables.hold(slice.file))?;
    tables.put_data(part.data, &Data::Slices(slices))?;
    replace_part(tables, id, part)
}

/// A part as the client names it when it completes an upload.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its number, as the client wrote it.
    pub number: i32,
    /// Its ETag without quotes.
    pub etag: String,
    /// Its checksums, as far as the client repeats them.
    pub sums: Vec<(Algorithm, String)>,
}

/// What completing needs.
#[derive(Debug)]
pub struct Completion<'a> {
    /// The key of the object.
    pub key: &'a str,
    /// The upload.
    pub id: u64,
    /// The parts, in the order of the object.
    pub named: &'a [Named],
    /// What the key must meet.
    pub condition: &'a Condition,
    /// A number for the new row of data.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub now: i64,
}

/// The ETag and the checksum of an object, from its parts.
pub type Summary = fn(&Upload, &[Part]) -> (String, Option<Checksum>);

/// Makes an object of the parts. `check` judges the object before anything is changed.
///
/// # Errors
/// When there is no such upload, a part is wrong, or the condition does not hold.
pub fn complete(
    tables: &mut Tables<'_>,
    wanted: &Completion<'_>,
    summary: Summary,
    check: impl FnOnce(&Object) -> Result<(), IndexError>,
) -> Result<Object, IndexError> {
    let Completion { key, id, named, condition, number, now } = *wanted;
    let upload = match exists(tables, key, id) {
        Err(IndexError::NoUpload) => return completed_before(tables, key, id),
        other => other?,
    };
    let parts = named_parts(tables, id, named)?;
    if *condition != Condition::None {
        condition.judge(tables.object(key)?.as_ref())?;
    }
    let size = parts.iter().map(|part| part.size).sum();
    let (etag, checksum) = summary(&upload, &parts);
    let count = parts.len() as u64;
    let data = if size == 0 { 0 } else { number };
    let about = upload.about;
    let object = Object { size, modified: now, etag, data, parts: count, upload: id, about, checksum };
    check(&object)?;
    let mut slices = Vec::new();
    for part in parts.iter().filter(|part| part.data != 0) {
        slices.extend(tables.dissolve(part.data)?);
    }
    if data != 0 {
        tables.put_data(data, &Data::Slices(slices))?;
    }
    let kept: Vec<u16> = named.iter().filter_map(|named| u16::try_from(named.number).ok()).collect();
    forget(tables, key, id, &kept)?;
    tables.put_object(key, &object)?;
    Ok(object)
}

/// A client that has not heard the answer asks again.
fn completed_before(tables: &Tables<'_>, key: &str, id: u64) -> Result<Object, IndexError> {
    tables.object(key)?.filter(|object| object.upload == id).ok_or(IndexError::NoUpload)
}

fn named_parts(tables: &Tables<'_>, id: u64, named: &[Named]) -> Result<Vec<Part>, IndexError> {
    let mut parts = Vec::with_capacity(named.len());
    let mut before = 0;
    for (index, one) in named.iter().enumerate() {
        if one.number <= before {
            return Err(IndexError::PartOrder);
        }
        before = one.number;
        let missing = || IndexError::Part(one.number);
        let number = u16::try_from(one.number).map_err(|_| missing())?;
        let part: Part = from_row(tables.parts.get((id, number))?.ok_or_else(missing)?.value())?;
        let known = part.checksum.as_ref();
        let differs = |(algorithm, value): &(Algorithm, String)| {
            known.is_some_and(|known| known.algorithm == *algorithm && known.value != *value)
        };
        if part.etag != one.etag || one.sums.iter().any(differs) {
            return Err(missing());
        }
        if part.size < MIN_PART && index + 1 < named.len() {
            return Err(IndexError::PartSize(one.number));
        }
        parts.push(part);
    }
    Ok(parts)
}

/// Removes the upload and its parts; the data of those in `kept`, which is in order, is somebody else's now.
fn forget(tables: &mut Tables<'_>, key: &str, id: u64, kept: &[u16]) -> Result<(), IndexError> {
    let rows = tables.parts.range((id, 0)..=(id, u16::MAX))?;
    let rows: Vec<(u16, Part)> = rows
        .map(|row| row.map_err(IndexError::from).and_then(|(key, row)| Ok((key.value().1, from_row(row.value())?))))
        .collect::<Result<_, _>>()?;
    for (number, part) in rows {
        tables.parts.remove((id, number))?;
        if kept.binary_search(&number).is_err() {
            tables.release(part.data)?;
        }
    }
    tables.uploads.remove((key.as_bytes(), id))?;
    Ok(())
}

/// Ends an upload and lets its parts go.
///
/// # Errors
/// When there is no such upload.
pub fn abort(tables: &mut Tables<'_>, key: &str, id: u64) -> Result<(), IndexError> {
    exists(tables, key, id)?;
    forget(tables, key, id, &[])
}

/// Ends up to `limit` uploads that began before `before` (milliseconds since 1970), and says how many.
///
/// # Errors
/// When the tables cannot be written.
pub fn abort_old(tables: &mut Tables<'_>, before: i64, limit: usize) -> Result<usize, IndexError> {
    let mut old = Vec::new();
    for row in tables.uploads.iter()? {
        let (key, row) = row?;
        let upload: Upload = from_row(row.value())?;
        if upload.initiated < before && old.len() < limit {
            let (key, id) = key.value();
            old.push((String::from_utf8_lossy(key).into_owned(), id));
        }
    }
    for (key, id) in &old {
        forget(tables, key, *id, &[])?;
    }
    Ok(old.len())
}
