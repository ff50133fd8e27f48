//! Container images without Docker.
//!
//! In: a built binary, Debian packages, or the recipes in `e2e/images`. Out: OCI tars in the cache folder, each under a
//! name made from a hash of all that went in, ready to be put into the real node.

mod busybox;
mod digits;
mod oci;
mod operator;
mod packages;
mod read;

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::error::{Context as _, Result};
use crate::tools::cache_dir;

pub use busybox::{BUSYBOX, busybox_image};
pub use digits::{DIGITS, digits_image};
pub use oci::{Entry, ImageSpec, Layer, write_oci_tar};
pub use operator::{
    Build, OPERATOR, compile as compile_operator, compile_cli, compile_data, compile_example, operator_image,
};
pub use read::{Contents, read_oci_tar};

/// Old images of one name that stay in the cache: switching between two branches builds nothing.
const KEPT: usize = 3;

/// Sixteen hexadecimal digits that stand for the given parts and their order.
fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())[..16].to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The cached image `name-key`, made first if it is missing. `make` writes to the path it is given.
fn cached(name: &str, key: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let folder = cache_dir().join("images");
    let path = folder.join(format!("{name}-{key}.tar"));
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(&folder).doing(|| format!("cannot make {}", folder.display()))?;
    // Written beside its place and moved there, so that a build which is stopped leaves no half image behind.
    let partial = folder.join(format!("{name}-{key}.{}.partial", std::process::id()));
    let made = make(&partial)
        .and_then(|()| fs::rename(&partial, &path).doing(|| format!("cannot keep the image {}", path.display())));
    if made.is_err() {
        let _ = fs::remove_file(&partial);
    }
    made?;
    forget_old(&folder, name);
    Ok(path)
}

/// Removes all but the newest images of a name. Nothing depends on its success.
fn forget_old(folder: &Path, name: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let ours = |path: &Path| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let is_tar = path.extension().is_some_and(|extension| extension == "tar");
        is_tar && stem.rsplit_once('-').is_some_and(|(prefix, _)| prefix == name)
    };
    let mut images: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| ours(path))
        .map(|path| (fs::metadata(&path).and_then(|meta| meta.modified()).ok(), path))
        .collect();
    images.sort();
    for (_, path) in images.iter().rev().skip(KEPT) {
        let _ = fs::remove_file(path);
    }
}

/// The folder with the recipes of the images.
fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("images")
}

/// The words that say an image's processor, in the language of OCI.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
