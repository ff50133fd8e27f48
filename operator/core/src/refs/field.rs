//! The place of a value inside an object, written the way Kubernetes writes it.
//!
//! In: keys and indexes on the way down. Out: `spec.stages[0].args[2]`.

use std::fmt;

use super::path::is_identifier;

/// One step down.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FieldSegment {
    /// A key of an object.
    Key(String),
    /// An index of a list.
    Index(usize),
}

/// Where a value stands; prints as `spec.stages[0].limits[nvidia.com/gpu]`, the root as nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FieldPath(Vec<FieldSegment>);

impl FieldPath {
    /// The object itself.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// The field `name` of the object itself: usually `spec`.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self::root().key(name)
    }

    /// One key further down.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(FieldSegment::Key(key.to_owned()))
    }

    /// One index further down.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(FieldSegment::Index(index))
    }

    /// The steps from the root.
    #[must_use]
    pub fn segments(&self) -> &[FieldSegment] {
        &self.0
    }

    fn with(&self, segment: FieldSegment) -> Self {
        let mut segments = Vec::with_capacity(self.0.len() + 1);
        segments.extend_from_slice(&self.0);
        segments.push(segment);
        FieldPath(segments)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                FieldSegment::Key(key) if !is_identifier(key) => write!(f, "[{key}]")?,
                FieldSegment::Key(key) if position == 0 => f.write_str(key)?,
                FieldSegment::Key(key) => write!(f, ".{key}")?,
                FieldSegment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
