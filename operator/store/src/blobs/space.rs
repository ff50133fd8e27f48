//! How much room the volume has, and when it is too little.
//!
//! Comes in: a folder and a reserve. Goes out: whether so many bytes may still be written. The reserve keeps room for
//! the index, so that reading and deleting go on when the volume is full for everybody else.

use std::io;
use std::path::{Path, PathBuf};

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the volume of the artifact store is full: {free} bytes are free, {reserve} of them are kept in reserve, {wanted} \
     are wanted; delete objects or enlarge the volume"
)]
pub struct Full {
    /// Bytes that are free.
    pub free: u64,
    /// Bytes that stay free.
    pub reserve: u64,
    /// Bytes that were asked for.
    pub wanted: u64,
}

/// The room on a volume.
#[derive(Clone, Debug)]
pub struct Space {
    folder: PathBuf,
    reserve: u64,
}

impl Space {
    /// The volume that `folder` lies on, of which `reserve` bytes stay free.
    #[must_use]
    pub fn new(folder: &Path, reserve: u64) -> Self {
        Self { folder: folder.to_owned(), reserve }
    }

    /// Bytes that are free to an ordinary user.
    ///
    /// # Errors
    /// When the volume does not say.
    pub fn free(&self) -> io::Result<u64> {
        let volume = rustix::fs::statvfs(&self.folder)?;
        Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
    }

    /// Whether `wanted` more bytes may be written.
    ///
    /// # Errors
    /// [`Full`] when not. A volume that does not say is tried: writing fails cleanly where there is no room.
    pub fn check(&self, wanted: u64) -> Result<(), Full> {
        let Ok(free) = self.free() else { return Ok(()) };
        enough(free, self.reserve, wanted)
    }

    /// What to say when writing itself met the end of the volume.
    #[must_use]
    pub fn full(&self, wanted: u64) -> Full {
        Full { free: self.free().unwrap_or(0), reserve: self.reserve, wanted }
    }
}

fn enough(free: u64, reserve: u64, wanted: u64) -> Result<(), Full> {
    if free.saturating_sub(reserve) >= wanted.max(1) { Ok(()) } else { Err(Full { free, reserve, wanted }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_stays_free() {
        assert!(enough(100, 10, 90).is_ok());
        assert_eq!(enough(100, 10, 91), Err(Full { free: 100, reserve: 10, wanted: 91 }));
        assert!(enough(10, 10, 0).is_err(), "an empty object needs a row");
        assert!(enough(11, 10, 0).is_ok());
        assert!(enough(5, 10, u64::MAX).is_err());
    }
}
