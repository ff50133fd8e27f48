//! The functions that an expression may call, and arithmetic on JSON's numbers.
//!
//! In: values as JSON. Out: values as JSON, or what is wrong with them. Numbers are integers or doubles as CEL has them,
//! but compare and combine with each other: JSON and YAML turn 10.0 into 10 on the way here.

use std::cmp::Ordering;
use std::sync::Arc;

use cel::common::ast::{CallExpr, operators};
use serde_json::{Number, Value};

use super::error::instead;
use super::path::kind;
use super::{dates, members};

/// Functions called as `f(x)`, with the fewest and most arguments.
const GLOBAL: [(&str, usize, usize); 10] = [
    ("size", 1, 1),
    ("string", 1, 1),
    ("int", 1, 1),
    ("double", 1, 1),
    ("min", 1, 16),
    ("max", 1, 16),
    ("range", 1, 3),
    ("format", 2, 2),
    ("best", 2, 2),
    ("date", 2, 3),
];

/// Functions called as `x.f(y)`, with the number of arguments.
const METHODS: [(&str, usize); 5] = [("size", 0), ("contains", 1), ("startsWith", 1), ("endsWith", 1), ("matches", 1)];

/// Operators as the parser names them, with the number of operands.
const OPERATORS: [(&str, usize); 18] = [
    (operators::CONDITIONAL, 3),
    (operators::LOGICAL_AND, 2),
    (operators::LOGICAL_OR, 2),
    (operators::LOGICAL_NOT, 1),
    (operators::SUBSTRACT, 2),
    (operators::ADD, 2),
    (operators::MULTIPLY, 2),
    (operators::DIVIDE, 2),
    (operators::MODULO, 2),
    (operators::EQUALS, 2),
    (operators::NOT_EQUALS, 2),
    (operators::GREATER_EQUALS, 2),
    (operators::LESS_EQUALS, 2),
    (operators::GREATER, 2),
    (operators::LESS, 2),
    (operators::NEGATE, 1),
    (operators::INDEX, 2),
    (operators::IN, 2),
];

/// Refuses calls of functions that do not exist, or with the wrong number of arguments.
pub(super) fn check(call: &CallExpr) -> Result<(), String> {
    let (name, count) = (call.func_name.as_str(), call.args.len());
    if call.target.is_some() {
        return match METHODS.iter().find(|(method, _)| *method == name) {
            Some((_, wanted)) if *wanted == count => Ok(()),
            Some((_, wanted)) => Err(format!(".{name}() takes {wanted} argument(s), not {count}")),
            None => Err(format!("unknown method \".{name}()\"; there are: {}", instead(name, METHODS.map(|(m, _)| m)))),
        };
    }
    let operator = OPERATORS.iter().any(|(operator, operands)| *operator == name && *operands == count);
    if operator || name == operators::NOT_STRICTLY_FALSE && count == 1 {
        return Ok(());
    }
    match GLOBAL.iter().find(|(function, ..)| *function == name) {
        Some((_, fewest, most)) if (*fewest..=*most).contains(&count) => Ok(()),
        Some(_) => Err(format!("{name}() does not take {count} arguments")),
        None => Err(format!("unknown function \"{name}()\"; there are: {}", instead(name, GLOBAL.map(|(f, ..)| f)))),
    }
}

/// A number as CEL sees it. JSON's integers reach from `i64::MIN` to `u64::MAX`.
#[derive(Clone, Copy)]
enum Num {
    Int(i128),
    Float(f64),
}

impl Num {
    fn of(value: &Value) -> Option<Num> {
        let Value::Number(number) = value else {
            return None;
        };
        match (number.as_i64(), number.as_u64()) {
            (Some(i), _) => Some(Num::Int(i.into())),
            (None, Some(u)) => Some(Num::Int(u.into())),
            (None, None) => number.as_f64().map(Num::Float),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a double is asked for")]
    fn float(self) -> f64 {
        match self {
            Num::Int(i) => i as f64,
            Num::Float(f) => f,
        }
    }

    /// The order of the two, exact beyond 2^53 as well.
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, beyond every integer of JSON")]
    fn order(self, other: Num) -> Option<Ordering> {
        match (self, other) {
            (Num::Int(a), Num::Int(b)) => Some(a.cmp(&b)),
            (Num::Float(a), Num::Float(b)) => a.partial_cmp(&b),
            (Num::Int(a), Num::Float(b)) => Some(a.cmp(&(b.trunc() as i128)).then(0.0_f64.partial_cmp(&b.fract())?)),
            (Num::Float(_), Num::Int(_)) => other.order(self).map(Ordering::reverse),
        }
    }
}

fn integer(value: i128) -> Result<Value, String> {
    let number = i64::try_from(value).map(Number::from).or_else(|_| u64::try_from(value).map(Number::from));
    number.map(Value::Number).map_err(|_| "the result does not fit 64 bits".to_owned())
}

fn float(value: f64) -> Result<Value, String> {
    Number::from_f64(value).map(Value::Number).ok_or_else(|| "the result is not a finite number".to_owned())
}

/// `+`, `-`, `*`, `/` and `%` on two numbers; `+` joins strings and lists too.
pub(super) fn arithmetic(operator: &str, left: &Value, right: &Value) -> Result<Value, String> {
    let sign = operator.trim_matches('_');
    match (Num::of(left), Num::of(right), left, right) {
        (Some(Num::Int(a)), Some(Num::Int(b)), ..) => integers(sign, a, b),
        (Some(a), Some(b), ..) => match sign {
            "+" => float(a.float() + b.float()),
            "-" => float(a.float() - b.float()),
            "*" => float(a.float() * b.float()),
            "/" => float(a.float() / b.float()),
            _ => Err("% works on integers only".to_owned()),
        },
        (.., Value::String(a), Value::String(b)) if sign == "+" => Ok(Value::String(format!("{a}{b}"))),
        (.., Value::Array(a), Value::Array(b)) if sign == "+" => Ok(a.iter().chain(b).cloned().collect()),
        _ => Err(misfit(sign, left, right)),
    }
}

fn integers(sign: &str, a: i128, b: i128) -> Result<Value, String> {
    if b == 0 && matches!(sign, "/" | "%") {
        return Err("division by zero".to_owned());
    }
    // Two 65-bit integers cannot overflow 128 bits, `*` least of all by more than two.
    integer(match sign {
        "+" => a + b,
        "-" => a - b,
        "*" => a.checked_mul(b).unwrap_or(i128::MAX),
        "/" => a / b,
        _ => a % b,
    })
}

fn misfit(sign: &str, left: &Value, right: &Value) -> String {
    format!("{sign} does not work on {} and {}", kind(left), kind(right))
}

/// `-x`.
pub(super) fn negate(value: &Value) -> Result<Value, String> {
    match Num::of(value) {
        Some(Num::Int(i)) => integer(-i),
        Some(Num::Float(f)) => float(-f),
        None => Err(format!("- does not work on {}", kind(value))),
    }
}

/// `==`, deep, with 5 equal to 5.0.
pub(crate) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && equal(a, b))
        }
        _ => match (Num::of(left), Num::of(right)) {
            (Some(a), Some(b)) => a.order(b) == Some(Ordering::Equal),
            _ => left == right,
        },
    }
}

/// `<`, `<=`, `>` and `>=`.
pub(super) fn compare(operator: &str, left: &Value, right: &Value) -> Result<bool, String> {
    let sign = operator.trim_matches('_');
    let order = order(left, right).ok_or_else(|| misfit(sign, left, right))?;
    Ok(match sign {
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    })
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => Num::of(left)?.order(Num::of(right)?),
    }
}

/// `x in y`: a member of a list or a key of an object.
pub(super) fn contained(item: &Value, container: &Value) -> Result<bool, String> {
    match container {
        Value::Array(items) => Ok(items.iter().any(|other| equal(item, other))),
        Value::Object(map) => Ok(item.as_str().is_some_and(|key| map.contains_key(key))),
        _ => Err(misfit("in", item, container)),
    }
}

/// `f(args)`.
pub(super) fn global(name: &str, args: &[Value]) -> Result<Value, String> {
    let Some(first) = args.first() else {
        return Err(format!("{name}() wants an argument"));
    };
    match name {
        "size" => size(first),
        "string" => match first {
            Value::Array(_) | Value::Object(_) | Value::Null => {
                Err(format!("string() does not work on {}", kind(first)))
            }
            _ => Ok(Value::String(super::resolve::as_text(first))),
        },
        "int" => int(first),
        "double" => double(first),
        "min" | "max" => extreme(name, args),
        "range" => members::range(args),
        "format" => members::format(first, args.get(1)),
        "date" => dates::date(args),
        _ => Err(format!("unknown function \"{name}()\"")),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and what does not fit is refused")]
fn int(value: &Value) -> Result<Value, String> {
    match (value, Num::of(value)) {
        (Value::String(text), _) => {
            let parsed = text.parse::<i64>().map(Value::from);
            parsed.map_err(|_| format!("{} is not an integer", Value::from(super::error::quote(text))))
        }
        (_, Some(Num::Int(i))) => integer(i),
        (_, Some(Num::Float(f))) => integer(f.trunc() as i128),
        _ => Err(format!("int() does not work on {}", kind(value))),
    }
}

fn double(value: &Value) -> Result<Value, String> {
    match (value, Num::of(value)) {
        (Value::String(text), _) => match text.parse::<f64>() {
            Ok(parsed) => float(parsed),
            Err(_) => Err(format!("{} is not a number", Value::from(super::error::quote(text)))),
        },
        (_, Some(number)) => float(number.float()),
        _ => Err(format!("double() does not work on {}", kind(value))),
    }
}

/// `min(1, 2)` or `max([1, 2])`.
fn extreme(name: &str, args: &[Value]) -> Result<Value, String> {
    let items = match args {
        [Value::Array(items)] => items,
        _ => args,
    };
    let Some((first, rest)) = items.split_first() else {
        return Err(format!("{name}() of an empty list"));
    };
    let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
    let best = rest.iter().try_fold(first, |best, item| {
        let order =
            order(item, best).ok_or_else(|| format!("{name}() cannot compare {} and {}", kind(item), kind(best)))?;
        Ok::<_, String>(if order == wanted { item } else { best })
    })?;
    Ok(best.clone())
}

fn size(value: &Value) -> Result<Value, String> {
    match value {
        Value::String(text) => Ok(text.chars().count().into()),
        Value::Array(items) => Ok(items.len().into()),
        Value::Object(map) => Ok(map.len().into()),
        _ => Err(format!("size() does not work on {}", kind(value))),
    }
}

/// `target.f(args)`.
pub(super) fn method(name: &str, target: &Value, args: &[Value]) -> Result<bool, String> {
    match (name, target, args) {
        ("contains", Value::Array(items), [item]) => Ok(items.iter().any(|other| equal(item, other))),
        ("contains", Value::String(text), [Value::String(part)]) => Ok(text.contains(part.as_str())),
        ("startsWith", Value::String(text), [Value::String(part)]) => Ok(text.starts_with(part.as_str())),
        ("endsWith", Value::String(text), [Value::String(part)]) => Ok(text.ends_with(part.as_str())),
        ("matches", Value::String(text), [Value::String(pattern)]) => matches(text, pattern),
        (_, _, [argument]) => Err(format!(".{name}() does not work on {} and {}", kind(target), kind(argument))),
        _ => Err(format!(".{name}() wants one argument")),
    }
}

/// The `cel` crate's `matches`: the regex crate, whose time is linear in the text.
fn matches(text: &str, pattern: &str) -> Result<bool, String> {
    let context = cel::Context::empty();
    let call = cel::FunctionContext::new("matches", None, &context, &[]);
    let target = cel::extractors::This(Arc::new(text.to_owned()));
    cel::functions::matches(&call, target, Arc::new(pattern.to_owned()))
        .map_err(|_| format!("{} is not a regular expression", Value::from(super::error::quote(pattern))))
}

/// `x.size()`, which unlike the other methods gives a number.
pub(super) fn size_of(value: &Value) -> Result<Value, String> {
    size(value)
}
