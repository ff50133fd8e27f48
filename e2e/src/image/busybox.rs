//! The image with a shell, for tests that need a program and not its results.
//!
//! In: Debian's static busybox. Out: an image of two megabytes with `sh` and all that busybox can do.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Entry, ImageSpec, Layer, cached, key, packages, write_oci_tar};
use crate::error::{Context as _, Result};
use crate::exec;

/// The name of the image.
pub const BUSYBOX: &str = "cultivar.dev/e2e/busybox:1";

const PROGRAM: &str = "/bin/busybox";

/// The busybox image, made first if it is missing. `say` hears what is being done.
///
/// # Errors
/// busybox-static cannot be installed, or the cache cannot be written.
pub fn busybox_image(say: &dyn Fn(&str)) -> Result<PathBuf> {
    packages::ensure("busybox-static", || Path::new(PROGRAM).exists(), say)?;
    let program = fs::read(PROGRAM).doing(|| format!("cannot read {PROGRAM}"))?;
    let applets = exec::run(PROGRAM, &["--list"])?;
    cached("busybox", &key([program.as_slice(), applets.as_bytes()]), |path| {
        write_oci_tar(&spec(program, &applets), path).map(drop)
    })
}

fn spec(program: Vec<u8>, applets: &str) -> ImageSpec {
    let folder = |path: &str, mode| Entry::Folder { path: path.to_owned(), mode };
    let mut entries = vec![folder("bin", 0o755), folder("etc", 0o755), folder("root", 0o700), folder("tmp", 0o1777)];
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nnonroot:x:65532:65532:nonroot:/tmp:/bin/sh\n".to_vec();
    entries.push(Entry::File { path: "etc/passwd".to_owned(), mode: 0o644, content: passwd });
    let group = b"root:x:0:\nnonroot:x:65532:\n".to_vec();
    entries.push(Entry::File { path: "etc/group".to_owned(), mode: 0o644, content: group });
    entries.push(Entry::File { path: "bin/busybox".to_owned(), mode: 0o755, content: program });
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        entries.push(Entry::Link { path: format!("bin/{applet}"), target: "busybox".to_owned() });
    }
    ImageSpec {
        reference: BUSYBOX.to_owned(),
        layers: vec![Layer::Entries(entries)],
        cmd: vec!["sh".to_owned()],
        env: vec![("PATH".to_owned(), "/bin".to_owned())],
        ..ImageSpec::default()
    }
}
