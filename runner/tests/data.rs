//! Inputs and outputs through the real binary, with a store in a folder.

mod support;

use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use support::{Run, problems};

fn artifact<'a>(result: &'a Value, name: &str) -> &'a Value {
    result["artifacts"].as_array().unwrap().iter().find(|artifact| artifact["name"] == name).unwrap()
}

/// Makes `src/a/b`, and the archive `x.tgz` of `src`.
fn archive(run: &Run) {
    fs::create_dir_all(run.path("src/a")).unwrap();
    fs::write(run.path("src/a/b"), "hello").unwrap();
    let done = Command::new("tar").args(["czf", &run.text("x.tgz"), "-C", &run.text("src"), "."]).status().unwrap();
    assert!(done.success());
}

#[test]
fn outputs_go_to_the_store_and_come_back_as_inputs() {
    let mut run = Run::stored();
    run.spec["outputs"] = json!([
        {"name": "model", "path": run.text("model.pkl"), "type": "Model"},
        {"name": "data", "path": run.text("data")},
        {"name": "logs", "path": run.text("*.txt")},
        {"name": "word", "path": run.text("none"), "default": "nothing"},
        {"name": "extra", "optional": true},
    ]);
    let script = "printf m > model.pkl; mkdir -p data/sub; printf d > data/sub/x; echo 1 > a.txt; echo 2 > b.txt; echo u > $CULTIVAR_OUTPUTS/plot.png; mkdir $CULTIVAR_OUTPUTS/dir; echo e > $CULTIVAR_OUTPUTS/dir/f; ln -s /etc/passwd $CULTIVAR_OUTPUTS/leak; ln -s /etc $CULTIVAR_OUTPUTS/dir/etc";
    assert_eq!(run.sh(script).status.code(), Some(0), "{:?}", run.result());
    let result = run.result();
    let names: Vec<&str> =
        result["artifacts"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["model", "data", "logs", "word", "dir", "plot.png"]);
    assert_eq!(artifact(&result, "model")["type"], "Model");
    assert!(artifact(&result, "data")["uri"].as_str().unwrap().ends_with("/ns/exp/artifacts/1/data/"));
    assert!(problems(&result).contains("\"leak\"") && problems(&result).contains("\"etc\""), "{result}");
    assert!(run.keys().iter().all(|key| !key.contains("leak") && !key.contains("etc")), "{:?}", run.keys());
    assert_eq!(run.object("ns/exp/artifacts/1/model/model.pkl").unwrap(), b"m");
    assert_eq!(run.object("ns/exp/artifacts/1/word").unwrap(), b"nothing");
    let record: Value = serde_json::from_slice(&run.object("ns/exp/record-1.json").unwrap()).unwrap();
    assert_eq!(record["exitCode"], 0);
    assert_eq!(record["result"]["artifacts"], result["artifacts"]);

    let mut next = Run::new();
    let input = |name: &str| {
        let made = artifact(&result, name);
        json!({"name": name, "uri": made["uri"], "digest": made["digest"], "path": next.text(&format!("in/{name}"))})
    };
    next.spec["inputs"] = json!([input("model"), input("data"), input("plot.png")]);
    let out = next.sh("cat in/model in/data/sub/x in/plot.png");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "mdu\n", "{}", next.result());
    assert_eq!(next.result()["inputs"][1]["digest"], artifact(&result, "data")["digest"]);
    assert_eq!(fs::read_dir(next.path("in")).unwrap().count(), 3, "no half files stay");
}

#[test]
fn a_failed_program_keeps_its_code_and_its_outputs() {
    let mut run = Run::stored();
    run.spec["outputs"] =
        json!([{"name": "there", "path": run.text("there")}, {"name": "missing", "path": run.text("missing")}]);
    assert_eq!(run.sh("echo x > there; exit 3").status.code(), Some(3));
    assert_eq!(artifact(&run.result(), "there")["size"], 2);
    assert_eq!(run.sh("echo x > there").status.code(), Some(125));
    assert_eq!(run.result()["reason"], "OutputMissing");
    assert_eq!(artifact(&run.result(), "there")["size"], 2);
}

#[test]
fn without_a_store_it_says_so() {
    let mut run = Run::new();
    run.spec["outputs"] = json!([{"name": "m", "path": run.text("m")}]);
    assert_eq!(run.sh("echo x > m").status.code(), Some(0));
    assert!(problems(&run.result()).contains("no artifact store"));
}

#[test]
fn corrupt_and_absent_inputs_fail_the_run_before_it_starts() {
    let mut run = Run::new();
    fs::write(run.path("source"), "x").unwrap();
    let uri = |name: &str| format!("file://{}", run.text(name));
    let wrong = format!("sha256:{}", "0".repeat(64));
    for (input, reason) in [
        (json!({"name": "i", "uri": uri("source"), "path": run.text("to"), "digest": wrong}), "InputCorrupt"),
        (json!({"name": "i", "uri": uri("none"), "path": run.text("to")}), "InputUnavailable"),
        (json!({"name": "i", "uri": uri("source"), "path": run.text("to"), "unpack": true}), "InputCorrupt"),
        (json!({"name": "i", "uri": uri("source"), "path": "/proc/nothing/x"}), "RunnerError"),
        (json!({"name": "i", "uri": "ftp://x/y", "path": run.text("to")}), "InputUnavailable"),
    ] {
        run.spec["inputs"] = json!([input]);
        let out = run.sh("echo started");
        assert_eq!(out.status.code(), Some(125), "{reason}");
        assert!(out.stdout.is_empty(), "{reason}");
        assert_eq!(run.result()["reason"], reason, "{}", run.result());
        assert!(!run.path("to").exists(), "{reason}");
    }
}

#[test]
fn archives_are_unpacked_into_a_mounted_folder() {
    let mut run = Run::new();
    archive(&run);
    fs::create_dir(run.path("mounted")).unwrap();
    fs::write(run.path("mounted/before"), "").unwrap();
    run.spec["inputs"] = json!([{"name": "i", "uri": format!("file://{}", run.text("x.tgz")), "path": run.text("mounted"), "unpack": true}]);
    let out = run.sh("cat mounted/a/b; ls -A mounted run");
    assert_eq!(
        String::from_utf8_lossy(&out.stdout),
        "hellomounted:\na\nbefore\n\nrun:\nmetrics.jsonl\n",
        "{}",
        run.result()
    );
}

#[test]
fn a_folder_of_inputs_is_there_with_all_that_is_in_it_and_without() {
    let mut run = Run::new();
    archive(&run);
    let input = |number: u32, uri: &str, unpack: bool| json!({"name": format!("parts/{number}"), "uri": format!("file://{}", run.text(uri)), "path": run.text(&format!("parts/{number}")), "unpack": unpack});
    let inputs = json!([input(0, "src/a/b", false), input(1, "x.tgz", true)]);
    let folders = json!([run.text("parts"), run.text("none/at/all")]);
    (run.spec["inputs"], run.spec["folders"]) = (inputs, folders);
    let out = run.sh("cat parts/0 parts/1/a/b; ls -A parts none/at/all");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "hellohellonone/at/all:\n\nparts:\n0\n1\n", "{}", run.result());
    assert_eq!(run.result()["inputs"][1]["name"], "parts/1");
    run.spec["inputs"] = json!([]);
    run.spec["folders"] = json!([run.text("alone")]);
    assert_eq!(run.sh("test -d alone").status.code(), Some(0), "{}", run.result());
    run.spec["folders"] = json!(["/proc/none"]);
    assert_eq!(run.sh("true").status.code(), Some(125));
    assert!(run.result()["message"].as_str().unwrap().contains("/proc/none"), "{}", run.result());
}

#[test]
fn a_large_result_is_in_the_store() {
    let run = Run::stored();
    let script =
        "i=0; while [ $i -lt 400 ]; do echo \"{\\\"metric-$i\\\": $i}\"; i=$((i+1)); done >> $CULTIVAR_METRICS";
    assert_eq!(run.sh(script).status.code(), Some(0));
    let pointer = run.result()["manifest"].clone();
    assert!(pointer["uri"].as_str().unwrap().ends_with("/ns/exp/result-1.json"));
    let whole: Value = serde_json::from_slice(&run.object("ns/exp/result-1.json").unwrap()).unwrap();
    assert_eq!(whole["metrics"].as_object().unwrap().len(), 400);
}

#[test]
fn a_store_that_is_away_is_the_reason() {
    let mut run = Run::new();
    run.spec["store"] = json!({"url": "s3://b/p", "options": {"aws_endpoint": "http://127.0.0.1:9", "aws_allow_http": "true",
        "aws_region": "x", "aws_access_key_id": "a", "aws_secret_access_key": "b", "cultivar_patience": "300ms"}});
    let out = run.sh("echo x > $CULTIVAR_OUTPUTS/x");
    assert_eq!(out.status.code(), Some(125));
    assert_eq!(run.result()["reason"], "StoreUnavailable");
    assert_eq!(run.sh("exit 9").status.code(), Some(9));
    assert!(problems(&run.result()).contains("record"), "{}", run.result());
}

#[test]
fn a_stop_while_inputs_are_fetched_ends_the_run() {
    let mut run = Run::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}/x", listener.local_addr().unwrap());
    run.spec["inputs"] = json!([{"name": "i", "uri": uri, "path": run.text("to")}]);
    let mut child = run.spawn(&["true"]);
    let _connection = listener.accept().unwrap();
    support::signal("TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}
