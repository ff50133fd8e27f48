//! Packing a folder into an archive that [`crate::unpack`] takes.

use crate::digest::Sha256Sum;
use crate::error::DataError;
use crate::unpack::leaves;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::{self, File, FileType};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tar::{Builder, HeaderMode};

/// Packs everything below a folder into the new archive `to`, a tar.gz of at most `most` bytes. Times and permissions are
/// kept. Comes back with the archive's digest; without one it would be larger, and what there is of it is of no use.
///
/// # Errors
/// [`DataError::Invalid`] for what [`crate::unpack`] would refuse, [`DataError::Local`] for the disk.
pub fn pack(folder: &Path, to: &Path, most: u64) -> Result<Option<String>, DataError> {
    archive(to, most, |builder| all(builder, folder))
}

type Archive = Builder<GzEncoder<Bounded<BufWriter<File>>>>;

fn archive(
    to: &Path,
    most: u64,
    fill: impl FnOnce(&mut Archive) -> Result<(), DataError>,
) -> Result<Option<String>, DataError> {
    let file = File::create_new(to).map_err(DataError::local("create", to))?;
    let to_file = BufWriter::with_capacity(256 * 1024, file);
    let bounded = Bounded { to: to_file, left: most, full: false, sum: Sha256Sum::default() };
    // Fast: what is packed once is fetched many times, but a program waits for it.
    let mut builder = Builder::new(GzEncoder::new(bounded, Compression::fast()));
    builder.follow_symlinks(false);
    if let Err(error) = fill(&mut builder) {
        return if builder.get_ref().get_ref().full { Ok(None) } else { Err(error) };
    }
    let finished = builder.into_inner().and_then(GzEncoder::finish);
    match finished.and_then(|mut bounded| bounded.flush().map(|()| bounded.sum)) {
        Ok(sum) => Ok(Some(sum.finish())),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(None),
        Err(error) => Err(DataError::local("write", to)(error)),
    }
}

/// Packs these files and links, as paths from `top`, into the new archive `to`, a tar.gz of at most `most` bytes. Same files,
/// same archive, byte for byte: times, owners and all permissions but whether it can be run are left out. Comes back with
/// the archive's digest; without one it would be larger, and what there is of it is of no use.
///
/// # Errors
/// As [`pack`].
pub fn pack_files(top: &Path, files: &[PathBuf], to: &Path, most: u64) -> Result<Option<String>, DataError> {
    archive(to, most, |builder| {
        builder.mode(HeaderMode::Deterministic);
        files.iter().try_for_each(|path| one(builder, &top.join(path), path).map(drop))
    })
}

fn all(builder: &mut Builder<impl Write>, top: &Path) -> Result<(), DataError> {
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let here = top.join(&folder);
        let read = fs::read_dir(&here).map_err(DataError::local("read the folder", &here))?;
        let mut entries = read.collect::<io::Result<Vec<_>>>().map_err(DataError::local("read the folder", &here))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (from, path) = (entry.path(), folder.join(entry.file_name()));
            let kind = one(builder, &from, &path)?;
            if kind.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(())
}

// Packs a file, link or folder, without what is in the folder.
fn one(builder: &mut Builder<impl Write>, from: &Path, path: &Path) -> Result<FileType, DataError> {
    let kind = fs::symlink_metadata(from).map_err(DataError::local("read", from))?.file_type();
    let bad = |why: &str| DataError::Invalid(format!("{} cannot be packed: {why}", path.display()));
    if path.to_str().is_none() {
        return Err(bad("its name is not UTF-8"));
    }
    if kind.is_symlink() {
        let link = fs::read_link(from).map_err(DataError::local("read the link", from))?;
        let depth = path.components().count().saturating_sub(1);
        if leaves(depth, link.as_os_str().as_bytes()) {
            return Err(bad("it is a link that leaves the folder"));
        }
    } else if !kind.is_dir() && !kind.is_file() {
        return Err(bad("it is no file, folder or link"));
    }
    builder.append_path_with_name(from, path).map_err(DataError::local("pack", from))?;
    Ok(kind)
}

/// A writer that sums up what it takes, and is full at some point.
struct Bounded<W> {
    to: W,
    left: u64,
    full: bool,
    sum: Sha256Sum,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left < bytes.len() as u64 {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let written = self.to.write(bytes)?;
        self.left -= written as u64;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, unpack};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::{Duration, UNIX_EPOCH};

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("folder");
        fs::create_dir_all(folder.join("a/empty")).unwrap();
        (root, folder)
    }

    #[test]
    fn what_is_packed_comes_out_the_same() {
        let (root, folder) = folder();
        let then = UNIX_EPOCH + Duration::from_secs(1_500_000_000);
        fs::write(folder.join("a/tool"), "x".repeat(100_000)).unwrap();
        fs::set_permissions(folder.join("a/tool"), fs::Permissions::from_mode(0o755)).unwrap();
        File::options().append(true).open(folder.join("a/tool")).unwrap().set_modified(then).unwrap();
        let long = format!("{}/{}", "n".repeat(120), "ü".repeat(100));
        fs::create_dir(folder.join("n".repeat(120))).unwrap();
        fs::write(folder.join(&long), "long").unwrap();
        symlink("a/tool", folder.join("link")).unwrap();
        let (archive, to) = (root.path().join("x.tgz"), root.path().join("to"));
        let digest = pack(&folder, &archive, 1 << 20).unwrap();
        assert_eq!(digest.unwrap(), crate::digest_of(&fs::read(&archive).unwrap()));
        assert_eq!(unpack(&archive, "x", &to, Limits::default()).unwrap(), 2);
        let meta = fs::metadata(to.join("a/tool")).unwrap();
        assert_eq!((meta.len(), meta.permissions().mode() & 0o777, meta.modified().unwrap()), (100_000, 0o755, then));
        assert_eq!(fs::read_to_string(to.join(long)).unwrap(), "long");
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("a/tool"));
        assert!(to.join("a/empty").is_dir());
    }

    #[test]
    fn the_same_files_make_the_same_archive() {
        let (root, folder) = folder();
        fs::write(folder.join("a/train.py"), "print()").unwrap();
        fs::write(folder.join("left-out"), "x").unwrap();
        symlink("a/train.py", folder.join("link")).unwrap();
        let files = [PathBuf::from("a/train.py"), PathBuf::from("link")];
        let packed = |name: &str| pack_files(&folder, &files, &root.path().join(name), 1 << 20).unwrap().unwrap();
        let one = packed("1");
        let later = UNIX_EPOCH + Duration::from_secs(1_500_000_000);
        File::options().append(true).open(folder.join("a/train.py")).unwrap().set_modified(later).unwrap();
        fs::set_permissions(folder.join("a/train.py"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(packed("2"), one);
        let to = root.path().join("to");
        unpack(&root.path().join("1"), "x", &to, Limits::default()).unwrap();
        assert_eq!(fs::read_to_string(to.join("link")).unwrap(), "print()");
        assert!(!to.join("left-out").exists());
        fs::write(folder.join("a/train.py"), "print(1)").unwrap();
        assert_ne!(packed("3"), one);
    }

    #[test]
    fn what_is_too_large_or_would_not_come_out_is_not_packed() {
        let (root, folder) = folder();
        // Digests do not shrink, beyond what their digits do.
        let noise: String = (0..3000_u32).map(|n| crate::digest_of(&n.to_le_bytes())).collect();
        fs::write(folder.join("noise"), noise).unwrap();
        assert_eq!(pack(&folder, &root.path().join("small"), 50_000).unwrap(), None);
        symlink("/etc", folder.join("a/out")).unwrap();
        let error = pack(&folder, &root.path().join("out"), 1 << 20).unwrap_err().to_string();
        assert!(error.contains("a/out cannot be packed"), "{error}");
    }
}
