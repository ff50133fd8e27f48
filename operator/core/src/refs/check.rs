//! Finds references without resolving them, and refuses those that can never be resolved.
//!
//! In: a stage or experiment as JSON, and which names exist. Out: the references with their fields; errors with theirs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::choice::Choice;
use super::error::{Located, RefError, instead, quote};
use super::expression::Expression;
use super::field::FieldPath;
use super::path::{Head, PathRef, Scope};
use super::template::{Part, Template};
use super::types::Kind;

/// A reference found in a string.
#[derive(Debug, Clone, PartialEq)]
pub enum Reference {
    /// `${head.path}`.
    Path(PathRef),
    /// `${head.path ?? …}`.
    Choice(Choice),
    /// `${= expression}`.
    Cel(Box<Expression>),
}

impl Reference {
    /// When it is resolved.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self {
            Reference::Path(path) => path.head.scope(),
            Reference::Choice(choice) => choice.scope(),
            Reference::Cel(expression) => expression.scope(),
        }
    }

    /// The paths it reads; see [`Expression::uses`].
    #[must_use]
    pub fn uses(&self) -> &[PathRef] {
        match self {
            Reference::Path(path) => std::slice::from_ref(path),
            Reference::Choice(choice) => &choice.paths,
            Reference::Cel(expression) => expression.uses(),
        }
    }
}

/// All references in the strings of `value`, keys excluded, each with its field; a malformed one as its error.
///
/// A bare expression such as a stage's `when` is not a reference: parse that with [`Expression::parse`].
#[must_use]
pub fn scan(value: &Value, at: &FieldPath) -> Vec<(FieldPath, Result<Reference, RefError>)> {
    let mut found = Vec::new();
    visit(value, at, &mut found);
    found
}

fn visit(value: &Value, at: &FieldPath, found: &mut Vec<(FieldPath, Result<Reference, RefError>)>) {
    match value {
        Value::String(text) if text.contains("${") => match Template::parse(text) {
            Ok(template) => {
                found.extend(template.parts.into_iter().filter_map(|part| match part {
                    Part::Path { path, .. } => Some((at.clone(), Ok(Reference::Path(path)))),
                    Part::Choice { choice, .. } => Some((at.clone(), Ok(Reference::Choice(choice)))),
                    Part::Cel { expression, .. } => Some((at.clone(), Ok(Reference::Cel(expression)))),
                    Part::Text(_) | Part::Escape => None,
                }));
            }
            Err(error) => found.push((at.clone(), Err(error))),
        },
        Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| visit(item, &at.index(i), found)),
        Value::Object(map) => map.iter().for_each(|(key, value)| visit(value, &at.key(key), found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The names that references may use in some place. A head that is not listed cannot be used there.
#[derive(Debug, Clone, Default)]
pub struct Known {
    heads: BTreeMap<Head, Option<BTreeSet<String>>>,
    pipeline_params: Option<BTreeSet<String>>,
    param_kinds: BTreeMap<String, Kind>,
    fan_outs: BTreeSet<String>,
    nested: BTreeSet<String>,
    // With the values that each asks for.
    gates: BTreeMap<String, BTreeSet<String>>,
}

impl Known {
    /// Nothing may be used.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// The own names of a complete template: its params, inputs and outputs, and `run` with whatever it holds.
    #[must_use]
    pub fn of_template(template: &Value) -> Self {
        let named = |field: &str| -> Vec<&str> {
            let members = template.get(field).and_then(Value::as_array);
            members.into_iter().flatten().filter_map(|member| member.get("name")?.as_str()).collect()
        };
        let params = template.get("params").and_then(Value::as_object);
        Known::nothing()
            .allow(Head::Params, params.into_iter().flat_map(|params| params.keys()))
            .allow(Head::Inputs, named("inputs"))
            .allow(Head::Outputs, named("outputs"))
            .allow_any(Head::Run)
    }

    /// `head` may be used with these names after it.
    #[must_use]
    pub fn allow<S: AsRef<str>>(mut self, head: Head, names: impl IntoIterator<Item = S>) -> Self {
        self.heads.insert(head, Some(names.into_iter().map(|name| name.as_ref().to_owned()).collect()));
        self
    }

    /// `head`, where it may be used, may be used with these names too.
    #[must_use]
    pub fn add<S: AsRef<str>>(mut self, head: Head, names: impl IntoIterator<Item = S>) -> Self {
        if let Some(Some(known)) = self.heads.get_mut(&head) {
            known.extend(names.into_iter().map(|name| name.as_ref().to_owned()));
        }
        self
    }

    /// `head` may be used with any name after it.
    #[must_use]
    pub fn allow_any(mut self, head: Head) -> Self {
        self.heads.insert(head, None);
        self
    }

    /// These stages have `members`.
    #[must_use]
    pub fn fan_outs<S: AsRef<str>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.fan_outs = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
        self
    }

    /// These stages run another pipeline: they have `outputs`.
    #[must_use]
    pub fn nested<S: AsRef<str>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.nested = names.into_iter().map(|name| name.as_ref().to_owned()).collect();
        self
    }

    /// These stages are gates, and an Approval gives these values.
    #[must_use]
    pub fn gates(mut self, values: &BTreeMap<String, BTreeSet<String>>) -> Self {
        self.gates.clone_from(values);
        self
    }

    /// `pipeline` may be used, and under `pipeline.params` these names.
    #[must_use]
    pub fn pipeline_params<S: AsRef<str>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.pipeline_params = Some(names.into_iter().map(|name| name.as_ref().to_owned()).collect());
        self.allow_any(Head::Pipeline)
    }

    /// These params of the pipeline are known to be of these kinds.
    #[must_use]
    pub fn param_kinds(mut self, kinds: &BTreeMap<String, Kind>) -> Self {
        self.param_kinds.clone_from(kinds);
        self
    }

    /// The kind of what a path leads to, where it leads anywhere and that can be told.
    #[must_use]
    pub fn kind(&self, path: &PathRef) -> Option<Kind> {
        match (path.head, path.key(0)?, path.segments.len()) {
            (Head::Pipeline, "params", 2) => self.param_kinds.get(path.key(1)?).copied(),
            (Head::Pipeline, "name" | "run" | "scheduledTime" | "phase" | "message", 1) => Some(Kind::Text),
            (Head::Matrix | Head::Repeat, "index", 1) => Some(Kind::Number),
            (Head::Repeat, "last", _) => brought(path),
            (Head::Stages, stage, _) if self.gates.contains_key(stage) => {
                (path.segments.len() == 2 && path.key(1) != Some("values")).then_some(Kind::Text)
            }
            (Head::Stages, stage, depth) if self.fan_outs.contains(stage) => match (path.key(1)?, depth) {
                ("phase", 2) => Some(Kind::Text),
                ("members", 2) | ("metrics" | "artifacts", 4) | ("outputs", 3) => Some(Kind::List),
                _ => None,
            },
            (Head::Stages, ..) => brought(path),
            _ => None,
        }
    }

    /// What is wrong with a path here, if anything. A path that is not spelled out is taken on trust.
    ///
    /// # Errors
    /// A head that cannot be used here, or a name that is not among its names.
    pub fn check(&self, path: &PathRef) -> Result<(), RefError> {
        let Some(names) = self.heads.get(&path.head) else {
            return Err(RefError::Unavailable { reference: quote(&path.to_string()), head: path.head });
        };
        member(path.head.as_str(), path.key(0), names.as_ref())?;
        if path.head == Head::Pipeline && path.key(0) == Some("params") {
            member("pipeline.params", path.key(1), self.pipeline_params.as_ref())?;
        }
        if path.head == Head::Stages { self.stage_fields(path) } else { Ok(()) }
    }

    fn stage_fields(&self, path: &PathRef) -> Result<(), RefError> {
        let below =
            |fields: &[&str]| Some(fields.iter().map(|field| (*field).to_owned()).collect::<BTreeSet<String>>());
        let stage = path.key(0).unwrap_or_default();
        if let Some(values) = self.gates.get(stage) {
            member(&format!("stages.{stage}"), path.key(1), below(&GATE).as_ref())?;
            let given = (path.key(1) == Some("values")).then_some(values);
            return member(&format!("stages.{stage}.values"), path.key(2), given);
        }
        let fans_out = self.fan_outs.contains(stage);
        let fields: &[&str] = match (self.nested.contains(stage), fans_out) {
            (true, true) => &NESTED_FAN_OUT,
            (true, false) => &NESTED,
            (false, true) => &FAN_OUT,
            (false, false) => &STAGE,
        };
        if !fans_out && path.key(1) == Some("members") {
            let problem = format!("stages.{stage} has no members: it has neither matrix nor count");
            return Err(RefError::Missing(problem));
        }
        member(&format!("stages.{stage}"), path.key(1), below(fields).as_ref())?;
        let fields = match path.key(1) {
            Some("metrics") => below(&METRIC),
            Some("artifacts") => below(&ARTIFACT),
            _ => return Ok(()),
        };
        let place = format!("stages.{stage}.{}.{}", path.key(1).unwrap_or_default(), path.key(2).unwrap_or_default());
        member(&place, path.key(3), fields.as_ref())
    }
}

// Below `stages.train` or `repeat.last`.
fn brought(path: &PathRef) -> Option<Kind> {
    match (path.key(1)?, path.segments.len(), path.key(3)) {
        ("phase" | "experiment" | "run", 2, _) => Some(Kind::Text),
        ("metrics", 4, _) | ("artifacts", 4, Some("size")) => Some(Kind::Number),
        ("artifacts", 4, Some(field)) if field != "json" => Some(Kind::Text),
        _ => None,
    }
}

/// What a stage brings: names of its own below these are those of the program, and known only when it has ended.
const STAGE: [&str; 4] = ["artifacts", "experiment", "metrics", "phase"];
/// What a gate brings.
const GATE: [&str; 4] = ["approvedBy", "comment", "phase", "values"];
/// What a stage with members brings: lists below metrics and artifacts.
const FAN_OUT: [&str; 4] = ["artifacts", "members", "metrics", "phase"];
/// What a stage that runs another pipeline brings, and one that does so for many members.
const NESTED: [&str; 3] = ["outputs", "phase", "run"];
const NESTED_FAN_OUT: [&str; 3] = ["members", "outputs", "phase"];
const METRIC: [&str; 4] = ["last", "max", "min", "step"];
const ARTIFACT: [&str; 6] = ["digest", "json", "name", "size", "type", "uri"];

fn member(place: &str, name: Option<&str>, names: Option<&BTreeSet<String>>) -> Result<(), RefError> {
    match (name, names) {
        (Some(name), Some(names)) if !names.contains(name) => {
            let shown = Value::from(quote(name));
            Err(RefError::Missing(format!("{place} has no {shown}; it has: {}", instead(name, names))))
        }
        _ => Ok(()),
    }
}

/// Refuses references in `value` that are malformed or use names that do not exist.
#[must_use]
pub fn check(value: &Value, at: &FieldPath, known: &Known) -> Vec<Located<RefError>> {
    let mut errors = Vec::new();
    for (path, found) in scan(value, at) {
        let checked = found.and_then(|reference| {
            // A param that is not there is what the alternative is for; a stage that is not there is a typo.
            let may_be_absent = |path: &PathRef| {
                matches!(reference, Reference::Choice(_))
                    && path.head == Head::Params
                    && known.heads.contains_key(&path.head)
            };
            reference.uses().iter().filter(|path| !may_be_absent(path)).try_for_each(|used| known.check(used))?;
            if let Reference::Cel(expression) = &reference { expression.gives(known).map(drop) } else { Ok(()) }
        });
        errors.extend(checked.err().map(|error| Located::new(path, error)));
    }
    errors
}

/// The params of a template that none of its references reads.
#[must_use]
pub fn unused_params(template: &Value) -> Vec<String> {
    let Some(params) = template.get("params").and_then(Value::as_object) else {
        return Vec::new();
    };
    let mut unused: BTreeSet<&str> = params.keys().map(String::as_str).collect();
    for (_, found) in scan(template, &FieldPath::root()) {
        let paths = found.as_ref().map(Reference::uses).unwrap_or_default();
        for path in paths.iter().filter(|path| path.head == Head::Params) {
            match path.key(0) {
                Some(name) => drop(unused.remove(name)),
                // The whole of params is read.
                None => unused.clear(),
            }
        }
    }
    unused.into_iter().map(str::to_owned).collect()
}
