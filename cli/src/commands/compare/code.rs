//! The lines in which the code of two experiments differs, as git prints them.

use cultivar_core::domain::ExperimentRecord;
use cultivar_data::{DataError, Limits, Mover, Place, Remote, unpack};
use std::path::Path;
use std::process::Command;

use crate::cluster::{Cluster, text};
use crate::error::{Error, Result};
use crate::store::{self, Operator, Reached};

/// Where an experiment's code is.
#[derive(Debug, PartialEq)]
enum Code {
    Packed {
        uri: String,
        digest: String,
    },
    Commit {
        url: String,
        commit: String,
    },
    /// In its image, or nowhere.
    None,
}

impl Code {
    fn of(record: &ExperimentRecord) -> Self {
        let template = record.template();
        let packed = |field: &str| text(template, &format!("/source/packed/{field}"));
        let git = |field: &str| text(template, &format!("/source/git/{field}"));
        if template.pointer("/source/packed").is_some() {
            return Self::Packed { uri: packed("uri"), digest: packed("digest") };
        }
        match template.pointer("/source/git") {
            Some(_) => Self::Commit { url: git("url"), commit: git("commit") },
            None => Self::None,
        }
    }
}

/// Prints them; nothing where there are none.
pub async fn differences(
    cluster: &Cluster,
    operator: &Operator,
    one: &ExperimentRecord,
    other: &ExperimentRecord,
) -> Result<()> {
    match (Code::of(one), Code::of(other)) {
        (one, other) if one == other => Ok(()),
        (Code::Packed { digest, .. }, Code::Packed { digest: same, .. }) if digest == same => Ok(()),
        (Code::Packed { uri: here, digest }, Code::Packed { uri: there, digest: another }) => {
            let reached = store::reach(cluster, operator).await?;
            let folder = tempfile::tempdir().map_err(|error| Error::new("no temporary folder").why(error))?;
            fetch(&reached, &here, &digest, &folder.path().join(&one.meta.name)).await?;
            fetch(&reached, &there, &another, &folder.path().join(&other.meta.name)).await?;
            folders(folder.path(), &one.meta.name, &other.meta.name)
        }
        (Code::Commit { url, commit }, Code::Commit { url: there, commit: other }) if url == there => {
            if [&commit, &other].iter().all(|commit| !commit.is_empty() && known(commit)) {
                return git(Path::new("."), &["diff", &commit, &other], &[0]);
            }
            let hint = format!("in a clone of {url}: git diff {commit} {other}");
            Err(Error::refused(format!("this folder's repository lacks {commit} or {other}")).hint(hint))
        }
        _ => {
            let what = format!("the code of {} and {} does not come from one place", one.meta.name, other.meta.name);
            Err(Error::refused(what)
                .hint("lines are compared of two packed folders, or of two commits of a repository"))
        }
    }
}

async fn fetch(reached: &Reached, uri: &str, digest: &str, to: &Path) -> Result<()> {
    let failed = |error: DataError| Error::new(format!("the code {uri} cannot be fetched")).why(error);
    let (store, key) = reached.of_object(uri)?;
    let place = Place::of(&to.with_extension("tar.gz")).map_err(failed)?;
    Mover::default().fetch(&Remote::Object(store, key), place.part(), Some(digest)).await.map_err(failed)?;
    unpack(place.part(), uri, to, Limits::default()).map(drop).map_err(failed)
}

// It ends with 1 where there are differences.
fn folders(within: &Path, one: &str, other: &str) -> Result<()> {
    git(within, &["diff", "--no-index", "--no-prefix", one, other], &[0, 1])
}

fn known(commit: &str) -> bool {
    let asked = Command::new("git").args(["cat-file", "-e", &format!("{commit}^{{commit}}")]).output();
    asked.is_ok_and(|asked| asked.status.success())
}

// On this terminal, in its colours.
fn git(within: &Path, words: &[&str], well: &[i32]) -> Result<()> {
    let ended = Command::new("git").arg("--no-pager").args(words).current_dir(within).status();
    let ended =
        ended.map_err(|error| Error::new("git cannot be run").why(error).hint("install git: it finds the lines"))?;
    if ended.code().is_some_and(|code| well.contains(&code)) {
        return Ok(());
    }
    Err(Error::new(format!("git {} failed", words.join(" "))).why(ended))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::experiment;
    use serde_json::json;

    #[test]
    fn code_is_packed_or_a_commit_or_in_the_image() {
        let code = |source| {
            let template = json!({"image": "a:1", "source": source});
            Code::of(&experiment(&json!({"metadata": {"name": "e"}, "status": {"template": template}})).unwrap())
        };
        let commit = Code::Commit { url: "https://g/r".into(), commit: "abc".into() };
        assert_eq!(code(json!({"git": {"url": "https://g/r", "commit": "abc"}})), commit);
        let packed = Code::Packed { uri: "s3://b/c.tar.gz".into(), digest: "sha256:1".into() };
        assert_eq!(code(json!({"packed": {"uri": "s3://b/c.tar.gz", "digest": "sha256:1"}})), packed);
        assert_eq!(code(json!(null)), Code::None);
    }

    #[test]
    fn folders_that_differ_are_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["one", "other"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("a.py"), name).unwrap();
        }
        folders(folder.path(), "one", "other").unwrap();
        folders(folder.path(), "one", "one").unwrap();
        let unknown = git(folder.path(), &["rev-parse", "-q", "--verify", "nothing"], &[0]).unwrap_err().to_string();
        assert!(unknown.contains("git rev-parse"), "{unknown}");
    }
}
