//! Stages in an order in which they can run.
//!
//! In: stages and what they need. Out: [`Dag`], or every reason why there is none.

use std::collections::{BTreeMap, BTreeSet};

use super::infer::Stage;
use crate::refs::{FieldPath, Located, RefError, instead};

/// What can be wrong with a set of stages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DagError {
    /// A stage without a name.
    #[error("a stage needs a name")]
    Unnamed,
    /// Two stages of one name.
    #[error("there is another stage called \"{0}\"")]
    Duplicate(String),
    /// A stage needs one that does not exist.
    #[error("there is no stage \"{name}\"; there are: {existing}")]
    Unknown {
        /// The name that no stage has.
        name: String,
        /// The stages that there are.
        existing: String,
    },
    /// Stages that need each other; the first one is repeated at the end.
    #[error("stages wait for each other in a circle: {}", .0.join(" → "))]
    Cycle(Vec<String>),
    /// An expression that could read any stage.
    #[error("an expression has to name the stages it reads, as in stages.train or stages[\"train-model\"]")]
    AnyStage,
    /// A malformed reference.
    #[error(transparent)]
    Reference(#[from] RefError),
}

/// Stages without circles.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dag {
    order: Vec<String>,
    needs: BTreeMap<String, BTreeSet<String>>,
}

impl Dag {
    /// Orders stages: each after those it needs and, where that leaves a choice, as they are declared.
    ///
    /// # Errors
    /// Duplicate names, needs that do not exist, and one circle if there are any, each with its field.
    pub fn new(stages: &[Stage]) -> Result<Dag, Vec<Located<DagError>>> {
        let mut errors = names(stages);
        errors.extend(unknown(stages));
        if !errors.is_empty() {
            return Err(errors);
        }
        let needs: BTreeMap<String, BTreeSet<String>> = stages
            .iter()
            .map(|stage| (stage.name.clone(), stage.needs.iter().map(|need| need.stage.clone()).collect()))
            .collect();
        match order(stages) {
            Ok(order) => Ok(Dag { order: order.into_iter().map(str::to_owned).collect(), needs }),
            Err(circle) => Err(vec![circle]),
        }
    }

    /// All stages, each after those it needs.
    #[must_use]
    pub fn order(&self) -> &[String] {
        &self.order
    }

    /// The stages that `stage` waits for itself.
    pub fn needs(&self, stage: &str) -> impl Iterator<Item = &str> {
        self.needs.get(stage).into_iter().flatten().map(String::as_str)
    }

    /// The stages that wait for `stage`, themselves or through others, in order.
    #[must_use]
    pub fn descendants(&self, stage: &str) -> Vec<&str> {
        let mut found: BTreeSet<&str> = BTreeSet::from([stage]);
        let mut descendants = Vec::new();
        for name in &self.order {
            if name != stage && self.needs(name).any(|need| found.contains(need)) {
                found.insert(name);
                descendants.push(name.as_str());
            }
        }
        descendants
    }
}

/// Stages whose name another one has already.
pub(super) fn names(stages: &[Stage]) -> Vec<Located<DagError>> {
    let mut seen = BTreeSet::new();
    let again = stages.iter().filter(|stage| !seen.insert(stage.name.as_str()));
    again.map(|stage| Located::new(stage.at.key("name"), DagError::Duplicate(stage.name.clone()))).collect()
}

/// Needs that no stage satisfies.
fn unknown(stages: &[Stage]) -> Vec<Located<DagError>> {
    let existing: BTreeSet<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
    let missing = stages.iter().flat_map(|stage| &stage.needs).filter(|need| !existing.contains(need.stage.as_str()));
    missing
        .map(|need| {
            let error = DagError::Unknown { name: need.stage.clone(), existing: instead(&need.stage, &existing) };
            Located::new(need.at.clone(), error)
        })
        .collect()
}

/// The order, or a circle at the field that closes it. Needs that do not exist are passed over.
pub(super) fn order(stages: &[Stage]) -> Result<Vec<&str>, Located<DagError>> {
    let position: BTreeMap<&str, usize> =
        stages.iter().enumerate().rev().map(|(i, stage)| (stage.name.as_str(), i)).collect();
    let waits_for: Vec<BTreeSet<usize>> = stages
        .iter()
        .map(|stage| stage.needs.iter().filter_map(|need| position.get(need.stage.as_str()).copied()).collect())
        .collect();
    let mut open: Vec<usize> = waits_for.iter().map(BTreeSet::len).collect();
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); stages.len()];
    for (stage, needed) in waits_for.iter().enumerate() {
        for need in needed {
            dependents[*need].push(stage);
        }
    }
    // The smallest index first keeps the order of declaration.
    let mut ready: BTreeSet<usize> = (0..stages.len()).filter(|stage| open[*stage] == 0).collect();
    let mut order = Vec::with_capacity(stages.len());
    while let Some(stage) = ready.pop_first() {
        order.push(stages[stage].name.as_str());
        for dependent in &dependents[stage] {
            open[*dependent] -= 1;
            if open[*dependent] == 0 {
                ready.insert(*dependent);
            }
        }
    }
    match open.iter().position(|open| *open > 0) {
        None => Ok(order),
        Some(start) => Err(circle(stages, &waits_for, &open, start)),
    }
}

/// A circle among the stages that are still `open`: each of them waits for another of them.
fn circle(stages: &[Stage], waits_for: &[BTreeSet<usize>], open: &[usize], start: usize) -> Located<DagError> {
    let mut way = vec![start];
    let (first, mut last) = loop {
        let at = way[way.len() - 1];
        let Some(next) = waits_for[at].iter().copied().find(|need| open[*need] > 0) else {
            break (0, way.clone());
        };
        if let Some(first) = way.iter().position(|stage| *stage == next) {
            break (first, way.clone());
        }
        way.push(next);
    };
    last.drain(..first);
    // Told from the stage that is declared first, so that the same pipeline always reads the same.
    let earliest = last.iter().enumerate().min_by_key(|(_, stage)| **stage).map_or(0, |(position, _)| position);
    last.rotate_left(earliest);
    let name = |stage: &usize| stages[*stage].name.clone();
    let names: Vec<String> = last.iter().chain(last.first()).map(name).collect();
    let needed = names.get(1).cloned().unwrap_or_default();
    let field = last.first().map_or_else(FieldPath::root, |stage| {
        let stage = &stages[*stage];
        stage.needs.iter().find(|need| need.stage == needed).map_or_else(|| stage.at.clone(), |need| need.at.clone())
    });
    Located::new(field, DagError::Cycle(names))
}
