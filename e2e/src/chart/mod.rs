//! The tests of the Helm chart and of what is generated from it, without a cluster.
//!
//! In: `charts/cultivar` with its unit tests, its values files in `ci/` (which must render) and `ci/refused/`
//! (which must not), and the generated definitions in `crds/generated`. Out: a summary with one line a check. The
//! generated files are the chart's README, the chart's copies of the definitions, and the kustomize base; `generate`
//! writes them and `test_chart` says which differ.

mod approver;
mod guard;
mod live;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_yaml::Value;

use crate::error::{Context as _, Error, Result};
use crate::{exec, tools};

pub use live::test_on;

const CHART: &str = "charts/cultivar";
const DEFINITIONS: &str = "crds/generated";
const BASE: &str = "config/kustomize/base";
const GENERATE: &str = "run `cargo run --package cultivar-e2e --bin chart -- generate` and commit the result";
const HEADER: &str = "# Generated from charts/cultivar; do not edit.\n";

/// One check and what it found.
#[derive(Debug)]
pub struct Check {
    /// What was checked, in a few words.
    pub name: String,
    /// A remark, or what is wrong.
    pub outcome: Result<String>,
}

/// All checks of the chart.
#[derive(Debug, Default)]
pub struct Summary {
    /// In the order in which they ran.
    pub checks: Vec<Check>,
}

impl Summary {
    /// How many checks passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.checks.iter().filter(|check| check.outcome.is_ok()).count()
    }

    /// How many checks failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.checks.len() - self.passed()
    }

    fn check(&mut self, name: impl Into<String>, outcome: Result<String>) {
        self.checks.push(Check { name: name.into(), outcome });
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for check in &self.checks {
            match &check.outcome {
                Ok(remark) if remark.is_empty() => writeln!(f, "✓ {}", check.name)?,
                Ok(remark) => writeln!(f, "✓ {} ({remark})", check.name)?,
                Err(error) => writeln!(f, "✗ {}: {error}", check.name)?,
            }
        }
        write!(f, "chart: {} passed, {} failed", self.passed(), self.failed())
    }
}

/// Runs every check of the chart. A failed check is part of the summary, not an error.
///
/// # Errors
/// The programs for it cannot be built, or the repository cannot be read.
pub fn test_chart() -> Result<Summary> {
    let root = repository();
    let helm = Helm { program: tools::helm()?, root: root.clone() };
    let mut summary = Summary::default();
    summary.check("unit tests", unit_tests(&root));
    for (name, file) in values_files(&root, "ci")? {
        summary.check(format!("lint with {name}"), helm.lint(&file).map(|()| String::new()));
        summary.check(format!("render with {name}"), helm.render(&[&file]).and_then(|text| sound(&name, &text)));
    }
    for (name, file) in values_files(&root, "ci/refused")? {
        summary.check(format!("refuse {name}"), helm.refuses(&file));
    }
    match generated(&root, &helm) {
        Ok(files) => {
            for (path, wanted) in files {
                summary.check(format!("{} is up to date", path.display()), same(&root.join(&path), &wanted));
            }
        }
        Err(error) => summary.check("generated files", Err(error)),
    }
    Ok(summary)
}

/// Writes what is generated from the chart and returns the files that changed.
///
/// # Errors
/// A program for it cannot be built, the chart does not render, or a file cannot be written.
pub fn generate() -> Result<Vec<PathBuf>> {
    let root = repository();
    let helm = Helm { program: tools::helm()?, root: root.clone() };
    // The copies of the definitions come first: the kustomize base is rendered from them.
    let mut changed = write_changed(&root, definitions(&root)?)?;
    changed.extend(write_changed(&root, rendered(&root, &helm)?)?);
    Ok(changed)
}

fn write_changed(root: &Path, files: Vec<(PathBuf, String)>) -> Result<Vec<PathBuf>> {
    let mut changed = Vec::new();
    for (path, text) in files {
        let file = root.join(&path);
        if fs::read_to_string(&file).is_ok_and(|old| old == text) {
            continue;
        }
        fs::write(&file, text).doing(|| format!("cannot write {}", file.display()))?;
        changed.push(path);
    }
    Ok(changed)
}

/// The manifests of the chart with some values, for a server-side dry run against a cluster.
///
/// # Errors
/// Helm cannot be built, or the chart does not render.
pub fn manifests(values: &[&Path]) -> Result<String> {
    Helm { program: tools::helm()?, root: repository() }.render(values)
}

/// The folder of the chart.
#[must_use]
pub fn chart_dir() -> PathBuf {
    repository().join(CHART)
}

/// The names and paths of the chart's values files that must render.
///
/// # Errors
/// The folder cannot be read.
pub fn ci_values() -> Result<Vec<(String, PathBuf)>> {
    values_files(&repository(), "ci")
}

struct Helm {
    program: PathBuf,
    root: PathBuf,
}

impl Helm {
    fn lint(&self, values: &Path) -> Result<()> {
        let chart = self.root.join(CHART);
        let args = ["lint".as_ref(), "--strict".as_ref(), chart.as_os_str(), "--values".as_ref(), values.as_os_str()];
        exec::run(&self.program, &args).map(drop)
    }

    fn render(&self, values: &[&Path]) -> Result<String> {
        self.template(values, &[])
    }

    fn template(&self, values: &[&Path], more: &[&str]) -> Result<String> {
        let mut command = std::process::Command::new(&self.program);
        command.args(["template", "cultivar"]).arg(self.root.join(CHART)).args(["--namespace", "cultivar-system"]);
        for file in values {
            command.arg("--values").arg(file);
        }
        exec::output(command.args(more), None)
    }

    /// Passes when the chart refuses the values with the words that the file's first comment promises.
    fn refuses(&self, values: &Path) -> Result<String> {
        let text = read(values)?;
        let promised = text.lines().find_map(|line| line.split_once("Refused with: ")).map(|(_, words)| words.trim());
        let promised = promised.ok_or_else(|| {
            Error::new(format!("{} does not say how it is refused", values.display()))
                .hint("add a comment `# Refused with: <part of the message>`")
        })?;
        match self.render(&[values]) {
            Ok(_) => {
                Err(Error::new("the chart accepts these values").hint("tighten values.schema.json or add a `fail`"))
            }
            Err(error) if error.to_string().contains(promised) => Ok(String::new()),
            Err(error) => Err(Error::new(format!("refused, but not with `{promised}`")).why(error)),
        }
    }
}

/// Passes when every document is an object of its own, and rights stay where the values file says.
fn sound(values: &str, text: &str) -> Result<String> {
    let mut seen = BTreeSet::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let object = Value::deserialize(document).doing(|| "a document is not YAML")?;
        if object.is_null() {
            continue;
        }
        let part = |path: &[&str]| {
            let found = path.iter().try_fold(&object, |value, key| value.get(key));
            found.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let id =
            [part(&["apiVersion"]), part(&["kind"]), part(&["metadata", "namespace"]), part(&["metadata", "name"])];
        if id[1].is_empty() || id[3].is_empty() {
            return Err(Error::new("a document has no kind or no name").why(format!("{object:?}")));
        }
        // `least` is what a person without any cluster-wide right can install.
        if values == "least" && id[2].is_empty() {
            return Err(Error::new(format!("{} {} is cluster-scoped, or names no namespace", id[1], id[3])));
        }
        if !seen.insert(id.clone()) {
            return Err(Error::new(format!("{} {} is rendered twice", id[1], id[3])));
        }
    }
    Ok(format!("{} objects", seen.len()))
}

fn unit_tests(root: &Path) -> Result<String> {
    let program = tools::HELM_UNITTEST.ensure(&|_| ())?;
    let said = exec::run(program, &[root.join(CHART)])?;
    let count = said.lines().find_map(|line| line.strip_prefix("Tests:"));
    Ok(count.unwrap_or_default().trim().to_owned())
}

/// Every generated file: its path in the repository and its wanted text.
fn generated(root: &Path, helm: &Helm) -> Result<Vec<(PathBuf, String)>> {
    let mut files = definitions(root)?;
    files.extend(rendered(root, helm)?);
    Ok(files)
}

/// The chart's copies of the definitions: a chart cannot read a file outside its own folder.
fn definitions(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let target = Path::new(CHART).join("files/crds");
    yaml_files(&root.join(DEFINITIONS))?
        .into_iter()
        .map(|(name, file)| Ok((target.join(name).with_extension("yaml"), read(&file)?)))
        .collect()
}

fn rendered(root: &Path, helm: &Helm) -> Result<Vec<(PathBuf, String)>> {
    let base = Path::new(BASE);
    let chart = root.join(CHART);
    let docs = tools::HELM_DOCS.ensure(&|_| ())?;
    let readme = exec::run(docs, &["--dry-run".as_ref(), "--chart-search-root".as_ref(), chart.as_os_str()])?;
    let crds = helm.template(&[], &["--show-only", "templates/definitions.yaml", "--set", "crds.keep=false"])?;
    let operator = helm.template(&[], &["--set", "crds.install=false"])?;
    Ok(vec![
        (Path::new(CHART).join("README.md"), readme),
        (base.join("crds.yaml"), without_helm(&crds)),
        (base.join("operator.yaml"), without_helm(&operator)),
    ])
}

/// A rendered chart without the marks of Helm, which would be lies on objects that Helm does not manage.
fn without_helm(text: &str) -> String {
    let marks = ["helm.sh/chart:", "app.kubernetes.io/managed-by: Helm", "# Source: "];
    let kept = text.lines().filter(|line| !marks.iter().any(|mark| line.trim_start().starts_with(mark)));
    let mut out = String::from(HEADER);
    for line in kept.filter(|line| !line.is_empty()) {
        out.push_str(line);
        out.push('\n');
    }
    out
}

fn same(file: &Path, wanted: &str) -> Result<String> {
    let found = fs::read_to_string(file).unwrap_or_default();
    if found == wanted {
        return Ok(String::new());
    }
    let line = found.lines().zip(wanted.lines()).take_while(|(old, new)| old == new).count() + 1;
    Err(Error::new(format!("it differs from line {line} on")).hint(GENERATE))
}

fn values_files(root: &Path, folder: &str) -> Result<Vec<(String, PathBuf)>> {
    yaml_files(&root.join(CHART).join(folder))
}

/// The YAML files of a folder with their names, in order.
fn yaml_files(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(folder).doing(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<(String, PathBuf)> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path)))
        .collect();
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).doing(|| format!("cannot read {}", file.display()))
}

/// The root of the repository that this harness was built in.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
