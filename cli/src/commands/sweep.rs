//! `sweep`: a fan-out over parameters of an experiment.

use cultivar_core::validate;
use cultivar_crds::MAX_MEMBERS;
use serde_json::{Map, Value, json};

use super::{valid, value_of};
use crate::cluster::{Cluster, for_a_repository};
use crate::error::{Error, Result};
use crate::output;

/// A fan-out over parameters of an experiment.
///
/// `name=1,2,3` and `name=1..5` are values, of which every combination runs; `name=uniform(a,b)`, `name=log(a,b)` and
/// `name=int(a,b)` are drawn, --count times, and `name=choice(a,b,c)` too. The same --seed draws the same.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  kubectl cultivar sweep train-7f3a -p lr=0.1,0.01 -p seed=1..5 --apply\n  kubectl cultivar sweep train-7f3a -p 'lr=log(1e-5,1e-1)' --count 200 --parallel 8 --seed 7"
)]
pub struct Sweep {
    /// Name of the experiment.
    id: String,
    /// A parameter and its values.
    #[arg(short, long = "param", required = true)]
    params: Vec<String>,
    /// How many are drawn.
    #[arg(long)]
    count: Option<usize>,
    /// How many run at once.
    #[arg(long)]
    parallel: Option<u32>,
    /// What is drawn follows from it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Queue that they wait in.
    #[arg(long)]
    queue: Option<String>,
    /// Name of the pipeline; that of the experiment with -sweep by default.
    #[arg(long)]
    name: Option<String>,
    /// Apply it, instead of printing it.
    #[arg(long)]
    apply: bool,
}

pub async fn sweep(cluster: &Cluster, asked: &Sweep) -> Result<()> {
    cluster.get("Experiment", &asked.id).await?;
    let (matrix, members) = matrix(&asked.params, asked.count, asked.seed)?;
    let mut stage = json!({"name": "sweep", "from": {"experiment": asked.id}, "matrix": matrix});
    if let Some(parallel) = asked.parallel {
        stage["maxParallel"] = parallel.into();
    }
    let mut spec = json!({"stages": [stage]});
    if let Some(queue) = &asked.queue {
        spec["queue"] = queue.clone().into();
    }
    valid("the sweep", &validate::pipeline(&spec))?;
    let cut = &asked.id[..asked.id.len().min(34)];
    let name = asked.name.clone().unwrap_or_else(|| format!("{}-sweep", cut.trim_end_matches('-')));
    let manifest = for_a_repository("Pipeline", &name, spec);
    if asked.apply {
        cluster.apply(manifest).await?;
        println!("pipeline {name} is applied, with {members} members");
        println!("the best of them: kubectl cultivar list -l cultivar.dev/pipeline={name} --sort metric:NAME");
        return Ok(());
    }
    eprintln!("note: {members} members");
    print!("{}", output::yaml(&manifest)?);
    Ok(())
}

#[derive(Clone, Debug, PartialEq)]
enum Values {
    /// Every one of them.
    Each(Vec<Value>),
    Uniform(f64, f64),
    Log(f64, f64),
    Int(i64, i64),
    Choice(Vec<Value>),
}

/// The matrix, and how many members it has.
fn matrix(params: &[String], count: Option<usize>, seed: u64) -> Result<(Value, usize)> {
    let mut axes = Map::new();
    let mut drawn = Vec::new();
    for text in params {
        let (name, values) = parse(text)?;
        match values {
            Values::Each(values) => drop(axes.insert(name, values.into())),
            values => drawn.push((name, values)),
        }
    }
    let grid = axes.values().filter_map(Value::as_array).map(Vec::len).try_fold(1_usize, usize::checked_mul);
    let too_many = || Error::refused(format!("that is more than {MAX_MEMBERS} members"));
    let grid = grid.filter(|grid| *grid <= MAX_MEMBERS as usize).ok_or_else(too_many)?;
    let (drawn, count) = match (drawn.is_empty(), count) {
        (true, None) => return Ok((json!({"axes": axes}), grid)),
        (true, Some(_)) => {
            let hint = "leave --count out, or draw a parameter, such as lr=log(1e-5,1e-1)";
            return Err(Error::refused("--count says how many are drawn, and nothing is").hint(hint));
        }
        (false, None) => return Err(Error::refused("how many are drawn? Say it with --count")),
        (false, Some(count)) => (drawn, count),
    };
    let members = grid.checked_mul(count).filter(|members| *members <= MAX_MEMBERS as usize).ok_or_else(too_many)?;
    let mut random = Random(seed);
    // Each draw is combined with every value of the others.
    let mut include = Vec::new();
    for _ in 0..count {
        let draw: Map<String, Value> = drawn.iter().map(|(name, values)| (name.clone(), random.draw(values))).collect();
        for combination in combinations(&axes) {
            include.push(Value::Object(draw.clone().into_iter().chain(combination).collect()));
        }
    }
    Ok((json!({"include": include}), members))
}

fn combinations(axes: &Map<String, Value>) -> Vec<Map<String, Value>> {
    axes.iter().fold(vec![Map::new()], |before, (name, values)| {
        let values = values.as_array().cloned().unwrap_or_default();
        let with = |combination: &Map<String, Value>, value: &Value| {
            let mut combination = combination.clone();
            combination.insert(name.clone(), value.clone());
            combination
        };
        before.iter().flat_map(|one| values.iter().map(move |value| with(one, value))).collect()
    })
}

fn parse(text: &str) -> Result<(String, Values)> {
    let bad = |why: &str| {
        Error::refused(format!("-p {text}: {why}")).hint("such as lr=0.1,0.01 or seed=1..5 or lr=log(1e-5,1e-1)")
    };
    let (name, values) =
        text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| bad("it is no assignment"))?;
    let name = name.to_owned();
    if let Some((function, arguments)) = values.strip_suffix(')').and_then(|values| values.split_once('(')) {
        let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
        if function == "choice" {
            return Ok((name, Values::Choice(arguments.into_iter().map(value_of).collect())));
        }
        let numbers: Option<Vec<f64>> = arguments.iter().map(|argument| argument.parse().ok()).collect();
        let Some([low, high]) = numbers.as_deref().and_then(|numbers| <[f64; 2]>::try_from(numbers).ok()) else {
            return Err(bad("two numbers are wanted"));
        };
        if low.partial_cmp(&high) != Some(std::cmp::Ordering::Less) {
            return Err(bad("the first number is the smaller one"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "whole numbers that people type")]
        return match function {
            "uniform" => Ok((name, Values::Uniform(low, high))),
            "log" if low > 0.0 => Ok((name, Values::Log(low, high))),
            "log" => Err(bad("a logarithm wants numbers above 0")),
            "int" => Ok((name, Values::Int(low.ceil() as i64, high.floor() as i64))),
            _ => Err(bad("there are uniform, log, int and choice")),
        };
    }
    if let Some((first, last)) = values.split_once("..") {
        let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) else {
            return Err(bad("a range has whole numbers"));
        };
        if first > last || last.abs_diff(first) >= u64::from(MAX_MEMBERS) {
            return Err(bad("a range goes up, and is not that long"));
        }
        return Ok((name, Values::Each((first..=last).map(Value::from).collect())));
    }
    Ok((name, Values::Each(values.split(',').map(|value| value_of(value.trim())).collect())))
}

/// Numbers that follow from a seed (SplitMix64, Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    // From 0 to below 1, in steps of 2^-53.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, count: u64) -> u64 {
        u64::try_from((u128::from(self.next()) * u128::from(count)) >> 64).unwrap_or(0)
    }

    fn draw(&mut self, values: &Values) -> Value {
        // As many digits as a person would write: what is drawn is read and typed again.
        let short = |number: f64| format!("{number:.4e}").parse::<f64>().unwrap_or(number);
        match values {
            Values::Uniform(low, high) => json!(short(low + (high - low) * self.unit())),
            Values::Log(low, high) => json!(short((low.ln() + (high.ln() - low.ln()) * self.unit()).exp())),
            Values::Int(low, high) => {
                let step = self.below(high.abs_diff(*low) + 1);
                json!(low.saturating_add_unsigned(step))
            }
            Values::Choice(values) | Values::Each(values) => {
                let index = usize::try_from(self.below(values.len() as u64)).unwrap_or(0);
                values.get(index).cloned().unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(params: &[&str], count: Option<usize>, seed: u64) -> Result<(Value, usize)> {
        let params: Vec<String> = params.iter().map(|text| (*text).to_owned()).collect();
        matrix(&params, count, seed)
    }

    #[test]
    fn lists_and_ranges_are_axes() {
        let (matrix, members) = of(&["lr=0.1,0.01", "seed=1..3", "opt=adam,sgd"], None, 0).unwrap();
        assert_eq!(matrix, json!({"axes": {"lr": [0.1, 0.01], "seed": [1, 2, 3], "opt": ["adam", "sgd"]}}));
        assert_eq!(members, 12);
    }

    #[test]
    fn what_is_drawn_follows_from_the_seed() {
        let drawn = |seed| of(&["lr=log(1e-5,1e-1)", "n=int(1,4)", "seed=1..2"], Some(5), seed).unwrap();
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        assert_eq!((drawn(7).1, drawn(7).0["include"].as_array().unwrap().len()), (10, 10));
        let first = &drawn(7).0["include"];
        assert_eq!((&first[0]["lr"], &first[0]["seed"], &first[1]["seed"]), (&first[1]["lr"], &json!(1), &json!(2)));
    }

    #[test]
    fn mistakes_are_named() {
        for (params, count, words) in [
            (&["lr"][..], None, "no assignment"),
            (&["lr=log(0,1)"], Some(1), "above 0"),
            (&["lr=uniform(2,1)"], Some(1), "smaller"),
            (&["lr=normal(0,1)"], Some(1), "there are uniform"),
            (&["lr=log(1,2)"], None, "--count"),
            (&["lr=1,2"], Some(3), "nothing is"),
            (&["a=1..5000", "b=1..5000"], None, "more than 10000"),
            (&["a=1..99999"], None, "not that long"),
        ] {
            let error = of(params, count, 0).unwrap_err().to_string();
            assert!(error.contains(words), "{params:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_drawn_lies_within(seed in any::<u64>(), low in 1e-6_f64..1.0, width in 0.1_f64..100.0) {
            let mut random = Random(seed);
            let high = low + width;
            for values in [Values::Uniform(low, high), Values::Log(low, high)] {
                let drawn = random.draw(&values).as_f64().unwrap();
                prop_assert!(drawn >= low * 0.9999 && drawn <= high * 1.0001);
            }
            let whole = random.draw(&Values::Int(-3, 5)).as_i64().unwrap();
            prop_assert!((-3..=5).contains(&whole));
        }
    }
}
