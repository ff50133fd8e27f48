//! The program's code through the real binary: packed into an artifact.

mod support;

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use support::{Run, problems};

fn sha256(bytes: &[u8]) -> String {
    cultivar_data::digest_of(bytes)
}

/// A run with `code.tgz` in it, and the code's digest.
fn packed() -> (Run, String) {
    let run = Run::stored();
    fs::create_dir_all(run.path("code/trainers/digits")).unwrap();
    fs::write(run.path("code/main.sh"), "echo top of $(pwd)\n").unwrap();
    fs::write(run.path("code/trainers/digits/train.sh"), "echo digits; cat ../../main.sh\n").unwrap();
    std::os::unix::fs::symlink("/etc", run.path("code/way-out")).unwrap();
    let tar = Command::new("tar")
        .args(["czf", &run.text("code.tgz"), "--exclude", "way-out", "-C", &run.text("code"), "."])
        .status();
    assert!(tar.unwrap().success());
    let digest = sha256(&fs::read(run.path("code.tgz")).unwrap());
    (run, digest)
}

fn source(run: &Run, uri: &str, digest: &str) -> Value {
    json!({
        "origin": {"packed": {"uri": uri, "digest": digest, "remote": "https://example.org/r", "commit": "c0ffee", "dirty": true}},
        "path": run.text("source"), "enter": true,
    })
}

fn archive(run: &Run) -> String {
    format!("file://{}", run.text("code.tgz"))
}

#[test]
fn the_program_starts_in_its_code() {
    let (mut run, digest) = packed();
    run.spec["source"] = source(&run, &archive(&run), &digest);
    let out = run.command(&["sh", "main.sh"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), format!("top of {}\n", run.text("source")), "{}", run.result());
    let environment = &run.result()["environment"];
    assert_eq!((&environment["gitCommit"], &environment["gitDirty"]), (&json!("c0ffee"), &json!(true)));
    assert_eq!(
        (&environment["gitRemote"], &environment["sourceDigest"]),
        (&json!("https://example.org/r"), &json!(digest))
    );
    let record: Value = serde_json::from_slice(&run.object("ns/exp/record-1.json").unwrap()).unwrap();
    assert_eq!(record["result"]["environment"]["sourceUri"], json!(archive(&run)));
    let names: Vec<_> = fs::read_dir(run.path("source")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 2, "nothing half is left: {names:?}");
}

#[test]
fn a_subdirectory_is_where_it_starts_and_a_relative_program_is_found_there() {
    let (mut run, digest) = packed();
    fs::create_dir(run.path("source")).unwrap();
    run.spec["source"] = source(&run, &archive(&run), &digest);
    run.spec["source"]["subdirectory"] = "trainers/digits".into();
    let out = run.command(&["sh", "train.sh"]).output().unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("digits\necho top of"), "{}", run.result());
    run.spec["source"]["enter"] = false.into();
    run.spec["source"]["path"] = run.text("again").into();
    let out = run.command(&["pwd"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), run.root.path().display().to_string());
}

#[test]
fn a_directory_comes_by_its_manifest() {
    let (mut run, _) = packed();
    let mut pack = Run::new();
    fs::remove_file(run.path("code/way-out")).unwrap();
    pack.spec["store"] = run.spec["store"].clone();
    pack.spec["outputs"] = json!([{"name": "code", "path": run.text("code")}]);
    assert_eq!(pack.sh("true").status.code(), Some(0), "{}", pack.result());
    let made = pack.result()["artifacts"][0].clone();
    for uri in [made["uri"].as_str().unwrap(), made["uri"].as_str().unwrap().trim_end_matches('/')] {
        let _ = fs::remove_dir_all(run.path("source"));
        run.spec["source"] = source(&run, uri, made["digest"].as_str().unwrap());
        let out = run.command(&["sh", "main.sh"]).output().unwrap();
        assert!(String::from_utf8_lossy(&out.stdout).starts_with("top of"), "{uri}: {}", run.result());
    }
}

#[test]
fn inputs_may_lie_in_the_code() {
    let (mut run, digest) = packed();
    fs::write(run.path("words"), "hello").unwrap();
    run.spec["source"] = source(&run, &archive(&run), &digest);
    run.spec["inputs"] = json!([{"name": "words", "uri": format!("file://{}", run.text("words")), "path": run.text("source/data/words")}]);
    assert_eq!(run.sh("cat data/words main.sh").stdout, b"helloecho top of $(pwd)\n");
}

#[test]
fn code_that_is_not_what_it_was_or_not_there_fails_the_run_before_it_starts() {
    let (mut run, digest) = packed();
    let other = sha256(b"other");
    fs::write(run.path("plain"), "no archive").unwrap();
    let plain = format!("file://{}", run.text("plain"));
    let hostile = hostile(&run);
    let nowhere = format!("file://{}", run.text("nowhere"));
    let (archive, plain_digest) = (archive(&run), sha256(b"no archive"));
    for (uri, digest, subdirectory, reason, words) in [
        (&archive, &other, None, "InputCorrupt", "source.packed: "),
        (&plain, &plain_digest, None, "InputCorrupt", "cannot be read"),
        (&hostile.0, &hostile.1, None, "InputCorrupt", "leaves the folder"),
        (&nowhere, &digest, None, "SourceUnavailable", "there is nothing at"),
        (&archive, &digest, Some("trainers/letters"), "SourceUnavailable", "main.sh, trainers"),
        (&archive, &digest, Some("main.sh"), "SourceUnavailable", "is no folder"),
    ] {
        let _ = fs::remove_dir_all(run.path("source"));
        run.spec["source"] = source(&run, uri, digest);
        run.spec["source"]["subdirectory"] = subdirectory.into();
        fs::write(run.path("termination"), "").unwrap();
        let out = run.sh("echo started");
        assert_eq!((out.status.code(), out.stdout.is_empty()), (Some(125), true), "{uri}");
        let result = run.result();
        assert_eq!(result["reason"], reason, "{result}");
        assert!(result["message"].as_str().unwrap().contains(words), "{result}");
        assert_eq!(problems(&result), "");
    }
}

fn hostile(run: &Run) -> (String, String) {
    let tar = Command::new("tar").args(["cf", &run.text("bad.tar"), "-C", &run.text("code"), "way-out"]).status();
    assert!(tar.unwrap().success());
    (format!("file://{}", run.text("bad.tar")), sha256(&fs::read(run.path("bad.tar")).unwrap()))
}

/// A Python that notes what it is asked and installs one module, or fails; it also runs the program.
const PYTHON: &str = r#"#!/bin/sh
[ "$1" = -c ] && [ -z "${2##*SOABI*}" ] && { echo "${VERSION-3.12}"; exit; }
[ "$1" = -m ] || exec sh "$@"
[ "$3" = config ] && { [ "$VERSION" = odd ] && exit 7; echo "global.index-url='https://$WHO@index/simple'"; exit; }
[ -z "$CULTIVAR_RUN_SPEC" ] || exit 9
echo "$PWD $*" > "$NOTES"
[ -w "$TMPDIR" ] || exit 8
grep -q broken "${11}" && { echo "ERROR: No matching distribution found for broken" >&2; exit 1; }
mkdir -p "$9/bin" "$9/demo-1.0.dist-info"
printf '#!/bin/sh\necho a command\n' > "$9/bin/demo"; chmod +x "$9/bin/demo"
"#;

fn with_python(requirements: &str) -> Run {
    let (mut run, _) = packed();
    fs::create_dir(run.path("bin")).unwrap();
    fs::write(run.path("bin/python3"), PYTHON).unwrap();
    fs::set_permissions(run.path("bin/python3"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(run.path("code/trainers/requirements.txt"), requirements).unwrap();
    let tar = Command::new("tar").args(["cf", &run.text("code.tar"), "-C", &run.text("code"), "trainers"]).status();
    assert!(tar.unwrap().success());
    let digest = sha256(&fs::read(run.path("code.tar")).unwrap());
    run.spec["source"] = source(&run, &format!("file://{}", run.text("code.tar")), &digest);
    run.spec["source"]["requirements"] = "trainers/requirements.txt".into();
    run
}

fn with_path(run: &Run, words: &[&str]) -> std::process::Output {
    let path = format!("{}:/usr/bin:/bin", run.text("bin"));
    run.command(words).env("PATH", path).env("PYTHONPATH", "/before").env("NOTES", run.text("notes")).output().unwrap()
}

#[test]
fn requirements_are_installed_for_the_program() {
    let run = with_python("demo==1.0\n");
    let out = with_path(&run, &["sh", "-c", "echo $PYTHONPATH; demo; ls $(dirname $PYTHONPATH | cut -d: -f1)"]);
    let folder = run.text("run/python");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.starts_with(&format!("{folder}:/before\na command\n")), "{said} {}", run.result());
    let notes = fs::read_to_string(run.path("notes")).unwrap();
    let source = run.text("source/trainers");
    let words = format!(
        "{source} -m pip install --quiet --no-input --disable-pip-version-check --no-cache-dir --target {folder} -r {source}/requirements.txt\n"
    );
    assert_eq!(notes, words);
    assert_eq!(run.result()["environment"]["requirementsDigest"], json!(sha256(b"demo==1.0\n")));
    let record: Value = serde_json::from_slice(&run.object("ns/exp/record-1.json").unwrap()).unwrap();
    assert_eq!(record["result"]["environment"]["packages"]["demo"], "1.0");
    assert!(!run.path("run/pip").exists());
}

#[test]
fn requirements_that_cannot_be_installed_fail_the_run_with_pips_words() {
    let mut run = with_python("broken\n");
    let out = with_path(&run, &["sh", "-c", "echo started"]);
    assert_eq!((out.status.code(), out.stdout.is_empty()), (Some(125), true));
    assert_eq!(run.result()["reason"], "RunnerError");
    assert!(run.result()["message"].as_str().unwrap().contains("No matching distribution found for broken"));
    for (requirements, word, reason, words) in [
        ("none.txt", "sh", "SourceUnavailable", "\"none.txt\", from the top of the source"),
        ("trainers", "sh", "SourceUnavailable", "no file of the source"),
        ("trainers/requirements.txt", "python9", "RunnerError", "the image has no python9"),
    ] {
        let _ = fs::remove_dir_all(run.path("source"));
        fs::write(run.path("termination"), "").unwrap();
        run.spec["source"]["requirements"] = requirements.into();
        with_path(&run, &[word, "-c", "true"]);
        let result = run.result();
        assert_eq!(result["reason"], reason, "{result}");
        assert!(result["message"].as_str().unwrap().contains(words), "{result}");
    }
}

#[test]
fn what_one_run_has_installed_the_next_one_finds() {
    let mut run = with_python("demo==1.0\n");
    run.spec["source"]["cache"] = "ns/cache".into();
    let again = |run: &Run, settings: &[(&str, &str)]| {
        for folder in ["source", "run", "notes"] {
            let _ = fs::remove_dir_all(run.path(folder)).or_else(|_| fs::remove_file(run.path(folder)));
        }
        fs::write(run.path("termination"), "").unwrap();
        let path = format!("{}:/usr/bin:/bin", run.text("bin"));
        let mut command = run.command(&["sh", "-c", "demo; test -x $(command -v demo)"]);
        command.env("PATH", path).env("NOTES", run.text("notes")).envs(settings.iter().copied());
        let out = command.output().unwrap();
        assert_eq!((out.status.code(), &out.stdout[..]), (Some(0), &b"a command\n"[..]), "{}", run.result());
        let result = run.result();
        let installed = fs::read_to_string(run.path("notes")).is_ok();
        (result["environment"]["requirementsCache"].as_str().unwrap().to_owned(), installed, problems(&result))
    };
    let entries = |run: &Run| {
        let keys: Vec<String> = run.keys().into_iter().filter(|key| key.starts_with("ns/cache/python/")).collect();
        keys
    };
    assert_eq!(again(&run, &[]), ("miss".into(), true, String::new()));
    assert_eq!(again(&run, &[]), ("hit".into(), false, String::new()));
    // Who asks the index is not what is asked; which Python asks is.
    assert_eq!(again(&run, &[("WHO", "me:t0ken")]).0, "hit");
    assert_eq!(again(&run, &[("VERSION", "3.13")]).0, "miss");
    assert_eq!(entries(&run).len(), 2);
    // One that answers no question is no reason to fail.
    let (said, installed, _) = again(&run, &[("VERSION", "odd")]);
    assert!(said.starts_with("not used: Python does not say what it is") && installed, "{said}");

    // An entry that was torn is not used, said, replaced, and then there again.
    for key in entries(&run) {
        let file = run.path("store").join(key);
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - 20]).unwrap();
    }
    let (said, installed, problems) = again(&run, &[]);
    assert_eq!((said.as_str(), installed), ("miss", true));
    assert!(problems.contains("packages that are kept were not used"), "{problems}");
    assert_eq!(again(&run, &[]), ("hit".into(), false, String::new()));

    // What is not only in the file has no key; nor has anything without a store.
    fs::write(run.path("code/trainers/requirements.txt"), "./trainers\n").unwrap();
    let tar = Command::new("tar").args(["cf", &run.text("code.tar"), "-C", &run.text("code"), "trainers"]).status();
    assert!(tar.unwrap().success());
    run.spec["source"]["origin"]["packed"]["digest"] = sha256(&fs::read(run.path("code.tar")).unwrap()).into();
    let (said, installed, _) = again(&run, &[]);
    assert!(said.contains("\"./trainers\" is code that lies beside it") && installed, "{said}");
    run.spec.as_object_mut().unwrap().remove("store");
    assert_eq!(again(&run, &[]).0, "not used: there is no store");
}

#[test]
fn a_store_that_keeps_nothing_fails_no_run() {
    let mut run = with_python("demo==1.0\n");
    run.spec["source"]["cache"] = "ns/cache".into();
    run.spec["store"]["options"] = json!({"cultivar_patience": "300ms"});
    // Where its folder should be there is a file.
    fs::create_dir_all(run.path("store/ns")).unwrap();
    fs::write(run.path("store/ns/cache"), "").unwrap();
    let out = with_path(&run, &["sh", "-c", "demo"]);
    assert_eq!(out.stdout, b"a command\n", "{}", run.result());
    assert!(problems(&run.result()).contains("are not kept for the next run"), "{}", run.result());
}
