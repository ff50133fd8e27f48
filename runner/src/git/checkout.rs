//! Writing a commit's files. Whoever made the commit may mean harm: names are looked at one by one, and nothing is written
//! but below a folder that was made here.

use super::pack::{Pack, Reader};
use super::{Bounds, CheckedOut, GitError};
use gix_hash::{Kind, ObjectId};
use gix_object::tree::EntryKind;
use gix_object::{Kind as Object, TreeRefIter};
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

/// Deeper folders are refused.
const MAX_DEPTH: usize = 100;
/// What a file of LFS begins with, which stands for another one; and how long such a file is at most.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";
const MAX_LFS: usize = 1024;
/// More are counted only.
const NAMED: usize = 5;

struct Folder {
    tree: ObjectId,
    path: PathBuf,
    depth: usize,
}

/// Writes all files of the commit into the new folder `to`.
pub fn write(pack: &Pack, to: &Path, bounds: Bounds) -> Result<CheckedOut, GitError> {
    let mut writing = Writing { pack, bounds, reader: Reader::default(), entries: 0, bytes: 0, left: Left::default() };
    fs::create_dir(to).map_err(GitError::local("make the folder", to))?;
    let mut folders = vec![Folder { tree: pack.tree, path: PathBuf::new(), depth: 0 }];
    while let Some(folder) = folders.pop() {
        writing.folder(to, &folder, &mut folders)?;
    }
    Ok(CheckedOut { commit: pack.commit.to_string(), problems: writing.left.words() })
}

struct Writing<'a> {
    pack: &'a Pack,
    bounds: Bounds,
    reader: Reader,
    entries: u64,
    bytes: u64,
    left: Left,
}

impl Writing<'_> {
    fn folder(&mut self, to: &Path, folder: &Folder, folders: &mut Vec<Folder>) -> Result<(), GitError> {
        for (kind, name, id) in self.entries(folder)? {
            let path = folder.path.join(OsStr::from_bytes(&name));
            let target = to.join(&path);
            match kind {
                EntryKind::Tree if folder.depth == MAX_DEPTH => {
                    return Err(GitError::Hostile(format!("{path:?} is deeper than {MAX_DEPTH} folders")));
                }
                EntryKind::Tree => {
                    fs::create_dir(&target).map_err(|error| twice(error, &path, &target))?;
                    folders.push(Folder { tree: id, path, depth: folder.depth + 1 });
                }
                EntryKind::Blob => self.file(&id, &path, &target, 0o644)?,
                EntryKind::BlobExecutable => self.file(&id, &path, &target, 0o755)?,
                EntryKind::Link => self.link(&id, &path, &target, folder.depth)?,
                EntryKind::Commit => {
                    // As git leaves it: a folder, empty.
                    fs::create_dir(&target).map_err(|error| twice(error, &path, &target))?;
                    self.left.submodules.add(&path);
                }
            }
        }
        Ok(())
    }

    fn entries(&mut self, folder: &Folder) -> Result<Vec<(EntryKind, Vec<u8>, ObjectId)>, GitError> {
        let unreadable = || GitError::Hostile(format!("the folder {:?} cannot be read", folder.path));
        if folder.tree == ObjectId::empty_tree(Kind::Sha1) {
            return Ok(Vec::new());
        }
        let (Object::Tree, data) = self.reader.object(self.pack, &folder.tree)? else { return Err(unreadable()) };
        let mut entries = Vec::new();
        for entry in TreeRefIter::from_bytes(data, Kind::Sha1) {
            let entry = entry.map_err(|_| unreadable())?;
            let name: &[u8] = entry.filename;
            if !is_plain(name) {
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(GitError::Hostile(format!(
                    "{name:?} in the folder {:?} is no name for a file",
                    folder.path
                )));
            }
            self.entries += 1;
            if self.entries > self.bounds.entries {
                return Err(GitError::TooLarge(format!("the commit has more than {} files", self.bounds.entries)));
            }
            entries.push((entry.mode.kind(), name.to_vec(), entry.oid.to_owned()));
        }
        Ok(entries)
    }

    fn blob(&mut self, id: &ObjectId, path: &Path) -> Result<&[u8], GitError> {
        let (Object::Blob, data) = self.reader.object(self.pack, id)? else {
            return Err(GitError::Hostile(format!("{path:?} is no file")));
        };
        self.bytes += data.len() as u64;
        if self.bytes > self.bounds.bytes {
            return Err(GitError::TooLarge(format!("the commit holds more than {} bytes", self.bounds.bytes)));
        }
        Ok(data)
    }

    fn file(&mut self, id: &ObjectId, path: &Path, target: &Path, mode: u32) -> Result<(), GitError> {
        let data = self.blob(id, path)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(target)
            .map_err(|error| twice(error, path, target))?;
        file.write_all(data).map_err(GitError::local("write", target))?;
        if data.len() <= MAX_LFS && data.starts_with(LFS) {
            self.left.pointers.add(path);
        }
        Ok(())
    }

    fn link(&mut self, id: &ObjectId, path: &Path, target: &Path, depth: usize) -> Result<(), GitError> {
        let to = self.blob(id, path)?;
        if to.is_empty() || to.contains(&0) || to.len() > 4095 {
            return Err(GitError::Hostile(format!("the link {path:?} leads nowhere")));
        }
        if cultivar_data::leaves(depth, to) {
            self.left.links.add(path);
            return Ok(());
        }
        symlink(OsStr::from_bytes(to), target).map_err(|error| twice(error, path, target))
    }
}

// A name of one file in its folder, and none that git itself would act on.
fn is_plain(name: &[u8]) -> bool {
    let reserved = [&b"."[..], b"..", b".git", b"git~1"];
    !name.is_empty()
        && name.len() <= 255
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
        && !reserved.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}

// What is there already was written here, under the same name.
fn twice(error: io::Error, path: &Path, target: &Path) -> GitError {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return GitError::Hostile(format!("{path:?} is in it twice"));
    }
    GitError::local("write", target)(error)
}

/// What is not written.
#[derive(Default)]
struct Left {
    submodules: Few,
    pointers: Few,
    links: Few,
}

#[derive(Default)]
struct Few {
    named: Vec<String>,
    count: usize,
}

impl Few {
    fn add(&mut self, path: &Path) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(path.display().to_string());
        }
    }

    fn words(&self, what: &str) -> Option<String> {
        let more = match self.count - self.named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (self.count > 0).then(|| format!("source.git: {what}: {}{more}", self.named.join(", ")))
    }
}

impl Left {
    fn words(&self) -> Vec<String> {
        let all = [
            self.submodules.words("submodules are not fetched, their folders are empty"),
            self.pointers.words("what LFS keeps elsewhere is not fetched, these files only point to it"),
            self.links.words("links that leave the source are left out"),
        ];
        all.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_harm_are_none() {
        for name in [&b""[..], b".", b"..", b".git", b".GIT", b"git~1", b"a/b", b"a\0b", &[b'a'; 256]] {
            assert!(!is_plain(name), "{:?}", String::from_utf8_lossy(name));
        }
        for name in [&b"a"[..], b".gitignore", b"...", b"\xff\xfe", "ü".as_bytes()] {
            assert!(is_plain(name), "{:?}", String::from_utf8_lossy(name));
        }
    }

    #[test]
    fn what_is_left_out_is_said_briefly() {
        let mut left = Left::default();
        assert!(left.words().is_empty());
        (0..7).for_each(|n| left.links.add(Path::new(&format!("l{n}"))));
        assert_eq!(
            left.words(),
            ["source.git: links that leave the source are left out: l0, l1, l2, l3, l4 and 2 more"]
        );
    }
}
