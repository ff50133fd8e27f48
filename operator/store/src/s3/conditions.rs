//! Conditions of requests.
//!
//! Comes in: the headers If-Match and their like, as the library has read them. Goes out: for writes, a [`Condition`]
//! that the index judges in its transaction; for reads, a verdict.

use s3s::dto::{ETagCondition, Timestamp};
use s3s::{S3Error, S3Result, s3_error};

use super::names::timestamp;
use crate::index::objects::Condition;
use crate::index::records::Object;

/// The condition of a write.
///
/// # Errors
/// When both headers are there, which S3 does not have.
pub fn of_write(matches: Option<&ETagCondition>, none: Option<&ETagCondition>) -> S3Result<Condition> {
    Ok(match (matches, none) {
        (None, None) => Condition::None,
        (Some(ETagCondition::Any), None) => Condition::Present,
        (Some(ETagCondition::ETag(etag)), None) => Condition::Etag(etag.value().to_owned()),
        (None, Some(ETagCondition::Any)) => Condition::Absent,
        (None, Some(ETagCondition::ETag(etag))) => Condition::NotEtag(etag.value().to_owned()),
        (Some(_), Some(_)) => return Err(s3_error!(InvalidRequest, "send If-Match or If-None-Match, not both")),
    })
}

/// The conditions of a read.
#[derive(Default)]
pub struct OfRead<'a> {
    /// If-Match.
    pub matches: Option<&'a ETagCondition>,
    /// If-None-Match.
    pub none: Option<&'a ETagCondition>,
    /// If-Modified-Since.
    pub modified: Option<&'a Timestamp>,
    /// If-Unmodified-Since.
    pub unmodified: Option<&'a Timestamp>,
}

fn meets(condition: &ETagCondition, object: &Object) -> bool {
    condition.as_etag().is_none_or(|etag| etag.value() == object.etag)
}

impl OfRead<'_> {
    /// Judges an object, in the order of RFC 9110, section 13.2.2.
    ///
    /// # Errors
    /// When it does not meet a condition: 412, or 304 for "I have that already".
    pub fn judge(&self, object: &Object) -> S3Result<()> {
        // Headers have whole seconds only.
        let modified = timestamp(object.modified / 1000 * 1000);
        let failed = || s3_error!(PreconditionFailed, "the object does not meet the request's condition");
        if let Some(condition) = self.matches {
            if !meets(condition, object) {
                return Err(failed());
            }
        } else if self.unmodified.is_some_and(|since| modified > *since) {
            return Err(failed());
        }
        if let Some(condition) = self.none {
            if meets(condition, object) {
                return Err(not_modified(object));
            }
        } else if self.modified.is_some_and(|since| modified <= *since) {
            return Err(not_modified(object));
        }
        Ok(())
    }

    /// As [`OfRead::judge`], for the source of a copy, where every failure is a 412.
    ///
    /// # Errors
    /// When the object does not meet a condition.
    pub fn judge_source(&self, object: &Object) -> S3Result<()> {
        self.judge(object).map_err(|_| s3_error!(PreconditionFailed, "the source does not meet the condition"))
    }
}

fn not_modified(object: &Object) -> S3Error {
    let mut error = s3_error!(NotModified);
    let mut headers = hyper::HeaderMap::new();
    if let Ok(etag) = format!("\"{}\"", object.etag).parse() {
        headers.insert(hyper::header::ETAG, etag);
    }
    error.set_headers(headers);
    error
}

#[cfg(test)]
mod tests {
    use s3s::dto::ETag;

    use super::*;

    fn tag(text: &str) -> ETagCondition {
        ETagCondition::ETag(ETag::Strong(text.to_owned()))
    }

    #[test]
    fn reads_are_judged_in_order() {
        let object = Object { etag: "e".to_owned(), modified: 1_000_500, ..Object::default() };
        let (same, other, any) = (tag("e"), tag("x"), ETagCondition::Any);
        let (before, exactly) = (timestamp(999_000), timestamp(1_000_000));
        let judge = |of: OfRead<'_>| of.judge(&object).map_err(|error| error.code().as_str().to_owned());
        let failed = Err("PreconditionFailed".to_owned());
        let known = Err("NotModified".to_owned());
        assert_eq!(judge(OfRead::default()), Ok(()));
        assert_eq!(judge(OfRead { matches: Some(&same), ..OfRead::default() }), Ok(()));
        assert_eq!(judge(OfRead { matches: Some(&any), ..OfRead::default() }), Ok(()));
        assert_eq!(judge(OfRead { matches: Some(&other), ..OfRead::default() }), failed);
        assert_eq!(judge(OfRead { none: Some(&same), ..OfRead::default() }), known);
        assert_eq!(judge(OfRead { none: Some(&other), ..OfRead::default() }), Ok(()));
        assert_eq!(judge(OfRead { modified: Some(&exactly), ..OfRead::default() }), known);
        assert_eq!(judge(OfRead { modified: Some(&before), ..OfRead::default() }), Ok(()));
        assert_eq!(judge(OfRead { unmodified: Some(&before), ..OfRead::default() }), failed);
        assert_eq!(judge(OfRead { unmodified: Some(&exactly), ..OfRead::default() }), Ok(()));
        let both = OfRead { matches: Some(&same), unmodified: Some(&before), ..OfRead::default() };
        assert_eq!(judge(both), Ok(()), "the ETag is what counts");
    }
}
