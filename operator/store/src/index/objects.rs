//! Changes of objects.
//!
//! Comes in: the tables, a key, a condition. Goes out: the tables changed, or a refusal with nothing touched.

use super::records::{About, Data, Object};
use super::{IndexError, Tables};

/// What must hold for a write to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// The key has no object.
    Absent,
    /// The key has an object.
    Present,
    /// The key has an object with this ETag.
    Etag(String),
    /// The key has no object, or one with another ETag.
    NotEtag(String),
}

impl Condition {
    /// Judges what the key has.
    ///
    /// # Errors
    /// When it does not hold.
    pub fn judge(&self, object: Option<&Object>) -> Result<(), IndexError> {
        let holds = match (self, object) {
            (Self::None | Self::NotEtag(_), None) | (Self::None, Some(_)) => true,
            (Self::Absent, object) => object.is_none(),
            (Self::Present | Self::Etag(_), None) => return Err(IndexError::NoObject),
            (Self::Present, Some(_)) => true,
            (Self::Etag(etag), Some(object)) => object.etag == *etag,
            (Self::NotEtag(etag), Some(object)) => object.etag != *etag,
        };
        if holds { Ok(()) } else { Err(IndexError::Precondition) }
    }
}

/// Puts an object with new data, unless it is empty.
///
/// # Errors
/// When the condition does not hold.
pub fn put(
    tables: &mut Tables<'_>,
    key: &str,
    object: &Object,
    data: Option<&Data>,
    condition: &Condition,
) -> Result<(), IndexError> {
    if *condition != Condition::None {
        condition.judge(tables.object(key)?.as_ref())?;
    }
    if let Some(data) = data {
        tables.put_data(object.data, data)?;
    }
    tables.put_object(key, object)
}

/// What a copy changes.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    /// What the source must meet.
    pub source: Condition,
    /// What the target must meet.
    pub target: Condition,
    /// What the copy says of itself; none to say what the source says.
    pub about: Option<About>,
    /// When, in milliseconds since 1970.
    pub now: i64,
}

/// Makes `to` an object with the data of `from`, which both use from then on.
///
/// # Errors
/// When there is no source, or a condition does not hold.
pub fn copy(tables: &mut Tables<'_>, from: &str, to: &str, how: Copy) -> Result<Object, IndexError> {
    let source = tables.object(from)?.ok_or(IndexError::NoObject)?;
    how.source.judge(Some(&source))?;
    if how.target != Condition::None {
        how.target.judge(tables.object(to)?.as_ref())?;
    }
    let about = how.about.unwrap_or_else(|| source.about.clone());
    let copy = Object { modified: how.now, about, upload: 0, ..source };
    // Held before the target lets its own go: they may be the same.
    tables.hold(copy.data)?;
    tables.put_object(to, &copy)?;
    Ok(copy)
}

/// Removes an object. One that is not there is removed already.
///
/// # Errors
/// When the condition does not hold.
pub fn delete(tables: &mut Tables<'_>, key: &str, condition: &Condition) -> Result<(), IndexError> {
    if *condition != Condition::None {
        condition.judge(tables.object(key)?.as_ref())?;
    }
    tables.remove_object(key)
}
