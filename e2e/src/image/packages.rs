//! The Debian programs that images are made with.
//!
//! In: a file and the package that brings it. Out: the file is there, after a line that says what is being installed.

use std::process::Command;

use crate::error::{Error, Result};
use crate::exec;

/// Installs `package` unless `present` says that what it brings is there.
pub(super) fn ensure(package: &str, present: impl Fn() -> bool, say: &dyn Fn(&str)) -> Result<()> {
    if present() {
        return Ok(());
    }
    let by_hand = format!("install {package} (apt-get install {package}, as root) and run this again");
    if exec::find("apt-get").is_none() {
        return Err(Error::new(format!("{package} is missing")).hint(by_hand));
    }
    say(&format!("installing the Debian package {package}, which an image is made with"));
    // Somebody else may be installing something: wait for them rather than fail.
    let patient = "DPkg::Lock::Timeout=300";
    for args in [vec!["update", "-qq"], vec!["install", "-y", "-qq", "--no-install-recommends", package]] {
        let mut apt = Command::new("apt-get");
        apt.args(["-o", patient]).args(args).env("DEBIAN_FRONTEND", "noninteractive");
        exec::output(&mut apt, None)
            .map_err(|why| Error::new(format!("cannot install {package}")).why(why).hint(&by_hand))?;
    }
    if present() { Ok(()) } else { Err(Error::new(format!("apt-get installed {package}, yet it is not there"))) }
}
