//! The programs a cluster is made of, built once a machine from their Go modules.
//!
//! In: a tool (its package and version), or a Go module in `e2e/cluster` or `e2e/health`. Out: the path of its
//! binary in the cache folder, keyed by version, or by a hash of the module's sources. Two processes
//! that want the same tool at once build it once: the second waits for the first one's lock.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

use crate::error::{Context as _, Error, Result};
use crate::exec;

/// The Kubernetes version that `e2e/cluster/go.mod` asks for; clients see it as the server's version.
pub const KUBERNETES: &str = "v1.34.4";

/// A tool that the Go client can install.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// The name of its binary here.
    pub name: &'static str,
    /// The Go package of its `main`.
    pub package: &'static str,
    /// The module version.
    pub version: &'static str,
}

macro_rules! tools {
    ($($(#[$doc:meta])* $id:ident = $name:literal, $package:literal @ $version:literal;)*) => {
        $($(#[$doc])* pub const $id: Tool = Tool { name: $name, package: $package, version: $version };)*
        /// Every tool, for a command that builds them all.
        pub const ALL: &[Tool] = &[$($id),*];
    };
}

tools! {
    /// Plays simulated nodes and the pods on them.
    KWOK = "kwok", "sigs.k8s.io/kwok/cmd/kwok" @ "v0.7.0";
    /// Installs charts.
    HELM = "helm", "helm.sh/helm/v4/cmd/helm" @ "v4.2.4";
    /// The cluster's name server, run as a process.
    COREDNS = "coredns", "github.com/coredns/coredns" @ "v1.15.0";
    /// The registry that the real node pulls from, and what pushes to it.
    CRANE = "crane", "github.com/google/go-containerregistry/cmd/crane" @ "v0.22.1";
    /// Unit tests of charts.
    HELM_UNITTEST = "untt", "github.com/helm-unittest/helm-unittest/cmd/helm-unittest" @ "v1.1.2";
    /// The chart's documentation from its values.
    HELM_DOCS = "helm-docs", "github.com/norwoodj/helm-docs/cmd/helm-docs" @ "v1.14.2";
    /// Checks manifests against schemas.
    KUBECONFORM = "kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform" @ "v0.8.0";
    /// The part of Flux that applies what a repository says.
    KUSTOMIZE_CONTROLLER = "kustomize-controller", "github.com/fluxcd/kustomize-controller" @ "v1.9.6";
    /// Checks alert rules.
    PROMTOOL = "promtool", "github.com/prometheus/prometheus/cmd/promtool" @ "v0.316.0";
}

/// The commands of the control plane's binary, each a link to it.
const COMPONENTS: [&str; 7] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"];

/// A Go module of ours, and its sources.
struct Module {
    /// What its folder in the cache begins with.
    name: &'static str,
    version: &'static str,
    /// The name of its binary.
    binary: &'static str,
    /// For people who wait.
    what: &'static str,
    sources: [(&'static str, &'static str); 3],
}

const CONTROL_PLANE: Module = Module {
    name: "kubernetes",
    version: KUBERNETES,
    binary: "cultivar-cluster",
    what: "the control plane",
    sources: [
        ("main.go", include_str!("../cluster/main.go")),
        ("go.mod", include_str!("../cluster/go.mod")),
        ("go.sum", include_str!("../cluster/go.sum")),
    ],
};

const HEALTH: Module = Module {
    name: "health",
    version: "v1",
    binary: "cultivar-health",
    what: "what GitOps tools judge objects by",
    sources: [
        ("main.go", include_str!("../health/main.go")),
        ("go.mod", include_str!("../health/go.mod")),
        ("go.sum", include_str!("../health/go.sum")),
    ],
};

/// The folder for what is built once a machine: `$XDG_CACHE_HOME/cultivar` or `~/.cache/cultivar`.
#[must_use]
pub fn cache_dir() -> PathBuf {
    home_folder("XDG_CACHE_HOME", ".cache").join("cultivar")
}

/// A folder of the XDG base directory specification.
pub(crate) fn home_folder(variable: &str, default: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(default);
    // The specification says that a relative path is to be ignored.
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute()).unwrap_or_else(home)
}

impl Tool {
    /// Where the tool is, or will be.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        cache_dir().join("tools").join(format!("{}-{}", self.name, self.version)).join(self.name)
    }

    /// The tool's binary, built first if it is missing. `note` hears what is being compiled.
    ///
    /// # Errors
    /// There is no Go, or the build fails.
    pub fn ensure(&self, note: &dyn Fn(&str)) -> Result<PathBuf> {
        let path = self.path();
        once(&path, || {
            let bin = path.with_extension("build");
            build(self.recipe(&bin)?.current_dir(std::env::temp_dir()), self.name, note)?;
            let built = fs::read_dir(&bin).doing(|| format!("{} built nothing", self.name))?;
            for file in built.flatten() {
                fs::rename(file.path(), &path).doing(|| format!("cannot keep {}", self.name))?;
            }
            let _ = fs::remove_dir(&bin);
            let _ = fs::remove_dir_all(path.with_extension("src"));
            Ok(())
        })?;
        Ok(path)
    }

    /// The Go command that builds the tool into the folder `bin`.
    fn recipe(&self, bin: &Path) -> Result<Command> {
        let (module, package) = match self.package.split_once("/cmd/") {
            Some((module, command)) => (module, format!("./cmd/{command}")),
            None => (self.package, ".".to_owned()),
        };
        let program = go()?;
        let folder = module_folder(module, self.version)?;
        let text = fs::read_to_string(folder.join("go.mod")).unwrap_or_default();
        // What a module has beside it in its own repository is not published with it, but as a module of its own.
        let beside = |line: &str| Some(line.strip_prefix("replace ")?.split_once(" => ./")?.0.to_owned());
        let beside: Vec<String> = text.lines().filter_map(beside).collect();
        if !beside.is_empty() {
            let source = bin.with_extension("src");
            copy_folder(&folder, &source)?;
            let mut edit = Command::new(&program);
            edit.args(["mod", "edit"]).args(beside.iter().map(|module| format!("-dropreplace={module}")));
            exec::output(edit.current_dir(&source), None)?;
            let mut go = Command::new(program);
            go.args(["build", "-C"])
                .arg(&source)
                .args(["-mod=mod", "-v", "-trimpath", "-ldflags=-s -w", "-o"])
                .arg(bin)
                .arg(package);
            fs::create_dir_all(bin).doing(|| format!("cannot make {}", bin.display()))?;
            return Ok(go);
        }
        let mut go = Command::new(program);
        // `go install` refuses a module with replace lines; built in its own folder, it is the main module and may have them.
        if text.lines().any(|line| line.starts_with("replace") || line.starts_with("exclude")) {
            fs::create_dir_all(bin).doing(|| format!("cannot make {}", bin.display()))?;
            go.args(["build", "-C"]).arg(folder).args(["-v", "-o"]).arg(bin).arg(package);
        } else {
            go.args(["install", "-v", &format!("{}@{}", self.package, self.version)]).env("GOBIN", bin);
        }
        Ok(go)
    }
}

/// Where a Go module's files are, downloaded first if they are missing.
///
/// # Errors
/// There is no Go, or no such module.
pub fn module_folder(module: &str, version: &str) -> Result<PathBuf> {
    let said = exec::run(go()?, &["mod", "download", "-json", &format!("{module}@{version}")])?;
    let said: serde_json::Value = serde_json::from_str(&said).doing(|| format!("cannot read where {module} is"))?;
    Ok(PathBuf::from(said["Dir"].as_str().unwrap_or_default()))
}

// Without the modes: what Go keeps of a module cannot be written.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("cannot copy {}", from.display());
    fs::create_dir_all(to).doing(failed)?;
    for entry in fs::read_dir(from).doing(failed)? {
        let path = entry.doing(failed)?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            fs::write(&target, fs::read(&path).doing(failed)?).doing(failed)?;
        }
    }
    Ok(())
}

/// The folder with one link a component of the control plane, built first if it is missing.
///
/// # Errors
/// There is no Go, or the build fails.
pub fn control_plane(note: &dyn Fn(&str)) -> Result<PathBuf> {
    let binary = CONTROL_PLANE.ensure(&version_flags(), note)?;
    let home = binary.parent().unwrap_or(&binary).to_owned();
    let bin = home.join("bin");
    fs::create_dir_all(&bin).doing(|| format!("cannot make {}", bin.display()))?;
    for name in COMPONENTS {
        link(&binary, &bin.join(name))?;
    }
    Ok(bin)
}

/// This cluster's kubectl, built first if it is missing.
///
/// # Errors
/// There is no Go, or the build fails.
pub fn kubectl() -> Result<PathBuf> {
    Ok(control_plane(&|_| ())?.join("kubectl"))
}

/// Helm, built first if it is missing.
///
/// # Errors
/// There is no Go, or the build fails.
pub fn helm() -> Result<PathBuf> {
    HELM.ensure(&|_| ())
}

/// What says how GitOps tools judge objects (`e2e/health`), built first if it is missing.
///
/// # Errors
/// There is no Go, or the build fails.
pub fn health() -> Result<PathBuf> {
    HEALTH.ensure("-s -w", &|_| ())
}

/// Makes `link` point to `target`, whatever it was before.
pub(crate) fn link(target: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    let _ = fs::remove_file(link);
    std::os::unix::fs::symlink(target, link).doing(|| format!("cannot link {}", link.display()))
}

impl Module {
    /// The module's binary, built first if it is missing.
    fn ensure(&self, flags: &str, note: &dyn Fn(&str)) -> Result<PathBuf> {
        let key = key_of(&self.sources.map(|(name, text)| [name, text]).concat());
        let home = cache_dir().join("tools").join(format!("{}-{}-{key}", self.name, self.version));
        let binary = home.join(self.binary);
        once(&binary, || {
            let source = home.join("src");
            fs::create_dir_all(&source).doing(|| format!("cannot make {}", source.display()))?;
            for (name, text) in self.sources {
                fs::write(source.join(name), text).doing(|| format!("cannot write {name}"))?;
            }
            let partial = binary.with_extension("build");
            let mut go = Command::new(go()?);
            go.args(["build", "-v", "-trimpath", "-ldflags", flags, "-o"]).arg(&partial).arg(".");
            build(go.current_dir(&source), self.what, note)?;
            fs::rename(&partial, &binary).doing(|| format!("cannot keep {}", self.what))
        })?;
        Ok(binary)
    }
}

/// The name in the cache folder of what is made of these texts.
pub(crate) fn key_of(texts: &[&str]) -> String {
    let mut hash = Sha256::new();
    texts.iter().for_each(|text| hash.update(text));
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Without these a client sees a server of version v0.0.0.
fn version_flags() -> String {
    let version = "k8s.io/component-base/version";
    let mut parts = KUBERNETES.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or("1"), parts.next().unwrap_or("0"));
    format!("-s -w -X {version}.gitVersion={KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}")
}

/// Runs `make` unless `file` exists, under a lock that other processes of this machine honour.
pub(crate) fn once(file: &Path, make: impl FnOnce() -> Result<()>) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    let parent = file.parent().unwrap_or(file);
    fs::create_dir_all(parent).doing(|| format!("cannot make {}", parent.display()))?;
    let lock = File::create(parent.join(".lock")).doing(|| format!("cannot lock {}", parent.display()))?;
    lock.lock().doing(|| format!("cannot lock {}", parent.display()))?;
    if file.exists() { Ok(()) } else { make() }
}

fn go() -> Result<PathBuf> {
    exec::find("go").ok_or_else(|| {
        Error::new("cannot build the cluster's programs")
            .why("there is no `go` in PATH")
            .hint("install Go 1.24 or newer (Debian: golang-go from backports; or go.dev/dl) and run this again")
    })
}

/// Runs a Go build, telling each package as it is compiled.
fn build(go: &mut Command, what: &str, note: &dyn Fn(&str)) -> Result<()> {
    let failed = || format!("building {what} failed");
    let mut child = go.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().doing(failed)?;
    let mut last = VecDeque::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(std::result::Result::ok) {
            note(&format!("building {what}: {line}"));
            if last.len() == 20 {
                last.pop_front();
            }
            last.push_back(line);
        }
    }
    let status = child.wait().doing(failed)?;
    if status.success() {
        return Ok(());
    }
    let log = last.into_iter().collect::<Vec<_>>().join("\n");
    Err(Error::new(failed()).why(status).log(log).hint("see the compiler's message above; a build needs about 4 GB of disk in ~/.cache and a way to the Go module proxy"))
}
