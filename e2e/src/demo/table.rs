//! Two runs of a pipeline beside each other.
//!
//! In: the experiments of both. Out: lines of text, one a parameter or metric.

use serde_json::Value;

use super::tree::number;

/// A stage of the two runs: its name, and its experiments.
pub type Pair = (String, Value, Value);

/// The parameters that differ and every metric, one line each.
pub fn compare(names: (&str, &str), params: (&Value, &Value), stages: &[Pair]) -> Vec<String> {
    let mut rows = vec![[String::new(), names.0.to_owned(), names.1.to_owned(), String::new()]];
    for (name, before) in params.0.as_object().into_iter().flatten() {
        let after = &params.1[name];
        let mark = if before == after { "" } else { "changed" };
        rows.push([format!("params.{name}"), number(before), number(after), mark.to_owned()]);
    }
    for (stage, before, after) in stages {
        let (before, after) = (&before["status"]["metrics"], &after["status"]["metrics"]);
        for (name, value) in before.as_object().into_iter().flatten() {
            // How long a fit took says nothing about the model.
            if name.ends_with("seconds") {
                continue;
            }
            let (old, new) = (&value["last"], &after[name]["last"]);
            rows.push([format!("{stage}: {name}"), number(old), number(new), difference(old, new)]);
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (first, second, third) = (width(0), width(1), width(2));
    let line = |row: &[String; 4]| {
        let text = format!("{:<first$}  {:>second$}  {:>third$}  {}", row[0], row[1], row[2], row[3]);
        text.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn difference(old: &Value, new: &Value) -> String {
    match (old.as_f64(), new.as_f64()) {
        (Some(old), Some(new)) if (new - old).abs() > 1e-9 => {
            let shown = number(&(new - old).into());
            if new > old { format!("+{shown}") } else { shown }
        }
        (Some(_), Some(_)) => String::new(),
        _ => "missing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_differs_is_seen() {
        let of = |acc: f64| json!({"status": {"metrics": {"acc": {"last": acc}, "fit_seconds": {"last": 0.1}}}});
        let lines =
            compare(("d-1", "d-2"), (&json!({"C": 1}), &json!({"C": 10})), &[("train".into(), of(0.95), of(0.9815))]);
        assert_eq!(
            lines,
            ["             d-1     d-2", "params.C       1      10  changed", "train: acc  0.95  0.9815  +0.0315"]
        );
    }
}
