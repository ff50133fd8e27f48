//! The cluster's registry: crane's own, as a process on the host, listening on the host's end of the pair.
//!
//! In: the layout; images as tar files. Out: a registry that answers for the images named `cultivar.dev/…`, as any other
//! would: by tag and by digest. A pushed image's layers are the very files that it serves, so pushing copies them once.
//! It keeps manifests in memory alone: a registry that was started anew is given them again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::layout::Layout;
use super::process::{self, Spec};
use crate::error::{Context as _, Error, Result};
use crate::exec;
use crate::tools;

/// The host in the names of the images that it answers for. Nothing of this name is asked elsewhere.
pub const NAME: &str = "cultivar.dev";

const LIMIT: Duration = Duration::from_secs(20);

/// An image that the registry has.
#[derive(Debug)]
pub(crate) struct Pushed {
    /// Its full name, with the tag.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: String,
}

impl Pushed {
    /// Its name by digest, without the tag.
    pub fn by_digest(&self) -> String {
        let name = self.reference.rsplit_once(':').map_or(self.reference.as_str(), |(name, _)| name);
        format!("{name}@{}", self.digest)
    }
}

/// Starts the registry if it does not run, with the images that it had.
pub(crate) fn start(layout: &Layout, crane: &Path) -> Result<()> {
    let blobs = home(layout).join("blobs");
    fs::create_dir_all(&blobs).doing(|| format!("cannot make {}", blobs.display()))?;
    let args = ["registry", "serve", "--address", &layout.registry(), "--disk", &blobs.display().to_string()];
    let args = args.map(str::to_owned).to_vec();
    let spec = Spec { name: "registry", program: crane.to_owned(), args, netns: None, reads: Vec::new() };
    let ran = process::runs(layout, &spec);
    process::ensure(layout, &spec)?;
    process::wait(layout, "registry", LIMIT, || std::net::TcpStream::connect(layout.registry()).is_ok())?;
    if !ran {
        for entry in fs::read_dir(home(layout).join("images")).into_iter().flatten().flatten() {
            tell(layout, crane, &entry.path())?;
        }
    }
    Ok(())
}

/// Pushes an image from a tar file (an OCI layout), unless it is of another registry.
pub(crate) fn push(layout: &Layout, tar: &Path) -> Result<Option<Pushed>> {
    let failed = || format!("cannot push {}", tar.display());
    let Some(index) = index_of(tar)? else { return Ok(None) };
    let Some(pushed) = described(&index).filter(|pushed| repository(&pushed.reference).is_some()) else {
        return Ok(None);
    };
    let image = home(layout).join("images").join(pushed.reference.replace(['/', ':'], "_"));
    fs::create_dir_all(&image).doing(failed)?;
    let blobs = home(layout).join("blobs");
    tools::link(&blobs, &image.join("blobs"))?;
    // Unpacked into the folder of all blobs, by way of the link's target: `tar` would refuse to follow a link.
    let mut archive = tar::Archive::new(File::open(tar).doing(failed)?);
    for entry in archive.entries().doing(failed)? {
        let mut entry = entry.doing(failed)?;
        let name = entry.path().doing(failed)?.into_owned();
        let place = match name.strip_prefix("blobs") {
            Ok(blob) => {
                let place = blobs.join(blob);
                // Named by what it holds, and served: one that is there is not written again.
                if place.exists() {
                    continue;
                }
                fs::create_dir_all(place.parent().unwrap_or(&blobs)).doing(failed)?;
                place
            }
            Err(_) => image.join(name),
        };
        let partial = place.with_extension("partial");
        entry.unpack(&partial).doing(failed)?;
        fs::rename(&partial, &place).doing(failed)?;
    }
    tell(layout, &tools::CRANE.ensure(&|_| ())?, &image)?;
    Ok(Some(pushed))
}

/// Gives the registry the manifest of an image whose blobs it serves already.
fn tell(layout: &Layout, crane: &Path, image: &Path) -> Result<()> {
    let failed = || format!("cannot read {}", image.display());
    let text = fs::read_to_string(image.join("index.json")).doing(failed)?;
    let index: Value = serde_json::from_str(&text).doing(failed)?;
    let pushed = described(&index);
    let Some(path) = pushed.as_ref().and_then(|pushed| repository(&pushed.reference)) else {
        return Err(Error::new(failed()).why("its index names no image of ours"));
    };
    let target = format!("{}/{path}", layout.registry());
    exec::run(crane, &["push", "--insecure", &image.display().to_string(), &target]).map(|_| ())
}

/// The index of an OCI layout; nothing: it is none.
fn index_of(tar: &Path) -> Result<Option<Value>> {
    let failed = || format!("cannot read the image {}", tar.display());
    let mut archive = tar::Archive::new(File::open(tar).doing(failed)?);
    for entry in archive.entries().doing(failed)? {
        let entry = entry.doing(failed)?;
        if entry.path().doing(failed)?.as_ref() == Path::new("index.json") {
            return serde_json::from_reader(entry).doing(failed).map(Some);
        }
    }
    Ok(None)
}

fn described(index: &Value) -> Option<Pushed> {
    let entry = &index["manifests"][0];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(Pushed {
        reference: text(&entry["annotations"]["io.containerd.image.name"])?,
        digest: text(&entry["digest"])?,
    })
}

/// The path of an image below our registry, with its tag.
fn repository(reference: &str) -> Option<&str> {
    reference.strip_prefix(NAME)?.strip_prefix('/')
}

fn home(layout: &Layout) -> PathBuf {
    layout.dir().join("registry")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_image_is_known_by_its_tag_and_by_its_digest() {
        let name = json!({"io.containerd.image.name": "cultivar.dev/demo/digits:1"});
        let pushed = described(&json!({"manifests": [{"digest": "sha256:ab", "annotations": name}]})).unwrap();
        assert_eq!(pushed.by_digest(), "cultivar.dev/demo/digits@sha256:ab");
        assert_eq!(repository(&pushed.reference), Some("demo/digits:1"));
        assert_eq!(repository("cultivar.device/x:1"), None, "another registry");
        assert!(described(&json!({"manifests": []})).is_none());
    }
}
