//! `clone`: a copy of an experiment, with changes, checked before it is sent.

mod edit;

use cultivar_core::clone::merge_template;
use cultivar_core::decide::freeze::overrides;
use cultivar_core::validate;
use cultivar_crds::Phase;
use serde_json::{Value, json};
use std::process::ExitCode;

use super::{fresh, run::make, set_params, valid, value_of};
use crate::args::Format;
use crate::cluster::{Cluster, experiment};
use crate::error::{Error, Result};
use crate::output;
use crate::recorded::{self, Place};
use crate::store::Operator;

/// A copy of an experiment, with changes.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  kubectl cultivar clone train-7f3a --param lr=0.2 --follow\n  kubectl cultivar clone train-7f3a --set resources.limits.memory=32Gi --unset params.scheduler --dry-run\n  kubectl cultivar clone train-7f3a --edit"
)]
pub struct Clone {
    /// Name of the experiment that is copied, also a failed one.
    id: String,
    /// Name of the copy; one is made up by default.
    #[arg(long)]
    name: Option<String>,
    /// A parameter, name=value.
    #[arg(short, long = "param")]
    params: Vec<String>,
    /// Another image.
    #[arg(long)]
    image: Option<String>,
    /// A field of the spec, path=value, such as resources.limits.memory=32Gi.
    #[arg(long = "set")]
    set: Vec<String>,
    /// A path that the copy does not take over, such as params.scheduler or env.FOO.
    #[arg(long)]
    unset: Vec<String>,
    /// Open the copy's template in an editor: KUBE_EDITOR, VISUAL or EDITOR.
    #[arg(long)]
    edit: bool,
    /// Print the manifest, and make nothing.
    #[arg(long)]
    dry_run: bool,
    /// Wait until it has ended; the exit code says how.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    operator: Operator,
}

pub async fn clone(cluster: &Cluster, format: Option<Format>, asked: &Clone) -> Result<ExitCode> {
    let (source, gone) = recorded::get(cluster, &asked.operator, &asked.id).await?;
    let source = experiment(&source)?;
    let mut spec = spec(asked, source.status.phase)?;
    let merged = source.status.template.as_ref().map(|template| {
        let merged = merge_template(template, &asked.unset, &overrides(&spec));
        merged.map_err(|error| Error::refused(format!("{} cannot be copied like this", asked.id)).why(error))
    });
    let merged = merged.transpose()?;
    if asked.edit && !edited(asked, &mut spec, source.status.template.as_deref().zip(merged.as_ref()))? {
        eprintln!("nothing is made");
        return Ok(ExitCode::SUCCESS);
    }
    valid("the copy", &validate::experiment(&spec))?;
    let name = asked.name.clone().unwrap_or_else(|| fresh(&asked.id, 52));
    let manifest = cluster.manifest("Experiment", json!({"name": name}), spec);
    if asked.dry_run {
        print!("{}", output::yaml(&manifest)?);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(place) = &gone {
        let spec = adopted(&asked.id, source.status.phase, place)?;
        cluster.create(&cluster.manifest("Experiment", json!({"name": asked.id}), spec)).await?;
        eprintln!("experiment {} is there again, from its record", asked.id);
    }
    let told = format!("experiment {name} is made, a clone of {}", asked.id);
    make(cluster, format, &manifest, &told, asked.follow).await
}

// What was edited takes the place of all overrides. False: it was given up.
fn edited(asked: &Clone, spec: &mut Value, templates: Option<(&Value, &Value)>) -> Result<bool> {
    let Some((source, merged)) = templates else {
        let what = format!("{} has no template yet", asked.id);
        return Err(Error::refused(what).hint("it has one once it has begun"));
    };
    let Some(written) = edit::edit(&asked.id, merged)? else { return Ok(false) };
    let edit::Changes { overrides, unset } = edit::changes(source, &written)?;
    let mut fields = overrides;
    fields.insert("from".to_owned(), spec["from"].take());
    if !unset.is_empty() {
        fields.insert("unset".to_owned(), json!(unset));
    }
    *spec = fields.into();
    Ok(true)
}

// A template is an experiment of the cluster: one whose object is gone becomes one again, by its record.
fn adopted(id: &str, phase: Phase, place: &Place) -> Result<Value> {
    if phase != Phase::Completed {
        let what = format!("{id} is gone, and its record is of a run that failed");
        return Err(Error::refused(what).hint("only what completed can be adopted; show prints what its template was"));
    }
    Ok(json!({"record": {"uri": place.uri, "digest": place.digest}}))
}

fn spec(asked: &Clone, phase: Phase) -> Result<Value> {
    let mut from = json!({"experiment": asked.id});
    if phase.is_terminal() && phase != Phase::Completed {
        from["require"] = "Ended".into();
    }
    let mut spec = json!({"from": from});
    set_params(&mut spec, &asked.params)?;
    if let Some(image) = &asked.image {
        spec["image"] = image.clone().into();
    }
    for text in &asked.set {
        let Some((path, value)) = text.split_once('=') else {
            return Err(Error::refused(format!("--set {text}: it is no assignment")).hint("write it as path=value"));
        };
        set(&mut spec, path, value_of(value))?;
    }
    if !asked.unset.is_empty() {
        spec["unset"] = json!(asked.unset);
    }
    Ok(spec)
}

// Objects on the way are made. A name with dots, such as nvidia.com/gpu, is written in brackets.
fn set(spec: &mut Value, path: &str, value: Value) -> Result<()> {
    let mut at = spec;
    for key in keys(path)? {
        if at.is_null() {
            *at = json!({});
        }
        let Some(fields) = at.as_object_mut() else {
            let hint = "a list is set as a whole, in YAML's short form: --set 'args=[a, b]'";
            return Err(Error::refused(format!("--set {path}: {key} lies in something that is no object")).hint(hint));
        };
        at = fields.entry(key).or_insert(Value::Null);
    }
    *at = value;
    Ok(())
}

fn keys(path: &str) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let Some((key, after)) = inner.split_once(']') else {
                return Err(Error::refused(format!("--set {path}: the bracket is not closed")));
            };
            keys.push(key.trim_matches('"').to_owned());
            rest = after.strip_prefix('.').unwrap_or(after);
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            keys.push(rest[..end].to_owned());
            rest = rest[end..].strip_prefix('.').unwrap_or(&rest[end..]);
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Clone {
        Clone {
            id: "train".into(),
            name: None,
            params: vec!["lr=0.2".into()],
            image: Some("x:2".into()),
            set: vec!["resources.limits[nvidia.com/gpu]=2".into(), "args=[a, 1]".into()],
            unset: vec!["params.old".into()],
            edit: false,
            dry_run: true,
            follow: false,
            operator: Operator::default(),
        }
    }

    #[test]
    fn changes_become_overrides() {
        let expected = json!({
            "from": {"experiment": "train"}, "params": {"lr": 0.2}, "image": "x:2",
            "resources": {"limits": {"nvidia.com/gpu": 2}}, "args": ["a", 1], "unset": ["params.old"],
        });
        assert_eq!(spec(&asked(), Phase::Completed).unwrap(), expected);
        assert_eq!(spec(&asked(), Phase::Failed).unwrap()["from"]["require"], "Ended");
    }

    #[test]
    fn what_is_gone_is_adopted_where_it_completed() {
        let place = Place { uri: "s3://b/r.json".into(), digest: format!("sha256:{}", "0".repeat(64)) };
        let spec = adopted("train", Phase::Completed, &place).unwrap();
        assert_eq!(spec["record"]["uri"], "s3://b/r.json");
        assert_eq!(validate::experiment(&spec).refusal(), None);
        assert!(adopted("train", Phase::Failed, &place).is_err());
    }

    #[test]
    fn a_path_into_a_list_is_refused_with_what_to_do() {
        let bad = Clone { set: vec!["args=[a]".into(), "args.0=b".into()], ..asked() };
        let error = spec(&bad, Phase::Completed).unwrap_err().to_string();
        assert!(error.contains("--set args.0") && error.contains("as a whole"), "{error}");
    }
}
