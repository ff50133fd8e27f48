//! Digests as they are written: `sha256:` and 64 hex digits.

use sha2::{Digest, Sha256};
use std::fmt::Write;

/// A sum that grows with the bytes that pass.
#[derive(Clone, Debug, Default)]
pub struct Sha256Sum(Sha256);

impl Sha256Sum {
    /// Takes bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all of them.
    #[must_use]
    pub fn finish(self) -> String {
        self.0.finalize().iter().fold("sha256:".to_owned(), |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// The digest of bytes that are at hand.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    let mut sum = Sha256Sum::default();
    sum.update(bytes);
    sum.finish()
}

/// Whether two digests are the same; the hex digits may be of either case.
pub(crate) fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_digest_of_nothing_is_known() {
        let nothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(super::digest_of(b""), nothing);
        assert!(super::same(nothing, &nothing.to_uppercase()));
    }
}
