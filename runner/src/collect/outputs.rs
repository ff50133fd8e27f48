//! Outputs: what was declared, and everything that lies directly in the outputs folder.
//!
//! Comes in: the spec, the store, and what the program reported itself (which is not uploaded again). Goes out: artifacts,
//! each whole; problems by name; and what is missing.

use cultivar_data::{DataError, Kind, Mover, Store, Uploaded, WalkedFile, is_part, look, walk};
use cultivar_protocol::{Artifact, Output, RunSpec, is_safe_relative};
use futures::StreamExt;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// More artifacts than this are not recorded by the operator either.
const MAX_ARTIFACTS: usize = 128;
/// Outputs that are uploaded side by side; each moves several files or parts at once.
const AT_ONCE: usize = 4;

/// What became of the outputs.
#[derive(Debug, Default)]
pub struct Collected {
    /// In the order of declaration, then by name.
    pub artifacts: Vec<Artifact>,
    /// In words.
    pub problems: Vec<String>,
    /// Declared, neither optional nor there.
    pub missing: Vec<String>,
    /// The first error of the store, if it took not everything.
    pub failed: Option<DataError>,
}

#[derive(Debug)]
struct Plan {
    name: String,
    type_: Option<String>,
    what: What,
}

#[derive(Debug)]
enum What {
    File(PathBuf),
    Files(Vec<WalkedFile>),
    Content(String),
}

/// Uploads the outputs of a run.
pub async fn collect(spec: &RunSpec, store: Option<&Store>, mover: &Mover, reported: &[Artifact]) -> Collected {
    let mut collected = Collected::default();
    let plans = plan(spec, reported, &mut collected);
    let Some(store) = store else {
        for plan in plans {
            collected.problems.push(format!(
                "output {:?} is there but cannot be kept: no artifact store is configured for this namespace; make an ArtifactStore, or report an uri",
                plan.name
            ));
        }
        return collected;
    };
    let uploads = plans.into_iter().map(|plan| async move {
        let done = upload(spec, store, mover, &plan).await;
        (plan, done)
    });
    // In order; once the store is away the rest is not tried, each would wait as long again.
    let mut uploads = futures::stream::iter(uploads).buffered(AT_ONCE);
    while let Some((plan, done)) = uploads.next().await {
        match done {
            Ok(done) => collected.artifacts.push(Artifact {
                name: plan.name,
                uri: done.uri,
                digest: Some(done.digest),
                size: Some(done.size),
                type_: plan.type_,
            }),
            Err(error) => {
                collected.problems.push(format!("output {:?} was not uploaded: {error}", plan.name));
                let away = error.is_temporary();
                collected.failed.get_or_insert(error);
                if away {
                    break;
                }
            }
        }
    }
    collected
}

async fn upload(spec: &RunSpec, store: &Store, mover: &Mover, plan: &Plan) -> Result<Uploaded, DataError> {
    let key = super::key(spec, &format!("artifacts/{}/{}", spec.attempt, plan.name));
    match &plan.what {
        What::Files(files) => mover.upload_tree(store, &key, files.clone()).await,
        What::Content(text) => {
            let digest = store.put(&key, text.clone()).await?;
            Ok(Uploaded { uri: store.uri(&key), size: text.len() as u64, digest })
        }
        // Keeps the file's own name, for its ending tells what it is.
        What::File(path) => match path.file_name().and_then(|name| name.to_str()) {
            Some(file) if file != plan.name => mover.upload(store, &format!("{key}/{file}"), path).await,
            _ => mover.upload(store, &key, path).await,
        },
    }
}

fn plan(spec: &RunSpec, reported: &[Artifact], collected: &mut Collected) -> Vec<Plan> {
    let mut plans = Vec::new();
    let mut taken: HashSet<String> = reported.iter().map(|artifact| artifact.name.clone()).collect();
    let mut declared_paths = HashSet::new();
    for output in &spec.outputs {
        let path = output.path.as_ref().map_or_else(|| Path::new(&spec.outputs_dir).join(&output.name), PathBuf::from);
        declared_paths.insert(path.clone());
        if taken.contains(&output.name) {
            continue;
        }
        let found = if pattern(output) { glob(&path, collected) } else { find(&path, None, &output.name, collected) };
        match (found, &output.default) {
            (Some(what), _) => plans.push(Plan { name: output.name.clone(), type_: output.type_.clone(), what }),
            (None, Some(default)) => plans.push(Plan {
                name: output.name.clone(),
                type_: output.type_.clone(),
                what: What::Content(default.clone()),
            }),
            (None, None) if output.optional => {}
            (None, None) => collected.missing.push(output.name.clone()),
        }
        taken.insert(output.name.clone());
    }
    undeclared(spec, &taken, &declared_paths, &mut plans, collected);
    // A directory `x` has its manifest at `x.manifest.json`, where a file of that name would go.
    let folders: HashSet<String> = plans
        .iter()
        .filter(|p| matches!(p.what, What::Files(_)))
        .map(|p| format!("{}.manifest.json", p.name))
        .collect();
    plans.retain(|plan| {
        let clash = folders.contains(&plan.name);
        if clash {
            collected
                .problems
                .push(format!("output {:?} is left out: the manifest of a directory has this name", plan.name));
        }
        !clash
    });
    if plans.len() > MAX_ARTIFACTS {
        let more = plans.len() - MAX_ARTIFACTS;
        collected.problems.push(format!(
            "{more} output(s) are left out: at most {MAX_ARTIFACTS} are kept; put files that belong together into a folder"
        ));
        plans.truncate(MAX_ARTIFACTS);
    }
    plans
}

// Whatever lies directly in the outputs folder under a name that nobody declared.
fn undeclared(
    spec: &RunSpec,
    taken: &HashSet<String>,
    declared: &HashSet<PathBuf>,
    plans: &mut Vec<Plan>,
    collected: &mut Collected,
) {
    let folder = Path::new(&spec.outputs_dir);
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let real = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    for path in paths.into_iter().filter(|path| !declared.contains(path) && !is_part(path)) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("\u{0}").to_owned();
        if name.len() > 200 || !is_safe_relative(&name) || name.contains(char::is_control) {
            collected.problems.push(format!(
                "output {:?} is left out: its name cannot be used",
                path.file_name().unwrap_or_default()
            ));
        } else if taken.contains(&name) {
            collected.problems.push(format!(
                "{name:?} in the outputs folder is left out: an output of this name was declared or reported"
            ));
        } else if let Some(what) = find(&path, Some(&real), &name, collected) {
            plans.push(Plan { name, type_: None, what });
        }
    }
}

fn find(path: &Path, root: Option<&Path>, name: &str, collected: &mut Collected) -> Option<What> {
    std::fs::symlink_metadata(path).ok()?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let root = root.map(Path::to_owned).or_else(|| std::fs::canonicalize(parent).ok())?;
    match look(path, &root) {
        Ok((from, Kind::File(_))) => Some(What::File(from)),
        Ok((from, Kind::Folder)) => folder(&from, name, collected),
        Err(why) => {
            collected.problems.push(format!("output {name:?} is left out: {why}"));
            None
        }
    }
}

// An empty folder is nothing.
fn folder(path: &Path, name: &str, collected: &mut Collected) -> Option<What> {
    match walk(path) {
        Ok(found) => {
            collected.problems.extend(found.refused.iter().map(|text| format!("output {name:?}: {text}")));
            (!found.files.is_empty()).then_some(What::Files(found.files))
        }
        Err(error) => {
            collected.problems.push(format!("output {name:?}: {error}"));
            None
        }
    }
}

fn pattern(output: &Output) -> bool {
    output.path.as_ref().is_some_and(|path| path.rsplit('/').next().unwrap_or(path).contains(['*', '?']))
}

// Every match, files and folders, as one directory.
fn glob(path: &Path, collected: &mut Collected) -> Option<What> {
    let pattern = path.file_name()?.to_str()?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let root = std::fs::canonicalize(parent).ok()?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&root).ok()?.flatten() {
        let Some(name) = entry.file_name().to_str().filter(|name| matches(pattern, name)).map(str::to_owned) else {
            continue;
        };
        match look(&entry.path(), &root) {
            Ok((from, Kind::File(size))) => files.push(WalkedFile { path: name, from, size }),
            Ok((from, Kind::Folder)) => {
                if let Some(What::Files(inner)) = folder(&from, &name, collected) {
                    files.extend(
                        inner.into_iter().map(|file| WalkedFile { path: format!("{name}/{}", file.path), ..file }),
                    );
                }
            }
            Err(why) => collected.problems.push(format!("output {name:?} is left out: {why}")),
        }
    }
    files.sort();
    (!files.is_empty()).then_some(What::Files(files))
}

/// Whether a name matches a pattern of `*` and `?`. A leading dot is matched only by a dot, as in a shell.
fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == name[n]) {
            (p, n) = (p + 1, n + 1);
        } else if let Some((at, taken)) = star {
            // The last star takes one more.
            star = Some((at, taken + 1));
            (p, n) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*.pkl", "a.pkl", true),
            ("*.pkl", "a.pkl.x", false),
            ("m?del*", "model", true),
            ("*", ".hidden", false),
            ("**a*b", "xxaxxb", true),
            ("a*a", "a", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
