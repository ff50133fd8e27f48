//! Clients that are not ours, against what we serve; and our client against a store that is not ours.
//!
//! In: a Python with those clients, made in the cache folder the first time. Out: what the tests that need it say.

use super::run::{cargo, tests};
use super::{Count, Outcome};
use crate::{node, python};

/// What people use, at versions that the tests are known to hold with. The last three are for the models that MLflow
/// logs by itself.
const PACKAGES: [&str; 7] = [
    "awscli==1.46.3",
    "boto3[crt]==1.40.76",
    "mlflow-skinny==3.17.2",
    "moto[server]==5.2.5",
    "pandas>=2,<4",
    "scikit-learn>=1.5,<2",
    "skops>=0.11,<1",
];

/// Azure's emulator, on a machine that has a node to run it.
const AZURITE: &str = "3.37.0";

/// The tests that look for that Python: crate, test, and which part of it.
const TESTS: [(&str, &str, &str); 5] = [
    ("cultivar-store", "boto3", ""),
    ("cultivar-store", "awscli", ""),
    ("cultivar-runner", "mlflow", ""),
    ("cultivar-store", "conformance", "moto"),
    ("cultivar-store", "conformance", "google"),
];

/// The rung.
pub fn clients() -> Outcome {
    println!("a Python with {} …", PACKAGES.join(", "));
    let python = python::with(&PACKAGES)?;
    let mut count = Count::default();
    for (package, test, part) in TESTS {
        let mut command = cargo(&["test", "-p", package, "--test", test, part]);
        command.env("CULTIVAR_TEST_PYTHON", &python);
        count.add(tests(command)?);
    }
    // A quarter of a minute more, which the rung `unit` does without.
    let mut large = cargo(&["test", "-p", "cultivar-store", "--test", "conformance", "a_gibibyte"]);
    large.env("CULTIVAR_TEST_LARGE", "1");
    count.add(tests(large)?);
    count.add(azure()?);
    Ok(count)
}

// The runner against the emulator of another cloud's store.
fn azure() -> Outcome {
    if !node::is_there() {
        println!("NOT TESTED: Azure, since its emulator needs node and npm (Debian: nodejs, npm)");
        return Ok(Count::default());
    }
    println!("azurite {AZURITE} …");
    let azurite = node::package("azurite", AZURITE)?.join("dist/src/blob/main.js");
    let mut command = cargo(&["test", "-p", "cultivar-store", "--test", "conformance", "azure"]);
    command.env("CULTIVAR_TEST_AZURITE", azurite);
    tests(command)
}
