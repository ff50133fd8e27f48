//! The log in the store, and the record of the environment.

mod support;

use flate2::read::MultiGzDecoder;
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use support::{Run, problems, until};

// What is being written has another ending until it is whole.
fn is_chunk(key: &str) -> bool {
    key.ends_with(".log.gz")
}

fn log(run: &Run) -> Vec<u8> {
    let chunks = run.keys().into_iter().filter(|key| key.starts_with("ns/exp/logs/1/") && is_chunk(key));
    let joined: Vec<u8> = chunks.flat_map(|key| run.object(&key).unwrap()).collect();
    let mut text = Vec::new();
    MultiGzDecoder::new(joined.as_slice()).read_to_end(&mut text).unwrap();
    text
}

// In KiB, as the kernel counts it.
fn peak(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

#[test]
fn the_log_is_in_the_store() {
    let run = Run::stored();
    assert_eq!(run.sh("echo one; echo two >&2; sleep 0.1; echo three").status.code(), Some(0));
    let text = String::from_utf8(log(&run)).unwrap();
    assert!(text.contains("one\n") && text.contains("two\n") && text.ends_with("three\n"), "{text}");
    assert!(run.result()["logs"]["uri"].as_str().unwrap().ends_with("/ns/exp/logs/1/"));
    assert!(run.keys().iter().any(|key| key.ends_with("/000001.log.gz")));
    assert_eq!(fs::read_dir(run.path("run/logs")).unwrap().count(), 0);
}

#[test]
fn a_killed_run_leaves_its_log() {
    let run = Run::stored();
    let mut child = run.spawn(&["sh", "-c", "echo early; exec sleep 60"]);
    until("a chunk is there", || run.keys().iter().any(|key| is_chunk(key)));
    let program = fs::read_to_string(format!("/proc/{}/task/{0}/children", child.id())).unwrap_or_default();
    child.kill().unwrap();
    child.wait().unwrap();
    for pid in program.split_whitespace() {
        let _ = std::process::Command::new("kill").args(["-9", pid]).status();
    }
    assert_eq!(log(&run), b"early\n");
}

#[test]
fn a_flood_of_output_is_kept_within_bounded_memory() {
    const SIZE: usize = 1 << 30;
    let run = Run::stored();
    let script = format!("yes 'epoch 12 loss 0.123456 accuracy 0.987654 lr 0.001' | head -c {SIZE}");
    let started = Instant::now();
    let mut child = run.command(&["sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let (mut buffer, mut total, mut most) = (vec![0; 1 << 20], 0, 0);
    loop {
        let read = out.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        total += read;
        most = most.max(peak(&child));
    }
    while child.try_wait().unwrap().is_none() {
        most = most.max(peak(&child));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(total, SIZE);
    eprintln!("{SIZE} bytes of log in {:?}, peak {most} KiB", started.elapsed());
    assert!(most < 64 * 1024, "{most} KiB");
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    let joined: usize = {
        let chunks = run.keys().into_iter().filter(|key| key.contains("/logs/"));
        chunks
            .map(|key| {
                std::io::copy(&mut MultiGzDecoder::new(run.object(&key).unwrap().as_slice()), &mut std::io::sink())
                    .unwrap() as usize
            })
            .sum()
    };
    assert_eq!(joined, SIZE, "{}", problems(&run.result()));
}

#[test]
fn a_store_that_is_away_holds_up_nobody() {
    let mut run = Run::new();
    run.spec["store"] = json!({"url": "s3://b/p", "options": {"aws_endpoint": "http://127.0.0.1:9", "aws_allow_http": "true",
        "aws_region": "x", "aws_access_key_id": "a", "aws_secret_access_key": "b", "cultivar_patience": "500ms"}});
    let started = Instant::now();
    let out = run.sh("head -c 50000000 /dev/urandom | base64; exit 3");
    assert_eq!(out.status.code(), Some(3));
    assert!(out.stdout.len() > 50_000_000);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert!(problems(&run.result()).contains("log were not uploaded"), "{}", run.result());
}

#[test]
fn the_environment_is_recorded() {
    let run = Run::stored();
    let bin = run.path("venv/bin");
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(run.path("venv/lib/python3.11/site-packages/scikit_learn-1.5.0.dist-info")).unwrap();
    fs::write(run.path("venv/pyvenv.cfg"), "").unwrap();
    fs::write(bin.join("python3"), "").unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let out = run
        .command(&["sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"])
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(out.status.success());
    let record: Value = serde_json::from_slice(&run.object("ns/exp/record-1.json").unwrap()).unwrap();
    let environment = &record["result"]["environment"];
    assert_eq!(environment["packages"], json!({"scikit-learn": "1.5.0"}));
    assert!(environment["cpuSeconds"].as_f64().unwrap() > 0.0);
    assert!(environment["peakProcessBytes"].as_u64().unwrap() > 100_000);
    assert!(run.result()["environment"].get("packages").is_none());
}
