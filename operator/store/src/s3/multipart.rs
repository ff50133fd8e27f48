//! Uploads in parts.
//!
//! Comes in: parts, in any order, from any number of connections. Goes out: an object made of them, all at once.

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumType, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CompletedPart, CreateMultipartUploadInput, CreateMultipartUploadOutput,
    ListPartsInput, ListPartsOutput, Part as ListedPart, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Request, S3Result, s3_error};

use super::checksums::{Promise, algorithm, algorithm_name, all_of, shown, summary};
use super::get::etag;
use super::names::{timestamp, un_upload_id, upload_id};
use super::put::{Taken, about, refuse, sums, tags};
use super::{Answer, Operations, answer, conditions, errors};
use crate::blobs::write::Staged;
use crate::index::records::{Algorithm, Object, Part, Upload};
use crate::index::uploads::{self, Completion, Named};
use crate::index::{IndexError, Tables};
use crate::store::now;

/// The most parts of an object, and of a page of them.
const PARTS: u16 = 10_000;
const PAGE: i32 = 1000;

/// The number of a part.
pub(super) fn part_number(number: i32) -> S3Result<u16> {
    let number = u16::try_from(number).ok().filter(|number| (1..=PARTS).contains(number));
    number.ok_or_else(|| s3_error!(InvalidArgument, "a part's number is from 1 to {PARTS}"))
}

/// The id of an upload.
pub(super) fn upload_of(id: &str) -> S3Result<u64> {
    un_upload_id(id).ok_or_else(|| errors::index(IndexError::NoUpload))
}

fn kind(full_object: bool) -> ChecksumType {
    ChecksumType::from_static(if full_object { ChecksumType::FULL_OBJECT } else { ChecksumType::COMPOSITE })
}

/// Whether the object's checksum will be that of its bytes. CRC64NVME has no other kind, SHA has only the other.
fn full_object(algorithm: Option<Algorithm>, asked: Option<&ChecksumType>) -> S3Result<bool> {
    let asked = asked.map(|asked| asked.as_str() == ChecksumType::FULL_OBJECT);
    match (algorithm, asked) {
        (Some(Algorithm::Crc64Nvme), Some(false)) => {
            Err(s3_error!(InvalidRequest, "CRC64NVME has the checksum type FULL_OBJECT only"))
        }
        (Some(Algorithm::Sha1 | Algorithm::Sha256), Some(true)) => {
            Err(s3_error!(InvalidRequest, "SHA1 and SHA256 have the checksum type COMPOSITE only"))
        }
        (algorithm, asked) => Ok(asked.unwrap_or(algorithm == Some(Algorithm::Crc64Nvme))),
    }
}

impl Operations {
    pub(super) async fn begin_upload(
        &self,
        mut input: CreateMultipartUploadInput,
    ) -> Answer<CreateMultipartUploadOutput> {
        self.bucket(&input.bucket)?;
        refuse(&[
            tags(input.tagging.as_ref()),
            ("encryption of its own", input.server_side_encryption.is_some() || input.sse_customer_key.is_some()),
            ("object locks", input.object_lock_mode.is_some() || input.object_lock_legal_hold_status.is_some()),
            ("public objects", input.acl.as_ref().is_some_and(|acl| acl.as_str().starts_with("public"))),
        ])?;
        self.store.space.check(0).map_err(|full| errors::full(&full))?;
        let about = about!(input);
        let algorithm = input.checksum_algorithm.as_ref().map(algorithm).transpose()?;
        let full_object = full_object(algorithm, input.checksum_type.as_ref())?;
        let upload = Upload { initiated: now(), about, algorithm, full_object };
        let (key, id) = (input.key.clone(), self.store.blobs.number());
        let change = move |tables: &mut Tables<'_>| uploads::begin(tables, &key, id, &upload);
        self.store.index.write(change).await.map_err(errors::index)?;
        answer(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload_id(id)),
            checksum_algorithm: algorithm.map(algorithm_name),
            checksum_type: algorithm.map(|_| kind(full_object)),
            ..CreateMultipartUploadOutput::default()
        })
    }

    pub(super) async fn put_part(&self, request: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        let S3Request { mut input, trailing_headers, .. } = request;
        self.bucket(&input.bucket)?;
        refuse(&[("encryption of its own", input.sse_customer_key.is_some())])?;
        let (id, number) = (upload_of(&input.upload_id)?, part_number(input.part_number)?);
        let upload = self.store.index.upload(&input.key, id).map_err(errors::index)?;
        let promise = Promise::new(sums!(input), input.checksum_algorithm.as_ref(), input.content_md5.take())?;
        let trailers = move || trailing_headers.and_then(|trailers| trailers.take());
        // Parts always have files, since an object in parts consists of slices of files.
        let taken =
            self.take(input.body.take(), promise, (0, input.content_length), upload.algorithm, trailers).await?;
        let part = self.store_part(input.key, (id, number), taken).await?;
        let sums = shown(part.checksum.as_ref());
        answer(UploadPartOutput {
            e_tag: Some(etag(&part.etag)),
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
            ..UploadPartOutput::default()
        })
    }

    pub(super) async fn store_part(&self, key: String, id: (u64, u16), taken: Taken) -> S3Result<Part> {
        let Taken { size, etag, checksum, data, staged } = taken;
        let (number, data) = data.unzip();
        let part = Part { size, modified: now(), etag, data: number.unwrap_or(0), checksum };
        let stored = part.clone();
        let change = move |tables: &mut Tables<'_>| {
            uploads::put_part(tables, &key, id, &stored, data.as_ref())?;
            staged.into_iter().for_each(Staged::keep);
            Ok(())
        };
        self.store.index.write(change).await.map_err(errors::index)?;
        Ok(part)
    }

    pub(super) async fn complete_upload(
        &self,
        mut input: CompleteMultipartUploadInput,
    ) -> Answer<CompleteMultipartUploadOutput> {
        self.bucket(&input.bucket)?;
        let id = upload_of(&input.upload_id)?;
        let condition = conditions::of_write(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let named = input.multipart_upload.take().and_then(|upload| upload.parts).unwrap_or_default();
        if named.is_empty() {
            return Err(s3_error!(MalformedXML, "name the parts of the object, at least one"));
        }
        let named: Vec<Named> = named.into_iter().map(name).collect::<S3Result<_>>()?;
        let promised = all_of(&mut sums!(input));
        let size = input.mpu_object_size;
        let (key, number) = (input.key.clone(), self.store.blobs.number());
        let change = move |tables: &mut Tables<'_>| {
            let wanted = Completion { key: &key, id, named: &named, condition: &condition, number, now: now() };
            uploads::complete(tables, &wanted, summary, |object| keeps(object, size, &promised))
        };
        let object = self.store.index.write(change).await.map_err(errors::index)?;
        let sums = shown(object.checksum.as_ref());
        answer(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, super::names::percent(&input.key))),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(etag(&object.etag)),
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
            checksum_type: sums.checksum_type,
            ..CompleteMultipartUploadOutput::default()
        })
    }

    pub(super) async fn abort_upload(&self, input: AbortMultipartUploadInput) -> Answer<AbortMultipartUploadOutput> {
        self.bucket(&input.bucket)?;
        refuse(&[("conditions on the time of an upload", input.if_match_initiated_time.is_some())])?;
        let (key, id) = (input.key, upload_of(&input.upload_id)?);
        let change = move |tables: &mut Tables<'_>| uploads::abort(tables, &key, id);
        self.store.index.write(change).await.map_err(errors::index)?;
        answer(AbortMultipartUploadOutput::default())
    }

    pub(super) fn list_parts_of(&self, input: ListPartsInput) -> Answer<ListPartsOutput> {
        self.bucket(&input.bucket)?;
        let id = upload_of(&input.upload_id)?;
        let upload = self.store.index.upload(&input.key, id).map_err(errors::index)?;
        let limit = input.max_parts.unwrap_or(PAGE).clamp(0, PAGE);
        let after = input.part_number_marker.unwrap_or(0).clamp(0, i32::from(u16::MAX));
        let count = usize::try_from(limit).unwrap_or(0);
        let mut parts =
            self.store.index.parts(id, u16::try_from(after).unwrap_or(u16::MAX), count + 1).map_err(errors::index)?;
        let more = parts.len() > count;
        parts.truncate(count);
        answer(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            checksum_algorithm: upload.algorithm.map(algorithm_name),
            checksum_type: upload.algorithm.map(|_| kind(upload.full_object)),
            max_parts: Some(limit),
            part_number_marker: Some(after),
            is_truncated: Some(more),
            next_part_number_marker: parts.last().map(|(number, _)| i32::from(*number)),
            parts: Some(parts.into_iter().map(listed).collect()),
            ..ListPartsOutput::default()
        })
    }
}

fn name(mut part: CompletedPart) -> S3Result<Named> {
    let sums = all_of(&mut sums!(part));
    match (part.part_number, part.e_tag) {
        (Some(number), Some(etag)) => Ok(Named { number, etag: etag.into_value(), sums }),
        _ => Err(s3_error!(MalformedXML, "every part needs its number and its ETag")),
    }
}

/// Whether the object is what the client says it will be.
fn keeps(object: &Object, size: Option<i64>, promised: &[(Algorithm, String)]) -> Result<(), IndexError> {
    if size.is_some_and(|size| u64::try_from(size) != Ok(object.size)) {
        return Err(IndexError::Promise(format!("the parts have {} bytes, others were announced", object.size)));
    }
    let Some(known) = &object.checksum else { return Ok(()) };
    let broken = promised.iter().any(|(algorithm, value)| *algorithm == known.algorithm && *value != known.value);
    if broken {
        Err(IndexError::Promise("the parts' checksum is not what the request says".to_owned()))
    } else {
        Ok(())
    }
}

fn listed((number, part): (u16, Part)) -> ListedPart {
    let sums = shown(part.checksum.as_ref());
    ListedPart {
        part_number: Some(i32::from(number)),
        e_tag: Some(etag(&part.etag)),
        size: i64::try_from(part.size).ok(),
        last_modified: Some(timestamp(part.modified)),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
    }
}
