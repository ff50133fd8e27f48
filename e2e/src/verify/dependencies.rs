//! What the project depends on: licences that may be shipped with it, one source, and no crate twice without a reason.
//!
//! In: what `cargo metadata` says of this platform. Out: one check each for licences, sources, banned crates, doubles.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::run::cargo;
use super::{Count, Outcome};
use crate::error::Context as _;
use crate::exec;

/// Licences that the Apache licence of this project goes with, each asking for no more than a notice.
const ALLOWED: [&str; 13] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "0BSD",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];
/// Other TLS stacks: two providers in one program make rustls panic, and OpenSSL is not static.
const BANNED: [&str; 3] = ["aws-lc-sys", "native-tls", "openssl-sys"];
/// Crates that are there more than once, with who keeps the older version. A new one needs a reason here.
const DOUBLES: [&str; 19] = [
    "base64",         // reqwest and kube are a minor version apart
    "bit-vec",        // cel's parser, and proptest
    "bitflags",       // as defmt
    "block-buffer",   // digest 0.10: object_store's md-5 and crc-fast
    "cpufeatures",    // as block-buffer
    "crypto-common",  // as block-buffer
    "defmt",          // named by faster-hex for machines without a system; resolved, never built
    "digest",         // as block-buffer
    "generic-array",  // as block-buffer; russh is ahead
    "getrandom",      // ring, rand and ahash each follow at their own pace
    "hashbrown",      // indexmap is ahead of cel's parser
    "num-bigint",     // parquet, and cel's parser
    "nom",            // cel's parser
    "sha2",           // as block-buffer
    "syn",            // derive macros that have not moved to 3
    "synstructure",   // derive macros that have not moved to syn 3
    "thiserror",      // cel's parser
    "thiserror-impl", // cel's parser
    "tower-http",     // kube and reqwest
];

/// Whether a licence expression lets the crate be used: one of its alternatives, all of whose parts are allowed.
fn may_be_used(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    let allowed = |part: &str| ALLOWED.contains(&part.trim());
    plain.split(" OR ").any(|alternative| alternative.split(" AND ").all(allowed))
}

/// The rung.
pub fn dependencies() -> Outcome {
    let mut ask = cargo(&["metadata", "--format-version", "1", "--locked", "--all-features"]);
    ask.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let document: Value =
        serde_json::from_str(&exec::output(&mut ask, None)?).doing(|| "cargo metadata is not JSON")?;
    let used: BTreeSet<&str> =
        document["resolve"]["nodes"].as_array().into_iter().flatten().filter_map(|node| node["id"].as_str()).collect();
    let packages: Vec<&Value> = document["packages"].as_array().into_iter().flatten().collect();
    let packages: Vec<&Value> =
        packages.into_iter().filter(|package| package["id"].as_str().is_some_and(|id| used.contains(id))).collect();
    let name = |package: &Value| package["name"].as_str().unwrap_or_default().to_owned();
    let named = |wrong: &dyn Fn(&Value) -> bool| -> Vec<String> {
        packages.iter().filter(|package| wrong(package)).map(|package| name(package)).collect()
    };
    let mut versions: BTreeMap<String, usize> = BTreeMap::new();
    packages.iter().for_each(|package| *versions.entry(name(package)).or_default() += 1);
    let doubles = versions.into_iter().filter(|(name, count)| *count > 1 && !DOUBLES.contains(&name.as_str()));
    let mut count = Count::default();
    let crates = packages.len();
    count.add(told(
        &format!("licences of {crates} crates"),
        &named(&|package| !may_be_used(package["license"].as_str().unwrap_or_default())),
    ));
    let elsewhere = |package: &Value| package["source"].as_str().is_some_and(|source| !source.starts_with("registry+"));
    count.add(told("nothing but published crates", &named(&elsewhere)));
    count.add(told("no second TLS stack", &named(&|package| BANNED.contains(&name(package).as_str()))));
    count.add(told("no crate twice without a reason", &doubles.map(|(name, _)| name).collect::<Vec<_>>()));
    Ok(count)
}

fn told(what: &str, wrong: &[String]) -> Count {
    if wrong.is_empty() {
        println!("✓ {what}");
    } else {
        println!("✗ {what}: not {}", wrong.join(", "));
    }
    Count::one(wrong.is_empty())
}

#[cfg(test)]
mod tests {
    use super::may_be_used;

    #[test]
    fn one_alternative_must_be_allowed_as_a_whole() {
        for fine in
            ["MIT", "GPL-3.0 OR MIT", "Apache-2.0/MIT", "(MIT OR Apache-2.0) AND Unicode-3.0", "Apache-2.0 AND ISC"]
        {
            assert!(may_be_used(fine), "{fine}");
        }
        for not in ["", "GPL-3.0", "MIT AND GPL-3.0", "MPL-2.0"] {
            assert!(!may_be_used(not), "{not}");
        }
    }
}
