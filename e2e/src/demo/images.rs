//! The images of the demo: built, and put where the nodes find them.
//!
//! In: this work tree. Out: the operator's and the digits image, as files, and loaded into the real node if there is one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Options;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::image::{Build, DIGITS, OPERATOR, digits_image, operator_image};
use crate::ui::Ui;

/// The tag of the operator's image.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The images as files.
pub struct Images {
    /// The operator's.
    pub operator: PathBuf,
    /// The one with the three programs.
    pub digits: PathBuf,
}

/// Builds both. The digits image mostly waits for the network, so the operator is compiled meanwhile.
///
/// # Errors
/// Something does not compile, or a package cannot be had.
pub fn build(build: Build, ui: &Ui) -> Result<Images> {
    ui.step("images", |step| {
        std::thread::scope(|scope| {
            let digits = scope.spawn(|| digits_image(&|line: &str| step.say(line)));
            let operator = operator_image(VERSION, build, &|line: &str| step.note(line));
            step.note("the digits image");
            let failed = || Error::new("the digits image was not built").why("its builder panicked");
            let digits = digits.join().unwrap_or_else(|_| Err(failed()));
            Ok(Images { operator: operator?, digits: digits? })
        })
    })
}

/// Puts the images into the real node, those that it does not have yet.
///
/// # Errors
/// containerd refuses them.
pub fn load(cluster: &Cluster, images: &Images, ui: &Ui) -> Result<()> {
    let record = cluster.dir().join("demo-images.json");
    let text = fs::read_to_string(&record).unwrap_or_default();
    let mut loaded: BTreeMap<String, PathBuf> = serde_json::from_str(&text).unwrap_or_default();
    // The kubelet removes images when the disk fills up, so the record alone is not enough.
    let there = cluster.kubectl(&["get", "nodes", "--output=jsonpath={.items[*].status.images[*].names}"])?;
    let operator = format!("{OPERATOR}:{VERSION}");
    for (name, file) in [(operator.as_str(), &images.operator), (DIGITS, &images.digits)] {
        if loaded.get(name) == Some(file) && there.contains(name) {
            continue;
        }
        ui.step(&format!("load {}", short(name)), |_| cluster.load_image(file))?;
        loaded.insert(name.to_owned(), file.clone());
    }
    // Without the record they are loaded again: a few seconds, nothing more.
    let _ = fs::write(record, serde_json::to_string_pretty(&loaded).unwrap_or_default());
    Ok(())
}

/// Not an error of anybody's: builds the images, and tells how to bring them to a cluster of the user's own.
///
/// # Errors
/// Always: the demo cannot go on by itself.
pub fn how_to_push(options: &Options) -> Result<()> {
    let images = build(Build::Static, &Ui::new("demo"))?;
    let context = options.context.as_deref().unwrap_or_default();
    let push =
        |file: &Path, name: &str| format!("skopeo copy oci-archive:{} docker://REGISTRY/PATH/{name}", file.display());
    let operator = format!("operator:{VERSION}");
    let lines = [
        "bring the two images to where the nodes of your cluster find them, then say so. By a registry:".to_owned(),
        format!("    {}", push(&images.operator, &operator)),
        format!("    {}", push(&images.digits, "digits:1")),
        format!("    cargo demo --context {context} --image-repository REGISTRY/PATH"),
        "or straight to the nodes, with kind for example (one command a file):".to_owned(),
        format!("    kind load image-archive {}", images.operator.display()),
        format!("    kind load image-archive {}", images.digits.display()),
        format!("    cargo demo --context {context} --images-loaded"),
    ];
    Err(Error::new("the images are built, but not in your cluster").hint(lines.join("\n  ")))
}

/// The last part of an image's name, without the tag.
fn short(name: &str) -> &str {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split(':').next().unwrap_or(last)
}
