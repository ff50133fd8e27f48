//! Writing and deleting objects.
//!
//! Comes in: a body and what the client says about it. Goes out: an object that is whole and on the disk, or an error
//! and nothing.

use bytes::Bytes;
use hyper::HeaderMap;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, Error, Expires,
    Metadata, PutObjectInput, PutObjectOutput, StreamingBlob, TaggingHeader, TimestampFormat,
};
use s3s::{Body, S3Request, S3Result, s3_error};

use super::checksums::{Promise, shown};
use super::get::{etag, only_version};
use super::names::hex;
use super::{Answer, INLINE, Operations, answer, conditions, errors};
use crate::blobs::write::{Content, Received, Staged, drain, receive};
use crate::index::IndexError;
use crate::index::objects::{self, Condition};
use crate::index::records::{About, Checksum, Data, Object};
use crate::store::now;

/// The most metadata of a user's own, as S3 counts it.
const METADATA: usize = 2048;
/// The most keys in one request to delete, as S3 has it.
const DELETES: usize = 1000;

/// Headers that S3 has and this store has not: refused, since ignoring them would promise something.
pub(super) fn refuse(asked: &[(&str, bool)]) -> S3Result<()> {
    match asked.iter().find(|(_, asked)| *asked) {
        None => Ok(()),
        Some((what, _)) => Err(s3_error!(NotImplemented, "this store has no {what}; leave it out of the request")),
    }
}

pub(super) const TAGS: &str = "object tags";

pub(super) fn tags(tagging: Option<&TaggingHeader>) -> (&'static str, bool) {
    (TAGS, tagging.is_some_and(|tags| !tags.is_empty()))
}

/// Metadata as it is kept.
///
/// # Errors
/// When it is too much.
pub(super) fn metadata(given: Option<Metadata>) -> S3Result<std::collections::BTreeMap<String, String>> {
    let given = given.unwrap_or_default();
    let size: usize = given.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > METADATA {
        return Err(s3_error!(MetadataTooLarge, "metadata has {size} bytes, {METADATA} are allowed"));
    }
    Ok(given.into_iter().collect())
}

/// What a request says about the object, from an input of the library that has these fields.
macro_rules! about {
    ($input:expr) => {
        $crate::index::records::About {
            content_type: $input.content_type.take(),
            cache_control: $input.cache_control.take(),
            content_disposition: $input.content_disposition.take(),
            content_encoding: $crate::s3::put::encoding($input.content_encoding.take()),
            content_language: $input.content_language.take(),
            expires: $crate::s3::put::expires($input.expires.take()),
            metadata: $crate::s3::put::metadata($input.metadata.take())?,
        }
    };
}
pub(super) use about;

/// The time of an Expires header, in milliseconds since 1970. The library's time can only be written, so it is.
pub(super) fn expires(given: Option<Expires>) -> Option<i64> {
    let mut text = Vec::new();
    given?.format(TimestampFormat::EpochSeconds, &mut text).ok()?;
    let seconds: i64 = String::from_utf8(text).ok()?.split('.').next()?.parse().ok()?;
    seconds.checked_mul(1000)
}

/// `aws-chunked` is how the body travelled, not what the object is.
pub(super) fn encoding(given: Option<String>) -> Option<String> {
    let given = given?;
    let own: Vec<&str> = given.split(',').map(str::trim).filter(|one| *one != "aws-chunked").collect();
    let own = own.join(",");
    (!own.is_empty()).then_some(own)
}

/// The checksums of an input of the library.
macro_rules! sums {
    ($input:expr) => {
        s3s::dto::Checksum {
            checksum_crc32: $input.checksum_crc32.take(),
            checksum_crc32c: $input.checksum_crc32c.take(),
            checksum_crc64nvme: $input.checksum_crc64nvme.take(),
            checksum_sha1: $input.checksum_sha1.take(),
            checksum_sha256: $input.checksum_sha256.take(),
            checksum_type: None,
        }
    };
}
pub(super) use sums;

/// Bytes that came in and are what was promised.
pub(super) struct Taken {
    pub size: u64,
    pub etag: String,
    pub checksum: Option<Checksum>,
    /// The row of data and its number; none of no bytes.
    pub data: Option<(u64, Data)>,
    pub staged: Option<Staged>,
}

impl Operations {
    /// Receives a body and holds it against what was promised. Up to `inline` bytes stay in memory.
    pub(super) async fn take(
        &self,
        body: Option<StreamingBlob>,
        mut promise: Promise,
        (inline, length): (usize, Option<i64>),
        also: Option<crate::index::records::Algorithm>,
        trailers: impl FnOnce() -> Option<HeaderMap>,
    ) -> S3Result<Taken> {
        let body = body.unwrap_or_else(|| StreamingBlob::from(Body::from(Bytes::new())));
        let expected = length.and_then(|length| u64::try_from(length).ok());
        let hasher = promise.hasher(also);
        let room = (inline, expected.unwrap_or(0));
        let mut received = receive(body, hasher, room, &self.store.blobs, &self.store.space)
            .await
            .map_err(|error| errors::receive(&error))?;
        if let Some(expected) = expected.filter(|expected| *expected != received.length) {
            return Err(s3_error!(IncompleteBody, "{} bytes came, {expected} were announced", received.length));
        }
        let checksum = promise.verify(trailers().as_ref(), &received.md5, &mut received.checksum)?;
        self.metrics.received.inc_by(received.length);
        Ok(self.taken(received, checksum))
    }

    fn taken(&self, received: Received, checksum: Option<Checksum>) -> Taken {
        let (data, staged) = match received.content {
            Content::Empty => (None, None),
            Content::Memory(bytes) => (Some((self.store.blobs.number(), Data::Inline(bytes))), None),
            Content::File(staged) => (Some((staged.number(), Data::File(received.length))), Some(staged)),
        };
        Taken { size: received.length, etag: hex(&received.md5), checksum, data, staged }
    }

    pub(super) async fn put(&self, request: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let S3Request { mut input, trailing_headers, .. } = request;
        self.bucket(&input.bucket)?;
        refuse(&[
            tags(input.tagging.as_ref()),
            ("encryption of its own", input.server_side_encryption.is_some() || input.sse_customer_key.is_some()),
            ("object locks", input.object_lock_mode.is_some() || input.object_lock_legal_hold_status.is_some()),
            ("appending", input.write_offset_bytes.is_some()),
            ("public objects", input.acl.as_ref().is_some_and(|acl| acl.as_str().starts_with("public"))),
        ])?;
        let condition = conditions::of_write(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        if condition != Condition::None {
            // Judged again when it counts; this spares the client from sending the body in vain.
            let object = self.store.index.head(&input.key).map_err(errors::index)?;
            if let Err(refused) = condition.judge(object.as_ref()) {
                if let Some(body) = &mut input.body {
                    drain(body).await;
                }
                return Err(errors::index(refused));
            }
        }
        let about = about!(input);
        let promise = Promise::new(sums!(input), input.checksum_algorithm.as_ref(), input.content_md5.take())?;
        let trailers = move || trailing_headers.and_then(|trailers| trailers.take());
        let taken = self.take(input.body.take(), promise, (INLINE, input.content_length), None, trailers).await?;
        let object = self.store_object(input.key, taken, about, condition).await?;
        let sums = shown(object.checksum.as_ref());
        answer(PutObjectOutput {
            e_tag: Some(etag(&object.etag)),
            checksum_crc32: sums.checksum_crc32,
            checksum_crc32c: sums.checksum_crc32c,
            checksum_crc64nvme: sums.checksum_crc64nvme,
            checksum_sha1: sums.checksum_sha1,
            checksum_sha256: sums.checksum_sha256,
            checksum_type: sums.checksum_type,
            ..PutObjectOutput::default()
        })
    }

    async fn store_object(&self, key: String, taken: Taken, about: About, condition: Condition) -> S3Result<Object> {
        let Taken { size, etag, checksum, data, staged } = taken;
        let (number, data) = data.unzip();
        let data_number = number.unwrap_or(0);
        let object = Object { size, modified: now(), etag, data: data_number, about, checksum, ..Object::default() };
        let done = object.clone();
        let change = move |tables: &mut crate::index::Tables<'_>| {
            objects::put(tables, &key, &object, data.as_ref(), &condition)?;
            // From here on the index decides: if the transaction fails, the next start finds the file unnamed.
            staged.into_iter().for_each(Staged::keep);
            Ok(())
        };
        self.store.index.write(change).await.map_err(errors::index)?;
        Ok(done)
    }

    pub(super) async fn delete(&self, input: DeleteObjectInput) -> Answer<DeleteObjectOutput> {
        self.bucket(&input.bucket)?;
        only_version(input.version_id.as_deref())?;
        let conditional = input.if_match_last_modified_time.is_some() || input.if_match_size.is_some();
        refuse(&[("conditions on size or time when deleting", conditional)])?;
        let condition = conditions::of_write(input.if_match.as_ref(), None)?;
        let key = input.key;
        let change = move |tables: &mut crate::index::Tables<'_>| objects::delete(tables, &key, &condition);
        self.store.index.write(change).await.map_err(errors::index)?;
        answer(DeleteObjectOutput::default())
    }

    pub(super) async fn delete_all(&self, input: DeleteObjectsInput) -> Answer<DeleteObjectsOutput> {
        self.bucket(&input.bucket)?;
        let (named, quiet) = (input.delete.objects, input.delete.quiet.unwrap_or(false));
        if named.len() > DELETES {
            return Err(s3_error!(MalformedXML, "{} keys are named, {DELETES} are allowed", named.len()));
        }
        let mut wanted = Vec::with_capacity(named.len());
        for one in named {
            only_version(one.version_id.as_deref())?;
            let conditional = one.last_modified_time.is_some() || one.size.is_some();
            refuse(&[("conditions on size or time when deleting", conditional)])?;
            let condition = one.e_tag.map_or(Condition::None, |etag| Condition::Etag(etag.into_value()));
            wanted.push((one.key, condition));
        }
        let change = move |tables: &mut crate::index::Tables<'_>| {
            let mut results = Vec::with_capacity(wanted.len());
            for (key, condition) in wanted {
                let refused = match objects::delete(tables, &key, &condition) {
                    Ok(()) => None,
                    Err(refused @ (IndexError::Precondition | IndexError::NoObject)) => Some(refused),
                    Err(other) => return Err(other),
                };
                results.push((key, refused));
            }
            Ok(results)
        };
        let results = self.store.index.write(change).await.map_err(errors::index)?;
        let (mut deleted, mut failed) = (Vec::new(), Vec::new());
        for (key, refused) in results {
            match refused {
                None if quiet => {}
                None => deleted.push(DeletedObject { key: Some(key), ..DeletedObject::default() }),
                Some(refused) => failed.push(failure(key, refused)),
            }
        }
        answer(DeleteObjectsOutput { deleted: Some(deleted), errors: Some(failed), ..DeleteObjectsOutput::default() })
    }
}

fn failure(key: String, refused: IndexError) -> Error {
    let error = errors::index(refused);
    Error {
        code: Some(error.code().as_str().to_owned()),
        key: Some(key),
        message: error.message().map(str::to_owned),
        version_id: None,
    }
}
