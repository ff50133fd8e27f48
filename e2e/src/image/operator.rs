//! The operator's image from this work tree.
//!
//! In: the sources, compiled here by cargo, and a version for the tag. Out: an image with three programs, the same as
//! `operator/Dockerfile` makes, under the name that the chart asks for: the operator, which is what it starts; the runner,
//! which installs itself into the pods of experiments; and the built-in store, which the chart starts by its name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Entry, ImageSpec, Layer, cached, key, write_oci_tar};
use crate::error::{Context as _, Error, Result};
use crate::exec;

/// The name of the image without its tag: the chart's default.
pub const OPERATOR: &str = "ghcr.io/cultivar-dev/operator";

const PROGRAM: &str = "cultivar-operator";
const STORE: &str = "cultivar-store";
const RUNNER: &str = "cultivar-runner";
const CLI: (&str, &str) = ("cultivar-cli", "kubectl-cultivar");
const STATIC: &str = "-C target-feature=+crt-static";

/// How the programs are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// Static, with the profile `image`: what the Dockerfile makes. Its dependencies are compiled for this alone.
    Static,
    /// The everyday debug build with the machine's C library beside it: what `cargo build` has compiled already. The
    /// runner is static all the same: it has to run in images that have no C library, or another one.
    Debug,
}

/// The operator's image, compiled and made if it is missing. `say` hears what is being done.
///
/// # Errors
/// A program does not compile, or the cache cannot be written.
pub fn operator_image(version: &str, build: Build, say: &dyn Fn(&str)) -> Result<PathBuf> {
    say(match build {
        Build::Static => "compiling the operator, the runner and the store for their image",
        Build::Debug => "compiling the operator, the runner and the store (debug)",
    });
    let mut programs = compile_three(build)?
        .into_iter()
        .map(|built| {
            fs::read(&built).doing(|| format!("cannot read {}", built.display())).map(|binary| (built, binary))
        })
        .collect::<Result<Vec<_>>>()?;
    let kind = format!("{build:?}");
    let binaries: Vec<&[u8]> = programs.iter().map(|(_, binary)| binary.as_slice()).collect();
    cached("operator", &key([&[kind.as_bytes(), version.as_bytes()], binaries.as_slice()].concat()), |path| {
        let (mut entries, mut shared) = (Vec::new(), BTreeMap::new());
        for (built, binary) in programs.drain(..) {
            shared.extend(libraries(&built, build)?);
            entries.push(program(&built, binary, say)?);
        }
        entries.extend(shared.into_values());
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

/// Compiles the operator alone, for who runs it beside a cluster, and returns its binary.
///
/// # Errors
/// It does not compile.
pub fn compile(build: Build) -> Result<PathBuf> {
    let [operator] = cargo_build(build, [PROGRAM])?;
    Ok(operator)
}

/// Compiles the two programs that move bytes as for their image, and returns the runner's binary and the store's.
///
/// # Errors
/// One does not compile.
pub fn compile_data() -> Result<[PathBuf; 2]> {
    cargo_build(Build::Static, [RUNNER, STORE])
}

/// An example of the core, which a measurement runs; compiled as the operator is for its image.
///
/// # Errors
/// It does not compile.
pub fn compile_example(name: &str) -> Result<PathBuf> {
    let mut command = cargo("build");
    command.args(["--package", "cultivar-core", "--example", name, "--profile", "image"]);
    made(&mut command, [name]).map(|[program]| program)
}

/// The command line, static: it is copied to machines that may have another C library, or none.
///
/// # Errors
/// It does not compile, or needs a library.
pub fn compile_cli(build: Build) -> Result<PathBuf> {
    let (package, binary) = CLI;
    let mut command = match build {
        Build::Static => statically("build"),
        Build::Debug => cargo("rustc"),
    };
    command.args(["--package", package, "--bin", binary]);
    if build == Build::Debug {
        command.arg("--").args(STATIC.split(' '));
    }
    let [built] = made(&mut command, [binary])?;
    libraries(&built, Build::Static).map(|_| built)
}

/// The binaries of the operator, the store and the runner, in this order.
fn compile_three(build: Build) -> Result<[PathBuf; 3]> {
    if build == Build::Static {
        return cargo_build(build, [PROGRAM, STORE, RUNNER]);
    }
    let [operator, store] = cargo_build(build, [PROGRAM, STORE])?;
    // These flags reach this one binary and none of its dependencies, which stay those of the everyday build.
    let mut command = cargo("rustc");
    command.args(["--package", RUNNER, "--bin", RUNNER, "--"]).args(STATIC.split(' '));
    let [runner] = made(&mut command, [RUNNER])?;
    Ok([operator, store, runner])
}

/// One call of cargo for several programs, so that what they share is compiled once and in parallel.
fn cargo_build<const N: usize>(build: Build, names: [&str; N]) -> Result<[PathBuf; N]> {
    let mut command = match build {
        Build::Static => statically("build"),
        Build::Debug => cargo("build"),
    };
    for name in names {
        command.args(["--package", name, "--bin", name]);
    }
    made(&mut command, names)
}

// With an explicit target the flags reach neither build scripts nor macros, and the everyday build keeps its own.
fn statically(verb: &str) -> std::process::Command {
    let mut command = cargo(verb);
    command.args(["--profile", "image", "--target", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)]);
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    command.env("RUSTFLAGS", format!("{flags} {STATIC}").trim());
    command
}

fn cargo(verb: &str) -> std::process::Command {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = exec::cargo();
    command.current_dir(here.parent().unwrap_or(here)).args([verb, "--message-format=json-render-diagnostics"]);
    command
}

/// Runs cargo and returns the binaries it made, in the order of their names.
fn made<const N: usize>(command: &mut std::process::Command, names: [&str; N]) -> Result<[PathBuf; N]> {
    let said = exec::output(command, None)?;
    let find = |name: &str| {
        said.lines().rev().find_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            (message["target"]["name"] == name).then(|| message["executable"].as_str().map(PathBuf::from))?
        })
    };
    let mut found = names.map(PathBuf::from);
    for path in &mut found {
        let name = path.display().to_string();
        *path = find(&name).ok_or_else(|| Error::new(format!("cargo built {name}, but did not say where it is")))?;
    }
    Ok(found)
}

/// A binary for the image, without debug information where there is a tool to remove it.
fn program(built: &Path, binary: Vec<u8>, say: &dyn Fn(&str)) -> Result<Entry> {
    let path = name(built);
    let mut content = binary;
    if let Some(strip) = exec::find("strip") {
        let stripped = std::env::temp_dir().join(format!("{path}.{}.stripped", std::process::id()));
        let args = ["--strip-debug".as_ref(), "-o".as_ref(), stripped.as_os_str(), built.as_os_str()];
        let read = exec::run(strip, &args)
            .and_then(|_| fs::read(&stripped).doing(|| format!("cannot read the stripped {path}")));
        let _ = fs::remove_file(&stripped);
        content = read?;
    }
    say(&format!("{path}: {} bytes", content.len()));
    Ok(Entry::File { path, mode: 0o755, content })
}

fn name(built: &Path) -> String {
    built.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The shared libraries that a binary needs, by the places where it looks for them.
fn libraries(built: &Path, build: Build) -> Result<BTreeMap<String, Entry>> {
    // `ldd` ends with an error for some static binaries, which need nothing.
    let said = exec::run("ldd", &[built]).unwrap_or_default();
    let program = name(built);
    let mut found = BTreeMap::new();
    for line in said.lines() {
        let path = line.rsplit_once("=> ").map_or(line, |(_, path)| path).split_whitespace().next().unwrap_or_default();
        if let Some(inside) = path.strip_prefix('/') {
            let content = fs::read(path).doing(|| format!("cannot read {path}, which {program} needs"))?;
            found.insert(inside.to_owned(), Entry::File { path: inside.to_owned(), mode: 0o755, content });
        }
    }
    if (build == Build::Static || program == RUNNER) && !found.is_empty() {
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        return Err(Error::new(format!("{program} was to be static, and is not"))
            .why(format!("it needs {}", names.join(", ")))
            .hint("look for a dependency that links a C library dynamically"));
    }
    Ok(found)
}
