//! Clients that are not ours, against what we serve; and our client against a store that is not ours.
//!
//! In: a Python with those clients, made in the cache folder the first time. Out: what the tests that need it say.

use super::run::{cargo, tests};
use super::{Count, Outcome};
use crate::python;

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

/// The tests that look for that Python: crate, test, and which part of it.
const TESTS: [(&str, &str, &str); 4] = [
    ("cultivar-store", "boto3", ""),
    ("cultivar-store", "awscli", ""),
    ("cultivar-runner", "mlflow", ""),
    ("cultivar-store", "conformance", "moto"),
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
    Ok(count)
}
