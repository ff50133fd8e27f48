//! A template in an editor, and what was changed in it as what a clone overrides.

use cultivar_core::clone::merge_template;
use serde_json::{Map, Value};
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};
use crate::files;
use crate::output;

/// What a clone says to make an edited template of its source's.
#[derive(Debug, PartialEq)]
pub struct Changes {
    pub overrides: Map<String, Value>,
    pub unset: Vec<String>,
}

/// Opens the editor on a template; nothing where it was left empty.
pub fn edit(id: &str, template: &Value) -> Result<Option<Value>> {
    let folder = tempfile::tempdir().map_err(|error| Error::new("no temporary folder").why(error))?;
    let path = folder.path().join(format!("{id}.yaml"));
    let head = format!("# What the copy of {id} runs. An empty file ends it.\n");
    let mut text = head + &output::yaml(template)?;
    loop {
        std::fs::write(&path, &text).map_err(|error| Error::new("no temporary file").why(error))?;
        call_editor(&path)?;
        let written = std::fs::read_to_string(&path).map_err(|error| Error::new("what was edited").why(error))?;
        if written.lines().all(|line| line.trim().is_empty() || line.starts_with('#')) {
            return Ok(None);
        }
        match files::read(&path.to_string_lossy()).map(|all| all.into_iter().next()) {
            Ok(Some(edited @ Value::Object(_))) => return Ok(Some(edited)),
            Ok(_) => return Err(Error::refused("what was edited is no object")),
            // Once more with the cause in it; who changes nothing has given up.
            Err(error) if written != text => {
                let cause = error.to_string().lines().map(|line| format!("# error: {line}\n")).collect::<String>();
                let rest = written.lines().filter(|line| !line.starts_with("# error: "));
                text = cause + &rest.map(|line| format!("{line}\n")).collect::<String>();
            }
            Err(error) => return Err(error),
        }
    }
}

// As kubectl finds it; it may come with arguments.
fn call_editor(path: &Path) -> Result<()> {
    let named = ["KUBE_EDITOR", "VISUAL", "EDITOR"].into_iter().find_map(|name| std::env::var(name).ok());
    let editor = named.filter(|editor| !editor.trim().is_empty()).unwrap_or_else(|| "vi".to_owned());
    let ended = Command::new("sh").args(["-c", &format!("{editor} \"$1\""), "editor"]).arg(path).status();
    match ended {
        Ok(ended) if ended.success() => Ok(()),
        Ok(ended) => Err(Error::new(format!("the editor {editor} ended with {ended}")).hint("set EDITOR")),
        Err(error) => Err(Error::new(format!("the editor {editor} cannot be run")).why(error).hint("set EDITOR")),
    }
}

/// What makes the edited template of the source's.
pub fn changes(source: &Value, edited: &Value) -> Result<Changes> {
    let mut changes = Changes { overrides: Map::new(), unset: Vec::new() };
    let nothing = Map::new();
    let [was, is] = [source, edited].map(|template| template.as_object().unwrap_or(&nothing));
    changes.unset.extend(was.keys().filter(|field| !is.contains_key(*field)).cloned());
    for (field, value) in is {
        match (was.get(field), value) {
            (Some(before), value) if before == value => {}
            (Some(Value::Object(before)), Value::Object(after)) if field == "params" => {
                changes.of_params(before, after)
            }
            (before, value) => {
                // Objects and lists are merged with what they override.
                let merges = before.is_some_and(|before| before.is_object() || before.is_array());
                changes.unset.extend(merges.then(|| field.clone()));
                changes.overrides.insert(field.clone(), value.clone());
            }
        }
    }
    let overrides = Value::Object(changes.overrides.clone());
    match merge_template(source, &changes.unset, &overrides) {
        Ok(merged) if merged == *edited => Ok(changes),
        Ok(_) => Err(Error::refused("what was edited is not what a clone of this would run")
            .hint("a GPU's request is its limit, and source, queue and inputs have parts that replace one another")),
        Err(error) => Err(Error::refused("what was edited cannot be a clone of this").why(error)),
    }
}

impl Changes {
    fn of_params(&mut self, before: &Map<String, Value>, after: &Map<String, Value>) {
        let gone: Vec<&String> = before.keys().filter(|name| !after.contains_key(*name)).collect();
        let is_plain =
            |(name, value): (&String, &Value)| !name.contains(['.', '[']) && !value.is_object() && !value.is_array();
        if !before.iter().all(is_plain) {
            self.unset.push("params".to_owned());
            self.overrides.insert("params".to_owned(), after.clone().into());
            return;
        }
        self.unset.extend(gone.into_iter().map(|name| format!("params.{name}")));
        let changed = after.iter().filter(|(name, value)| before.get(*name) != Some(value));
        let changed: Map<String, Value> = changed.map(|(name, value)| (name.clone(), value.clone())).collect();
        if !changed.is_empty() {
            self.overrides.insert("params".to_owned(), changed.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn only_what_was_changed_is_said() {
        let source = json!({"image": "a:1", "args": ["x", "y"], "params": {"lr": 0.1, "old": 1, "seed": 3},
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]});
        let edited = json!({"image": "a:1", "args": ["x"], "params": {"lr": 0.2, "seed": 3, "new": true},
            "env": [{"name": "B", "value": "2"}]});
        let changes = changes(&source, &edited).unwrap();
        assert_eq!(changes.unset, ["args", "env", "params.old"]);
        let expected = json!({"args": ["x"], "env": [{"name": "B", "value": "2"}], "params": {"lr": 0.2, "new": true}});
        assert_eq!(Value::Object(changes.overrides), expected);
        let same = super::changes(&source, &source).unwrap();
        assert_eq!(same, Changes { overrides: Map::new(), unset: Vec::new() });
    }

    fn template() -> impl Strategy<Value = Value> {
        let value = prop_oneof![
            Just(json!(1)),
            Just(json!("x")),
            Just(json!([1, 2])),
            Just(json!({"a": 1})),
            Just(json!({"b": {"c": 2}}))
        ];
        let params = proptest::collection::btree_map("[a-c](\\.d)?", value, 0..4);
        let env = proptest::collection::btree_map("[A-C]", "[0-9]", 0..3);
        let words = proptest::collection::vec("[a-c]", 0..3);
        let limits = proptest::collection::btree_map("cpu|memory", "[1-9]", 0..2);
        (params, env, words, limits, any::<bool>()).prop_map(|(params, env, args, limits, has)| {
            let env: Vec<Value> = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            let mut template = json!({"image": "a", "params": params, "env": env, "resources": {"limits": limits}});
            if has {
                template["args"] = json!(args);
                template["podTemplate"] = json!({"spec": {"containers": [{"name": "main", "args": args}]}});
            }
            template
        })
    }

    proptest! {
        #[test]
        fn any_template_can_be_made_of_any_other(source in template(), edited in template()) {
            prop_assert!(changes(&source, &edited).is_ok());
        }
    }
}
