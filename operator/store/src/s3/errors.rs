//! What clients are told when something does not work.
//!
//! Comes in: errors of the index and of receiving. Goes out: errors of S3, with the code that clients act on.

use hyper::StatusCode;
use s3s::{S3Error, S3ErrorCode, s3_error};

use crate::blobs::space::Full;
use crate::blobs::write::ReceiveError;
use crate::index::IndexError;

/// The volume is full: 507, which clients do not try again and again.
pub fn full(full: &Full) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom("InsufficientStorage".into()), full.to_string());
    error.set_status_code(StatusCode::INSUFFICIENT_STORAGE);
    error
}

/// The index refused or failed, about this key.
pub fn index(error: IndexError) -> S3Error {
    match error {
        IndexError::Precondition => s3_error!(PreconditionFailed, "the object does not meet the request's condition"),
        IndexError::NoObject => s3_error!(NoSuchKey, "there is no object with this key"),
        IndexError::NoUpload => s3_error!(NoSuchUpload, "{}", IndexError::NoUpload),
        IndexError::Part(number) => s3_error!(InvalidPart, "{}", IndexError::Part(number)),
        IndexError::PartOrder => s3_error!(InvalidPartOrder, "{}", IndexError::PartOrder),
        IndexError::PartSize(number) => s3_error!(EntityTooSmall, "{}", IndexError::PartSize(number)),
        IndexError::Promise(why) => s3_error!(BadDigest, "{why}"),
        IndexError::Full => full(&Full { free: 0, reserve: 0, wanted: 0 }),
        IndexError::Damaged(why) => {
            tracing::error!(why, "the index is damaged");
            s3_error!(InternalError, "the index is damaged: {why}")
        }
        IndexError::Storage(why) => {
            tracing::error!(why, "the index cannot be used");
            s3_error!(ServiceUnavailable, "the index cannot be used: {why}; try again")
        }
    }
}

/// A body did not come in.
pub fn receive(error: &ReceiveError) -> S3Error {
    match error {
        ReceiveError::Full(room) => full(room),
        ReceiveError::Silence => s3_error!(RequestTimeout, "{error}"),
        ReceiveError::Body(why) => {
            // The library's errors are private to it; their names are not.
            if why.contains("Sha256Mismatch") {
                let code = S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into());
                let mut error = S3Error::with_message(code, "the body is not what x-amz-content-sha256 says");
                error.set_status_code(StatusCode::BAD_REQUEST);
                error
            } else if why.contains("SignatureMismatch") {
                s3_error!(SignatureDoesNotMatch, "a chunk of the body is not what its signature says")
            } else {
                s3_error!(IncompleteBody, "{error}")
            }
        }
        ReceiveError::Disk(why) => {
            tracing::error!(%why, "cannot write");
            s3_error!(InternalError, "{error}")
        }
    }
}
