//! The program's code over ssh, from a server that runs the real `git-upload-pack`.

#[path = "support/git.rs"]
#[allow(dead_code, reason = "its server speaks HTTP")]
mod git;
#[path = "support/ssh.rs"]
mod ssh;
mod support;

use git::Repository;
use serde_json::json;
use ssh::{Server, key, private, public};
use std::fs;
use support::{Run, problems};

const SERVER: u8 = 1;
const MINE: u8 = 2;
const OTHER: u8 = 3;

fn repository() -> (Repository, String) {
    let repository = Repository::new();
    repository.file("main.sh", "echo one\n");
    let one = repository.commit("one");
    repository.run(&["tag", "-a", "-m", "first", "v1"]);
    repository.file("main.sh", "echo two\n");
    repository.file("data.txt", &"many words\n".repeat(100_000));
    repository.commit("two");
    (repository, one)
}

fn url(server: &Server, repository: &Repository) -> String {
    format!("ssh://git@127.0.0.1:{}{}", server.port, repository.work().display())
}

/// A run with a Secret of these files.
fn with(secret: &[(&str, &str)]) -> Run {
    let run = Run::stored();
    fs::create_dir(run.path("secret")).unwrap();
    secret.iter().for_each(|(name, text)| fs::write(run.path("secret").join(name), text).unwrap());
    run
}

fn of(run: &mut Run, url: &str, revision: Option<&str>) -> String {
    let _ = fs::remove_dir_all(run.path("source"));
    fs::write(run.path("termination"), "").unwrap();
    let git = json!({"url": url, "revision": revision, "secretDir": run.text("secret")});
    run.spec["source"] = json!({"origin": {"git": git}, "path": run.text("source"), "enter": true});
    String::from_utf8(run.command(&["sh", "main.sh"]).output().unwrap().stdout).unwrap()
}

fn known(server: &Server, own: u8) -> String {
    format!(
        "# who is who\nelsewhere {}\n[127.0.0.1]:{} {} comment\n",
        public(&key(OTHER)),
        server.port,
        public(&key(own))
    )
}

#[test]
fn a_branch_a_tag_and_a_commit() {
    let (repository, one) = repository();
    for old in [false, true] {
        if old {
            repository.run(&["config", "uploadpack.allowReachableSHA1InWant", "true"]);
        }
        let server = Server::start(key(SERVER), &key(MINE), old);
        let mut run = with(&[("ssh-privatekey", &private(&key(MINE))), ("known_hosts", &known(&server, SERVER))]);
        for (revision, said) in
            [(None, "two\n"), (Some("main"), "two\n"), (Some("v1"), "one\n"), (Some(one.as_str()), "one\n")]
        {
            assert_eq!(
                of(&mut run, &url(&server, &repository), revision),
                said,
                "{revision:?} {old}: {}",
                run.result()
            );
            assert_eq!(problems(&run.result()), "");
        }
        assert_eq!(run.result()["source"]["commit"], json!(one));
        let record = String::from_utf8(run.object("ns/exp/record-1.json").unwrap()).unwrap();
        assert!(record.contains("ssh://127.0.0.1:") && !record.contains("PRIVATE KEY"), "{record}");
    }
}

#[test]
fn nobody_is_believed_unseen() {
    let (repository, _) = repository();
    let server = Server::start(key(SERVER), &key(MINE), false);
    let mine = private(&key(MINE));
    let (right, other) = (known(&server, SERVER), known(&server, OTHER));
    let revoked = format!("{right}@revoked * {}\n", public(&key(SERVER)));
    let another_name = right.replace("[127.0.0.1]", "[localhost]");
    let elsewhere = key(OTHER);
    for (secret, words) in [
        (vec![("ssh-privatekey", mine.as_str())], "has no key known_hosts"),
        (vec![("ssh-privatekey", &mine), ("known_hosts", "\n")], "has no key known_hosts"),
        (vec![("ssh-privatekey", &mine), ("known_hosts", &another_name)], "has no key for [127.0.0.1]:"),
        (vec![("ssh-privatekey", &mine), ("known_hosts", &other)], "somebody may stand in between"),
        (vec![("ssh-privatekey", &mine), ("known_hosts", &revoked)], "is marked @revoked"),
        (vec![("known_hosts", &right)], "has no key ssh-privatekey"),
        (vec![("username", "x"), ("password", "y")], "has no key ssh-privatekey"),
        (vec![("ssh-privatekey", "no key"), ("known_hosts", &right)], "ssh-privatekey cannot be used"),
        (vec![("ssh-privatekey", &private(&elsewhere)), ("known_hosts", &right)], "does not take the key"),
    ] {
        let mut run = with(&secret);
        assert_eq!(of(&mut run, &url(&server, &repository), None), "");
        let result = run.result();
        assert_eq!(result["reason"], "SourceUnavailable", "{words}: {result}");
        let message = result["message"].as_str().unwrap();
        assert!(message.contains(words) && message.contains("source.git."), "{words}: {message}");
        assert!(!run.path("source").exists());
    }
    // Nor does anyone ask without a Secret.
    let mut run = with(&[]);
    run.spec["source"] = json!({"origin": {"git": {"url": url(&server, &repository)}}, "path": run.text("source")});
    run.command(&["true"]).output().unwrap();
    assert!(run.result()["message"].as_str().unwrap().contains("over ssh it names a Secret"), "{}", run.result());
}

#[test]
fn a_host_may_stand_there_hashed() {
    let (repository, _) = repository();
    let server = Server::start(key(SERVER), &key(MINE), false);
    // As `ssh-keygen -H` writes it; its name cannot be made here without a second implementation of HMAC.
    let mut run = with(&[("ssh-privatekey", &private(&key(MINE))), ("known_hosts", &known(&server, SERVER))]);
    let file = run.text("secret/known_hosts");
    let Ok(done) = std::process::Command::new("ssh-keygen").args(["-q", "-H", "-f", &file]).output() else {
        eprintln!("not run: there is no ssh-keygen");
        return;
    };
    assert!(done.status.success(), "{done:?}");
    assert!(fs::read_to_string(&file).unwrap().contains("|1|"));
    assert_eq!(of(&mut run, &url(&server, &repository), None), "two\n", "{}", run.result());
}

#[test]
fn what_is_not_there_is_said() {
    let (repository, _) = repository();
    let server = Server::start(key(SERVER), &key(MINE), false);
    let mut run = with(&[("ssh-privatekey", &private(&key(MINE))), ("known_hosts", &known(&server, SERVER))]);
    let right = url(&server, &repository);
    for (url, revision, words) in [
        (right.clone(), Some("nowhere"), "neither a branch nor a tag \"nowhere\""),
        (right.replace("code.git", "none"), None, "does not appear to be a git repository"),
        (right.replace("git@", "someone@"), None, "does not take the key"),
    ] {
        assert_eq!(of(&mut run, &url, revision), "");
        let result = run.result();
        assert_eq!(result["reason"], "SourceUnavailable", "{result}");
        assert!(result["message"].as_str().unwrap().contains(words), "{words}: {result}");
    }
}
