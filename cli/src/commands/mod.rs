//! The commands, one file each: its arguments, what it asks the API server for, what it prints.

pub mod approve;
pub mod artifacts;
pub mod clone;
pub mod compare;
pub mod completion;
pub mod debug;
pub mod end;
pub mod export;
pub mod grow;
pub mod lineage;
pub mod list;
pub mod logs;
pub mod metrics;
pub mod plan;
pub mod queues;
pub mod resume;
pub mod run;
pub mod show;
pub mod submit;
pub mod sweep;
pub mod tree;
pub mod why;

use cultivar_core::validate::Report;
use serde_json::{Map, Value};
use std::process::ExitCode;

use crate::args::{Args, Command};
use crate::cluster::Cluster;
use crate::error::{Error, Result};

/// Does what was asked for.
pub async fn run(args: Args) -> Result<ExitCode> {
    if let Command::Completion(asked) = &args.command {
        completion::print(asked);
        return Ok(ExitCode::SUCCESS);
    }
    let cluster = Cluster::connect(&args.global).await?;
    let output = args.global.output;
    match args.command {
        Command::Submit(asked) => {
            return submit::submit(cluster, args.global.namespace.is_some(), output, &asked).await;
        }
        Command::List(asked) => list::list(&cluster, output, &asked).await?,
        Command::Show(asked) => show::show(&cluster, output, &asked).await?,
        Command::Logs(asked) => logs::logs(&cluster, &asked).await?,
        Command::Artifacts(asked) => artifacts::artifacts(&cluster, output, &asked).await?,
        Command::Debug(asked) => return debug::debug(&cluster, &args.global, &asked).await,
        Command::Metrics(asked) => metrics::metrics(&cluster, output, &asked).await?,
        Command::Compare(asked) => compare::compare(&cluster, output, &asked).await?,
        Command::Lineage(asked) => lineage::lineage(&cluster, &asked).await?,
        Command::Why(asked) => why::why(&cluster, &asked).await?,
        Command::Clone(asked) => return clone::clone(&cluster, output, &asked).await,
        Command::Cancel(asked) => end::cancel(&cluster, &asked).await?,
        Command::Delete(asked) => end::delete(&cluster, &asked).await?,
        Command::Grow(asked) => grow::grow(&cluster, &asked).await?,
        Command::Sweep(asked) => sweep::sweep(&cluster, &asked).await?,
        Command::Plan(asked) => plan::plan(&cluster, output, &asked).await?,
        Command::Run(asked) => return run::run(&cluster, output, &asked).await,
        Command::Tree(asked) => return tree::tree(&cluster, output, &asked).await,
        Command::Resume(asked) => return resume::resume(&cluster, output, &asked).await,
        Command::Approve(asked) => approve::approve(&cluster, &asked).await?,
        Command::Queues(asked) => queues::queues(&cluster, output, &asked).await?,
        Command::Export(asked) => export::export(&cluster, &asked).await?,
        Command::Completion(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// `lr=0.1`, `tags=[a, b]`, `name=yes`: values as kubectl reads YAML, but for words that it takes for booleans.
pub fn assignments(given: &[String]) -> Result<Map<String, Value>> {
    given.iter().map(|text| assignment(text)).collect()
}

fn assignment(text: &str) -> Result<(String, Value)> {
    let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err(Error::refused(format!("{text:?} is no assignment")).hint("write it as name=value, such as lr=0.1"));
    };
    Ok((name.to_owned(), value_of(value)))
}

/// The params of a spec, as they were typed; none where none were.
pub fn set_params(spec: &mut Value, given: &[String]) -> Result<()> {
    if !given.is_empty() {
        spec["params"] = assignments(given)?.into();
    }
    Ok(())
}

/// What the API server would refuse, or the operator, said before it is sent.
pub fn valid(what: &str, report: &Report) -> Result<()> {
    match report.refusal() {
        Some(faults) => Err(Error::refused(format!("{what} would not be valid")).why(faults)),
        None => Ok(()),
    }
}

/// A value as it is typed: a number, a boolean, null, a list or object in YAML's short form, else text.
pub fn value_of(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// A name that nobody has yet: `base-` and a few letters of the time.
pub fn fresh(base: &str, most: usize) -> String {
    let nanos = jiff::Timestamp::now().as_nanosecond().unsigned_abs();
    let suffix = format!("{:05x}", (nanos / 1000) % 0x10_0000);
    let base = &base[..base.len().min(most - suffix.len() - 1)];
    format!("{}-{suffix}", base.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_keep_their_types() {
        let given: Vec<String> =
            ["lr=0.1", "epochs=10", "augment=true", "name=a=b", "none=null", "tags=[a, 1]", "empty="]
                .map(str::to_owned)
                .to_vec();
        let expected = json!({"lr": 0.1, "epochs": 10, "augment": true, "name": "a=b", "none": null, "tags": ["a", 1], "empty": null});
        assert_eq!(Value::Object(assignments(&given).unwrap()), expected);
        assert!(assignments(&["lr".to_owned()]).is_err() && assignments(&["=1".to_owned()]).is_err());
    }

    #[test]
    fn a_fresh_name_fits() {
        let name = fresh(&"x".repeat(80), 52);
        assert!(name.len() <= 52 && name.starts_with("xxx"), "{name}");
    }
}
