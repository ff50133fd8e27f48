//! TensorBoard's files and the whole series, through the real binary.

mod support;

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::json;
use support::{Run, problems};

// One scalar event of the old kind, as a shell's printf writes it: tag "loss", value 0.5, step 7.
const EVENT: &str = r"\036\000\000\000\000\000\000\000\000\000\000\000\011\000\000\000\000\000\000\000\000\020\007\052\021\012\017\012\004loss\025\000\000\000\077\032\002\010\001\000\000\000\000";

#[test]
fn scalars_of_event_files_and_the_series() {
    let run = Run::stored();
    let script = format!(
        "mkdir -p runs/a; printf '{EVENT}' > runs/a/events.out.tfevents.1.host; for i in 1 2 3; do echo '{{\"acc\": 0.'$i', \"step\": '$i'}}' >> $CULTIVAR_METRICS; done"
    );
    assert_eq!(run.sh(&script).status.code(), Some(0));
    let result = run.result();
    assert_eq!(result["metrics"]["loss"], json!({"last": 0.5, "min": 0.5, "max": 0.5, "step": 7}), "{result}");
    assert_eq!(result["metrics"]["acc"]["last"], 0.3);
    assert!(result["environment"]["metricSeries"].as_str().unwrap().ends_with("/ns/exp/metrics-1.parquet"));
    let file = std::fs::File::open(run.path("store/ns/exp/metrics-1.parquet")).unwrap();
    assert_eq!(SerializedFileReader::new(file).unwrap().metadata().file_metadata().num_rows(), 4);
}

#[test]
fn damaged_event_files_are_a_problem_and_no_more() {
    let mut run = Run::stored();
    run.spec["tensorboard"] = json!([run.text("tb")]);
    let out = run.sh("mkdir tb; head -c 5000 /dev/urandom | tr '\\000' x > tb/events.out.tfevents.2.host");
    assert_eq!(out.status.code(), Some(0));
    assert!(problems(&run.result()).contains("TensorBoard"), "{}", run.result());
}
