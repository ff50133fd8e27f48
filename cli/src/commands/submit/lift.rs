//! Params out of a command: `--lr 0.1` becomes `--lr ${params.lr}` and the param `lr: 0.1`, so that a clone can change it.
//!
//! In: a command as it was typed. Out: command, args and params that give the same command again, byte for byte.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Files that an interpreter or a launcher is given.
const SCRIPTS: [&str; 7] = [".py", ".sh", ".R", ".r", ".jl", ".js", ".pl"];
/// Programs whose own arguments come before what they run.
const LAUNCHERS: [&str; 18] = [
    "python",
    "pypy",
    "bash",
    "sh",
    "zsh",
    "env",
    "time",
    "nice",
    "torchrun",
    "accelerate",
    "deepspeed",
    "mpirun",
    "uv",
    "poetry",
    "Rscript",
    "julia",
    "node",
    "perl",
];
/// Beyond it a double does not hold every integer, and the API server keeps numbers as doubles.
const EXACT: u64 = 1 << 53;

/// A command with what a clone may change taken out.
#[derive(Debug, Default, PartialEq)]
pub struct Lifted {
    /// The program, up to the name of the script.
    pub command: Vec<String>,
    /// What follows.
    pub args: Vec<String>,
    /// What the references in `args` stand for.
    pub params: Map<String, Value>,
}

/// Takes the params out of a command.
pub fn lift(words: &[String]) -> Lifted {
    let Some(script) = script(words) else {
        return plain(words);
    };
    let (command, args) = words.split_at(script + 1);
    let found = found(args);
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for one in &found {
        *times.entry(one.name).or_default() += 1;
    }
    let mut lifted = Lifted { command: command.to_vec(), args: args.to_vec(), params: Map::new() };
    // What stands there twice is a list, of which a param would change one member.
    for one in found.iter().filter(|one| times[one.name] == 1) {
        lifted.args[one.at] = format!("{}{}", one.before, reference(one.name));
        lifted.params.insert(one.name.to_owned(), value(one.text));
    }
    lifted
}

/// The command as it is.
pub fn plain(words: &[String]) -> Lifted {
    let (command, args) = words.split_at(script(words).map_or(1, |at| at + 1).min(words.len()));
    Lifted { command: command.to_vec(), args: args.to_vec(), params: Map::new() }
}

// A value in the args: what stands before it in its word, and its name.
struct Found<'a> {
    at: usize,
    before: &'a str,
    name: &'a str,
    text: &'a str,
}

fn found(args: &[String]) -> Vec<Found<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(word) = args.get(at).filter(|word| *word != "--") {
        let flag = word.strip_prefix("--");
        let split = flag.unwrap_or(word).split_once('=');
        if let Some((name, text)) = split.filter(|(name, text)| is_name(name) && may_be_lifted(text)) {
            found.push(Found { at, before: &word[..word.len() - text.len()], name, text });
        } else if let Some(name) = flag.filter(|name| is_name(name))
            && let Some(text) = args.get(at + 1).filter(|text| is_argument(text))
        {
            at += 1;
            if may_be_lifted(text) {
                found.push(Found { at, before: "", name, text });
            }
        }
        at += 1;
    }
    found
}

// Where the script stands: what is before it belongs to whatever runs it.
fn script(words: &[String]) -> Option<usize> {
    let program = words.first()?.rsplit('/').next().unwrap_or_default();
    let launcher = LAUNCHERS.contains(&program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.'));
    if !launcher {
        return Some(0);
    }
    for (at, word) in words.iter().enumerate().skip(1) {
        match word.as_str() {
            // A program in a word of its own: its arguments are in there.
            "-c" | "-e" => return None,
            "-m" | "--module" => return (at + 1 < words.len()).then_some(at + 1),
            word if SCRIPTS.iter().any(|end| word.ends_with(end)) => return Some(at),
            _ => {}
        }
    }
    None
}

fn is_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.len() <= 63 && name.chars().all(inner)
}

// A word that a flag takes, and not the next flag.
fn is_argument(word: &str) -> bool {
    word != "--" && !is_assignment(word) && (!word.starts_with('-') || word.parse::<f64>().is_ok())
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| is_name(name))
}

// A dollar means something to references and to the kubelet: what has one stays as it was written.
fn may_be_lifted(text: &str) -> bool {
    !text.contains('$')
}

fn reference(name: &str) -> String {
    let identifier = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if identifier { format!("${{params.{name}}}") } else { format!("${{params[\"{name}\"]}}") }
}

// A number or boolean where it is printed again as it was typed, by the API server too; else text.
fn value(text: &str) -> Value {
    let read: Value = serde_json::from_str(text).unwrap_or_default();
    let exact = match &read {
        Value::Bool(_) => true,
        Value::Number(number) if number.is_f64() => number.as_f64().is_some_and(|number| number.fract() != 0.0),
        Value::Number(number) => number.as_i64().is_some_and(|number| number.unsigned_abs() <= EXACT),
        _ => false,
    };
    let printed = read.to_string();
    if exact && printed == text { read } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cultivar_core::refs::{FieldPath, Head, Insert, Names, Scope, resolve, resolve_params};
    use proptest::prelude::*;
    use serde_json::json;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    // As the API server keeps numbers: whole ones have no fraction.
    fn stored(params: &Map<String, Value>) -> Map<String, Value> {
        let keep = |value: &Value| match value.as_f64().filter(|_| value.is_f64()) {
            Some(number) if number.fract() == 0.0 => json!(number as i64),
            _ => value.clone(),
        };
        params.iter().map(|(name, value)| (name.clone(), keep(value))).collect()
    }

    fn rendered(lifted: &Lifted) -> Vec<String> {
        let none = Names::new();
        let params = resolve_params(&stored(&lifted.params), &FieldPath::of("params"), &none).unwrap();
        let params = Value::Object(params);
        let names = Names::new().with(Head::Params, &params);
        let all: Vec<&String> = lifted.command.iter().chain(&lifted.args).collect();
        let all = resolve(&json!(all), &FieldPath::root(), Scope::Own, &names, Insert::Doubled).unwrap();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        all.as_array().unwrap().iter().map(text).collect()
    }

    #[test]
    fn what_a_script_is_given_is_lifted_with_its_type() {
        let lifted = lift(&words("python -u train.py data --lr 0.1 --epochs=10 model.depth=3 --amp --warm-up true -v"));
        assert_eq!(lifted.command, ["python", "-u", "train.py"]);
        let args = "data --lr ${params.lr} --epochs=${params.epochs} model.depth=${params[\"model.depth\"]} --amp \
                    --warm-up ${params[\"warm-up\"]} -v";
        assert_eq!(lifted.args, words(args));
        let params = json!({"lr": 0.1, "epochs": 10, "model.depth": 3, "warm-up": true});
        assert_eq!(Value::Object(lifted.params), params);
    }

    #[test]
    fn text_that_would_change_stays_text() {
        for text in ["1e3", "010", "1.0", "-0", "True", "null", "12345678901234567890", "0.10", "yes", "", "1e-5"] {
            assert_eq!(value(text), json!(text));
        }
        assert_eq!((value("-3"), value("0.001")), (json!(-3), json!(0.001)));
    }

    #[test]
    fn what_belongs_to_the_launcher_or_comes_twice_stays() {
        let stays = |text: &str| assert!(lift(&words(text)).params.is_empty(), "{text}");
        stays("torchrun --nproc_per_node 2 train.py");
        stays("python -c print() --lr 0.1");
        stays("python train.py --layer 1 --layer 2");
        stays("python train.py -- --lr 0.1");
        stays("python train.py --data ${inputs.data.path} --amp --quiet");
        assert_eq!(lift(&words("python -m acme.train --lr 1")).command, words("python -m acme.train"));
        assert_eq!(lift(&words("./train --lr -1")).params["lr"], -1);
        assert_eq!(lift(&words("python t.py --amp lr=1")).params, json!({"lr": 1}).as_object().unwrap().clone());
    }

    fn word() -> impl Strategy<Value = String> {
        let number = prop_oneof![any::<i64>().prop_map(|n| n.to_string()), any::<f64>().prop_map(|n| n.to_string())];
        let value =
            prop_oneof![number, "[0-9.eE+-]{0,8}", "[a-zA-Z]{1,4}", "[ -#%-~]{0,6}", "(true|null|no|~|0x1f|1_0)"];
        let name = prop_oneof!["[a-c]", "[a-z_][a-z0-9_.-]{0,6}"];
        prop_oneof![
            (name.clone(), value.clone()).prop_map(|(name, value)| format!("--{name}={value}")),
            (name.clone(), value.clone()).prop_map(|(name, value)| format!("{name}={value}")),
            name.prop_map(|name| format!("--{name}")),
            value,
            "(--|-v|\\$HOME|\\$|\\$\\$|\\$\\(HOME\\)|\\$\\{HOME\\}|--x=\\$y)",
        ]
    }

    proptest! {
        #[test]
        fn the_command_is_the_same_byte_for_byte(args in proptest::collection::vec(word(), 0..12)) {
            let all: Vec<String> = ["python".to_owned(), "train.py".to_owned()].into_iter().chain(args).collect();
            prop_assert_eq!(rendered(&lift(&all)), all.clone());
            prop_assert_eq!(rendered(&plain(&all)), all);
        }
    }
}
