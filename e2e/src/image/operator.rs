//! The operator's image from this work tree.
//!
//! In: the sources, compiled here by cargo, and a version for the tag. Out: an image whose only program is
//! `/cultivar-operator`, the same as `operator/Dockerfile` makes, under the name that the chart asks for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Entry, ImageSpec, Layer, cached, key, write_oci_tar};
use crate::error::{Context as _, Error, Result};
use crate::exec;

/// The name of the image without its tag: the chart's default.
pub const OPERATOR: &str = "ghcr.io/cultivar-dev/operator";

const PROGRAM: &str = "cultivar-operator";

/// How the operator is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// Static, with the profile `image`: what the Dockerfile makes. Its dependencies are compiled for this alone.
    Static,
    /// The everyday debug build with the machine's C library beside it: what `cargo build` has compiled already.
    Debug,
}

/// The operator's image, compiled and made if it is missing. `say` hears what is being done.
///
/// # Errors
/// The operator does not compile, or the cache cannot be written.
pub fn operator_image(version: &str, build: Build, say: &dyn Fn(&str)) -> Result<PathBuf> {
    say(match build {
        Build::Static => "compiling the operator for its image",
        Build::Debug => "compiling the operator (debug)",
    });
    let built = compile(build)?;
    let binary = fs::read(&built).doing(|| format!("cannot read {}", built.display()))?;
    let kind = format!("{build:?}");
    cached("operator", &key([kind.as_bytes(), version.as_bytes(), binary.as_slice()]), |path| {
        let mut entries = vec![program(&built, binary)?];
        entries.extend(libraries(&built, build)?);
        write_oci_tar(&spec(version, entries), path).map(drop)
    })
}

fn spec(version: &str, mut entries: Vec<Entry>) -> ImageSpec {
    let text = |path: &str, content: &str| Entry::File {
        path: path.to_owned(),
        mode: 0o644,
        content: content.as_bytes().to_vec(),
    };
    entries.push(text("etc/passwd", "nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"));
    // Without it glibc asks DNS before it looks into the hosts file that Kubernetes writes.
    entries.push(text("etc/nsswitch.conf", "hosts: files dns\n"));
    ImageSpec {
        reference: format!("{OPERATOR}:{version}"),
        layers: vec![Layer::Entries(entries)],
        entrypoint: vec![format!("/{PROGRAM}")],
        user: "65532:65532".to_owned(),
        workdir: "/".to_owned(),
        ..ImageSpec::default()
    }
}

/// Runs cargo and returns the binary it made.
///
/// # Errors
/// The operator does not compile.
pub fn compile(build: Build) -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = exec::cargo();
    command.current_dir(here.parent().unwrap_or(here));
    command.args(["build", "--package", PROGRAM, "--bin", PROGRAM, "--message-format=json-render-diagnostics"]);
    if build == Build::Static {
        // With an explicit target the flags reach neither build scripts nor macros, and the everyday build keeps its own.
        command.args(["--profile", "image", "--target", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)]);
        let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
        command.env("RUSTFLAGS", format!("{flags} -C target-feature=+crt-static").trim());
    }
    let said = exec::output(&mut command, None)?;
    let made = said.lines().rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == PROGRAM).then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    made.ok_or_else(|| Error::new(format!("cargo built {PROGRAM}, but did not say where it is")))
}

/// The operator's binary, without debug information where there is a tool to remove it.
fn program(built: &Path, binary: Vec<u8>) -> Result<Entry> {
    let path = PROGRAM.to_owned();
    let Some(strip) = exec::find("strip") else {
        return Ok(Entry::File { path, mode: 0o755, content: binary });
    };
    let stripped = std::env::temp_dir().join(format!("{PROGRAM}.{}.stripped", std::process::id()));
    let args = ["--strip-debug".as_ref(), "-o".as_ref(), stripped.as_os_str(), built.as_os_str()];
    let content =
        exec::run(strip, &args).and_then(|_| fs::read(&stripped).doing(|| "cannot read the stripped operator"));
    let _ = fs::remove_file(&stripped);
    Ok(Entry::File { path, mode: 0o755, content: content? })
}

/// The shared libraries that a binary needs, at the places where it looks for them.
fn libraries(built: &Path, build: Build) -> Result<Vec<Entry>> {
    // `ldd` ends with an error for some static binaries, which need nothing.
    let said = exec::run("ldd", &[built]).unwrap_or_default();
    let mut found = BTreeMap::new();
    for line in said.lines() {
        let path = line.rsplit_once("=> ").map_or(line, |(_, path)| path).split_whitespace().next().unwrap_or_default();
        if let Some(inside) = path.strip_prefix('/') {
            let content = fs::read(path).doing(|| format!("cannot read {path}, which {PROGRAM} needs"))?;
            found.insert(inside.to_owned(), Entry::File { path: inside.to_owned(), mode: 0o755, content });
        }
    }
    if build == Build::Static && !found.is_empty() {
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        return Err(Error::new("the operator was to be static, and is not")
            .why(format!("it needs {}", names.join(", ")))
            .hint("look for a dependency that links a C library dynamically"));
    }
    Ok(found.into_values().collect())
}
