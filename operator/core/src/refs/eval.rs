//! Walks a parsed expression and gives its value.
//!
//! In: the tree that `expression.rs` has checked, and the names. Out: a JSON value, or one sentence on what is wrong.
//! Nothing is copied that is only looked at, and every step is counted: nested loops in one kilobyte of text could run
//! for years and `s + s` in a loop could fill the memory.

use std::borrow::Cow;
use std::cell::Cell;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators};
use serde_json::{Map, Number, Value};

use super::expression::{field_name, spelled_path};
use super::functions;
use super::members;
use super::path::{Head, Segment, kind, missing};
use super::resolve::Names;

/// What one evaluation may cost: steps, plus values and every 64 bytes of text that it copies.
const BUDGET: usize = 1_000_000;

type Item<'a> = Cow<'a, Value>;

/// One evaluation.
pub(super) struct Evaluation<'a> {
    names: &'a Names<'a>,
    left: Cell<usize>,
}

/// Loop variables, innermost first.
struct Vars<'a, 'p> {
    outer: Option<&'p Vars<'a, 'p>>,
    name: &'p str,
    value: Item<'a>,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(names: &'a Names<'a>) -> Self {
        Evaluation { names, left: Cell::new(BUDGET) }
    }

    /// The value of the whole expression.
    pub(super) fn value(&self, tree: &'a IdedExpr) -> Result<Value, String> {
        self.eval(tree, None).map(Cow::into_owned)
    }

    fn charge(&self, cost: usize) -> Result<(), String> {
        let left = self.left.get().checked_sub(cost);
        self.left.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or_else(|| "it takes too much work to evaluate".to_owned())
    }

    fn eval(&self, tree: &'a IdedExpr, vars: Option<&Vars<'a, '_>>) -> Result<Item<'a>, String> {
        self.charge(1)?;
        match &tree.expr {
            Expr::Literal(literal) => self.literal(literal).map(Cow::Owned),
            Expr::Ident(name) => self.ident(name, vars),
            Expr::Select(select) => self.select(select, vars),
            Expr::Call(call) => self.call(call, vars),
            Expr::List(list) => {
                let items = list.elements.iter().map(|item| self.owned(item, vars));
                Ok(Cow::Owned(Value::Array(items.collect::<Result<_, _>>()?)))
            }
            Expr::Map(map) => {
                let mut out = Map::new();
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return Err("it is not complete".to_owned());
                    };
                    let key = match self.owned(&entry.key, vars)? {
                        Value::String(key) => key,
                        other => {
                            return Err(format!("a key must be a string, not {}", kind(&other)));
                        }
                    };
                    out.insert(key, self.owned(&entry.value, vars)?);
                }
                Ok(Cow::Owned(Value::Object(out)))
            }
            Expr::Comprehension(loops) => self.comprehension(loops, vars),
            Expr::Struct(_) | Expr::Unspecified => Err("it is not complete".to_owned()),
        }
    }

    /// A value to keep, paid for by its size.
    fn owned(&self, tree: &'a IdedExpr, vars: Option<&Vars<'a, '_>>) -> Result<Value, String> {
        let value = self.eval(tree, vars)?;
        self.charge(weight(&value))?;
        Ok(value.into_owned())
    }

    fn literal(&self, literal: &LiteralValue) -> Result<Value, String> {
        Ok(match literal {
            LiteralValue::Null => Value::Null,
            LiteralValue::Boolean(b) => Value::Bool(*b.inner()),
            LiteralValue::Int(i) => Value::from(*i.inner()),
            LiteralValue::UInt(u) => Value::from(*u.inner()),
            LiteralValue::Double(d) => {
                Number::from_f64(*d.inner()).map(Value::Number).ok_or("a number is not finite")?
            }
            LiteralValue::String(s) => {
                self.charge(s.inner().len() / 64)?;
                Value::from(s.inner())
            }
            LiteralValue::Bytes(_) => return Err("bytes literals are not supported".to_owned()),
        })
    }

    fn ident(&self, name: &str, vars: Option<&Vars<'a, '_>>) -> Result<Item<'a>, String> {
        let mut scope = vars;
        while let Some(vars) = scope {
            if vars.name == name {
                if let Cow::Owned(value) = &vars.value {
                    self.charge(weight(value))?;
                }
                return Ok(vars.value.clone());
            }
            scope = vars.outer;
        }
        let head = Head::parse(name).ok_or_else(|| format!("unknown name \"{name}\""))?;
        self.names.get(head).map(Cow::Borrowed).ok_or_else(|| format!("\"{head}\" cannot be used here"))
    }

    fn select(&self, select: &'a SelectExpr, vars: Option<&Vars<'a, '_>>) -> Result<Item<'a>, String> {
        let operand = self.eval(&select.operand, vars)?;
        let field = field_name(&select.field);
        if select.test {
            return match &*operand {
                Value::Object(map) => Ok(Cow::Owned(Value::Bool(map.contains_key(field)))),
                other => {
                    Err(format!("has() wants a field of an object, {} is {}", place(&select.operand), kind(other)))
                }
            };
        }
        member(operand, &Segment::Key(field.to_owned()), || place(&select.operand))
    }

    fn index(&self, args: &'a [IdedExpr], vars: Option<&Vars<'a, '_>>) -> Result<Item<'a>, String> {
        let [list, index] = args else {
            return Err("it is not complete".to_owned());
        };
        let operand = self.eval(list, vars)?;
        let segment = match self.owned(index, vars)? {
            Value::String(key) => Segment::Key(key),
            // A double that is a whole number too: what was 1.0 in one place arrives as 1 from another.
            Value::Number(n) => match n.as_u64().and_then(|n| usize::try_from(n).ok()) {
                Some(index) => Segment::Index(index),
                None => return Err(format!("{n} is not an index")),
            },
            other => return Err(format!("{} cannot be an index", kind(&other))),
        };
        member(operand, &segment, || place(list))
    }

    fn call(&self, call: &'a CallExpr, vars: Option<&Vars<'a, '_>>) -> Result<Item<'a>, String> {
        let args = call.args.as_slice();
        let truth = |value: bool| Ok(Cow::Owned(Value::Bool(value)));
        match (call.func_name.as_str(), args) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                self.eval(if self.truth(condition, vars)? { yes } else { no }, vars)
            }
            (operators::LOGICAL_AND, [a, b]) => truth(self.either(a, b, false, vars)?),
            (operators::LOGICAL_OR, [a, b]) => truth(self.either(a, b, true, vars)?),
            (operators::LOGICAL_NOT, [a]) => truth(!self.truth(a, vars)?),
            (operators::NOT_STRICTLY_FALSE, [a]) => truth(self.truth(a, vars).unwrap_or(true)),
            (operators::INDEX, _) => self.index(args, vars),
            (operators::NEGATE, [a]) => functions::negate(&*self.eval(a, vars)?).map(Cow::Owned),
            (operators::EQUALS, [a, b]) => truth(functions::equal(&*self.eval(a, vars)?, &*self.eval(b, vars)?)),
            (operators::NOT_EQUALS, [a, b]) => truth(!functions::equal(&*self.eval(a, vars)?, &*self.eval(b, vars)?)),
            (operators::IN, [a, b]) => truth(functions::contained(&*self.eval(a, vars)?, &*self.eval(b, vars)?)?),
            (
                sign @ (operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS),
                [a, b],
            ) => truth(functions::compare(sign, &*self.eval(a, vars)?, &*self.eval(b, vars)?)?),
            (
                sign @ (operators::ADD
                | operators::SUBSTRACT
                | operators::MULTIPLY
                | operators::DIVIDE
                | operators::MODULO),
                [a, b],
            ) => {
                let (a, b) = (self.eval(a, vars)?, self.eval(b, vars)?);
                self.charge(weight(&a) + weight(&b))?;
                functions::arithmetic(sign, &a, &b).map(Cow::Owned)
            }
            (name, _) => self.function(name, call, vars).map(Cow::Owned),
        }
    }

    fn function(&self, name: &str, call: &'a CallExpr, vars: Option<&Vars<'a, '_>>) -> Result<Value, String> {
        let Some(target) = &call.target else {
            if let ("size", [argument]) = (name, call.args.as_slice()) {
                return functions::size_of(&*self.eval(argument, vars)?);
            }
            if let ("best", [stage, how]) = (name, call.args.as_slice()) {
                // Ten thousand members are looked at, and one is copied.
                let best = members::best(&*self.eval(stage, vars)?, &self.owned(how, vars)?)?;
                self.charge(weight(&best))?;
                return Ok(best);
            }
            let args: Vec<Value> = call.args.iter().map(|arg| self.owned(arg, vars)).collect::<Result<_, _>>()?;
            let value = functions::global(name, &args)?;
            self.charge(weight(&value))?;
            return Ok(value);
        };
        let target = self.eval(target, vars)?;
        if name == "size" {
            return functions::size_of(&target);
        }
        let args: Vec<Value> = call.args.iter().map(|arg| self.owned(arg, vars)).collect::<Result<_, _>>()?;
        if name == "matches" {
            // A pattern is compiled anew each time, which may take a millisecond.
            self.charge(10_000 + weight(&target))?;
        }
        functions::method(name, &target, &args).map(Value::Bool)
    }

    fn truth(&self, tree: &'a IdedExpr, vars: Option<&Vars<'a, '_>>) -> Result<bool, String> {
        let value = self.eval(tree, vars)?;
        value.as_bool().ok_or_else(|| format!("{} is {}, not a boolean", place(tree), kind(&value)))
    }

    /// `&&` and `||`: as CEL has it, a side that decides makes up for an error on the other one.
    fn either(
        &self,
        a: &'a IdedExpr,
        b: &'a IdedExpr,
        decides: bool,
        vars: Option<&Vars<'a, '_>>,
    ) -> Result<bool, String> {
        match self.truth(a, vars) {
            Ok(left) if left == decides => Ok(decides),
            Ok(_) => self.truth(b, vars),
            Err(error) => match self.truth(b, vars) {
                Ok(right) if right == decides => Ok(decides),
                _ => Err(error),
            },
        }
    }

    /// `all`, `exists`, `exists_one`, `map` and `filter`, as the parser unfolds them.
    fn comprehension(&self, loops: &'a ComprehensionExpr, vars: Option<&Vars<'a, '_>>) -> Result<Item<'a>, String> {
        let items: Vec<Item<'a>> = match self.eval(&loops.iter_range, vars)? {
            Cow::Borrowed(Value::Array(items)) => items.iter().map(Cow::Borrowed).collect(),
            Cow::Owned(Value::Array(items)) => items.into_iter().map(Cow::Owned).collect(),
            Cow::Borrowed(Value::Object(map)) => map.keys().map(|key| Cow::Owned(Value::from(key.as_str()))).collect(),
            Cow::Owned(Value::Object(map)) => map.into_iter().map(|(key, _)| Cow::Owned(Value::String(key))).collect(),
            other => {
                return Err(format!(
                    "{} is {}, there is nothing to go through",
                    place(&loops.iter_range),
                    kind(&other)
                ));
            }
        };
        let value = self.eval(&loops.accu_init, vars)?;
        let mut result = Vars { outer: vars, name: &loops.accu_var, value };
        for item in items {
            if !self.truth(&loops.loop_cond, Some(&result))? {
                break;
            }
            let inner = Vars { outer: Some(&result), name: &loops.iter_var, value: item };
            let value = self.eval(&loops.loop_step, Some(&inner))?;
            result = Vars { outer: vars, name: &loops.accu_var, value };
        }
        self.eval(&loops.result, Some(&result))
    }
}

/// One step into a value.
fn member<'a>(value: Item<'a>, segment: &Segment, place: impl Fn() -> String) -> Result<Item<'a>, String> {
    let error = |value: &Value| missing(&place(), value, segment);
    match value {
        Cow::Borrowed(value) => match (value, segment) {
            (Value::Object(map), Segment::Key(key)) => map.get(key),
            (Value::Array(list), Segment::Index(index)) => list.get(*index),
            _ => None,
        }
        .map(Cow::Borrowed)
        .ok_or_else(|| error(value)),
        Cow::Owned(mut value) => match (&mut value, segment) {
            (Value::Object(map), Segment::Key(key)) => map.remove(key),
            (Value::Array(list), Segment::Index(index)) if *index < list.len() => Some(list.swap_remove(*index)),
            _ => None,
        }
        .map(Cow::Owned)
        .ok_or_else(|| error(&value)),
    }
}

/// What a message calls the value of a tree: its path if it is one.
fn place(tree: &IdedExpr) -> String {
    spelled_path(tree).map_or_else(|| "this value".to_owned(), |path| path.to_string())
}

/// What a copy of a value costs.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 1 + text.len() / 64,
        Value::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(|v| 1 + weight(v)).sum::<usize>(),
    }
}
