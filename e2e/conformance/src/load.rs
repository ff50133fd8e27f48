//! Cases from their files. What cannot be read is an error, and so is what could never fail.

use serde::Deserialize;
use std::path::Path;

use crate::Case;
use crate::case::PIPELINE;

/// Seconds that a program runs at least where moments are compared: they are known to the second.
const SLOW: u64 = 2;

/// Every case, by name.
///
/// # Errors
/// A folder without cases, a file that is none.
pub fn all() -> Result<Vec<Case>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cases/conformance");
    let listed = std::fs::read_dir(&folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let files = listed.map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut cases = Vec::new();
    for path in files.iter().map(std::fs::DirEntry::path) {
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        cases.push(read(&name, &text).map_err(|words| format!("{}: {words}", path.display()))?);
    }
    if cases.is_empty() {
        return Err(format!("{} has no cases", folder.display()));
    }
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(cases)
}

fn read(file: &str, text: &str) -> Result<Case, String> {
    let name = file.strip_suffix(".yaml").ok_or("a case is a file NAME.yaml")?;
    let group = name.split('-').next().unwrap_or_default();
    if !matches!(group, "neg" | "tekton") && group.parse::<u32>().is_err() {
        return Err("its name begins with the behaviour's number, neg- or tekton-".to_owned());
    }
    if !text.starts_with("# ") {
        return Err("it begins with a comment: the behaviour in one sentence".to_owned());
    }
    // By way of JSON: YAML would want tags for what is one of several.
    let value: serde_json::Value = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let mut case = Case::deserialize(value).map_err(|error| error.to_string())?;
    name.clone_into(&mut case.name);
    check(&case)?;
    Ok(case)
}

fn check(case: &Case) -> Result<(), String> {
    let expect = &case.expect;
    if expect.verdict.is_some() != expect.refused.is_empty() {
        return Err("expect: either a verdict, or what is refused".to_owned());
    }
    if case.objects.iter().any(|object| object.kind == "Pipeline" && object.name == PIPELINE) {
        return Err(format!("objects: {PIPELINE} is the pipeline itself"));
    }
    if case.files && !(case.plays.is_empty() && case.deeds.is_empty()) {
        return Err("files: on a real node programs play as they are, and nobody interferes".to_owned());
    }
    if !case.files && !expect.left.is_empty() {
        return Err("expect.left: only with files does anything leave artifacts".to_owned());
    }
    if let Some(name) = case.plays.keys().find(|name| !plays(case, name)) {
        return Err(format!("plays: nobody is called {name}"));
    }
    if let Some((name, _)) = case.plays.iter().find(|(_, plays)| plays.is_empty()) {
        return Err(format!("plays.{name}: how does its first attempt play?"));
    }
    let stages: Vec<&str> = case.stages().map(|(name, _)| name).collect();
    if let Some(name) = expect.stages.keys().chain(expect.members.keys()).find(|name| !stages.contains(&name.as_str()))
    {
        return Err(format!("expect: there is no stage {name}"));
    }
    if let Some((name, _)) = expect.stages.iter().find(|(_, words)| words.is_empty()) {
        return Err(format!("expect.stages.{name}: how does it stand?"));
    }
    let slow =
        |name: &String| case.plays.get(name).is_some_and(|plays| plays.iter().all(|play| play.seconds >= Some(SLOW)));
    let compared = expect.order.iter().map(|(first, _)| first);
    let pairs = expect.apart.iter().chain(&expect.together);
    match compared.chain(pairs.flat_map(|(one, other)| [one, other])).find(|name| !slow(name)) {
        Some(name) => Err(format!("expect: {name} must play {SLOW} seconds, or its moments cannot be told apart")),
        None => Ok(()),
    }
}

fn plays(case: &Case, name: &str) -> bool {
    let member = |stage: &str| {
        let index = name.strip_prefix(stage).and_then(|rest| rest.strip_prefix('-'));
        index.is_some_and(|index| index.parse::<u32>().is_ok())
    };
    case.stages().any(|(stage, several)| stage == name || several && member(stage))
        || case.others().any(|object| object.kind == "Experiment" && object.name == name)
}

#[cfg(test)]
mod tests {
    use super::read;

    #[track_caller]
    fn is_refused(file: &str, text: &str, words: &str) {
        let error = read(file, text).map(|case| case.name).expect_err("it is no case");
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn a_case_that_checks_nothing_is_no_case() {
        let with = |rest: &str| format!("# Words.\npipeline: {{stages: [{{name: a, image: x}}]}}\n{rest}");
        assert!(read("1-a.yaml", &with("expect: {verdict: {phase: Completed}}")).is_ok());
        is_refused("1-a.yaml", &with("expect: {jobs: 1}"), "either a verdict");
        is_refused("1-a.yaml", &with("expect: {verdict: {phase: Completed}, job: 1}"), "unknown field `job`");
        is_refused("a.yaml", &with("expect: {verdict: {phase: Completed}}"), "begins with the behaviour's number");
        is_refused("1-a.yaml", "pipeline: {}\nexpect: {refused: [x]}", "begins with a comment");
        is_refused("1-a.yaml", &with("plays: {b: []}\nexpect: {refused: [x]}"), "nobody is called b");
        is_refused("1-a.yaml", &with("plays: {a: []}\nexpect: {refused: [x]}"), "how does its first attempt play");
        is_refused("1-a.yaml", &with("plays: {a-0: []}\nexpect: {refused: [x]}"), "nobody is called a-0");
        is_refused("1-a.yaml", &with("expect: {verdict: {phase: Failed}, stages: {b: [Failed]}}"), "no stage b");
        is_refused("1-a.yaml", &with("files: true\nplays: {a: [{}]}\nexpect: {refused: [x]}"), "nobody interferes");
        is_refused("1-a.yaml", &with("expect: {verdict: {phase: Failed}, left: {a: {x: true}}}"), "only with files");
        is_refused("1-a.yaml", &with("expect: {verdict: {phase: Failed}, order: [[a, a]]}"), "must play 2 seconds");
    }
}
