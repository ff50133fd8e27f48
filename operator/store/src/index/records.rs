//! The rows of the index and how they are written.
//!
//! Comes in and goes out: bytes in the index's file. Rows about objects are JSON, so that a later version can add
//! fields; rows about data are packed, since they hold the bytes of small objects.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::IndexError;

/// What is known about one object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Length in bytes.
    pub size: u64,
    /// When it was written, in milliseconds since 1970.
    pub modified: i64,
    /// The ETag without quotes: an MD5 in hex, or `<md5 of md5s>-<parts>`.
    pub etag: String,
    /// The row of its data; 0 for an empty object, which has none.
    pub data: u64,
    /// Number of parts it was uploaded in; 0 when it came in one piece.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parts: u64,
    /// The upload that made it, so that completing it again is answered alike; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub upload: u64,
    /// What the client said about it.
    #[serde(flatten)]
    pub about: About,
    /// The checksum that came with it and was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What the client says about an object, and gets back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct About {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    /// In milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// Metadata of the user's own: `x-amz-meta-*`, names without that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// A checksum as S3 writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// Which one.
    pub algorithm: Algorithm,
    /// In base64; of a composite one with `-<parts>`.
    pub value: String,
    /// Whether it is the checksum of the parts' checksums, not of the bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub composite: bool,
}

/// The checksums that S3 has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

/// An upload in parts that is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// When it began, in milliseconds since 1970.
    pub initiated: i64,
    /// What the object will say.
    pub about: About,
    /// The checksum its parts carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// Whether the object's checksum is that of its bytes, not of its parts' checksums.
    #[serde(default)]
    pub full_object: bool,
}

/// One part of an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Length in bytes.
    pub size: u64,
    /// When it was written, in milliseconds since 1970.
    pub modified: i64,
    /// MD5 in hex.
    pub etag: String,
    /// The row of its data; 0 for an empty part.
    pub data: u64,
    /// The checksum that came with it and was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
}

/// Some bytes of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The file, which is a row of data as well.
    pub file: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// Where bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Here.
    Inline(Vec<u8>),
    /// In the file with the row's number, which is this long.
    File(u64),
    /// In slices of files, one after the other. Each slice counts as one user of its file's row.
    Slices(Vec<Slice>),
}

const INLINE: u8 = 1;
const FILE: u8 = 2;
const SLICES: u8 = 3;

impl Data {
    /// The row: a kind, how many use it, and the data.
    #[must_use]
    pub fn pack(&self, users: u32) -> Vec<u8> {
        let head = |kind: u8, rest: usize| {
            let mut row = Vec::with_capacity(5 + rest);
            row.push(kind);
            row.extend_from_slice(&users.to_le_bytes());
            row
        };
        match self {
            Self::Inline(bytes) => {
                let mut row = head(INLINE, bytes.len());
                row.extend_from_slice(bytes);
                row
            }
            Self::File(length) => {
                let mut row = head(FILE, 8);
                row.extend_from_slice(&length.to_le_bytes());
                row
            }
            Self::Slices(slices) => {
                let mut row = head(SLICES, slices.len() * 24);
                for number in slices.iter().flat_map(|slice| [slice.file, slice.offset, slice.length]) {
                    row.extend_from_slice(&number.to_le_bytes());
                }
                row
            }
        }
    }

    /// The row, read: how many use it, and the data.
    ///
    /// # Errors
    /// When the row is none of ours.
    pub fn unpack(row: &[u8]) -> Result<(u32, Self), IndexError> {
        let damaged = || IndexError::Damaged("a row of data cannot be read".to_owned());
        let (&kind, rest) = row.split_first().ok_or_else(damaged)?;
        let (users, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let data = match kind {
            INLINE => Self::Inline(rest.to_vec()),
            FILE => Self::File(u64::from_le_bytes(rest.try_into().map_err(|_| damaged())?)),
            SLICES if rest.len().is_multiple_of(24) => Self::Slices(rest.chunks_exact(24).map(slice).collect()),
            _ => return Err(damaged()),
        };
        Ok((u32::from_le_bytes(*users), data))
    }
}

fn slice(bytes: &[u8]) -> Slice {
    let number = |at: usize| bytes[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    Slice { file: number(0), offset: number(8), length: number(16) }
}

/// A row in JSON.
///
/// # Errors
/// Never for the rows here, which have no keys that JSON cannot have.
pub fn to_row<T: Serialize>(value: &T) -> Result<Vec<u8>, IndexError> {
    serde_json::to_vec(value).map_err(|error| IndexError::Damaged(format!("a row cannot be written: {error}")))
}

/// A row from JSON.
///
/// # Errors
/// When the row is none of ours.
pub fn from_row<'a, T: Deserialize<'a>>(row: &'a [u8]) -> Result<T, IndexError> {
    serde_json::from_slice(row).map_err(|error| IndexError::Damaged(format!("a row cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_rows_survive_a_round() {
        let slices = (0..3).map(|n| Slice { file: u64::MAX - n, offset: n << 33, length: n }).collect();
        for data in [Data::Inline(vec![]), Data::Inline(vec![7; 300]), Data::File(1 << 40), Data::Slices(slices)] {
            assert_eq!(Data::unpack(&data.pack(77)).unwrap(), (77, data));
        }
    }

    #[test]
    fn foreign_rows_are_damage_not_a_panic() {
        for row in [&b""[..], b"\x01", b"\x02\0\0\0\0", b"\x02....123456789", b"\x03....x", b"\x09\0\0\0\0"] {
            assert!(Data::unpack(row).is_err(), "{row:?}");
        }
    }

    #[test]
    fn an_object_keeps_what_it_says() {
        let mut object = Object { size: 3, etag: "e".to_owned(), data: 9, ..Object::default() };
        assert_eq!(to_row(&object).unwrap(), br#"{"size":3,"modified":0,"etag":"e","data":9}"#);
        object.about.metadata.insert("a".to_owned(), "ü".to_owned());
        object.checksum = Some(Checksum { algorithm: Algorithm::Crc64Nvme, value: "AAAA".to_owned(), composite: true });
        let row = to_row(&object).unwrap();
        assert_eq!(from_row::<Object>(&row).unwrap(), object);
    }
}
