//! The writer of OCI image layouts as tars.
//!
//! In: a reference, layers and how to start the program. Out: a tar with `oci-layout`, `index.json` and the blobs. The
//! same input gives the same bytes: all times are the epoch, all owners are root, and nothing depends on the machine.
//! The format: <https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md>. Layers are not compressed:
//! they are written and read once on this machine, where packing costs more than the bytes.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{architecture, hex};
use crate::error::{Context as _, Error, Result};

/// An image to write.
#[derive(Debug, Clone, Default)]
pub struct ImageSpec {
    /// The full name with a registry and a tag, such as `cultivar.dev/e2e/busybox:1`.
    pub reference: String,
    /// From the lowest to the highest.
    pub layers: Vec<Layer>,
    /// What runs, before the arguments.
    pub entrypoint: Vec<String>,
    /// The default arguments.
    pub cmd: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// User, or user and group, by number or name; empty is root.
    pub user: String,
    /// Where the program starts; empty is `/`.
    pub workdir: String,
}

/// A layer of an image.
#[derive(Debug, Clone)]
pub enum Layer {
    /// Files named one by one.
    Entries(Vec<Entry>),
    /// A finished tar.
    Tar(PathBuf),
}

/// A file, folder or link in a layer; the path is without the leading slash.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A folder.
    Folder {
        /// Where.
        path: String,
        /// Its rights, such as `0o755`.
        mode: u32,
    },
    /// A file with its content.
    File {
        /// Where.
        path: String,
        /// Its rights, such as `0o644`.
        mode: u32,
        /// What is in it.
        content: Vec<u8>,
    },
    /// A symbolic link.
    Link {
        /// Where.
        path: String,
        /// To what.
        target: String,
    },
}

/// What a manifest or an index says about a blob.
struct Descriptor {
    media_type: &'static str,
    digest: String,
    size: u64,
}

impl Descriptor {
    fn json(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.size})
    }

    /// Where the blob lies in the layout.
    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

/// Writes an image as an OCI layout in a tar and returns the digest of its manifest.
///
/// # Errors
/// The reference is not a full name, a layer cannot be read, or the tar cannot be written.
pub fn write_oci_tar(image: &ImageSpec, path: &Path) -> Result<String> {
    let failed = || format!("cannot write the image {} to {}", image.reference, path.display());
    let tag = tag_of(&image.reference)?;
    let mut layers = Vec::new();
    for layer in &image.layers {
        let bytes = Bytes::of(layer).doing(|| format!("cannot read a layer of {}", image.reference))?;
        layers.push((bytes.describe("application/vnd.oci.image.layer.v1.tar").doing(failed)?, bytes));
    }
    let config = Bytes::Memory(config(image, &layers).to_string().into_bytes());
    let config_blob = config.describe("application/vnd.oci.image.config.v1+json").doing(failed)?;
    let manifest = Bytes::Memory(manifest(&config_blob, &layers).to_string().into_bytes());
    let manifest_blob = manifest.describe("application/vnd.oci.image.manifest.v1+json").doing(failed)?;
    let mut entry = manifest_blob.json();
    // containerd takes the full name from the first annotation; other tools know the second one.
    entry["annotations"] =
        json!({"io.containerd.image.name": image.reference, "org.opencontainers.image.ref.name": tag});
    entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [entry]});

    let file = File::create(path).doing(failed)?;
    let mut out = tar::Builder::new(BufWriter::new(file));
    let small = |value: &Value| Bytes::Memory(value.to_string().into_bytes());
    small(&json!({"imageLayoutVersion": "1.0.0"})).append(&mut out, "oci-layout").doing(failed)?;
    small(&index).append(&mut out, "index.json").doing(failed)?;
    manifest.append(&mut out, &manifest_blob.path()).doing(failed)?;
    config.append(&mut out, &config_blob.path()).doing(failed)?;
    for (blob, bytes) in &layers {
        bytes.append(&mut out, &blob.path()).doing(failed)?;
    }
    out.into_inner().and_then(|mut rest| rest.flush()).doing(failed)?;
    Ok(manifest_blob.digest)
}

fn tag_of(reference: &str) -> Result<&str> {
    let wrong = |why: &str| {
        Err(Error::new(format!("`{reference}` is not the full name of an image"))
            .why(why)
            .hint("write it as registry/path:tag"))
    };
    match reference.split_once('/') {
        Some((registry, _)) if registry.contains(['.', ':']) => (),
        _ => return wrong("it has no registry, and containerd would look for it at docker.io"),
    }
    match reference.rsplit_once(':') {
        Some((_, tag)) if !tag.is_empty() && !tag.contains('/') => Ok(tag),
        _ => wrong("it has no tag"),
    }
}

fn config(image: &ImageSpec, layers: &[(Descriptor, Bytes)]) -> Value {
    let env: Vec<String> = image.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let diffs: Vec<&str> = layers.iter().map(|(blob, _)| blob.digest.as_str()).collect();
    let history: Vec<Value> = layers.iter().map(|_| json!({"created": EPOCH, "created_by": "cultivar"})).collect();
    let mut run = json!({"User": image.user, "Env": env, "WorkingDir": image.workdir});
    // An empty list would mean "no entrypoint at all" to some readers; absent means it to all.
    for (name, words) in [("Entrypoint", &image.entrypoint), ("Cmd", &image.cmd)] {
        if !words.is_empty() {
            run[name] = json!(words);
        }
    }
    json!({
        "created": EPOCH,
        "architecture": architecture(),
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": diffs},
        "history": history,
    })
}

const EPOCH: &str = "1970-01-01T00:00:00Z";

fn manifest(config: &Descriptor, layers: &[(Descriptor, Bytes)]) -> Value {
    let layers: Vec<Value> = layers.iter().map(|(blob, _)| blob.json()).collect();
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.json(),
        "layers": layers,
    })
}

/// The content of a blob. Finished tars stay on disk: they are large.
enum Bytes {
    Memory(Vec<u8>),
    Disk(PathBuf),
}

impl Bytes {
    fn of(layer: &Layer) -> io::Result<Self> {
        Ok(match layer {
            Layer::Tar(path) => Self::Disk(path.clone()),
            Layer::Entries(entries) => Self::Memory(layer_tar(entries)?),
        })
    }

    fn describe(&self, media_type: &'static str) -> io::Result<Descriptor> {
        let (digest, size) = match self {
            Self::Memory(bytes) => (hex(&Sha256::digest(bytes)), bytes.len() as u64),
            Self::Disk(path) => digest(&mut File::open(path)?)?,
        };
        Ok(Descriptor { media_type, digest: format!("sha256:{digest}"), size })
    }

    fn append<W: Write>(&self, out: &mut tar::Builder<W>, path: &str) -> io::Result<()> {
        match self {
            Self::Memory(bytes) => {
                out.append_data(&mut header(tar::EntryType::Regular, 0o644, bytes.len() as u64), path, bytes.as_slice())
            }
            Self::Disk(file) => {
                let file = File::open(file)?;
                let size = file.metadata()?.len();
                out.append_data(&mut header(tar::EntryType::Regular, 0o644, size), path, file)
            }
        }
    }
}

/// The SHA-256 of everything that can be read, and how much it is.
pub(super) fn digest(from: &mut impl Read) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok((hex(&hash.finalize()), size));
        }
        hash.update(&buffer[..count]);
        size += count as u64;
    }
}

fn layer_tar(entries: &[Entry]) -> io::Result<Vec<u8>> {
    let mut out = tar::Builder::new(Vec::new());
    for entry in entries {
        match entry {
            Entry::Folder { path, mode } => {
                out.append_data(&mut header(tar::EntryType::Directory, *mode, 0), path, io::empty())?;
            }
            Entry::File { path, mode, content } => {
                let mut header = header(tar::EntryType::Regular, *mode, content.len() as u64);
                out.append_data(&mut header, path, content.as_slice())?;
            }
            Entry::Link { path, target } => {
                out.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), path, target)?;
            }
        }
    }
    out.into_inner()
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
