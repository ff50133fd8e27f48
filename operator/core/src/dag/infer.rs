//! Finds what a stage waits for.
//!
//! In: stages as JSON. Out: per stage the names of others, each with the first field that mentions it.

use std::collections::{BTreeMap, BTreeSet};

use cultivar_crds::Until;
use serde::Deserialize;
use serde_json::Value;

use super::graph::{self, Dag, DagError};
use crate::refs::{Expression, FieldPath, Head, Located, PathRef, Reference, scan};

/// A stage that another one waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// Its name.
    pub stage: String,
    /// The field that mentions it first.
    pub at: FieldPath,
    /// The end that it waits for.
    pub until: Until,
}

/// A stage and what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Where it is declared.
    pub at: FieldPath,
    /// The stages it waits for, each once, in the order of its fields.
    pub needs: Vec<Need>,
}

/// Something wrong with the graph of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field, as in `spec.stages[1].after[0].stage`.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// Every stage of a pipeline's spec, frozen or not: those of the DAG, and those that come at the end.
pub fn all(spec: &Value) -> impl Iterator<Item = &Value> {
    ["stages", "finally"].into_iter().filter_map(|key| spec.get(key)?.as_array()).flatten()
}

/// The stages that `stage` waits for, and the end of each that it waits for. What is malformed waits for nothing.
#[must_use]
pub fn needs(stage: &Value) -> BTreeMap<String, Until> {
    Edges::of(stage, &FieldPath::root()).needs.into_iter().map(|need| (need.stage, need.until)).collect()
}

/// Orders the `stages` of a pipeline, which stand at `at`: `spec.stages`.
///
/// # Errors
/// Malformed references, stages without a name or with another one's, needs that do not exist, a circle.
pub fn infer(stages: &[Value], at: &FieldPath) -> Result<Dag, Vec<Located<DagError>>> {
    let (stages, errors) = read(stages, at);
    if errors.is_empty() { Dag::new(&stages) } else { Err(errors) }
}

/// What is wrong with the graph of a pipeline's `stages`, beyond what [`crate::refs::check`] finds in each of them:
/// malformed references and references to stages that do not exist are left to that.
#[must_use]
pub fn faults(stages: &[Value]) -> Vec<Fault> {
    let at = FieldPath::of("spec").key("stages");
    let (read, errors) = read(stages, &at);
    let mut found: Vec<Located<DagError>> =
        errors.into_iter().filter(|error| !matches!(error.value, DagError::Reference(_))).collect();
    found.extend(graph::names(&read));
    found.extend(unknown_after(stages, &at));
    found.extend(graph::order(&read).err());
    found.into_iter().map(|fault| Fault { field: fault.path.to_string(), message: fault.value.to_string() }).collect()
}

fn read(stages: &[Value], at: &FieldPath) -> (Vec<Stage>, Vec<Located<DagError>>) {
    let (mut read, mut errors) = (Vec::new(), Vec::new());
    for (index, stage) in stages.iter().enumerate() {
        let at = at.index(index);
        let edges = Edges::of(stage, &at);
        errors.extend(edges.errors);
        match stage.get("name").and_then(Value::as_str) {
            Some(name) => read.push(Stage { name: name.to_owned(), at, needs: edges.needs }),
            None => errors.push(Located::new(at, DagError::Unnamed)),
        }
    }
    (read, errors)
}

/// `after` fields that name no stage.
fn unknown_after(stages: &[Value], at: &FieldPath) -> Vec<Located<DagError>> {
    let existing: BTreeSet<&str> = stages.iter().filter_map(|stage| stage.get("name")?.as_str()).collect();
    let mut errors = Vec::new();
    for (index, stage) in stages.iter().enumerate() {
        for (name, at) in after(stage, &at.index(index)) {
            if !existing.contains(name) {
                let error =
                    DagError::Unknown { name: name.to_owned(), existing: crate::refs::instead(name, &existing) };
                errors.push(Located::new(at, error));
            }
        }
    }
    errors
}

/// The names in `after[].stage`, with their fields.
fn after<'a>(stage: &'a Value, at: &FieldPath) -> Vec<(&'a str, FieldPath)> {
    let list = stage.get("after").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let named = list.iter().enumerate().filter_map(|(i, item)| {
        let name = item.get("stage")?.as_str()?;
        Some((name, at.key("after").index(i).key("stage")))
    });
    named.collect()
}

/// The end that `after` says, of a stage that it names.
fn until(stage: &Value, name: &str) -> Option<Until> {
    let list = stage.get("after").and_then(Value::as_array)?;
    let item = list.iter().find(|item| item.get("stage").and_then(Value::as_str) == Some(name))?;
    item.get("until").and_then(|until| Until::deserialize(until).ok())
}

#[derive(Default)]
struct Edges {
    needs: Vec<Need>,
    // Those of which `after` says which end is meant: it says so for what is read of them too.
    said: BTreeSet<String>,
    errors: Vec<Located<DagError>>,
}

impl Edges {
    fn of(stage: &Value, at: &FieldPath) -> Edges {
        let mut edges = Edges::default();
        for (name, at) in after(stage, at) {
            let until = until(stage, name);
            if until.is_some() {
                edges.said.insert(name.to_owned());
            }
            edges.add(name, &at, until);
        }
        for (key, value) in stage.as_object().into_iter().flatten() {
            let at = at.key(key);
            match (key.as_str(), value) {
                // A bare expression, without `${=` around it.
                ("when", Value::String(source)) => match Expression::parse(source) {
                    Ok(expression) => edges.read(expression.uses(), &at),
                    Err(error) => edges.errors.push(Located::new(at, error.into())),
                },
                ("after", _) => {}
                ("repeat", value) => {
                    let until = value.get("until").and_then(Value::as_str);
                    match until.map(Expression::parse) {
                        Some(Ok(expression)) => edges.read(expression.uses(), &at),
                        Some(Err(error)) => edges.errors.push(Located::new(at.key("until"), error.into())),
                        None => {}
                    }
                }
                _ => {
                    for (at, reference) in scan(value, &at) {
                        match reference {
                            // What has an alternative may be absent.
                            Ok(Reference::Choice(choice)) => edges.choose(&choice.paths, &at),
                            Ok(reference) => edges.read(reference.uses(), &at),
                            Err(error) => edges.errors.push(Located::new(at, error.into())),
                        }
                    }
                }
            }
        }
        edges
    }

    fn read(&mut self, uses: &[PathRef], at: &FieldPath) {
        for path in uses.iter().filter(|path| path.head == Head::Stages) {
            match path.key(0) {
                // Whoever asks how it ended takes any end.
                Some(name) if path.key(1) == Some("phase") => self.add(name, at, Some(Until::Ended)),
                Some(name) => self.add(name, at, None),
                None => self.errors.push(Located::new(at.clone(), DagError::AnyStage)),
            }
        }
    }

    fn choose(&mut self, paths: &[PathRef], at: &FieldPath) {
        for name in paths.iter().filter(|path| path.head == Head::Stages).filter_map(|path| path.key(0)) {
            self.add(name, at, Some(Until::Ended));
        }
    }

    // The first word counts, which is that of `after`; but what is read of a stage beside its phase is there only if it
    // has completed.
    fn add(&mut self, stage: &str, at: &FieldPath, until: Option<Until>) {
        match self.needs.iter_mut().find(|need| need.stage == stage) {
            Some(need) if until.is_none() && !self.said.contains(stage) => need.until = Until::Completed,
            Some(_) => {}
            None => {
                let until = until.unwrap_or_default();
                self.needs.push(Need { stage: stage.to_owned(), at: at.clone(), until });
            }
        }
    }
}
