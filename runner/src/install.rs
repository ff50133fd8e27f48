//! `cultivar-runner install DIR`, run by an init container from the operator's image.
//!
//! Goes out: DIR/cultivar-runner (0755), and beside DIR the folders of a run, open to every uid: the user's container may
//! run as anyone, and nobody else shares the volume.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The folders beside DIR.
pub const FOLDERS: [&str; 5] = ["source", "inputs", "outputs", "run", "checkpoint"];

/// Why the runner could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {error}; the volume must be writable for the init container", path.display())]
pub struct InstallError {
    what: &'static str,
    path: PathBuf,
    error: io::Error,
}

/// Copies this executable to `dir` and makes the folders of a run beside it.
///
/// # Errors
/// Which file or folder could not be made.
pub fn install(dir: &Path) -> Result<(), InstallError> {
    let fail = |what, path: &Path| {
        let path = path.to_owned();
        move |error| InstallError { what, path, error }
    };
    fs::create_dir_all(dir).map_err(fail("make the folder", dir))?;
    let own = std::env::current_exe().map_err(fail("find the own executable from", dir))?;
    let part = dir.join(format!(".cultivar-runner.{}", std::process::id()));
    let target = dir.join("cultivar-runner");
    let copied = fs::copy(&own, &part)
        .and_then(|_| fs::set_permissions(&part, Permissions::from_mode(0o755)))
        .and_then(|()| fs::File::open(&part)?.sync_all())
        .and_then(|()| fs::rename(&part, &target));
    if let Err(error) = copied {
        // The half copy is of no use to anyone; that it stays is not worth hiding the first error.
        let _ = fs::remove_file(&part);
        return Err(fail("write", &target)(error));
    }
    let Some(root) = dir.parent() else { return Ok(()) };
    for name in FOLDERS {
        let folder = root.join(name);
        fs::create_dir_all(&folder).map_err(fail("make the folder", &folder))?;
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).map_err(fail("open the folder", &folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installs_twice_and_opens_the_folders() {
        let root = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            install(&root.path().join("bin")).unwrap();
        }
        let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("bin/cultivar-runner"), 0o755);
        assert_eq!(mode("outputs"), 0o777);
        assert_eq!(fs::read_dir(root.path().join("bin")).unwrap().count(), 1);
        assert!(install(Path::new("/proc/nothing/bin")).unwrap_err().to_string().contains("/proc/nothing"));
    }
}
