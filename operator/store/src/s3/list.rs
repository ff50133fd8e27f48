//! Listings.
//!
//! Comes in: a prefix, a delimiter, a place to go on from. Goes out: one page in the form that was asked for.

use s3s::dto::{
    CommonPrefix, EncodingType, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput,
    ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, MultipartUpload, Object as ListedObject,
    ObjectStorageClass,
};
use s3s::{S3Result, s3_error};

use super::checksums::algorithm_name;
use super::get::etag;
use super::names::{percent, timestamp, token, un_upload_id, untoken, upload_id};
use super::{Answer, Operations, answer, errors};
use crate::index::listing::{Page, Position, Query};
use crate::index::records::{Object, Upload};

/// The most entries of a page, as S3 has it.
const PAGE: i32 = 1000;

/// How keys are written in the answer.
#[derive(Clone, Copy)]
struct Writing {
    url: bool,
}

impl Writing {
    fn of(asked: Option<&EncodingType>) -> S3Result<Self> {
        match asked.map(EncodingType::as_str) {
            None => Ok(Self { url: false }),
            Some(EncodingType::URL) => Ok(Self { url: true }),
            Some(other) => Err(s3_error!(InvalidArgument, "encoding-type is {other:?}; write url or leave it out")),
        }
    }

    fn key(self, key: &str) -> String {
        if self.url { percent(key) } else { key.to_owned() }
    }

    fn some(self, key: Option<String>) -> Option<String> {
        key.map(|key| self.key(&key))
    }

    fn prefixes<T>(self, page: &Page<T>) -> Vec<CommonPrefix> {
        page.prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(self.key(prefix)) }).collect()
    }

    fn objects(self, page: &Page<Object>) -> Vec<ListedObject> {
        let listed = |(key, object): &(String, Object)| ListedObject {
            key: Some(self.key(key)),
            size: i64::try_from(object.size).ok(),
            e_tag: Some(etag(&object.etag)),
            last_modified: Some(timestamp(object.modified)),
            storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
            checksum_algorithm: object.checksum.as_ref().map(|sum| vec![algorithm_name(sum.algorithm)]),
            ..ListedObject::default()
        };
        page.entries.iter().map(listed).collect()
    }

    fn uploads(self, page: &Page<(u64, Upload)>) -> Vec<MultipartUpload> {
        let listed = |(key, (id, upload)): &(String, (u64, Upload))| MultipartUpload {
            key: Some(self.key(key)),
            upload_id: Some(upload_id(*id)),
            initiated: Some(timestamp(upload.initiated)),
            checksum_algorithm: upload.algorithm.map(algorithm_name),
            ..MultipartUpload::default()
        };
        page.entries.iter().map(listed).collect()
    }
}

fn limit(asked: Option<i32>) -> S3Result<i32> {
    match asked.unwrap_or(PAGE) {
        negative if negative < 0 => Err(s3_error!(InvalidArgument, "a page cannot have {negative} entries")),
        asked => Ok(asked.min(PAGE)),
    }
}

fn query(prefix: Option<&str>, delimiter: Option<&str>, after: Position, limit: i32) -> Query {
    Query {
        prefix: prefix.unwrap_or_default().to_owned(),
        delimiter: delimiter.unwrap_or_default().to_owned(),
        after,
        limit: usize::try_from(limit).unwrap_or(0),
    }
}

/// A marker of the client's own; an empty one is none.
fn marker(text: Option<&str>) -> Position {
    text.filter(|text| !text.is_empty()).map_or(Position::Start, |text| Position::Key(text.to_owned()))
}

impl Operations {
    pub(super) fn list_v2(&self, input: ListObjectsV2Input) -> Answer<ListObjectsV2Output> {
        self.bucket(&input.bucket)?;
        let (writing, limit) = (Writing::of(input.encoding_type.as_ref())?, limit(input.max_keys)?);
        let after = match input.continuation_token.as_deref() {
            None => marker(input.start_after.as_deref()),
            Some(text) => {
                untoken(text).ok_or_else(|| s3_error!(InvalidArgument, "the continuation token is not ours"))?
            }
        };
        let query = query(input.prefix.as_deref(), input.delimiter.as_deref(), after, limit);
        let page = self.store.index.list(&query).map_err(errors::index)?;
        answer(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(writing.key(&query.prefix)),
            delimiter: writing.some(input.delimiter),
            start_after: writing.some(input.start_after),
            continuation_token: input.continuation_token,
            next_continuation_token: page.next.as_ref().map(token),
            encoding_type: input.encoding_type,
            max_keys: Some(limit),
            key_count: i32::try_from(page.entries.len() + page.prefixes.len()).ok(),
            is_truncated: Some(page.next.is_some()),
            common_prefixes: Some(writing.prefixes(&page)),
            contents: Some(writing.objects(&page)),
            ..ListObjectsV2Output::default()
        })
    }

    pub(super) fn list_v1(&self, input: ListObjectsInput) -> Answer<ListObjectsOutput> {
        self.bucket(&input.bucket)?;
        let (writing, limit) = (Writing::of(input.encoding_type.as_ref())?, limit(input.max_keys)?);
        let query = query(input.prefix.as_deref(), input.delimiter.as_deref(), marker(input.marker.as_deref()), limit);
        let page = self.store.index.list(&query).map_err(errors::index)?;
        let next = match &page.next {
            Some(Position::Key(text) | Position::Prefix(text)) => Some(writing.key(text)),
            Some(Position::Start) | None => None,
        };
        answer(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(writing.key(&query.prefix)),
            delimiter: writing.some(input.delimiter),
            marker: Some(writing.key(input.marker.as_deref().unwrap_or_default())),
            next_marker: next,
            encoding_type: input.encoding_type,
            max_keys: Some(limit),
            is_truncated: Some(page.next.is_some()),
            common_prefixes: Some(writing.prefixes(&page)),
            contents: Some(writing.objects(&page)),
            ..ListObjectsOutput::default()
        })
    }

    pub(super) fn list_uploads(&self, input: ListMultipartUploadsInput) -> Answer<ListMultipartUploadsOutput> {
        self.bucket(&input.bucket)?;
        let (writing, limit) = (Writing::of(input.encoding_type.as_ref())?, limit(input.max_uploads)?);
        let after = input.upload_id_marker.as_deref().and_then(un_upload_id);
        let query =
            query(input.prefix.as_deref(), input.delimiter.as_deref(), marker(input.key_marker.as_deref()), limit);
        let page = self.store.index.list_uploads(&query, after).map_err(errors::index)?;
        let next_key = match &page.next {
            Some(Position::Key(text) | Position::Prefix(text)) => Some(writing.key(text)),
            Some(Position::Start) | None => None,
        };
        let last = page.entries.last().map(|(_, (id, _))| upload_id(*id));
        answer(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: Some(writing.key(&query.prefix)),
            delimiter: writing.some(input.delimiter),
            key_marker: writing.some(input.key_marker),
            upload_id_marker: input.upload_id_marker,
            next_upload_id_marker: last.filter(|_| matches!(page.next, Some(Position::Key(_)))),
            next_key_marker: next_key,
            encoding_type: input.encoding_type,
            max_uploads: Some(limit),
            is_truncated: Some(page.next.is_some()),
            common_prefixes: Some(writing.prefixes(&page)),
            uploads: Some(writing.uploads(&page)),
            ..ListMultipartUploadsOutput::default()
        })
    }
}
