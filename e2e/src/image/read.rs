//! The reader that checks an image before it is imported.
//!
//! In: an OCI tar, ours or another's. Out: what is in it, once every blob has the digest and the size that are said of
//! it. containerd reports a wrong blob much later, as an image that cannot be unpacked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read as _};
use std::path::Path;

use serde_json::Value;

use super::oci::digest;
use crate::error::{Context as _, Error, Result};

/// What an image holds.
#[derive(Debug)]
pub struct Contents {
    /// The full name it is imported under.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: String,
    /// How to start it: the image's configuration.
    pub config: Value,
    /// The sizes of its layers.
    pub layers: Vec<u64>,
}

/// Reads and checks an image.
///
/// # Errors
/// It is no OCI tar, a blob is missing, or a blob is not what its digest says.
pub fn read_oci_tar(path: &Path) -> Result<Contents> {
    let wrong = |why: String| Error::new(format!("{} is not a whole image", path.display())).why(why);
    let (sizes, small) = scan(path)?;
    let parse = |name: &str| -> Result<Value> {
        let bytes = small.get(name).ok_or_else(|| wrong(format!("it has no {name}")))?;
        serde_json::from_slice(bytes).map_err(|why| wrong(format!("{name} is not JSON: {why}")))
    };
    let blob = |descriptor: &Value| -> Result<String> {
        let name = format!("blobs/{}", descriptor["digest"].as_str().unwrap_or_default().replace(':', "/"));
        match sizes.get(&name) {
            Some(size) if descriptor["size"] == *size => Ok(name),
            Some(size) => Err(wrong(format!("{name} has {size} bytes instead of {}", descriptor["size"]))),
            None => Err(wrong(format!("{name} is missing"))),
        }
    };
    let index = parse("index.json")?;
    let entry = &index["manifests"][0];
    let manifest = parse(&blob(entry)?)?;
    let config = parse(&blob(&manifest["config"])?)?;
    let mut layers = Vec::new();
    for layer in manifest["layers"].as_array().into_iter().flatten() {
        layers.push(sizes[&blob(layer)?]);
    }
    Ok(Contents {
        reference: entry["annotations"]["io.containerd.image.name"].as_str().unwrap_or_default().to_owned(),
        digest: entry["digest"].as_str().unwrap_or_default().to_owned(),
        config,
        layers,
    })
}

type Scan = (BTreeMap<String, u64>, BTreeMap<String, Vec<u8>>);

/// All files with their sizes, and the contents of the small ones; refuses a blob whose name is not its digest.
fn scan(path: &Path) -> Result<Scan> {
    const SMALL: u64 = 1 << 20;
    let failed = || format!("cannot read the image {}", path.display());
    let mut sizes = BTreeMap::new();
    let mut small = BTreeMap::new();
    let mut archive = tar::Archive::new(File::open(path).doing(failed)?);
    for entry in archive.entries().doing(failed)? {
        let mut entry = entry.doing(failed)?;
        let name = entry.path().doing(failed)?.to_string_lossy().into_owned();
        let size = entry.size();
        let found = if size <= SMALL {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).doing(failed)?;
            let found = digest(&mut Cursor::new(&content)).doing(failed)?;
            small.insert(name.clone(), content);
            found
        } else {
            digest(&mut entry).doing(failed)?
        };
        if name.strip_prefix("blobs/sha256/").is_some_and(|said| said != found.0) {
            return Err(Error::new(format!("{} is damaged", path.display()))
                .why(format!("{name} has the digest {}", found.0))
                .hint("delete the file; it is built again"));
        }
        sizes.insert(name, size);
    }
    Ok((sizes, small))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::image::{Entry, ImageSpec, Layer, write_oci_tar};

    fn example() -> ImageSpec {
        let text = Entry::File { path: "etc/motd".into(), mode: 0o644, content: b"grow".to_vec() };
        let link = Entry::Link { path: "bin/sh".into(), target: "busybox".into() };
        ImageSpec {
            reference: "example.com/team/tool:2".into(),
            layers: vec![Layer::Entries(vec![Entry::Folder { path: "etc".into(), mode: 0o755 }, text, link])],
            entrypoint: vec!["/tool".into()],
            user: "65532".into(),
            ..ImageSpec::default()
        }
    }

    fn place(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("cultivar-image-{name}-{}.tar", std::process::id()))
    }

    #[test]
    fn what_is_written_can_be_read_and_is_the_same_each_time() {
        let (first, second) = (place("first"), place("second"));
        let digest = write_oci_tar(&example(), &first).unwrap();
        write_oci_tar(&example(), &second).unwrap();
        assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
        let contents = read_oci_tar(&first).unwrap();
        assert_eq!(contents.reference, "example.com/team/tool:2");
        assert_eq!(contents.digest, digest);
        assert_eq!(contents.config["config"]["Entrypoint"][0], "/tool");
        assert_eq!(contents.config["config"]["User"], "65532");
        assert!(contents.config["config"].get("Cmd").is_none());
        assert_eq!(contents.layers.len(), 1);
        fs::remove_file(first).unwrap();
        fs::remove_file(second).unwrap();
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let path = place("damaged");
        write_oci_tar(&example(), &path).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(4).position(|part| part == b"grow").unwrap();
        bytes[at] = b'c';
        fs::write(&path, bytes).unwrap();
        let error = read_oci_tar(&path).unwrap_err().to_string();
        assert!(error.contains("is damaged"), "{error}");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_short_name_is_refused() {
        for name in ["busybox:1", "library/busybox:1", "example.com/tool", "example.com:5000/tool"] {
            let error = write_oci_tar(&ImageSpec { reference: name.into(), ..example() }, &place("never"));
            assert!(error.unwrap_err().to_string().contains("not the full name"), "{name}");
        }
    }
}
