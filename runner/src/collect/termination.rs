//! The termination log: a file that the kubelet reads when the container has ended, and that the program may have
//! written to before.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

/// The most that is read of what a program wrote. The kubelet would keep 4 KiB of it.
const MAX_READ: u64 = 1024 * 1024;

/// The file, and who wrote what into it.
#[derive(Debug)]
pub struct TerminationLog {
    path: PathBuf,
    program: String,
    ours: Option<String>,
}

impl TerminationLog {
    /// The file at `path`; it is not opened yet.
    #[must_use]
    pub fn at(path: &str) -> Self {
        Self { path: path.into(), program: String::new(), ours: None }
    }

    /// What the program wrote, also after the runner has written over it.
    pub fn program(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|file| file.take(MAX_READ).read_to_end(&mut bytes));
        let text = String::from_utf8_lossy(&bytes);
        if read.is_ok() && self.ours.as_deref() != Some(&*text) {
            // A program that appends to what the runner wrote has written what follows.
            let own = self.ours.as_deref().and_then(|ours| text.strip_prefix(ours)).unwrap_or(&text);
            self.program = own.to_owned();
        }
        self.program.clone()
    }

    /// Replaces the content.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self, text: &str) -> io::Result<()> {
        // In place: the kubelet mounts this very file, so it cannot be replaced by a rename.
        std::fs::write(&self.path, text)?;
        self.ours = Some(text.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_words_survive_ours() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = TerminationLog::at(&file.path().display().to_string());
        std::fs::write(file.path(), "first").unwrap();
        assert_eq!(log.program(), "first");
        log.write("{}").unwrap();
        assert_eq!(log.program(), "first");
        std::fs::write(file.path(), "{}second").unwrap();
        assert_eq!(log.program(), "second");
        assert_eq!(TerminationLog::at("/nonexistent/log").program(), "");
    }
}
