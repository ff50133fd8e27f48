//! The program as a process: exit codes, signals, orphans, output, the result.

mod support;

use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Run, problems, signal, until};

#[test]
fn exit_codes_are_kept() {
    let run = Run::new();
    for (script, code) in [("exit 0", 0), ("exit 1", 1), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
    {
        assert_eq!(run.sh(script).status.code(), Some(code), "{script}");
    }
    let out = run.command(&["/no/such/program"]).output().unwrap();
    assert_eq!(out.status.code(), Some(125));
    assert_eq!(run.result()["reason"], "RunnerError");
    assert!(run.result()["message"].as_str().unwrap().contains("/no/such/program"));
}

#[test]
fn output_is_passed_on_unchanged_and_at_once() {
    let run = Run::new();
    let mut child = run.spawn(&["sh", "-c", "printf 'a\\377\\000b'; printf err >&2; sleep 30"]);
    let started = Instant::now();
    let mut bytes = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"a\xff\0b");
    let mut text = [0; 3];
    child.stderr.as_mut().unwrap().read_exact(&mut text).unwrap();
    assert_eq!(&text, b"err");
    assert!(started.elapsed() < Duration::from_secs(5), "the program is still running; nothing was to wait for it");
    signal("TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn every_signal_is_forwarded() {
    for name in ["TERM", "INT", "HUP", "USR1", "USR2", "QUIT"] {
        let run = Run::new();
        let child =
            run.spawn(&["sh", "-c", &format!("trap 'exit 7' {name}; echo > ready; while :; do sleep 0.01; done")]);
        until("ready", || run.path("ready").exists());
        signal(name, &child);
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(7), "{name}");
    }
}

#[test]
fn what_the_program_leaves_behind_is_ended() {
    let run = Run::new();
    let started = Instant::now();
    // One in the group, and one that left it; both hold the output open and ignore SIGTERM.
    let script = "trap '' TERM; sleep 300 & echo $! > one; setsid sh -c 'echo $$ > two; exec sleep 300' & while [ ! -s two ]; do sleep 0.01; done; exit 3";
    assert_eq!(run.sh(script).status.code(), Some(3));
    assert!(started.elapsed() < Duration::from_secs(10));
    for name in ["one", "two"] {
        let pid = std::fs::read_to_string(run.path(name)).unwrap();
        assert!(!std::path::Path::new("/proc").join(pid.trim()).exists(), "{name} lives");
    }
}

#[test]
fn orphans_are_reaped_while_the_program_runs() {
    let run = Run::new();
    let script = "for i in 1 2 3 4 5; do (sleep 0.02 &) ; done; sleep 0.4; ps -e -o stat=,ppid= | awk -v p=$PPID '$2 == p && $1 ~ /Z/' | wc -l";
    let out = run.sh(script);
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "0");
}

#[test]
fn a_program_that_ignores_sigterm_is_told_of_before_it_is_killed() {
    let mut run = Run::new();
    run.spec["gracePeriod"] = json!("900ms");
    let mut child = run.spawn(&["sh", "-c", "trap '' TERM; cultivar=1; echo '{\"acc\": 1}' >> $CULTIVAR_METRICS; echo > ready; while :; do sleep 0.05; done"]);
    until("ready", || run.path("ready").exists());
    signal("TERM", &child);
    until("the result is written", || std::fs::metadata(run.path("termination")).unwrap().len() > 0);
    assert_eq!(run.result()["metrics"]["acc"]["last"], 1.0);
    assert!(problems(&run.result()).contains("SIGTERM"));
    assert!(child.try_wait().unwrap().is_none(), "it is the kubelet that kills");
    let program = std::fs::read_to_string(format!("/proc/{}/task/{0}/children", child.id())).unwrap_or_default();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    // In a container the kernel does this.
    for pid in program.split_whitespace() {
        let _ = Command::new("kill").args(["-9", pid]).status();
    }
}

#[test]
fn the_environment_is_passed_on_but_for_the_specification() {
    let run = Run::new();
    let out = run.command(&["env"]).env("MINE", "1").output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        text.contains("MINE=1\n") && text.contains("CULTIVAR_OUTPUTS=") && text.contains("CULTIVAR_METRICS="),
        "{text}"
    );
    assert!(!text.contains("CULTIVAR_RUN_SPEC"), "{text}");
}

#[test]
fn metrics_come_from_the_file_the_tool_and_the_program_whose_word_wins() {
    let run = Run::new();
    let runner = env!("CARGO_BIN_EXE_cultivar-runner");
    let script = format!(
        "echo '{{\"acc\": 0.5, \"step\": 1}}' >> $CULTIVAR_METRICS; echo garbage >> $CULTIVAR_METRICS; {runner} log acc=0.9 loss=2 --step 2; echo '{{\"metrics\": {{\"loss\": 1}}, \"artifacts\": [{{\"name\": \"m\", \"uri\": \"s3://a\"}}]}}' > {}",
        run.text("termination")
    );
    assert_eq!(run.sh(&script).status.code(), Some(0));
    let result = run.result();
    assert_eq!(result["metrics"]["acc"], json!({"last": 0.9, "min": 0.5, "max": 0.9, "step": 2}));
    assert_eq!(result["metrics"]["loss"]["last"], 1.0);
    assert_eq!(result["artifacts"][0]["uri"], "s3://a");
    assert!(problems(&result).contains("line 2"));
}

#[test]
fn a_failed_program_leaves_its_tail_and_its_words() {
    let run = Run::new();
    let script = format!("echo it broke >&2; printf 'out of paper' > {}; exit 4", run.text("termination"));
    assert_eq!(run.sh(&script).status.code(), Some(4));
    assert_eq!(run.result()["tail"], "it broke");
    assert_eq!(run.result()["message"], "out of paper");
    assert!(run.result().get("reason").is_none());
}

#[test]
fn a_missing_output_fails_a_run_that_was_content() {
    let mut run = Run::new();
    run.spec["outputs"] = json!([{"name": "model", "path": run.text("model")}, {"name": "extra", "optional": true}]);
    assert_eq!(run.sh("exit 0").status.code(), Some(125));
    assert_eq!(run.result()["reason"], "OutputMissing");
    assert_eq!(run.sh("exit 5").status.code(), Some(5));
    assert!(run.result().get("reason").is_none());
}

#[test]
fn a_large_result_fits() {
    let run = Run::new();
    let script = "i=0; while [ $i -lt 400 ]; do echo \"{\\\"metric-$i\\\": $i}\"; i=$((i+1)); done >> $CULTIVAR_METRICS; head -c 5000 /dev/zero; exit 1";
    assert_eq!(run.sh(script).status.code(), Some(1));
    let result = run.result();
    assert!(result["metrics"].as_object().unwrap().len() > 10);
    assert!(result["exitNote"].as_str().unwrap().contains("no store"));
}

#[test]
fn a_specification_that_is_none_is_an_error_of_the_runner() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cultivar-runner"));
    let out = command.args(["run", "--", "true"]).env("CULTIVAR_RUN_SPEC", "{").output().unwrap();
    assert_eq!(out.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&out.stderr).contains("CULTIVAR_RUN_SPEC"));
}

#[test]
fn a_failed_run_is_kept_for_a_look_until_it_is_stopped() {
    let mut run = Run::new();
    run.spec["keepOnFailure"] = json!("1h");
    let mut child = run.spawn(&["sh", "-c", "exit 6"]);
    until("the result is written", || std::fs::metadata(run.path("termination")).unwrap().len() > 0);
    assert!(child.try_wait().unwrap().is_none());
    signal("TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(6));
}

#[test]
fn standard_input_and_arguments_reach_the_program() {
    let run = Run::new();
    let mut command = run.command(&["sh", "-c", "cat; printf '%s|' \"$@\"", "x", "--flag", "a b", ""]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"in:").unwrap();
    assert_eq!(String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout), "in:--flag|a b||");
}

#[test]
fn a_stop_while_results_are_uploaded_leaves_time_to_tell() {
    let mut run = Run::new();
    // Takes connections and never answers.
    let stalled = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    run.spec["store"] = json!({"url": "s3://b/p", "options": {"aws_endpoint": format!("http://{}", stalled.local_addr().unwrap()),
        "aws_allow_http": "true", "aws_region": "x", "aws_access_key_id": "a", "aws_secret_access_key": "b"}});
    run.spec["gracePeriod"] = json!("1500ms");
    let mut child =
        run.spawn(&["sh", "-c", "echo x > $CULTIVAR_OUTPUTS/x; echo '{\"acc\": 1}' >> $CULTIVAR_METRICS; exit 3"]);
    let _connection = stalled.accept().unwrap();
    let started = Instant::now();
    signal("TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!(run.result()["metrics"]["acc"]["last"], 1.0);
    assert!(problems(&run.result()).contains("grace period"), "{}", run.result());
}

#[test]
fn a_proxy_is_not_asked_for_the_local_endpoint() {
    let run = Run::new();
    let mut command = run.command(&["env"]);
    command
        .env_remove("MLFLOW_TRACKING_URI")
        .env_remove("no_proxy")
        .env("NO_PROXY", "corp")
        .env("HTTP_PROXY", "http://proxy");
    let text = String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned();
    assert!(text.contains("NO_PROXY=corp,127.0.0.1\n") && text.contains("no_proxy=corp,127.0.0.1\n"), "{text}");
}
