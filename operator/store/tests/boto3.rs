//! The real program, spoken to by boto3: `tests/conformance.py` has the steps. It needs a Python that has boto3, named
//! by CULTIVAR_TEST_PYTHON; without one nothing is tested here, and that is said.

mod support;

use std::process::Command;

use support::{Server, admin, namespace, python_with};

#[test]
fn boto3_finds_what_it_expects() {
    let Some(python) = python_with("boto3") else { return };
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let keys = [admin(), namespace("one"), namespace("two")];
    let steps = Command::new(&python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance.py"))
        .arg(format!("http://{}", server.s3))
        .args(keys.iter().flat_map(|keys| [&keys.access_key_id, &keys.secret_access_key]))
        .env_remove("AWS_PROFILE")
        .status()
        .unwrap_or_else(|error| panic!("{python:?} does not start: {error}"));
    assert!(steps.success(), "{steps}");
    let outside: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(outside.len(), 2, "something was written outside the data folder: {outside:?}");
    let inside: Vec<_> =
        std::fs::read_dir(folder.path().join("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(inside.len(), 2, "something is beside the index and the files: {inside:?}");
}
