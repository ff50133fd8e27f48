//! The image of the demo: scikit-learn, MLflow's client and three programs that prepare, train and evaluate on handwritten digits.
//!
//! In: Debian's Python, packages of PyPI, the recipe and the programs in `e2e/images/digits`. Out: an image of about
//! 380 MB. The root file system takes a minute and the network, so it is cached on its own: a changed program costs a second.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Entry, ImageSpec, Layer, cached, key, packages, recipes, write_oci_tar};
use crate::error::{Context as _, Result};
use crate::exec;

/// The name of the image.
pub const DIGITS: &str = "cultivar.dev/demo/digits:1";

const SUITE: &str = "bookworm";
/// The wheels of PyPI bring all they need but the C++ library.
const PACKAGES: &str = "python3,libstdc++6,busybox-static";

/// The digits image, made first if it is missing. `say` hears what is being done.
///
/// # Errors
/// mmdebstrap or pip cannot be installed or fails, or the cache cannot be written.
pub fn digits_image(say: &dyn Fn(&str)) -> Result<PathBuf> {
    let recipe = recipes().join("digits");
    let programs = programs(&recipe)?;
    let root = root_files(&recipe, say)?;
    let root_name = root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let parts = programs.iter().flat_map(|(name, content)| [name.as_bytes(), content.as_slice()]);
    cached("digits", &key(parts.chain([root_name.as_bytes()])), |path| {
        write_oci_tar(&spec(&root, &programs), path).map(drop)
    })
}

/// The root file system as a tar: the packages, unpacked, filled and cut down by `rootfs.sh`.
fn root_files(recipe: &Path, say: &dyn Fn(&str)) -> Result<PathBuf> {
    let read = |path: &Path| fs::read(path).doing(|| format!("cannot read {}", path.display()));
    let (script, requirements) = (recipe.join("rootfs.sh"), recipe.join("requirements.txt"));
    let parts = [read(&script)?, read(&requirements)?, PACKAGES.into(), SUITE.into()];
    cached("digits-root", &key(parts.iter().map(Vec::as_slice)), |path| {
        packages::ensure("mmdebstrap", || exec::find("mmdebstrap").is_some(), say)?;
        packages::ensure("python3-pip", || exec::find("pip3").is_some(), say)?;
        say("collecting Python from Debian, scikit-learn and MLflow from PyPI (about a minute)");
        let mut command = Command::new("mmdebstrap");
        // `extract` unpacks without running the packages' own scripts; what they would do that matters, rootfs.sh does.
        command.args(["--quiet", "--variant=extract", "--format=tar"]).arg(format!("--include={PACKAGES}"));
        // Hooks are shell: the folder is the first argument, the script a variable, so that its path may hold any sign.
        command.arg(r#"--extract-hook=sh "$ROOTFS_SCRIPT" "$1""#).env("ROOTFS_SCRIPT", &script);
        command.env("REQUIREMENTS", &requirements);
        command.arg(SUITE).arg(path);
        exec::output(&mut command, None).map(drop)
    })
}

fn programs(recipe: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let failed = || format!("cannot read {}", recipe.display());
    let mut programs = Vec::new();
    for entry in fs::read_dir(recipe).doing(failed)? {
        let path = entry.doing(failed)?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".py")) {
            programs.push((name.to_owned(), fs::read(&path).doing(failed)?));
        }
    }
    programs.sort();
    Ok(programs)
}

fn spec(root: &Path, programs: &[(String, Vec<u8>)]) -> ImageSpec {
    let file = |(name, content): &(String, Vec<u8>)| Entry::File {
        path: format!("app/{name}"),
        mode: 0o644,
        content: content.clone(),
    };
    let mut app = vec![Entry::Folder { path: "app".to_owned(), mode: 0o755 }];
    app.extend(programs.iter().map(file));
    // There is no git in the image, which the client would tell at length.
    let quiet = ("GIT_PYTHON_REFRESH", "quiet");
    let env = [("PATH", "/usr/bin:/bin"), ("PYTHONUNBUFFERED", "1"), ("PYTHONDONTWRITEBYTECODE", "1"), quiet];
    ImageSpec {
        reference: DIGITS.to_owned(),
        layers: vec![Layer::Tar(root.to_path_buf()), Layer::Entries(app)],
        cmd: vec!["python3".to_owned()],
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        workdir: "/app".to_owned(),
        ..ImageSpec::default()
    }
}
