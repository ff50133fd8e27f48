//! Who may do what.
//!
//! Comes in: an identity, the name of an operation, and what it touches. Goes out: yes, or a refusal that names what is
//! allowed instead. What is not in the table here is refused: an operation that the protocol's library learns later is
//! closed until somebody opens it.

use hyper::{HeaderMap, Uri};
use s3s::access::{S3Access, S3AccessContext};
use s3s::dto::{
    CopyObjectInput, CopySource, DeleteObjectsInput, ListMultipartUploadsInput, ListObjectsInput, ListObjectsV2Input,
    UploadPartCopyInput,
};
use s3s::path::S3Path;
use s3s::{S3Error, S3Request, S3Result, s3_error};

use crate::keyring::{Identity, identity};
use crate::metrics::Asked;

/// What an operation touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// The store as a whole.
    Store,
    /// A bucket, by whatever name.
    Bucket,
    /// One key, to read or to write.
    Key(&'a str),
    /// All keys that start with this.
    Prefix(&'a str),
}

/// What an operation needs to touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Store,
    Bucket,
    /// A bucket, and only for the administrator.
    BucketAdmin,
    Key,
    /// Keys that stand in the request's body.
    Keys,
    List,
}

fn class(operation: &str) -> Option<Class> {
    Some(match operation {
        "ListBuckets" => Class::Store,
        "HeadBucket" | "GetBucketLocation" => Class::Bucket,
        "CreateBucket" => Class::BucketAdmin,
        "GetObject" | "HeadObject" | "GetObjectTagging" | "PutObject" | "CopyObject" | "DeleteObject" => Class::Key,
        "CreateMultipartUpload" | "UploadPart" | "UploadPartCopy" | "ListParts" => Class::Key,
        "CompleteMultipartUpload" | "AbortMultipartUpload" => Class::Key,
        "DeleteObjects" => Class::Keys,
        "ListObjects" | "ListObjectsV2" | "ListMultipartUploads" => Class::List,
        _ => return None,
    })
}

/// Why something is refused, and what would be allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody may do this here.
    #[error("{0} is not allowed in this store")]
    Operation(String),
    /// The key is outside the namespace.
    #[error("{operation} is allowed for keys under {allowed:?} only")]
    Key {
        /// What was asked for.
        operation: String,
        /// The prefix that the identity may use.
        allowed: String,
    },
    /// The listing is not limited to the namespace.
    #[error("{operation} is allowed with a prefix that starts with {allowed:?} only")]
    Prefix {
        /// What was asked for.
        operation: String,
        /// The prefix that the identity may use.
        allowed: String,
    },
    /// Only the administrator may.
    #[error("{0} is allowed for the administrator only; the bucket is there from the start")]
    Admin(String),
}

/// Whether `identity` may do `operation` to `target`.
///
/// # Errors
/// When it may not.
pub fn allowed(identity: &Identity, operation: &str, target: Target<'_>) -> Result<(), Refusal> {
    let name = || operation.to_owned();
    let Some(class) = class(operation) else { return Err(Refusal::Operation(name())) };
    match (class, target) {
        (Class::Store, Target::Store) | (Class::Bucket, Target::Bucket) => Ok(()),
        (Class::BucketAdmin, Target::Bucket) => match identity {
            Identity::Admin => Ok(()),
            Identity::Namespace(_) => Err(Refusal::Admin(name())),
        },
        (Class::Key | Class::Keys, Target::Key(key)) => match identity.prefix() {
            Some(allowed) if !key.starts_with(&allowed) => Err(Refusal::Key { operation: name(), allowed }),
            _ => Ok(()),
        },
        (Class::List, Target::Prefix(prefix)) => match identity.prefix() {
            Some(allowed) if !prefix.starts_with(&allowed) => Err(Refusal::Prefix { operation: name(), allowed }),
            _ => Ok(()),
        },
        _ => Err(Refusal::Operation(name())),
    }
}

/// The check as the protocol's library calls it: once by path, and again when the request has been read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access;

fn denied(refusal: &Refusal) -> S3Error {
    s3_error!(AccessDenied, "{refusal}")
}

fn who<T>(request: &S3Request<T>) -> S3Result<Identity> {
    request.credentials.as_ref().and_then(|keys| identity(&keys.access_key)).ok_or_else(anonymous)
}

fn anonymous() -> S3Error {
    s3_error!(AccessDenied, "requests must be signed with a key of this store")
}

fn check<T>(request: &S3Request<T>, operation: &str, target: Target<'_>) -> S3Result<()> {
    allowed(&who(request)?, operation, target).map_err(|refusal| denied(&refusal))
}

#[async_trait::async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = context.s3_op().name().to_owned();
        if let Some(asked) = context.extensions_mut().get::<Asked>() {
            asked.set(&operation);
        }
        let identity = context.credentials().and_then(|keys| identity(&keys.access_key)).ok_or_else(anonymous)?;
        let target = match context.s3_path() {
            S3Path::Root => Target::Store,
            S3Path::Bucket { .. } => Target::Bucket,
            S3Path::Object { key, .. } => Target::Key(key),
        };
        // What these touch stands in the query or in the body: the checks below see it.
        if matches!(class(&operation), Some(Class::List | Class::Keys)) && target == Target::Bucket {
            return Ok(());
        }
        copy_source_is_signed(context.headers(), context.uri())?;
        allowed(&identity, &operation, target).map_err(|refusal| denied(&refusal))
    }

    async fn list_objects(&self, request: &mut S3Request<ListObjectsInput>) -> S3Result<()> {
        check(request, "ListObjects", Target::Prefix(request.input.prefix.as_deref().unwrap_or_default()))
    }

    async fn list_objects_v2(&self, request: &mut S3Request<ListObjectsV2Input>) -> S3Result<()> {
        check(request, "ListObjectsV2", Target::Prefix(request.input.prefix.as_deref().unwrap_or_default()))
    }

    async fn list_multipart_uploads(&self, request: &mut S3Request<ListMultipartUploadsInput>) -> S3Result<()> {
        check(request, "ListMultipartUploads", Target::Prefix(request.input.prefix.as_deref().unwrap_or_default()))
    }

    async fn delete_objects(&self, request: &mut S3Request<DeleteObjectsInput>) -> S3Result<()> {
        // All or none: a batch with a foreign key in it is a mistake or worse.
        request.input.delete.objects.iter().try_for_each(|one| check(request, "DeleteObjects", Target::Key(&one.key)))
    }

    async fn copy_object(&self, request: &mut S3Request<CopyObjectInput>) -> S3Result<()> {
        check(request, "GetObject", Target::Key(source_key(&request.input.copy_source)?))
    }

    async fn upload_part_copy(&self, request: &mut S3Request<UploadPartCopyInput>) -> S3Result<()> {
        check(request, "GetObject", Target::Key(source_key(&request.input.copy_source)?))
    }
}

/// The key that a copy reads.
///
/// # Errors
/// When the source is not a bucket's.
pub fn source_key(source: &CopySource) -> S3Result<&str> {
    match source {
        CopySource::Bucket { key, .. } => Ok(key),
        _ => Err(s3_error!(NotImplemented, "a copy's source is a bucket and a key; access points are not here")),
    }
}

/// A presigned URL allows what was signed and no more: with an unsigned copy source, who was given a URL to put one
/// object could copy any other object of the signer there.
fn copy_source_is_signed(headers: &HeaderMap, uri: &Uri) -> S3Result<()> {
    let mut copies = headers.keys().map(hyper::header::HeaderName::as_str).filter(|name| is_copy_header(name));
    let Some(first) = copies.next() else { return Ok(()) };
    let query = uri.query().unwrap_or_default();
    let listed = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| *name == "X-Amz-SignedHeaders")
        .map(|(_, value)| value.replace("%3B", ";").replace("%3b", ";"));
    let listed = listed.or_else(|| {
        let text = headers.get(hyper::header::AUTHORIZATION)?.to_str().ok()?;
        let (_, rest) = text.split_once("SignedHeaders=")?;
        Some(rest.split([',', ' ']).next().unwrap_or_default().to_owned())
    });
    let is_listed = |name: &str| listed.as_deref().is_some_and(|listed| listed.split(';').any(|one| one == name));
    if is_listed(first) && copies.all(is_listed) {
        return Ok(());
    }
    Err(s3_error!(AccessDenied, "{first} is not among the signed headers; sign it, or leave it out"))
}

fn is_copy_header(name: &str) -> bool {
    name == "x-amz-copy-source" || name == "x-amz-copy-source-range"
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
