//! Reading objects.
//!
//! Comes in: a key, a range, conditions. Goes out: what is known about the object, and a stream of its bytes. The bytes
//! are those of one state of the object, whatever happens to the key while they are being sent.

use std::collections::HashMap;

use bytes::Bytes;
use s3s::dto::{
    Checksum as Checksums, ChecksumMode, ETag, GetObjectInput, GetObjectOutput, GetObjectTaggingInput,
    GetObjectTaggingOutput, HeadObjectInput, HeadObjectOutput, Range, StreamingBlob,
};
use s3s::{Body, S3Response, S3Result, s3_error};

use super::names::timestamp;
use super::{Answer, Operations, answer, checksums, conditions, errors};
use crate::blobs::read::{Outgoing, cut};
use crate::index::Found;
use crate::index::records::{Data, Object, Slice};

/// How often an object may be replaced between two looks at it.
const LOOKS: usize = 16;

/// The part of an object that was asked for.
struct Piece {
    start: u64,
    length: u64,
    /// The header, when it is not the whole.
    range: Option<String>,
}

impl Piece {
    fn of(range: Option<&Range>, part: Option<i32>, object: &Object) -> S3Result<Self> {
        let size = object.size;
        match part {
            None => {}
            Some(1) if object.parts <= 1 && range.is_none() => {}
            Some(_) => {
                return Err(s3_error!(NotImplemented, "parts of an object are read by Range, not by partNumber"));
            }
        }
        let Some(range) = range else { return Ok(Self { start: 0, length: size, range: None }) };
        let unsatisfiable = |_| s3_error!(InvalidRange, "the range is outside the object, which has {size} bytes");
        let bytes = range.check(size).map_err(unsatisfiable)?;
        let (start, length) = (bytes.start, bytes.end - bytes.start);
        Ok(Self { start, length, range: Some(format!("bytes {start}-{}/{size}", bytes.end - 1)) })
    }

    fn checksums(&self, mode: Option<&ChecksumMode>, object: &Object) -> Checksums {
        let asked = mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED);
        checksums::shown(object.checksum.as_ref().filter(|_| asked && self.range.is_none()))
    }
}

/// A quoted ETag.
pub(super) fn etag(text: &str) -> ETag {
    ETag::Strong(text.to_owned())
}

fn length(length: u64) -> Option<i64> {
    i64::try_from(length).ok()
}

fn metadata(object: &Object) -> Option<HashMap<String, String>> {
    let all = &object.about.metadata;
    (!all.is_empty()).then(|| all.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// There are no versions here; "null" is what S3 calls the only one.
pub(super) fn only_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(other) => Err(s3_error!(NoSuchVersion, "this store keeps no versions; there is no {other:?}")),
    }
}

impl Operations {
    pub(super) fn object(&self, key: &str) -> S3Result<Object> {
        self.store.index.head(key).map_err(errors::index)?.ok_or_else(|| missing(key))
    }

    pub(super) fn found(&self, key: &str) -> S3Result<Found> {
        self.store.index.find(key).map_err(errors::index)?.ok_or_else(|| missing(key))
    }

    pub(super) fn get(&self, input: GetObjectInput) -> Answer<GetObjectOutput> {
        self.bucket(&input.bucket)?;
        only_version(input.version_id.as_deref())?;
        for _ in 0..LOOKS {
            let found = self.found(&input.key)?;
            let object = &found.object;
            conditions::OfRead {
                matches: input.if_match.as_ref(),
                none: input.if_none_match.as_ref(),
                modified: input.if_modified_since.as_ref(),
                unmodified: input.if_unmodified_since.as_ref(),
            }
            .judge(object)?;
            let piece = Piece::of(input.range.as_ref(), input.part_number, object)?;
            let Some(body) = self.body(&input.key, &found, &piece)? else { continue };
            self.metrics.sent.inc_by(piece.length);
            return Ok(got(object, piece, body, input.checksum_mode.as_ref()));
        }
        Err(s3_error!(OperationAborted, "the object is being replaced all the time; try again"))
    }

    /// The bytes; none when the object has changed meanwhile, so that its files may be gone.
    fn body(&self, key: &str, found: &Found, piece: &Piece) -> S3Result<Option<StreamingBlob>> {
        let slices = match &found.data {
            None => return Ok(Some(memory(Bytes::new()))),
            Some(Data::Inline(bytes)) => {
                let part = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let bytes = &bytes[part(piece.start)..part(piece.start + piece.length)];
                return Ok(Some(memory(Bytes::copy_from_slice(bytes))));
            }
            Some(Data::File(length)) => vec![Slice { file: found.object.data, offset: 0, length: *length }],
            Some(Data::Slices(slices)) => slices.clone(),
        };
        let slices = cut(&slices, piece.start, piece.length);
        let pinned = self.store.blobs.pin(slices.iter().map(|slice| slice.file).collect());
        let now = self.store.index.head(key).map_err(errors::index)?;
        if now.is_none_or(|now| now.data != found.object.data) {
            return Ok(None);
        }
        Ok(Some(StreamingBlob::new(Outgoing::new(pinned, slices))))
    }

    pub(super) fn head(&self, input: HeadObjectInput) -> Answer<HeadObjectOutput> {
        self.bucket(&input.bucket)?;
        only_version(input.version_id.as_deref())?;
        let object = self.object(&input.key)?;
        conditions::OfRead {
            matches: input.if_match.as_ref(),
            none: input.if_none_match.as_ref(),
            modified: input.if_modified_since.as_ref(),
            unmodified: input.if_unmodified_since.as_ref(),
        }
        .judge(&object)?;
        let piece = Piece::of(input.range.as_ref(), input.part_number, &object)?;
        let sums = piece.checksums(input.checksum_mode.as_ref(), &object);
        let metadata = metadata(&object);
        let about = object.about;
        answer(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: length(piece.length),
            content_range: piece.range,
            e_tag: Some(etag(&object.etag)),
            last_modified: Some(timestamp(object.modified)),
            metadata,
            content_type: about.content_type,
            cache_control: about.cache_control,
            content_disposition: about.content_disposition,
            content_encoding: about.content_encoding,
            content_language: about.content_language,
            expires: about.expires.map(timestamp),
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
            checksum_type: sums.checksum_type,
            ..HeadObjectOutput::default()
        })
    }

    /// Tags are not kept, and setting them is refused, so an object has none. Clients ask when they copy.
    pub(super) fn tagging(&self, input: &GetObjectTaggingInput) -> Answer<GetObjectTaggingOutput> {
        self.bucket(&input.bucket)?;
        only_version(input.version_id.as_deref())?;
        self.object(&input.key)?;
        answer(GetObjectTaggingOutput { tag_set: Vec::new(), version_id: None })
    }
}

fn missing(key: &str) -> s3s::S3Error {
    s3_error!(NoSuchKey, "there is no object with the key {key:?}")
}

fn memory(bytes: Bytes) -> StreamingBlob {
    StreamingBlob::from(Body::from(bytes))
}

fn got(object: &Object, piece: Piece, body: StreamingBlob, mode: Option<&ChecksumMode>) -> S3Response<GetObjectOutput> {
    let sums = piece.checksums(mode, object);
    let about = object.about.clone();
    S3Response::new(GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        body: Some(body),
        content_length: length(piece.length),
        content_range: piece.range,
        e_tag: Some(etag(&object.etag)),
        last_modified: Some(timestamp(object.modified)),
        metadata: metadata(object),
        content_type: about.content_type,
        cache_control: about.cache_control,
        content_disposition: about.content_disposition,
        content_encoding: about.content_encoding,
        content_language: about.content_language,
        expires: about.expires.map(timestamp),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
        checksum_type: sums.checksum_type,
        ..GetObjectOutput::default()
    })
}
