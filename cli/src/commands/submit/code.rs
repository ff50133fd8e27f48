//! The code of a submission: which files it has, and what git knows of them.

use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// What is packed: the repository's top, or the folder itself where there is none.
pub struct Tree {
    pub top: PathBuf,
    /// The folder that the command was typed in, from the top.
    pub below: String,
    pub files: Vec<PathBuf>,
    /// Remote, commit and whether there is more than the commit.
    pub record: Map<String, Value>,
}

/// The files that git tracks, and those that it neither tracks nor ignores; outside a repository what `.gitignore` leaves.
pub fn tree(folder: &Path) -> Result<Tree> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let Some(top) = top(folder)? else {
        // An empty repository elsewhere lends its reading of .gitignore.
        let empty = tempfile::tempdir().map_err(|error| Error::new("no temporary folder").why(error))?;
        let at = empty.path().to_string_lossy().into_owned();
        git(folder, &["init", "-q", "--bare", &at])?;
        let (dir, work) = (format!("--git-dir={at}"), format!("--work-tree={}", folder.display()));
        let listed = git(folder, &[&[dir.as_str(), &work, "-c", "core.bare=false"], &list[..]].concat())?;
        return Ok(Tree {
            top: folder.to_owned(),
            below: String::new(),
            files: files(folder, &listed),
            record: Map::new(),
        });
    };
    let below = below(folder, &top);
    let files = files(&top, &git(&top, &list)?);
    let mut record = Map::new();
    if let Some(remote) = remote(&top) {
        record.insert("remote".to_owned(), cultivar_data::public(&remote).into());
    }
    // A repository without a commit has none to record.
    if let Ok(commit) = git(&top, &["rev-parse", "HEAD"]) {
        record.insert("commit".to_owned(), commit.trim().into());
        record.insert("dirty".to_owned(), (!git(&top, &["status", "--porcelain"])?.is_empty()).into());
    }
    Ok(Tree { top, below, files, record })
}

/// A reference to the commit that is checked out: it must be all that there is, and others must have it.
pub fn reference(folder: &Path, secret: Option<&str>) -> Result<(Value, String)> {
    let top = top(folder)?.ok_or_else(|| {
        Error::refused(format!("{} is in no git repository", folder.display()))
            .hint("without --git the folder is packed")
    })?;
    let changed = git(&top, &["status", "--porcelain"])?;
    if let Some(first) = changed.lines().next() {
        let count = changed.lines().count();
        let what = format!("{count} file(s) differ from the commit, such as {}", first.get(3..).unwrap_or_default());
        return Err(
            Error::refused(what).hint("commit or stash them, or leave --git out: then the folder is packed as it is")
        );
    }
    let commit = git(&top, &["rev-parse", "HEAD"])?.trim().to_owned();
    if git(&top, &["branch", "-r", "--contains", &commit])?.trim().is_empty() {
        return Err(Error::refused(format!("no remote has commit {commit}")).hint("git push it, or leave --git out"));
    }
    let url = remote(&top).ok_or_else(|| Error::refused("the repository has no remote").hint("leave --git out"))?;
    let mut found = json!({"url": cultivar_data::public(&url), "commit": commit});
    if url.starts_with("ssh://") {
        // There the user belongs to the address.
        found["url"] = url.into();
    }
    if let Some(secret) = secret {
        found["secret"] = secret.into();
    }
    Ok((found, below(folder, &top)))
}

fn below(folder: &Path, top: &Path) -> String {
    folder.strip_prefix(top).map(|below| below.to_string_lossy().into_owned()).unwrap_or_default()
}

fn top(folder: &Path) -> Result<Option<PathBuf>> {
    let asked = Command::new("git").arg("-C").arg(folder).args(["rev-parse", "--show-toplevel"]).output();
    let asked = asked.map_err(|error| without_git(&error))?;
    let top = String::from_utf8_lossy(&asked.stdout).trim_end().to_owned();
    Ok((asked.status.success() && !top.is_empty()).then(|| PathBuf::from(top)))
}

fn remote(top: &Path) -> Option<String> {
    let first = git(top, &["remote"]).ok()?.lines().next()?.to_owned();
    let url = git(top, &["remote", "get-url", "origin"]).or_else(|_| git(top, &["remote", "get-url", &first]));
    url.ok().map(|url| url.trim().to_owned())
}

// What git lists and is there: a tracked file may be deleted, and a submodule is a folder.
fn files(top: &Path, listed: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        match top.join(path).symlink_metadata() {
            Ok(meta) if meta.is_dir() => eprintln!("warning: {path} is a repository of its own and is not packed"),
            Ok(_) => found.push(path.into()),
            Err(_) => {}
        }
    }
    found.sort();
    found.dedup();
    found
}

fn git(folder: &Path, args: &[&str]) -> Result<String> {
    let done = Command::new("git").arg("-C").arg(folder).args(args).output().map_err(|error| without_git(&error))?;
    if !done.status.success() {
        let why = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        return Err(Error::new(format!("git {} failed", args.join(" "))).why(why));
    }
    String::from_utf8(done.stdout).map_err(|_| {
        Error::refused(format!("a file below {} has a name that is not UTF-8", folder.display())).hint("rename it")
    })
}

fn without_git(error: &std::io::Error) -> Error {
    Error::new("git cannot be run").why(error).hint("install git: it says which files belong to the code")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("src")).unwrap();
        for (path, text) in [("src/train.py", "1"), ("note.txt", "2"), ("big.bin", "3"), (".gitignore", "*.bin\n")] {
            fs::write(folder.path().join(path), text).unwrap();
        }
        folder
    }

    fn names(tree: &Tree) -> Vec<&str> {
        tree.files.iter().filter_map(|path| path.to_str()).collect()
    }

    fn commit(folder: &Path) {
        git(folder, &["init", "-q"]).unwrap();
        git(folder, &["add", "src"]).unwrap();
        git(folder, &["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "a"]).unwrap();
    }

    #[test]
    fn what_is_ignored_is_not_packed_with_and_without_a_repository() {
        let folder = folder();
        let plain = tree(folder.path()).unwrap();
        assert_eq!(names(&plain), [".gitignore", "note.txt", "src/train.py"]);
        assert!(plain.record.is_empty());
        commit(folder.path());
        git(folder.path(), &["remote", "add", "origin", "https://me:secret@example.org/a.git"]).unwrap();
        let top = folder.path().canonicalize().unwrap();
        let tracked = tree(&top.join("src")).unwrap();
        assert_eq!((names(&tracked), tracked.below.as_str()), (names(&plain), "src"));
        assert_eq!(
            (&tracked.record["remote"], &tracked.record["dirty"]),
            (&json!("https://example.org/a.git"), &json!(true))
        );
    }

    #[test]
    fn a_deleted_file_is_left_out() {
        let folder = folder();
        commit(folder.path());
        fs::remove_file(folder.path().join("src/train.py")).unwrap();
        assert_eq!(names(&tree(folder.path()).unwrap()), [".gitignore", "note.txt"]);
    }

    #[test]
    fn a_reference_needs_a_clean_tree_that_others_have() {
        let folder = folder();
        let refused = |what: &str| {
            let error = reference(folder.path(), None).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        refused("is in no git repository");
        commit(folder.path());
        refused("differ from the commit");
        fs::remove_file(folder.path().join("note.txt")).unwrap();
        fs::remove_file(folder.path().join(".gitignore")).unwrap();
        fs::remove_file(folder.path().join("big.bin")).unwrap();
        refused("no remote has commit");
        let bare = tempfile::tempdir().unwrap();
        git(bare.path(), &["init", "-q", "--bare"]).unwrap();
        let at = format!("file://{}", bare.path().display());
        git(folder.path(), &["remote", "add", "origin", &at]).unwrap();
        git(folder.path(), &["push", "-q", "origin", "HEAD"]).unwrap();
        let (found, below) = reference(folder.path(), Some("keys")).unwrap();
        assert_eq!((&found["url"], &found["secret"], below.as_str()), (&json!(at), &json!("keys"), ""));
    }
}
