//! Whether what was seen is what had to come.
//!
//! In: the run and its experiments as JSON, as the API server has them. Out: a line for each thing that differs.

use jiff::Timestamp;
use serde_json::Value;

use crate::case::{Case, Expect, Verdict};

const STAGE: &str = "/metadata/labels/cultivar.dev~1stage";
const MEMBER: &str = "/metadata/labels/cultivar.dev~1member";
/// Bytes of a moment down to its second: creation times have no more.
const TO_THE_SECOND: usize = "2026-11-23T10:00:00".len();

/// How a case went.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The run when it had ended; null when there was none.
    pub run: Value,
    /// All experiments.
    pub experiments: Vec<Value>,
    /// Why the pipeline was not accepted.
    pub refusal: Option<String>,
    /// Jobs that were made.
    pub jobs: usize,
    /// Writes of the operator, where they can be counted.
    pub writes: Option<usize>,
}

impl Case {
    /// What differs from what had to come of the case, a line each.
    #[must_use]
    pub fn differs(&self, seen: &Seen) -> Vec<String> {
        let mut lines = Vec::new();
        let Expect {
            verdict,
            refused,
            stages,
            members,
            specs,
            outputs,
            attempts,
            waits,
            order,
            apart,
            together,
            reused,
            gone,
            // Somebody has to delete them first.
            left: _,
            jobs,
            writes,
        } = &self.expect;
        match verdict {
            Some(verdict) => seen.verdict(verdict, &mut lines),
            None => seen.refusal(refused, &mut lines),
        }
        for (name, words) in stages {
            let stage = seen.stage(name);
            says(&format!("stage {name}"), &standing(stage), &words[0], &mut lines);
            contains(&format!("stage {name}"), &stage["message"], &words[1..], &mut lines);
        }
        for (name, wanted) in members {
            has(&format!("members of {name}"), &seen.stage(name)["members"], wanted, &mut lines);
        }
        for (name, wanted) in specs {
            match seen.experiments_of(name).as_slice() {
                [one] => has(&format!("spec of {name}"), &one["spec"], wanted, &mut lines),
                several => lines.push(format!("{name} has {} experiments, not one", several.len())),
            }
        }
        if let Some(wanted) = outputs {
            same("outputs", &seen.run["status"]["outputs"], wanted, &mut lines);
        }
        for (name, wanted) in attempts {
            match seen.experiments_of(name).as_slice() {
                [one] => same(&format!("attempts of {name}"), &reasons(one), &serde_json::json!(wanted), &mut lines),
                several => lines.push(format!("{name} has {} experiments, not one", several.len())),
            }
        }
        for (name, wanted) in waits {
            match seen.experiments_of(name).as_slice() {
                [one] => seen.waits(name, &waits_between(one), wanted, &mut lines),
                several => lines.push(format!("{name} has {} experiments, not one", several.len())),
            }
        }
        for (first, second) in order {
            seen.order(first, second, &mut lines);
        }
        for (one, other) in apart {
            seen.apart(one, other, &mut lines);
        }
        for (one, other) in together {
            seen.together(one, other, &mut lines);
        }
        for (name, wanted) in reused {
            seen.reused(name, *wanted, &mut lines);
        }
        let is_there = |name: &&String| seen.experiments.iter().any(|one| one["metadata"]["name"] == name.as_str());
        lines.extend(gone.iter().filter(is_there).map(|name| format!("experiment {name} is still there")));
        if let Some(wanted) = jobs.filter(|wanted| *wanted != seen.jobs) {
            lines.push(format!("{} Jobs were made, not {wanted}", seen.jobs));
        }
        if let (Some(most), Some(writes)) = (writes, seen.writes)
            && writes > *most
        {
            lines.push(format!("{writes} writes, and {most} are enough"));
        }
        lines
    }
}

impl Seen {
    /// A run that has ended and its experiments, as an API server has them.
    #[must_use]
    pub fn of(run: Value, experiments: Vec<Value>) -> Self {
        let attempts = experiments.iter().filter_map(|experiment| experiment["status"]["attempts"].as_array());
        let jobs = attempts.flatten().filter(|attempt| attempt["job"].is_string()).count();
        Self { run, experiments, jobs, ..Self::default() }
    }

    fn verdict(&self, wanted: &Verdict, lines: &mut Vec<String>) {
        if let Some(refusal) = &self.refusal {
            return lines.push(format!("the pipeline is refused: {refusal}"));
        }
        let status = &self.run["status"];
        let words = [Some(wanted.phase.as_str()), wanted.reason.as_deref()];
        says("the run", &standing(status), &words.into_iter().flatten().collect::<Vec<_>>().join(" "), lines);
        contains("the run", &status["message"], &wanted.message, lines);
    }

    fn refusal(&self, wanted: &[String], lines: &mut Vec<String>) {
        match &self.refusal {
            Some(refusal) => contains("the refusal", &Value::String(refusal.clone()), wanted, lines),
            None => lines.push("the pipeline is accepted".to_owned()),
        }
        if !self.run.is_null() || !self.experiments.is_empty() {
            lines.push("a refused pipeline has a run".to_owned());
        }
    }

    fn stage(&self, name: &str) -> &Value {
        let stages = self.run["status"]["stages"].as_array().map_or(&[][..], Vec::as_slice);
        stages.iter().find(|stage| stage["name"] == name).unwrap_or(&Value::Null)
    }

    /// Experiments by stage, member or name.
    #[must_use]
    pub fn experiments_of(&self, name: &str) -> Vec<&Value> {
        let label =
            |experiment: &Value, label: &str| experiment.pointer(label).and_then(Value::as_str).map(str::to_owned);
        let is_meant = |experiment: &&Value| match (label(experiment, STAGE), label(experiment, MEMBER)) {
            (Some(stage), Some(index)) => stage == name || format!("{stage}-{index}") == name,
            (Some(stage), None) => stage == name,
            (None, _) => experiment["metadata"]["name"] == name,
        };
        self.experiments.iter().filter(is_meant).collect()
    }

    fn reused(&self, name: &str, wanted: usize, lines: &mut Vec<String>) {
        let experiments = self.experiments_of(name);
        if experiments.is_empty() {
            return lines.push(format!("{name} has no experiment"));
        }
        let took_over =
            |one: &&Value| !one["status"]["reusedFrom"].is_null() && reasons(one).as_array().is_some_and(Vec::is_empty);
        let count = experiments.into_iter().filter(took_over).count();
        if count != wanted {
            lines.push(format!("{count} of {name} took over a result, not {wanted}"));
        }
    }

    // Moments have whole seconds, which makes one of difference; and where time is not virtual nobody hurries.
    fn waits(&self, name: &str, waits: &[i64], wanted: &[i64], lines: &mut Vec<String>) {
        let virtual_time = self.writes.is_some();
        let holds = |(seen, wanted): (&i64, &i64)| seen + 1 >= *wanted && (!virtual_time || *seen <= wanted + 1);
        if waits.len() != wanted.len() || !waits.iter().zip(wanted).all(holds) {
            lines.push(format!("{name} waited {waits:?} seconds, not {wanted:?}"));
        }
    }

    // When the first began, when the last began, when the first ended, when the last ended.
    fn moments(&self, name: &str) -> Result<[String; 4], String> {
        let to_the_second = |moment: &Value| moment.as_str().map(|text| text.chars().take(TO_THE_SECOND).collect());
        let (mut begun, mut ended): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        for experiment in self.experiments_of(name) {
            begun.extend(to_the_second(&experiment["metadata"]["creationTimestamp"]));
            ended.extend(to_the_second(&experiment["status"]["times"]["finished"]));
        }
        begun.sort();
        ended.sort();
        match (begun.as_slice(), ended.as_slice()) {
            ([first, .., last], [early, .., late]) => Ok([first, last, early, late].map(String::clone)),
            ([only], [end]) => Ok([only, only, end, end].map(String::clone)),
            _ => Err(format!("{name} never ran")),
        }
    }

    fn order(&self, first: &str, second: &str, lines: &mut Vec<String>) {
        match (self.moments(first), self.moments(second)) {
            (Ok([.., ended]), Ok([begun, ..])) if ended <= begun => {}
            (Ok([.., ended]), Ok([begun, ..])) => {
                lines.push(format!("{second} began at {begun}, and {first} ended at {ended}"));
            }
            (one, other) => lines.extend([one, other].into_iter().filter_map(Result::err)),
        }
    }

    fn apart(&self, one: &str, other: &str, lines: &mut Vec<String>) {
        match (self.moments(one), self.moments(other)) {
            (Ok([a, .., end_of_a]), Ok([b, .., end_of_b])) if end_of_a <= b || end_of_b <= a => {}
            (Ok([a, .., end_of_a]), Ok([b, .., end_of_b])) => {
                lines.push(format!("{one} ran from {a} to {end_of_a}, and {other} from {b} to {end_of_b}"));
            }
            (one, other) => lines.extend([one, other].into_iter().filter_map(Result::err)),
        }
    }

    fn together(&self, one: &str, other: &str, lines: &mut Vec<String>) {
        match (self.moments(one), self.moments(other)) {
            (Ok([_, a, end_of_a, _]), Ok([_, b, end_of_b, _])) if a < end_of_b && b < end_of_a => {}
            (Ok([_, a, end_of_a, _]), Ok([_, b, end_of_b, _])) => {
                lines.push(format!("{one} ran from {a} to {end_of_a}, and {other} from {b} to {end_of_b}"));
            }
            (one, other) => lines.extend([one, other].into_iter().filter_map(Result::err)),
        }
    }
}

/// Whether a run or an experiment has come to its end.
#[must_use]
pub fn has_ended(object: &Value) -> bool {
    matches!(object["status"]["phase"].as_str(), Some("Completed" | "Failed" | "Cancelled" | "Skipped"))
}

fn standing(status: &Value) -> String {
    let words = ["phase", "reason"].map(|key| status[key].as_str());
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn reasons(experiment: &Value) -> Value {
    let attempts = experiment["status"]["attempts"].as_array().map_or(&[][..], Vec::as_slice);
    attempts.iter().map(|attempt| attempt["reason"].clone()).collect()
}

fn waits_between(experiment: &Value) -> Vec<i64> {
    let attempts = experiment["status"]["attempts"].as_array().map_or(&[][..], Vec::as_slice);
    let second = |moment: &Value| moment.as_str()?.parse::<Timestamp>().ok().map(Timestamp::as_second);
    let wait = |pair: &[Value]| Some(second(&pair[1]["createdAt"])? - second(&pair[0]["finishedAt"])?);
    attempts.windows(2).filter_map(wait).collect()
}

fn says(what: &str, seen: &str, wanted: &str, lines: &mut Vec<String>) {
    if seen != wanted {
        lines.push(format!("{what} is {seen:?}, not {wanted:?}"));
    }
}

fn contains(what: &str, message: &Value, wanted: &[String], lines: &mut Vec<String>) {
    let text = message.as_str().unwrap_or_default();
    for words in wanted.iter().filter(|words| !text.contains(words.as_str())) {
        lines.push(format!("{what} does not say {words:?} but {text:?}"));
    }
}

fn same(what: &str, seen: &Value, wanted: &Value, lines: &mut Vec<String>) {
    if !equal(seen, wanted) {
        lines.push(format!("{what}: {seen} instead of {wanted}"));
    }
}

// Objects may have more keys than are wanted; null wants a key to be absent.
fn has(what: &str, seen: &Value, wanted: &Value, lines: &mut Vec<String>) {
    let Value::Object(keys) = wanted else { return same(what, seen, wanted, lines) };
    for (key, wanted) in keys {
        has(&format!("{what}: {key}"), seen.get(key).unwrap_or(&Value::Null), wanted, lines);
    }
}

// A metric is a double wherever it comes from: 4 and 4.0 are one number.
fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Seen;
    use crate::case::Case;

    fn case(expect: &Value) -> Case {
        serde_json::from_value(json!({"pipeline": {}, "expect": expect})).expect("a case")
    }

    fn seen() -> Seen {
        let later = "2026-11-23T10:00:04Z";
        let experiment = |name: &str, from: &str, to: &str| {
            json!({"metadata": {"name": format!("case-1-{name}-0"), "creationTimestamp": from, "labels": {"cultivar.dev/stage": name}},
                "spec": {"args": ["1"], "params": {"lr": 1}}, "status": {"times": {"finished": to}, "attempts": [{"reason": "Error", "finishedAt": from}, {"createdAt": later}]}})
        };
        let mut reused = experiment("b", "2026-11-23T10:00:03Z", "2026-11-23T10:00:09Z");
        reused["status"]["reusedFrom"] = json!({"name": "before"});
        reused["status"]["attempts"] = Value::Null;
        Seen {
            run: json!({"status": {"phase": "Failed", "reason": "StageFailed", "message": "stage a Failed", "outputs": {"n": 4.0},
                "stages": [{"name": "a", "phase": "Failed", "reason": "Error", "members": {"total": 3, "failed": 1}}]}}),
            experiments: vec![
                experiment("a", "2026-11-23T10:00:00Z", "2026-11-23T10:00:03.5Z"),
                reused,
                experiment("c", "2026-11-23T10:00:01Z", "2026-11-23T10:00:09Z"),
            ],
            jobs: 4,
            writes: Some(9),
            refusal: None,
        }
    }

    #[track_caller]
    fn finds(expect: Value, words: Option<&str>) {
        let lines = case(&expect).differs(&seen());
        match words {
            None => assert!(lines.is_empty(), "{lines:?}"),
            Some(words) => assert!(lines.len() == 1 && lines[0].contains(words), "{lines:?}"),
        }
    }

    #[test]
    fn each_expectation_is_checked() {
        let with =
            |key: &str, value: Value| json!({"verdict": {"phase": "Failed", "reason": "StageFailed"}, key: value});
        finds(json!({"verdict": {"phase": "Failed", "reason": "StageFailed", "message": ["stage a"]}}), None);
        finds(json!({"verdict": {"phase": "Failed"}}), Some("the run is \"Failed StageFailed\""));
        finds(
            json!({"verdict": {"phase": "Failed", "reason": "StageFailed", "message": ["stage b"]}}),
            Some("does not say"),
        );
        finds(with("stages", json!({"a": ["Failed Error"]})), None);
        finds(with("stages", json!({"a": ["Failed"]})), Some("stage a is"));
        finds(with("members", json!({"a": {"total": 3}})), None);
        finds(with("members", json!({"a": {"total": 4}})), Some("members of a: total: 3 instead of 4"));
        finds(with("specs", json!({"a": {"params": {"lr": 1.0, "x": null}}})), None);
        finds(with("specs", json!({"a": {"args": []}})), Some("args"));
        finds(with("specs", json!({"d": {}})), Some("d has 0 experiments"));
        finds(with("outputs", json!({"n": 4})), None);
        finds(with("outputs", json!({})), Some("outputs"));
        finds(with("attempts", json!({"a": ["Error", null]})), None);
        finds(with("attempts", json!({"a": ["Error"]})), Some("attempts of a"));
        finds(with("waits", json!({"a": [3]})), None);
        finds(with("waits", json!({"a": [6]})), Some("a waited [4] seconds"));
        finds(with("waits", json!({"a": [2]})), Some("a waited [4] seconds"));
        finds(with("order", json!([["a", "b"]])), None);
        finds(with("order", json!([["a", "c"]])), Some("c began at"));
        finds(with("apart", json!([["a", "b"]])), None);
        finds(with("apart", json!([["c", "a"]])), Some("c ran from"));
        finds(with("together", json!([["a", "c"]])), None);
        finds(with("together", json!([["a", "b"]])), Some("a ran from"));
        finds(with("reused", json!({"b": 1, "a": 0, "c": 0})), None);
        finds(with("reused", json!({"b": 0})), Some("1 of b took over a result, not 0"));
        finds(with("reused", json!({"a": 1})), Some("0 of a took over a result, not 1"));
        finds(with("reused", json!({"d": 0})), Some("d has no experiment"));
        finds(with("gone", json!(["case-1-d-0"])), None);
        finds(with("gone", json!(["case-1-a-0"])), Some("case-1-a-0 is still there"));
        finds(with("jobs", json!(4)), None);
        finds(with("jobs", json!(3)), Some("4 Jobs"));
        finds(with("writes", json!(9)), None);
        finds(with("writes", json!(8)), Some("9 writes"));
    }

    #[test]
    fn a_refusal_leaves_no_run() {
        let case = case(&json!({"refused": ["spec.stages[0]"]}));
        assert_eq!(case.differs(&seen()).len(), 2);
        let refused = Seen { refusal: Some("spec.stages[0].args: no".to_owned()), ..Seen::default() };
        assert_eq!(case.differs(&refused), Vec::<String>::new());
    }
}
