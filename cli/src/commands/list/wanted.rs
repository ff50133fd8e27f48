//! Which of them, in which order.

use cultivar_core::domain::time;
use jiff::Timestamp;

use super::List;
use super::listed::Listed;
use crate::error::{Error, Result};
use crate::output;

/// What is compared with what.
#[derive(Debug, PartialEq)]
pub struct Condition {
    field: Field,
    operator: &'static str,
    value: String,
}

#[derive(Debug, PartialEq)]
pub enum Field {
    Param(String),
    Metric(String),
    Pipeline,
}

/// What is asked for.
pub struct Wanted {
    phase: Option<String>,
    conditions: Vec<Condition>,
    since: Option<Timestamp>,
    sort: Sort,
}

#[derive(Debug, PartialEq)]
pub enum Sort {
    Age,
    Name,
    Metric { name: String, smallest: bool },
}

impl Wanted {
    pub fn of(asked: &List, now: Timestamp) -> Result<Self> {
        let since = asked.since.as_deref().map(|since| {
            let length = time::parse_duration(since);
            let length = length.map_err(|why| Error::refused(format!("--since {since}")).why(why))?;
            now.checked_sub(length).map_err(|error| Error::refused(format!("--since {since}")).why(error))
        });
        let sort = match asked.sort.split_once(':') {
            None if asked.sort == "age" => Sort::Age,
            None if asked.sort == "name" => Sort::Name,
            Some(("metric", name)) if !name.is_empty() => {
                let smallest = name.starts_with('-');
                Sort::Metric { name: name.trim_start_matches('-').to_owned(), smallest }
            }
            _ => {
                let words = format!("--sort {}: there are age, name, metric:NAME and metric:-NAME", asked.sort);
                return Err(Error::refused(words));
            }
        };
        Ok(Self {
            phase: asked.phase.clone(),
            conditions: asked.conditions.iter().map(|text| condition(text)).collect::<Result<_>>()?,
            since: since.transpose()?,
            sort,
        })
    }

    pub fn holds(&self, listed: &Listed) -> bool {
        self.phase.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(&listed.phase))
            && self.since.is_none_or(|since| listed.created.is_some_and(|created| created >= since))
            && self.conditions.iter().all(|condition| condition.holds(listed))
    }

    pub fn order(&self, one: &Listed, other: &Listed) -> std::cmp::Ordering {
        let by_name = || (&one.name, &one.namespace).cmp(&(&other.name, &other.namespace));
        match &self.sort {
            Sort::Age => other.created.cmp(&one.created).then_with(by_name),
            Sort::Name => by_name(),
            Sort::Metric { name, smallest } => {
                // One without the metric comes last.
                let score = |listed: &Listed| {
                    let last = listed.metrics.get(name);
                    last.map_or(f64::INFINITY, |last| if *smallest { *last } else { -last })
                };
                score(one).total_cmp(&score(other)).then_with(by_name)
            }
        }
    }

    /// The columns of what is compared, in the order of their names: `params.lr`, `metrics.val/acc`.
    pub fn columns(&self) -> Vec<String> {
        let compared = self.conditions.iter().filter_map(|condition| match &condition.field {
            Field::Param(name) => Some(format!("params.{name}")),
            Field::Metric(name) => Some(format!("metrics.{name}")),
            Field::Pipeline => None,
        });
        let sorted = match &self.sort {
            Sort::Metric { name, .. } => Some(format!("metrics.{name}")),
            _ => None,
        };
        let columns: std::collections::BTreeSet<String> = compared.chain(sorted).collect();
        columns.into_iter().collect()
    }
}

fn condition(text: &str) -> Result<Condition> {
    // The longer ones first, so that <= is not read as <.
    for operator in ["!=", "<=", ">=", "=", "<", ">"] {
        let Some((field, value)) = text.split_once(operator) else { continue };
        let field = match field.trim().split_once('.') {
            Some(("params", name)) => Field::Param(name.to_owned()),
            Some(("metrics", name)) => Field::Metric(name.to_owned()),
            None if field.trim() == "pipeline" => Field::Pipeline,
            _ => {
                let words = format!("--where {text}: there are params.NAME, metrics.NAME and pipeline");
                return Err(Error::refused(words));
            }
        };
        return Ok(Condition { field, operator, value: value.trim().to_owned() });
    }
    Err(Error::refused(format!("--where {text}: it compares nothing")).hint("such as params.lr=0.1 or metrics.acc>0.9"))
}

impl Condition {
    fn holds(&self, listed: &Listed) -> bool {
        let found = match &self.field {
            Field::Param(name) => listed.params.get(name).map(output::plain),
            Field::Metric(name) => listed.metrics.get(name).map(f64::to_string),
            Field::Pipeline => Some(listed.pipeline.clone()).filter(|name| !name.is_empty()),
        };
        let Some(found) = found else { return self.operator == "!=" };
        let order = match (found.parse::<f64>(), self.value.parse::<f64>()) {
            (Ok(found), Ok(value)) => found.total_cmp(&value),
            _ => found.cmp(&self.value),
        };
        match self.operator {
            "=" => order.is_eq(),
            "!=" => order.is_ne(),
            "<" => order.is_lt(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            _ => order.is_ge(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn listed(name: &str, lr: f64, acc: Option<f64>) -> Listed {
        Listed {
            name: name.to_owned(),
            created: "2026-11-25T10:00:00Z".parse().ok(),
            phase: "Completed".to_owned(),
            params: serde_json::from_value(json!({"lr": lr})).unwrap(),
            metrics: acc.map(|acc| ("acc".to_owned(), acc)).into_iter().collect(),
            ..Listed::default()
        }
    }

    fn wanted(conditions: &[&str], sort: &str) -> Wanted {
        let asked = List {
            selector: None,
            all_namespaces: false,
            phase: Some("completed".into()),
            conditions: conditions.iter().map(|text| (*text).to_owned()).collect(),
            since: Some("1h".into()),
            sort: sort.into(),
            limit: None,
            recorded: false,
            operator: crate::store::Operator::default(),
        };
        Wanted::of(&asked, "2026-11-25T10:30:00Z".parse().unwrap()).unwrap()
    }

    #[test]
    fn conditions_compare_numbers_as_numbers() {
        let listed = listed("a", 0.1, Some(0.95));
        for (text, holds) in [
            ("params.lr=0.10", true),
            ("params.lr!=0.1", false),
            ("metrics.acc>0.9", true),
            ("metrics.acc<=0.9", false),
            ("metrics.other>0", false),
            ("pipeline!=digits", true),
        ] {
            assert_eq!(wanted(&[text], "age").holds(&listed), holds, "{text}");
        }
        assert!(condition("params.lr").is_err() && condition("lr=1").is_err());
    }

    #[test]
    fn the_best_comes_first_and_what_lacks_the_metric_last() {
        let mut all = [listed("a", 0.1, Some(0.5)), listed("b", 0.2, None), listed("c", 0.3, Some(0.9))];
        let sorted = wanted(&[], "metric:acc");
        all.sort_by(|one, other| sorted.order(one, other));
        assert_eq!(all.each_ref().map(|listed| listed.name.as_str()), ["c", "a", "b"]);
        assert_eq!(sorted.columns(), ["metrics.acc"]);
        let smallest = wanted(&[], "metric:-acc");
        all.sort_by(|one, other| smallest.order(one, other));
        assert_eq!(all.each_ref().map(|listed| listed.name.as_str()), ["a", "c", "b"]);
    }
}
