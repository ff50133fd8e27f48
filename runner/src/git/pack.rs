//! The pack that a server has sent: written to disk, indexed, every object checked by its name.

use super::packets::Band;
use super::{Bounds, GitError};
use gix_hash::{Kind, ObjectId};
use gix_object::{CommitRefIter, Kind as Object, TagRefIter};
use gix_pack::{Bundle, bundle, cache};
use gix_utils::progress::Discard;
use std::fmt::Display;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Tags of tags are followed so far.
const MAX_TAGS: usize = 5;

/// Objects, and the commit that was asked for.
pub struct Pack {
    bundle: Bundle,
    /// The commit.
    pub commit: ObjectId,
    /// Its tree.
    pub tree: ObjectId,
}

impl Pack {
    /// Receives it into a folder.
    pub fn receive(
        stream: Band<impl Read>,
        tip: ObjectId,
        folder: &Path,
        bounds: Bounds,
        stop: &AtomicBool,
    ) -> Result<Self, GitError> {
        let options = bundle::write::Options {
            thread_limit: Some(1),
            alloc_limit_bytes: Some(bounds.object),
            ..bundle::write::Options::default()
        };
        let mut stream = BufReader::with_capacity(64 * 1024, stream.limited(bounds.bytes));
        let none = None::<gix_object::find::Never>;
        let received =
            Bundle::write_to_directory(&mut stream, Some(folder), &mut Discard, stop, none, Kind::Sha1, options);
        if let Some(failed) = stream.get_mut().failed.take() {
            return Err(failed);
        }
        let received = received.map_err(|error| unusable(&error, bounds))?;
        let bundle = received.to_bundle().ok_or_else(|| GitError::Hostile("its pack is empty".to_owned()))?;
        let bundle = bundle.map_err(|error| unusable(&error, bounds))?;
        Self::peel(bundle, tip)
    }

    // A tag leads to its commit.
    fn peel(bundle: Bundle, tip: ObjectId) -> Result<Self, GitError> {
        let mut pack = Self { bundle, commit: tip, tree: ObjectId::null(Kind::Sha1) };
        let mut reader = Reader::default();
        for _ in 0..=MAX_TAGS {
            let (kind, data) = reader.object(&pack, &pack.commit)?;
            let broken = |_| GitError::Hostile(format!("{} cannot be read", pack.commit));
            match kind {
                Object::Commit => {
                    pack.tree = CommitRefIter::from_bytes(data, Kind::Sha1).tree_id().map_err(broken)?;
                    return Ok(pack);
                }
                Object::Tag => pack.commit = TagRefIter::from_bytes(data, Kind::Sha1).target_id().map_err(broken)?,
                Object::Tree | Object::Blob => break,
            }
        }
        Err(GitError::NoRevision(format!("source.git.revision: {tip} leads to no commit")))
    }
}

fn unusable(error: &dyn Display, bounds: Bounds) -> GitError {
    GitError::Hostile(format!("its pack is broken, or holds a file of more than {} bytes: {error}", bounds.object))
}

/// Reads objects, one at a time.
pub struct Reader {
    data: Vec<u8>,
    inflate: gix_zlib::Inflate,
    cache: cache::Never,
}

impl Default for Reader {
    fn default() -> Self {
        Self { data: Vec::new(), inflate: gix_zlib::Inflate::default(), cache: cache::Never }
    }
}

impl Reader {
    /// An object.
    pub fn object(&mut self, pack: &Pack, id: &ObjectId) -> Result<(Object, &[u8]), GitError> {
        match pack.bundle.find(id, &mut self.data, &mut self.inflate, &mut self.cache) {
            Ok(Some((object, _))) => Ok((object.kind, object.data)),
            Ok(None) => Err(GitError::Hostile(format!("object {id} is missing in its pack"))),
            Err(error) => Err(GitError::Hostile(format!("object {id} cannot be read: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::packets::Packets;
    use std::process::{Command, Stdio};

    // A small pack as git makes it: a commit, folders, files, deltas.
    fn real() -> (ObjectId, Vec<u8>) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("d")).unwrap();
        for number in 0..8 {
            let text: String = (0..200).map(|line| format!("line {line} of many\n")).collect();
            std::fs::write(root.path().join(format!("d/f{number}")), format!("{text}{number}")).unwrap();
        }
        let script = "git init -q . && git add . && git -c user.name=a -c user.email=a@example.org commit -q -m x && git rev-parse HEAD && echo HEAD | git pack-objects --revs --stdout -q";
        let out = Command::new("sh")
            .args(["-c", script])
            .current_dir(root.path())
            .env("HOME", root.path())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let tip = ObjectId::from_hex(&out.stdout[..40]).unwrap();
        (tip, out.stdout[41..].to_vec())
    }

    fn received(tip: ObjectId, pack: &[u8]) -> Result<Pack, GitError> {
        let mut bytes = Vec::new();
        for chunk in pack.chunks(1000) {
            bytes.extend_from_slice(format!("{:04x}\x01", chunk.len() + 5).as_bytes());
            bytes.extend_from_slice(chunk);
        }
        bytes.extend_from_slice(b"0000");
        let folder = tempfile::tempdir().unwrap();
        let bounds = Bounds { object: 1 << 20, ..Bounds::default() };
        Pack::receive(Band::new(Packets::new(&bytes[..])), tip, folder.path(), bounds, &AtomicBool::new(false))
    }

    #[test]
    fn a_pack_that_is_not_whole_is_an_error_and_nothing_worse() {
        let (tip, pack) = real();
        assert_eq!(received(tip, &pack).ok().unwrap().commit, tip);
        for at in (0..pack.len()).step_by(7) {
            let mut other = pack.clone();
            other[at] ^= 0x55;
            assert!(matches!(received(tip, &other), Err(GitError::Hostile(_))), "changed at {at}");
            assert!(matches!(received(tip, &pack[..at]), Err(GitError::Hostile(_))), "cut at {at}");
        }
        let other = ObjectId::null(Kind::Sha1);
        assert!(received(other, &pack).err().unwrap().to_string().contains("is missing in its pack"));
    }
}
