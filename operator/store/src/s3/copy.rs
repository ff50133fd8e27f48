//! Copying objects, whole or into a part.
//!
//! Comes in: a source and a target. Goes out: an object or a part that shares the source's files: no byte is written
//! twice. A part needs an MD5 of its own, so its bytes are read once.

use bytes::Bytes;
use futures::StreamExt;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopyPartResult, CopySource, MetadataDirective, Range,
    StreamingBlob, UploadPartCopyInput, UploadPartCopyOutput,
};
use s3s::{Body, S3Result, s3_error};

use super::checksums::{Promise, hasher_of, kept, shown};
use super::get::{etag, only_version};
use super::multipart::{part_number, upload_of};
use super::names::{hex, timestamp};
use super::put::{about, refuse, tags};
use super::{Answer, Operations, answer, conditions, errors};
use crate::access::source_key;
use crate::blobs::read::{Outgoing, cut};
use crate::index::objects::{self, Condition, Copy};
use crate::index::records::{Algorithm, Checksum, Data, Object, Part, Slice};
use crate::index::{IndexError, uploads};
use crate::store::now;

impl Operations {
    fn source<'s>(&self, source: &'s CopySource) -> S3Result<&'s str> {
        if let CopySource::Bucket { bucket, version_id, .. } = source {
            self.bucket(bucket)?;
            only_version(version_id.as_deref())?;
        }
        source_key(source)
    }

    pub(super) async fn copy(&self, mut input: CopyObjectInput) -> Answer<CopyObjectOutput> {
        self.bucket(&input.bucket)?;
        refuse(&[
            tags(input.tagging.as_ref()),
            ("encryption of its own", input.server_side_encryption.is_some() || input.sse_customer_key.is_some()),
            ("public objects", input.acl.as_ref().is_some_and(|acl| acl.as_str().starts_with("public"))),
        ])?;
        let from = self.source(&input.copy_source)?.to_owned();
        let judged = conditions::OfRead {
            matches: input.copy_source_if_match.as_ref(),
            none: input.copy_source_if_none_match.as_ref(),
            modified: input.copy_source_if_modified_since.as_ref(),
            unmodified: input.copy_source_if_unmodified_since.as_ref(),
        };
        let source = self.object(&from)?;
        judged.judge_source(&source)?;
        let replace = input.metadata_directive.as_ref().is_some_and(|how| how.as_str() == MetadataDirective::REPLACE);
        if from == input.key && !replace {
            return Err(s3_error!(InvalidRequest, "a copy of an object to itself must replace its metadata"));
        }
        let about = if replace { Some(about!(input)) } else { None };
        self.store.space.check(0).map_err(|full| errors::full(&full))?;
        // What was judged is what is copied.
        let how = Copy { source: Condition::Etag(source.etag), target: Condition::None, about, now: now() };
        let to = input.key;
        let change = move |tables: &mut crate::index::Tables<'_>| objects::copy(tables, &from, &to, how);
        let copy = self.store.index.write(change).await.map_err(errors::index)?;
        let sums = shown(copy.checksum.as_ref());
        let result = CopyObjectResult {
            e_tag: Some(etag(&copy.etag)),
            last_modified: Some(timestamp(copy.modified)),
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
            checksum_type: sums.checksum_type,
        };
        answer(CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() })
    }

    pub(super) async fn copy_part(&self, input: UploadPartCopyInput) -> Answer<UploadPartCopyOutput> {
        self.bucket(&input.bucket)?;
        let (id, number) = (upload_of(&input.upload_id)?, part_number(input.part_number)?);
        let upload = self.store.index.upload(&input.key, id).map_err(errors::index)?;
        let from = self.source(&input.copy_source)?.to_owned();
        let found = self.found(&from)?;
        conditions::OfRead {
            matches: input.copy_source_if_match.as_ref(),
            none: input.copy_source_if_none_match.as_ref(),
            modified: input.copy_source_if_modified_since.as_ref(),
            unmodified: input.copy_source_if_unmodified_since.as_ref(),
        }
        .judge_source(&found.object)?;
        let (start, length) = piece(input.copy_source_range.as_deref(), found.object.size)?;
        let target = (input.key, (id, number));
        let part = match found.data {
            None => self.part_of_bytes(target, Vec::new(), upload.algorithm).await?,
            Some(Data::Inline(bytes)) => {
                let at = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let bytes = bytes[at(start)..at(start + length)].to_vec();
                self.part_of_bytes(target, bytes, upload.algorithm).await?
            }
            Some(Data::File(whole)) => {
                let all = [Slice { file: found.object.data, offset: 0, length: whole }];
                self.part_of_files(target, (from, found.object), cut(&all, start, length), upload.algorithm).await?
            }
            Some(Data::Slices(all)) => {
                self.part_of_files(target, (from, found.object), cut(&all, start, length), upload.algorithm).await?
            }
        };
        let sums = shown(part.checksum.as_ref());
        let result = CopyPartResult {
            e_tag: Some(etag(&part.etag)),
            last_modified: Some(timestamp(part.modified)),
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
        };
        answer(UploadPartCopyOutput { copy_part_result: Some(result), ..UploadPartCopyOutput::default() })
    }

    async fn part_of_bytes(
        &self,
        (key, id): (String, (u64, u16)),
        bytes: Vec<u8>,
        also: Option<Algorithm>,
    ) -> S3Result<Part> {
        let body = StreamingBlob::from(Body::from(Bytes::from(bytes)));
        let taken = self.take(Some(body), Promise::default(), (0, None), also, || None).await?;
        self.store_part(key, id, taken).await
    }

    async fn part_of_files(
        &self,
        (key, id): (String, (u64, u16)),
        (from, source): (String, Object),
        slices: Vec<Slice>,
        also: Option<Algorithm>,
    ) -> S3Result<Part> {
        self.store.space.check(0).map_err(|full| errors::full(&full))?;
        let (md5, checksum) = self.digest(&slices, also).await?;
        let size = slices.iter().map(|slice| slice.length).sum();
        let data = self.store.blobs.number();
        let part = Part { size, modified: now(), etag: md5, data, checksum };
        let stored = part.clone();
        let change = move |tables: &mut crate::index::Tables<'_>| {
            uploads::put_part_of(tables, &key, id, &stored, (&from, &source, slices))
        };
        self.store.index.write(change).await.map_err(|error| match error {
            IndexError::Precondition => {
                s3_error!(OperationAborted, "the source changed while it was copied; try again")
            }
            other => errors::index(other),
        })?;
        Ok(part)
    }

    /// The MD5 and the checksum of bytes that are here already. If their files go meanwhile, that is noticed when the
    /// part is stored, or here, because they cannot be opened.
    async fn digest(&self, slices: &[Slice], also: Option<Algorithm>) -> S3Result<(String, Option<Checksum>)> {
        let pinned = self.store.blobs.pin(slices.iter().map(|slice| slice.file).collect());
        let mut bytes = Outgoing::new(pinned, slices.to_vec());
        let mut state = (Md5::new(), hasher_of(also));
        while let Some(read) = bytes.next().await {
            let read = read.map_err(|error| s3_error!(InternalError, "cannot read the source: {error}"))?;
            let hash = move || {
                let (mut md5, mut sum): (Md5, ChecksumHasher) = state;
                md5.update(&read);
                sum.update(&read);
                (md5, sum)
            };
            let hashed = tokio::task::spawn_blocking(hash).await;
            state = hashed.map_err(|error| s3_error!(InternalError, "hashing failed: {error}"))?;
        }
        let (md5, sum) = state;
        Ok((hex(&md5.finalize()), kept(&mut sum.finalize())))
    }
}

/// The range of a source, `bytes=first-last`, which S3 wants whole and within the object.
fn piece(range: Option<&str>, size: u64) -> S3Result<(u64, u64)> {
    let Some(text) = range else { return Ok((0, size)) };
    match Range::parse(text) {
        Ok(Range::Int { first, last: Some(last) }) if last < size => Ok((first, last - first + 1)),
        Ok(_) => Err(s3_error!(InvalidRange, "{text:?} is not within the source, which has {size} bytes")),
        Err(_) => Err(s3_error!(InvalidArgument, "{text:?} is no range such as bytes=0-99")),
    }
}
