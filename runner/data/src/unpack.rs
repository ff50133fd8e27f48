//! Unpacking tar and tar.gz archives that anybody may have made.
//!
//! Refused, and then nothing of the archive is used: absolute paths and `..`, links that leave the folder, entries below a
//! link, devices and pipes, too many files, too many bytes, and archives that grow beyond reason.

use crate::error::DataError;
use cultivar_protocol::is_safe_relative;
use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use tar::{Archive, Entry, EntryType};

/// How much an archive may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries of any kind.
    pub entries: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Bytes that come out for one that goes in, once more than [`Limits::floor`] have come out.
    pub ratio: u64,
    /// Bytes that may come out whatever the ratio.
    pub floor: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 2_000_000, bytes: 1 << 40, ratio: 200, floor: 256 << 20 }
    }
}

/// Unpacks an archive into the new folder `to`. Comes back with the number of files.
///
/// # Errors
/// [`DataError::Corrupt`] for what is wrong with the archive, [`DataError::Local`] for the disk.
pub fn unpack(archive: &Path, what: &str, to: &Path, limits: Limits) -> Result<u64, DataError> {
    let mut file = File::open(archive).map_err(DataError::local("open", archive))?;
    let packed = file.metadata().map_err(DataError::local("open", archive))?.len();
    let mut magic = [0; 2];
    let zipped = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    file.rewind().map_err(DataError::local("read", archive))?;
    fs::create_dir_all(to).map_err(DataError::local("make the folder", to))?;
    let allowed = limits.bytes.min(limits.floor.max(packed.saturating_mul(limits.ratio)));
    let mut unpacking =
        Unpacking { what, to, limits, allowed, left: allowed, entries: 0, files: 0, links: HashSet::new() };
    // Headers count too: an archive of nothing but long names is a bomb as well.
    let most = allowed.saturating_add(limits.entries.saturating_mul(4096));
    let file = BufReader::with_capacity(256 * 1024, file);
    if zipped {
        unpacking.all(flate2::bufread::MultiGzDecoder::new(file).take(most))?;
    } else {
        unpacking.all(file.take(most))?;
    }
    Ok(unpacking.files)
}

/// Whether a link to `to`, so many folders below the top, may lead out of it.
#[must_use]
pub fn leaves(mut depth: usize, to: &[u8]) -> bool {
    // Up first, then down: `..` behind a folder could be a link's, and lead anywhere.
    let mut down = false;
    for part in to.split(|byte| *byte == b'/') {
        match part {
            b".." if down || depth == 0 => return true,
            b".." => depth -= 1,
            b"" | b"." => {}
            _ => down = true,
        }
    }
    to.starts_with(b"/")
}

struct Unpacking<'a> {
    what: &'a str,
    to: &'a Path,
    limits: Limits,
    allowed: u64,
    left: u64,
    entries: u64,
    files: u64,
    links: HashSet<String>,
}

impl Unpacking<'_> {
    fn corrupt(&self, why: impl Into<String>) -> DataError {
        DataError::Corrupt { what: self.what.to_owned(), why: why.into() }
    }

    fn all(&mut self, reader: impl Read) -> Result<(), DataError> {
        let mut archive = Archive::new(reader);
        let entries = archive.entries().map_err(|error| self.corrupt(format!("it is no tar archive: {error}")))?;
        for entry in entries {
            let mut entry = entry.map_err(|error| self.corrupt(format!("it cannot be read: {error}")))?;
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(self.corrupt(format!("it has more than {} entries", self.limits.entries)));
            }
            self.entry(&mut entry)?;
        }
        if self.entries == 0 {
            return Err(self.corrupt("it is no tar archive, or an empty one"));
        }
        Ok(())
    }

    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), DataError> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let Some(path) = self.path(&entry.path_bytes())? else { return Ok(()) };
        let target = self.to.join(&path);
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        match kind {
            EntryType::Directory => {
                fs::create_dir_all(&target).map_err(DataError::local("make the folder", &target))?;
                let open = Permissions::from_mode(mode | 0o700);
                fs::set_permissions(&target, open).map_err(DataError::local("make the folder", &target))
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(entry, &path, &target, mode),
            EntryType::Symlink => self.symlink(entry, path, &target),
            EntryType::Link => self.hard_link(entry, &path, &target),
            other => {
                Err(self.corrupt(format!("{path:?} is of the kind {other:?}; files, folders and links are unpacked")))
            }
        }
    }

    // The safe path of an entry; none for the folder itself.
    fn path(&self, bytes: &[u8]) -> Result<Option<String>, DataError> {
        let text = std::str::from_utf8(bytes).map_err(|_| self.corrupt("it has a name that is not UTF-8"))?;
        let parts: Vec<&str> = text.trim_end_matches('/').split('/').filter(|part| *part != ".").collect();
        let path = parts.join("/");
        if path.is_empty() && !text.starts_with('/') {
            return Ok(None);
        }
        if text.starts_with('/') || !is_safe_relative(&path) {
            return Err(self.corrupt(format!("{text:?} would leave the folder")));
        }
        // Nothing is written through a link, whoever made it.
        let mut above = path.as_str();
        while let Some((parent, _)) = above.rsplit_once('/') {
            if self.links.contains(parent) {
                return Err(self.corrupt(format!("{text:?} lies below the link {parent:?}")));
            }
            above = parent;
        }
        Ok(Some(path))
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        path: &str,
        target: &Path,
        mode: u32,
    ) -> Result<(), DataError> {
        self.clear(path, target)?;
        let mut file = File::create_new(target).map_err(DataError::local("create", target))?;
        let written = io::copy(&mut entry.by_ref().take(self.left + 1), &mut file);
        // Either side may have failed; the disk's errors have a number, the archive's have none.
        let written = written.map_err(|error| match error.raw_os_error() {
            Some(_) => DataError::local("write", target)(error),
            None => self.corrupt(format!("{path:?} cannot be read: {error}")),
        })?;
        if written > self.left {
            return Err(self
                .corrupt(format!("it holds more than {} bytes, which is beyond what its size allows", self.allowed)));
        }
        self.left -= written;
        self.files += 1;
        file.set_permissions(Permissions::from_mode(mode | 0o400)).map_err(DataError::local("write", target))?;
        // Python holds what it compiled against the time of its source.
        let seconds = Duration::from_secs(entry.header().mtime().unwrap_or(0));
        let then = UNIX_EPOCH.checked_add(seconds).filter(|_| seconds > Duration::ZERO);
        then.map_or(Ok(()), |then| file.set_modified(then)).map_err(DataError::local("write", target))
    }

    fn symlink<R: Read>(&mut self, entry: &Entry<'_, R>, path: String, target: &Path) -> Result<(), DataError> {
        let to = self.link_name(entry, &path)?;
        if leaves(path.matches('/').count(), to.as_bytes()) {
            return Err(self.corrupt(format!("the link {path:?} to {to:?} leaves the folder")));
        }
        self.clear(&path, target)?;
        symlink(&to, target).map_err(DataError::local("make the link", target))?;
        self.links.insert(path);
        Ok(())
    }

    fn hard_link<R: Read>(&mut self, entry: &Entry<'_, R>, path: &str, target: &Path) -> Result<(), DataError> {
        let to = self.link_name(entry, path)?;
        let from = match self.path(to.as_bytes())? {
            Some(from) if !self.links.contains(&from) && from != path => self.to.join(from),
            _ => return Err(self.corrupt(format!("the link {path:?} to {to:?} leads to no file of the archive"))),
        };
        if !fs::symlink_metadata(&from).is_ok_and(|meta| meta.is_file()) {
            return Err(self.corrupt(format!("the link {path:?} to {to:?} leads to no file of the archive")));
        }
        self.clear(path, target)?;
        self.files += 1;
        fs::hard_link(&from, target).map_err(DataError::local("make the link", target))
    }

    fn link_name<R: Read>(&self, entry: &Entry<'_, R>, path: &str) -> Result<String, DataError> {
        let name = entry.link_name_bytes().and_then(|bytes| String::from_utf8(bytes.into_owned()).ok());
        name.filter(|name| !name.is_empty() && !name.contains('\0'))
            .ok_or_else(|| self.corrupt(format!("the link {path:?} leads nowhere")))
    }

    // A later entry of a name replaces an earlier one, as tar does it.
    fn clear(&mut self, path: &str, target: &Path) -> Result<(), DataError> {
        self.links.remove(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(DataError::local("make the folder", parent))?;
        }
        match fs::remove_file(target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.corrupt(format!("{path:?} is a folder and something else: {error}")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::GzEncoder;
    use std::io::Write;

    type Make = fn(&mut tar::Builder<&mut Vec<u8>>);

    fn header(kind: EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o4755);
        header
    }

    // Puts a name into the header as it is: the builder itself would refuse the hostile ones.
    fn add(builder: &mut tar::Builder<&mut Vec<u8>>, kind: EntryType, name: &str, link: &str, data: &[u8]) {
        let mut header = header(kind, data.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }

    fn run(make: Make, zip: bool, limits: Limits) -> (tempfile::TempDir, Result<u64, DataError>) {
        let root = tempfile::tempdir().unwrap();
        let mut bytes = Vec::new();
        let mut builder = tar::Builder::new(&mut bytes);
        make(&mut builder);
        builder.into_inner().unwrap();
        let archive = root.path().join("a.tar");
        if zip {
            let mut encoder = GzEncoder::new(File::create(&archive).unwrap(), flate2::Compression::best());
            encoder.write_all(&bytes).unwrap();
            encoder.finish().unwrap();
        } else {
            fs::write(&archive, &bytes).unwrap();
        }
        let done = unpack(&archive, "a.tar", &root.path().join("to"), limits);
        (root, done)
    }

    #[test]
    fn an_honest_archive_comes_out() {
        for zip in [false, true] {
            let (root, done) = run(
                |builder| {
                    add(builder, EntryType::Directory, "./", "", b"");
                    add(builder, EntryType::Regular, "./a/b.txt", "", b"hello");
                    add(builder, EntryType::Symlink, "a/c/up", "../b.txt", b"");
                    add(builder, EntryType::Link, "hard", "a/b.txt", b"");
                    add(builder, EntryType::Regular, "a/b.txt", "", b"again");
                },
                zip,
                Limits::default(),
            );
            assert_eq!(done.unwrap(), 3);
            let read = |path: &str| fs::read_to_string(root.path().join("to").join(path)).unwrap();
            assert_eq!(
                (read("a/b.txt"), read("a/c/up"), read("hard")),
                ("again".into(), "again".into(), "hello".into())
            );
            let mode = fs::metadata(root.path().join("to/a/b.txt")).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o755, "no setuid");
        }
    }

    #[test]
    fn hostile_archives_are_refused() {
        let cases: [(&str, Make); 13] = [
            ("absolute", |b| add(b, EntryType::Regular, "/etc/x", "", b"x")),
            ("up", |b| add(b, EntryType::Regular, "../x", "", b"x")),
            ("up inside", |b| add(b, EntryType::Regular, "a/../../x", "", b"x")),
            ("link out", |b| add(b, EntryType::Symlink, "l", "/etc", b"")),
            ("link up", |b| add(b, EntryType::Symlink, "l", "../x", b"")),
            ("link down and up", |b| add(b, EntryType::Symlink, "a/l", "d/../../..", b"")),
            ("below a link", |b| {
                add(b, EntryType::Symlink, "l", "d", b"");
                add(b, EntryType::Regular, "l/x", "", b"x");
            }),
            ("hard link out", |b| add(b, EntryType::Link, "h", "/etc/passwd", b"")),
            ("hard link up", |b| add(b, EntryType::Link, "h", "../../etc/passwd", b"")),
            ("hard link to a link", |b| {
                add(b, EntryType::Symlink, "l", "x", b"");
                add(b, EntryType::Link, "h", "l", b"");
            }),
            ("device", |b| add(b, EntryType::Char, "null", "", b"")),
            ("pipe", |b| add(b, EntryType::Fifo, "p", "", b"")),
            ("empty", |_| {}),
        ];
        for (name, make) in cases {
            let (root, done) = run(make, false, Limits::default());
            assert!(matches!(done, Err(DataError::Corrupt { .. })), "{name}: {done:?}");
            assert!(!root.path().join("x").exists(), "{name}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let limits = Limits { entries: 3, bytes: 1 << 30, ratio: 10, floor: 1000 };
        let (_root, done) = run(|b| add(b, EntryType::Regular, "zeros", "", &[0; 1 << 20]), true, limits);
        assert!(done.unwrap_err().to_string().contains("beyond"));
        let many: Make = |b| (0..4).for_each(|n| add(b, EntryType::Regular, &format!("f{n}"), "", b""));
        assert!(run(many, false, limits).1.unwrap_err().to_string().contains("more than 3 entries"));
    }

    #[test]
    fn broken_archives_are_corrupt() {
        let root = tempfile::tempdir().unwrap();
        for bytes in [b"not an archive, whatever its name".repeat(40), vec![0x1f, 0x8b, 8, 0, 1, 2, 3]] {
            fs::write(root.path().join("a"), bytes).unwrap();
            let done = unpack(&root.path().join("a"), "a", &root.path().join("to"), Limits::default());
            assert!(matches!(done, Err(DataError::Corrupt { .. })), "{done:?}");
        }
    }
}
