//! What is moved: one large file, many small ones, and a program that prints.
//!
//! In: a folder and sizes. Out: files of random bytes, which nothing on the way can make smaller, and lines as training
//! prints them. The folder goes when its handle does.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::{Context as _, Error, Result};

/// Small files, and bytes of each.
const MANY: (u64, u64) = (10_000, 10 << 10);
/// Small files in one folder.
const PER_FOLDER: u64 = 100;
/// Bytes that the program prints, and how often it prints its file to come to that.
const LOG: (u64, u64) = (1 << 30, 16);

/// How much is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the large file.
    pub big: u64,
    /// Small files, and bytes of each.
    pub many: (u64, u64),
}

impl Sizes {
    /// With a large file of so many GiB.
    pub fn of(gib: u64) -> Self {
        Self { big: gib << 30, many: MANY }
    }
}

/// What has been made.
#[derive(Debug)]
pub struct Made {
    pub big: PathBuf,
    pub many: PathBuf,
    pub log: Log,
}

/// A program that prints.
#[derive(Debug)]
pub struct Log {
    pub command: Vec<String>,
    pub bytes: u64,
}

/// A temporary folder.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new folder of this process.
    pub fn make() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("cultivar-measure-{}", std::process::id()));
        fs::create_dir_all(&path).doing(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// A path inside.
    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A folder inside, made if it is missing.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.at(name);
        fs::create_dir_all(&path).doing(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("could not remove {}: {error}; remove it by hand", self.0.display());
        }
    }
}

/// Removes a file or folder, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    if path.is_dir() {
        return fs::remove_dir_all(path).doing(|| format!("cannot remove {}", path.display()));
    }
    if path.exists() { fs::remove_file(path).doing(|| format!("cannot remove {}", path.display())) } else { Ok(()) }
}

/// Checks that what came back is as large as what was sent.
pub fn same_size(source: &Path, target: &Path) -> Result<()> {
    let (sent, came) = (weight(source)?, weight(target)?);
    let shown = |(files, bytes): (u64, u64)| format!("{files} files of {bytes} bytes");
    if sent == came {
        return Ok(());
    }
    Err(Error::new("what came back is not what was sent").why(format!("sent {}, got {}", shown(sent), shown(came))))
}

// Files and bytes of a file or folder.
fn weight(path: &Path) -> Result<(u64, u64)> {
    let failed = || format!("cannot look at {}", path.display());
    let about = fs::metadata(path).doing(failed)?;
    if !about.is_dir() {
        return Ok((1, about.len()));
    }
    fs::read_dir(path).doing(failed)?.try_fold((0, 0), |(files, bytes), entry| {
        let (more_files, more_bytes) = weight(&entry.doing(failed)?.path())?;
        Ok((files + more_files, bytes + more_bytes))
    })
}

/// Makes all that is moved.
pub fn make(folder: &Folder, sizes: Sizes) -> Result<Made> {
    let (big, many) = (folder.at("big.bin"), folder.folder("many")?);
    let mut random = File::open("/dev/urandom").doing(|| "cannot open /dev/urandom")?;
    let mut write = |path: &Path, bytes: u64| -> Result<()> {
        let failed = || format!("cannot write {}", path.display());
        let mut file = File::create(path).doing(failed)?;
        std::io::copy(&mut random.by_ref().take(bytes), &mut file).doing(failed).map(drop)
    };
    write(&big, sizes.big)?;
    let (count, bytes) = sizes.many;
    for index in 0..count {
        let inner = many.join(format!("{:03}", index / PER_FOLDER));
        if index % PER_FOLDER == 0 {
            fs::create_dir_all(&inner).doing(|| format!("cannot make {}", inner.display()))?;
        }
        write(&inner.join(format!("{index:05}.bin")), bytes)?;
    }
    Ok(Made { big, many, log: log(folder)? })
}

fn log(folder: &Folder) -> Result<Log> {
    let (bytes, times) = LOG;
    let path = folder.at("lines.txt");
    fs::write(&path, lines(bytes / times)).doing(|| format!("cannot write {}", path.display()))?;
    let mut command = vec!["cat".to_owned()];
    command.extend((0..times).map(|_| path.display().to_string()));
    Ok(Log { command, bytes })
}

// Lines that differ in their digits, as those of training do: compressing them costs what it costs in earnest.
fn lines(bytes: u64) -> String {
    let wanted = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut text = String::with_capacity(wanted + 200);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for step in 0_u64.. {
        if text.len() >= wanted {
            break;
        }
        // xorshift64: digits that no compressor foresees.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let (loss, accuracy, rate) = (state % 1_000_000, (state >> 20) % 10_000, (state >> 40) % 1000);
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "INFO train: epoch {} step {step} loss 0.{loss:06} accuracy 0.{accuracy:04} samples/s {rate}",
            step / 1000
        );
    }
    text.truncate(wanted);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_to_their_size_and_differ() {
        let text = lines(10_000);
        assert_eq!(text.len(), 10_000);
        let all: Vec<&str> = text.lines().collect();
        assert!(all.len() > 100 && all[0] != all[1], "{} lines", all.len());
    }
}
