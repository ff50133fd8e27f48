//! Local files: places that fill up out of sight, and walks that do not leave their folder.

use crate::error::DataError;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// A name beside (or, for a folder that is there already, inside) the target, where something grows until it is whole.
/// Dropped before [`Place::done`], nothing of it stays.
#[derive(Debug)]
pub struct Place {
    target: PathBuf,
    part: PathBuf,
    inside: bool,
}

impl Place {
    /// A place for `target`. Its parents are made.
    ///
    /// # Errors
    /// When there is no room for it on the disk.
    pub fn of(target: &Path) -> Result<Self, DataError> {
        let name = format!("{PART_PREFIX}{}-{}", std::process::id(), unique());
        // A mount point cannot be replaced, and what is in a folder already is not ours to remove.
        let inside = target.is_dir();
        let parent = if inside { Some(target) } else { target.parent() };
        let parent = parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(DataError::local("make the folder", parent))?;
        Ok(Self { target: target.to_owned(), part: parent.join(name), inside })
    }

    /// Where it grows.
    #[must_use]
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// Puts it into place at once: by a rename, or into a folder that was there, by one rename per entry.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn done(self) -> Result<(), DataError> {
        if !self.inside {
            return fs::rename(&self.part, &self.target).map_err(DataError::local("put into place", &self.target));
        }
        if !self.part.is_dir() {
            let error = std::io::Error::from(std::io::ErrorKind::IsADirectory);
            return Err(DataError::local("put a file into place, there is a folder:", &self.target)(error));
        }
        for entry in fs::read_dir(&self.part).map_err(DataError::local("read", &self.part))? {
            let entry = entry.map_err(DataError::local("read", &self.part))?;
            let to = self.target.join(entry.file_name());
            fs::rename(entry.path(), &to).map_err(DataError::local("put into place", &to))?;
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // After a rename there is nothing there; and what cannot be removed now cannot be helped.
        let _ = if self.part.is_dir() { fs::remove_dir_all(&self.part) } else { fs::remove_file(&self.part) };
    }
}

// What a broken transfer may leave; never an output.
const PART_PREFIX: &str = ".cultivar-part-";

/// Whether this is something that a broken transfer left.
#[must_use]
pub fn is_part(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PART_PREFIX))
}

fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WalkedFile {
    /// Relative to the folder, `/` between the parts.
    pub path: String,
    /// Where to read it.
    pub from: PathBuf,
    /// In bytes, when it was found.
    pub size: u64,
}

/// What a folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Sorted by path.
    pub files: Vec<WalkedFile>,
    /// What is left out, by name, and why.
    pub refused: Vec<String>,
}

/// More refusals than this are counted only.
const MAX_REFUSED: usize = 20;
/// Deeper folders are refused.
const MAX_DEPTH: usize = 100;

/// Finds every file below a folder. Links that stay inside it are followed; those that leave it, devices, sockets, pipes
/// and names that are no UTF-8 are refused.
///
/// # Errors
/// When the folder itself cannot be read.
pub fn walk(root: &Path) -> Result<Walk, DataError> {
    let real = fs::canonicalize(root).map_err(DataError::local("read the folder", root))?;
    let mut found = Walk::default();
    let mut refused = 0_usize;
    // Folders to read: relative path, real path, and the real folders above it, so that a link upwards ends.
    let mut folders = vec![(String::new(), real.clone(), vec![real.clone()])];
    while let Some((prefix, folder, above)) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(DataError::local("read the folder", &folder))? {
            let entry = entry.map_err(DataError::local("read the folder", &folder))?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                refuse(&mut found, &mut refused, &format!("{prefix}{:?}", entry.file_name()), "its name is not UTF-8");
                continue;
            };
            if name.starts_with(PART_PREFIX) {
                continue;
            }
            let path = format!("{prefix}{name}");
            match look(&entry.path(), &real) {
                Ok((from, Kind::File(size))) if !name.contains(char::is_control) => {
                    found.files.push(WalkedFile { path, from, size });
                }
                Ok((_, Kind::File(_))) => refuse(&mut found, &mut refused, &path, "its name has control characters"),
                Ok((to, Kind::Folder)) if !above.contains(&to) && above.len() < MAX_DEPTH => {
                    let mut above = above.clone();
                    above.push(to.clone());
                    folders.push((format!("{path}/"), to, above));
                }
                Ok((_, Kind::Folder)) => {
                    refuse(&mut found, &mut refused, &path, "it leads back to a folder above it, or too deep")
                }
                Err(why) => refuse(&mut found, &mut refused, &path, &why),
            }
        }
    }
    if refused > MAX_REFUSED {
        found.refused.push(format!("and {} more", refused - MAX_REFUSED));
    }
    found.files.sort();
    Ok(found)
}

fn refuse(found: &mut Walk, refused: &mut usize, path: &str, why: &str) {
    *refused += 1;
    if *refused <= MAX_REFUSED {
        found.refused.push(format!("{path:?} is left out: {why}"));
    }
}

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file of this many bytes.
    File(u64),
    /// A folder.
    Folder,
}

/// The real path of an entry and what it is, where links stay below `root`, which is a real path itself.
///
/// # Errors
/// Why it is refused, in words.
pub fn look(path: &Path, root: &Path) -> Result<(PathBuf, Kind), String> {
    let meta = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    if meta.is_symlink() {
        let target = fs::canonicalize(path).map_err(|error| format!("it is a link to nothing ({error})"))?;
        if !target.starts_with(root) {
            return Err("it is a link that leaves its folder".to_owned());
        }
        return look(&target, root);
    }
    let kind = meta.file_type();
    match () {
        () if kind.is_file() => Ok((path.to_owned(), Kind::File(meta.len()))),
        () if kind.is_dir() => Ok((path.to_owned(), Kind::Folder)),
        () if kind.is_socket() => Err("it is a socket".to_owned()),
        () if kind.is_fifo() => Err("it is a named pipe".to_owned()),
        () => Err("it is a device".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_walk_does_not_leave_its_folder() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "s").unwrap();
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/ü.txt"), "123").unwrap();
        fs::write(at("top"), "1").unwrap();
        symlink(outside.path().join("secret"), at("leaves")).unwrap();
        symlink(outside.path(), at("leaves-too")).unwrap();
        symlink("a/b", at("inner")).unwrap();
        symlink("..", at("a/up")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let found = walk(root.path()).unwrap();
        let paths: Vec<&str> = found.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["a/b/ü.txt", "inner/ü.txt", "top"]);
        for name in ["leaves", "leaves-too", "a/up", "dangling", "socket"] {
            assert!(
                found.refused.iter().any(|text| text.contains(&format!("{name:?}"))),
                "{name}: {:?}",
                found.refused
            );
        }
        drop(socket);
    }

    #[test]
    fn nothing_is_seen_before_it_is_done() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("deep/file");
        let place = Place::of(&target).unwrap();
        fs::write(place.part(), "x").unwrap();
        assert!(!target.exists());
        place.done().unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "x");
        let place = Place::of(&root.path().join("other")).unwrap();
        fs::create_dir(place.part()).unwrap();
        drop(place);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_there_is_filled() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::of(root.path()).unwrap();
        fs::create_dir_all(place.part().join("sub")).unwrap();
        fs::write(place.part().join("sub/x"), "1").unwrap();
        place.done().unwrap();
        assert_eq!(fs::read_to_string(root.path().join("sub/x")).unwrap(), "1");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
