//! The part of MLflow's filter language that programs use inside a run: comparisons joined by `and`.

use super::state::Run;

/// A filter, understood.
#[derive(Debug, Default)]
pub struct Filter(Vec<(String, String, Operator, String)>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

const OPERATORS: [(&str, Operator); 6] = [
    ("!=", Operator::Unequal),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("=", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

impl Filter {
    /// Reads `tags.x = 'y' and metrics.acc > 0.9`.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        let spaced = text.replace(" AND ", " and ");
        for term in spaced.split(" and ").map(str::trim).filter(|term| !term.is_empty()) {
            let bad = || {
                format!(
                    "the filter {term:?} is not understood by the runner; use comparisons like tags.x = 'y' joined by and"
                )
            };
            let found = OPERATORS.iter().filter_map(|(sign, operator)| Some((term.find(sign)?, *sign, *operator)));
            // The leftmost sign; of two at one place the longer, which stands first in the list.
            let (at, sign, operator) = found.min_by_key(|(at, sign, _)| (*at, 2 - sign.len())).ok_or_else(bad)?;
            let (head, value) = (term[..at].trim(), term[at + sign.len()..].trim());
            let (kind, key) = head.split_once('.').unwrap_or(("attributes", head));
            let kind = match kind.trim() {
                "tag" | "tags" => "tags",
                "param" | "params" | "parameter" => "params",
                "metric" | "metrics" => "metrics",
                "attribute" | "attributes" | "attr" | "run" => "attributes",
                _ => return Err(bad()),
            };
            let unquote = |text: &str| text.trim_matches(['\'', '"', '`']).to_owned();
            terms.push((kind.to_owned(), unquote(key), operator, unquote(value)));
        }
        Ok(Self(terms))
    }

    /// Whether a run is meant.
    pub fn matches(&self, run: &Run) -> bool {
        self.0.iter().all(|(kind, key, operator, value)| {
            let have = match (kind.as_str(), key.as_str()) {
                ("tags", _) => run.tags.get(key).cloned(),
                ("params", _) => run.params.get(key).cloned(),
                ("metrics", _) => run.metrics.get(key).map(|(value, ..)| value.to_string()),
                (_, "status") => Some(run.status.clone()),
                (_, "run_id") => Some(run.id.clone()),
                (_, "run_name" | "Run name") => Some(run.name.clone()),
                (_, "start_time" | "created") => Some(run.start.to_string()),
                _ => None,
            };
            have.is_some_and(|have| compare(&have, *operator, value))
        })
    }
}

fn compare(have: &str, operator: Operator, value: &str) -> bool {
    let order = match (have.parse::<f64>(), value.parse::<f64>()) {
        (Ok(have), Ok(value)) => have.partial_cmp(&value),
        _ => Some(have.cmp(value)),
    };
    let Some(order) = order else { return operator == Operator::Unequal };
    match operator {
        Operator::Equal => order.is_eq(),
        Operator::Unequal => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        Operator::GreaterOrEqual => order.is_ge(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons() {
        let mut run = Run { name: "child".into(), ..Run::default() };
        run.tags.insert("mlflow.parentRunId".into(), "p".into());
        run.metrics.insert("acc".into(), (0.95, 0, 0));
        for (text, expected) in [
            ("", true),
            ("tags.mlflow.parentRunId = 'p'", true),
            ("tags.`mlflow.parentRunId` != 'p'", false),
            ("metrics.acc >= 0.95 and attributes.run_name = 'child'", true),
            ("metrics.acc < 0.9", false),
            ("params.none = 'x'", false),
        ] {
            assert_eq!(Filter::read(text).unwrap().matches(&run), expected, "{text}");
        }
        assert!(Filter::read("nonsense").is_err() && Filter::read("foo.x = 1").is_err());
    }
}
