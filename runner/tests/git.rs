//! The program's code through the real binary: a commit of a repository, from a real git server.

#[path = "support/git.rs"]
mod git;
mod support;

use cultivar_runner::git::{Bounds, CheckedOut, GitError, Wanted, fetch};
use git::{Manner, Repository, Server};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use support::{Run, problems};

/// A repository with a branch, a tag and some history; and what its commits are called.
fn repository() -> (Repository, Vec<String>) {
    let repository = Repository::new();
    repository.file("main.sh", "echo one\n");
    let one = repository.commit("one");
    repository.run(&["tag", "-a", "-m", "first", "v1"]);
    repository.file("main.sh", "echo two\n");
    repository.file("trainers/digits/train.sh", "echo digits\n");
    repository.file("run.sh", "#!/bin/sh\necho run\n");
    fs::set_permissions(repository.work().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("trainers/digits/train.sh", repository.work().join("link.sh")).unwrap();
    let two = repository.commit("two");
    repository.run(&["checkout", "-q", "-b", "feature/x"]);
    repository.file("main.sh", "echo three\n");
    let three = repository.commit("three");
    repository.run(&["checkout", "-q", "main"]);
    (repository, vec![one, two, three])
}

fn of(run: &mut Run, git: Value) {
    let _ = fs::remove_dir_all(run.path("source"));
    fs::write(run.path("termination"), "").unwrap();
    run.spec["source"] = json!({"origin": {"git": git}, "path": run.text("source"), "enter": true});
}

fn out(run: &Run, words: &[&str]) -> String {
    String::from_utf8(run.command(words).output().unwrap().stdout).unwrap()
}

#[test]
fn a_branch_a_tag_a_commit_and_the_default() {
    let (repository, commits) = repository();
    for old in [false, true] {
        if old {
            repository.run(&["config", "uploadpack.allowReachableSHA1InWant", "true"]);
        }
        let server = Server::start(repository.root(), Manner { old, ..Manner::default() });
        let mut run = Run::stored();
        for (revision, said, commit) in [
            (json!(null), "two\n", 1),
            (json!("main"), "two\n", 1),
            (json!("feature/x"), "three\n", 2),
            (json!("refs/heads/feature/x"), "three\n", 2),
            (json!("v1"), "one\n", 0),
            (json!(commits[0]), "one\n", 0),
        ] {
            of(&mut run, json!({"url": server.url, "revision": revision}));
            assert_eq!(out(&run, &["sh", "main.sh"]), said, "{revision} {old}: {}", run.result());
            assert_eq!(run.result()["source"]["commit"], json!(commits[commit]), "{revision} {old}");
            assert_eq!(run.result()["environment"]["gitCommit"], json!(commits[commit]));
            assert_eq!(run.result()["environment"]["gitRemote"], json!(server.url));
            assert_eq!(problems(&run.result()), "");
        }
        let names: Vec<_> =
            fs::read_dir(run.path("source")).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names.len(), 1, "the commit's files and nothing else: {names:?}");
        assert!(fs::read_dir(run.path("run")).unwrap().flatten().all(|entry| !cultivar_data::is_part(&entry.path())));
    }
}

#[test]
fn files_links_and_subdirectories_are_as_in_the_commit() {
    let (repository, _) = repository();
    let server = Server::start(repository.root(), Manner::default());
    let mut run = Run::new();
    of(&mut run, json!({"url": format!("{}/", server.url)}));
    assert_eq!(out(&run, &["./run.sh"]), "run\n", "{}", run.result());
    assert_eq!(fs::read_link(run.path("source/link.sh")).unwrap(), Path::new("trainers/digits/train.sh"));
    of(&mut run, json!({"url": server.url}));
    run.spec["source"]["subdirectory"] = "trainers/digits".into();
    assert_eq!(out(&run, &["sh", "train.sh"]), "digits\n", "{}", run.result());
}

#[test]
fn a_pinned_commit_is_fetched_when_the_branch_has_moved_on() {
    let (repository, commits) = repository();
    let server = Server::start(repository.root(), Manner::default());
    repository.file("main.sh", "echo four\n");
    repository.commit("four");
    let mut run = Run::new();
    of(&mut run, json!({"url": server.url, "revision": "main", "commit": commits[1]}));
    assert_eq!(out(&run, &["sh", "main.sh"]), "two\n", "{}", run.result());
    assert_eq!(run.result()["environment"]["gitRevision"], "main");
    of(&mut run, json!({"url": server.url, "revision": "main"}));
    assert_eq!(out(&run, &["sh", "main.sh"]), "four\n", "{}", run.result());
}

#[test]
fn a_private_repository_needs_the_secret_and_nobody_else_sees_it() {
    let (repository, _) = repository();
    // t:word
    let private = || Manner { basic: Some("dDp3b3Jk"), ..Manner::default() };
    let server = Server::start(repository.root(), private());
    let mut run = Run::stored();
    let secret = |run: &Run, name: &str, files: &[(&str, &str)]| {
        fs::create_dir_all(run.path(name)).unwrap();
        files.iter().for_each(|(file, text)| fs::write(run.path(name).join(file), text).unwrap());
        json!({"url": server.url, "secretDir": run.text(name)})
    };
    let right = secret(&run, "right", &[("username", "t"), ("password", "word\n")]);
    of(&mut run, right);
    assert_eq!(out(&run, &["sh", "main.sh"]), "two\n", "{}", run.result());
    let record = String::from_utf8(run.object("ns/exp/record-1.json").unwrap()).unwrap();
    assert!(!record.contains("word") && !record.contains("dDp3b3Jk"), "{record}");

    let wrong = secret(&run, "wrong", &[("username", "t"), ("password", "hunter2")]);
    let none = json!({"url": server.url});
    let empty = secret(&run, "empty", &[("ssh-privatekey", "x")]);
    for (git, words) in [(wrong, "check username"), (none, "name a Secret"), (empty, "no key password")] {
        of(&mut run, git);
        assert_eq!(out(&run, &["echo", "started"]), "");
        let result = run.result();
        assert_eq!(result["reason"], "SourceUnavailable", "{result}");
        let message = result["message"].as_str().unwrap();
        assert!(
            message.contains(words) && message.contains("source.git.") && !message.contains("hunter2"),
            "{message}"
        );
    }

    let other = Server::start(repository.root(), Manner::default());
    let gate = Server::start(repository.root(), Manner { to: Some(other.url.clone()), ..Manner::default() });
    let elsewhere = json!({"url": gate.url, "secretDir": run.text("right")});
    of(&mut run, elsewhere);
    assert_eq!(out(&run, &["sh", "main.sh"]), "two\n", "{}", run.result());
    assert!(gate.seen().iter().all(|request| request.contains("Basic")), "{:?}", gate.seen());
    assert!(
        other.seen().len() >= 2 && other.seen().iter().all(|request| !request.contains("Basic")),
        "{:?}",
        other.seen()
    );
}

#[test]
fn what_is_not_there_is_said() {
    let (repository, _) = repository();
    let server = Server::start(repository.root(), Manner::default());
    let gone = "0123456789abcdef0123456789abcdef01234567";
    let mut run = Run::new();
    for (git, words) in [
        (json!({"url": server.url, "revision": "nowhere"}), "neither a branch nor a tag \"nowhere\""),
        (json!({"url": server.url, "commit": gone}), gone),
        (json!({"url": server.url.replace("code", "none")}), "there is no repository at"),
    ] {
        of(&mut run, git);
        assert_eq!(out(&run, &["echo", "started"]), "");
        let result = run.result();
        assert_eq!(result["reason"], "SourceUnavailable", "{result}");
        assert!(result["message"].as_str().unwrap().contains(words), "{result}");
        assert!(!run.path("source").exists() && result["source"].is_null());
    }
}

#[test]
fn a_server_that_was_away_is_asked_again() {
    let (repository, _) = repository();
    let manner = Manner { away: 2, broken: 1, ..Manner::default() };
    let server = Server::start(repository.root(), manner);
    let mut run = Run::new();
    of(&mut run, json!({"url": server.url}));
    assert_eq!(out(&run, &["sh", "main.sh"]), "two\n", "{}", run.result());
    assert!(server.seen().len() >= 6, "{:?}", server.seen());
}

/// Fetches within the test, with bounds of its own.
fn directly(url: &str, revision: &str, to: &Path, bounds: Bounds) -> Result<CheckedOut, GitError> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let wanted = Wanted { url: url.to_owned(), revision: Some(revision.to_owned()), commit: None, credentials: None };
    fetch(&wanted, to, scratch.path(), bounds, runtime.handle(), &AtomicBool::new(false))
}

#[test]
fn a_server_that_stays_away_is_of_the_infrastructure() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let root = tempfile::tempdir().unwrap();
    let bounds = Bounds { patience: Duration::from_millis(200), ..Bounds::default() };
    let error = directly(&format!("http://{closed}/code.git"), "main", &root.path().join("to"), bounds).unwrap_err();
    assert_eq!(error.reason(), cultivar_protocol::Reason::StoreUnavailable, "{error}");
    assert!(error.to_string().contains("does not answer"), "{error}");
}

#[test]
fn more_than_code_is_refused() {
    let repository = Repository::new();
    repository.file("large", &"x".repeat(100_000));
    repository.file("small", "y");
    repository.commit("data");
    let server = Server::start(repository.root(), Manner::default());
    let root = tempfile::tempdir().unwrap();
    for (number, (bounds, words)) in [
        (Bounds { bytes: 50_000, ..Bounds::default() }, "holds more than 50000 bytes"),
        (Bounds { bytes: 100, ..Bounds::default() }, "takes more bytes than are allowed"),
        (Bounds { object: 50_000, ..Bounds::default() }, "a file of more than 50000 bytes"),
        (Bounds { entries: 1, ..Bounds::default() }, "more than 1 files"),
    ]
    .into_iter()
    .enumerate()
    {
        let error = directly(&server.url, "main", &root.path().join(number.to_string()), bounds).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_hostile_commit_writes_nothing_outside() {
    let repository = Repository::new();
    repository.file("evil", "evil");
    repository.commit("honest");
    let blob = repository.run(&["rev-parse", "HEAD:evil"]);
    let outside = repository.fed(&["hash-object", "-w", "--stdin"], "../..");
    let inner = repository.fed(&["mktree"], &format!("100644 blob {blob}\tevil\n"));
    let raw = |entries: &[(&str, &str, &str)]| raw_tree(&repository, entries);
    let trees = [
        ("dotdot", raw(&[("40000", "..", &inner)]), "\"..\""),
        ("slash", raw(&[("100644", "a/../../evil", &blob)]), "no name for a file"),
        ("dotgit", raw(&[("40000", ".GIT", &inner)]), ".GIT"),
        ("twice", raw(&[("120000", "a", &blob), ("40000", "a", &inner)]), "is in it twice"),
        ("again", raw(&[("100644", "a", &blob), ("100644", "a", &blob)]), "is in it twice"),
    ];
    let mut run = Run::new();
    for (branch, tree, words) in trees {
        repository.branch(branch, &tree);
        let server = Server::start(repository.root(), Manner::default());
        of(&mut run, json!({"url": server.url, "revision": branch}));
        assert_eq!(out(&run, &["echo", "started"]), "", "{branch}");
        let result = run.result();
        assert_eq!(result["reason"], "InputCorrupt", "{branch}: {result}");
        assert!(result["message"].as_str().unwrap().contains(words), "{branch}: {result}");
        assert!(!run.path("source").exists() && !run.path("evil").exists(), "{branch}");
    }
    repository.branch("links", &raw(&[("120000", "absolute", &blob), ("120000", "out", &outside)]));
    let server = Server::start(repository.root(), Manner::default());
    of(&mut run, json!({"url": server.url, "revision": "links"}));
    assert_eq!(out(&run, &["ls"]), "absolute\n", "{}", run.result());
    assert!(problems(&run.result()).contains("links that leave the source are left out: out"), "{}", run.result());
}

// A tree as no `git` would write it.
fn raw_tree(repository: &Repository, entries: &[(&str, &str, &str)]) -> String {
    let mut bytes = Vec::new();
    for (mode, name, id) in entries {
        bytes.extend_from_slice(format!("{mode} {name}\0").as_bytes());
        bytes.extend((0..20).map(|at| u8::from_str_radix(&id[at * 2..at * 2 + 2], 16).unwrap()));
    }
    let file = repository.root().join("raw");
    fs::write(&file, bytes).unwrap();
    repository.run(&["hash-object", "-w", "-t", "tree", "--literally", &file.display().to_string()])
}

#[test]
fn what_is_not_fetched_is_named() {
    let repository = Repository::new();
    repository.file("weights.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
    repository.file(".gitmodules", "[submodule \"lib\"]\n\tpath = lib\n\turl = https://example.org/lib\n");
    repository.run(&["add", "."]);
    repository.run(&["update-index", "--add", "--cacheinfo", "160000,0123456789abcdef0123456789abcdef01234567,lib"]);
    repository.run(&["commit", "-q", "-m", "with a submodule"]);
    let server = Server::start(repository.root(), Manner::default());
    let mut run = Run::new();
    of(&mut run, json!({"url": server.url}));
    assert_eq!(out(&run, &["ls", "lib"]), "", "{}", run.result());
    let said = problems(&run.result());
    assert!(said.contains("submodules are not fetched, their folders are empty: lib"), "{said}");
    assert!(said.contains("LFS") && said.contains("weights.bin"), "{said}");
    assert_eq!(run.result()["reason"], Value::Null);
}

#[test]
fn a_stop_while_code_is_fetched_ends_the_run() {
    let mut run = Run::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/code.git", listener.local_addr().unwrap());
    of(&mut run, json!({"url": url}));
    let mut child = run.spawn(&["true"]);
    let _connection = listener.accept().unwrap();
    support::signal("TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}
