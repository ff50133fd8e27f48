//! What kind of value an expression gives, as far as its text and what is known of the names tell.
//!
//! In: a parsed tree, and the kinds of paths. Out: the kind, where it can be one only; or why the expression can never work.
//! What is not known is taken on trust.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cultivar_crds::pipeline::ParamType;
use serde_json::Value;
use std::fmt;

use super::expression::spelled_path;
use super::path::PathRef;

/// A kind of value; JSON has no other but null, which is never expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// true or false.
    Boolean,
    /// A number.
    Number,
    /// Text.
    Text,
    /// A list.
    List,
    /// An object.
    Object,
}

impl Kind {
    /// The kind of a value that is not null.
    #[must_use]
    pub const fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => return None,
            Value::Bool(_) => Self::Boolean,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::Text,
            Value::Array(_) => Self::List,
            Value::Object(_) => Self::Object,
        })
    }
}

impl From<ParamType> for Kind {
    fn from(declared: ParamType) -> Self {
        match declared {
            ParamType::Boolean => Self::Boolean,
            ParamType::Number | ParamType::Integer => Self::Number,
            ParamType::String => Self::Text,
            ParamType::Array => Self::List,
            ParamType::Object => Self::Object,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::List => "a list",
            Self::Object => "an object",
        })
    }
}

type Found = Result<Option<Kind>, String>;

/// One walk through a tree.
pub(super) struct Walk<'a> {
    paths: &'a dyn Fn(&PathRef) -> Option<Kind>,
    /// Loop variables, innermost last.
    bound: Vec<(&'a str, Option<Kind>)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(paths: &'a dyn Fn(&PathRef) -> Option<Kind>) -> Self {
        Self { paths, bound: Vec::new() }
    }

    /// What the tree gives.
    pub(super) fn kind(&mut self, tree: &'a IdedExpr) -> Found {
        let is_test = matches!(&tree.expr, Expr::Select(select) if select.test);
        let path = spelled_path(tree).filter(|path| !self.bound.iter().any(|(name, _)| *name == path.head.as_str()));
        if let Some(path) = path {
            return Ok(if is_test { Some(Kind::Boolean) } else { (self.paths)(&path) });
        }
        match &tree.expr {
            Expr::Literal(literal) => Ok(match literal {
                LiteralValue::Boolean(_) => Some(Kind::Boolean),
                LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_) => Some(Kind::Number),
                LiteralValue::String(_) => Some(Kind::Text),
                LiteralValue::Null | LiteralValue::Bytes(_) => None,
            }),
            Expr::Ident(name) => {
                Ok(self.bound.iter().rev().find(|(bound, _)| bound == name).and_then(|(_, kind)| *kind))
            }
            Expr::Select(select) => {
                self.kind(&select.operand)?;
                Ok(is_test.then_some(Kind::Boolean))
            }
            Expr::List(list) => {
                list.elements.iter().try_for_each(|item| self.kind(item).map(drop))?;
                Ok(Some(Kind::List))
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.kind(&entry.value)?;
                    }
                }
                Ok(Some(Kind::Object))
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(loops) => self.comprehension(loops),
            Expr::Struct(_) | Expr::Unspecified => Ok(None),
        }
    }

    fn comprehension(&mut self, loops: &'a ComprehensionExpr) -> Found {
        let through = self.kind(&loops.iter_range)?;
        if let Some(other) = through.filter(|kind| !matches!(kind, Kind::List | Kind::Object)) {
            return Err(format!("there is nothing to go through in {other}"));
        }
        let result = self.kind(&loops.accu_init)?;
        let outside = self.bound.len();
        self.bound.extend([(loops.accu_var.as_str(), result), (loops.iter_var.as_str(), None)]);
        self.kind(&loops.loop_step)?;
        let kind = self.kind(&loops.result);
        self.bound.truncate(outside);
        kind
    }

    fn call(&mut self, call: &'a CallExpr) -> Found {
        let target = call.target.as_deref().map(|target| self.kind(target)).transpose()?;
        let args: Vec<Option<Kind>> = call.args.iter().map(|arg| self.kind(arg)).collect::<Result<_, _>>()?;
        let name = call.func_name.as_str();
        if target.is_some() {
            return Ok(Some(if name == "size" { Kind::Number } else { Kind::Boolean }));
        }
        match (name, args.as_slice()) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                boolean("the condition of ? :", *condition)?;
                Ok(yes.filter(|yes| Some(*yes) == *no))
            }
            (operators::LOGICAL_AND, [a, b]) => boolean("&&", *a).and_then(|_| boolean("&&", *b)),
            (operators::LOGICAL_OR, [a, b]) => boolean("||", *a).and_then(|_| boolean("||", *b)),
            (operators::LOGICAL_NOT, [a]) => boolean("!", *a),
            (operators::NOT_STRICTLY_FALSE, _) => Ok(Some(Kind::Boolean)),
            (operators::EQUALS | operators::NOT_EQUALS, [Some(a), Some(b)]) if a != b => {
                Err(format!("{a} never equals {b}"))
            }
            (operators::EQUALS | operators::NOT_EQUALS, _) => Ok(Some(Kind::Boolean)),
            (operators::IN, [_, Some(other)]) if !matches!(other, Kind::List | Kind::Object) => {
                Err(format!("nothing is in {other}"))
            }
            (operators::IN, _) => Ok(Some(Kind::Boolean)),
            (
                sign @ (operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS),
                args,
            ) => {
                fits(sign, args, &[Kind::Number, Kind::Text, Kind::Boolean])?;
                Ok(Some(Kind::Boolean))
            }
            (operators::ADD, args) => fits(operators::ADD, args, &[Kind::Number, Kind::Text, Kind::List]),
            (
                sign @ (operators::SUBSTRACT
                | operators::MULTIPLY
                | operators::DIVIDE
                | operators::MODULO
                | operators::NEGATE),
                args,
            ) => {
                fits(sign, args, &[Kind::Number])?;
                Ok(Some(Kind::Number))
            }
            ("size", [Some(other @ (Kind::Number | Kind::Boolean))]) => Err(format!("size() does not work on {other}")),
            ("size" | "int" | "double", _) => Ok(Some(Kind::Number)),
            ("string" | "format" | "date", _) => Ok(Some(Kind::Text)),
            ("range", _) => Ok(Some(Kind::List)),
            ("best", _) => Ok(Some(Kind::Object)),
            _ => Ok(None),
        }
    }
}

fn boolean(place: &str, kind: Option<Kind>) -> Found {
    match kind {
        Some(other) if other != Kind::Boolean => Err(format!("{place} wants true or false, and not {other}")),
        _ => Ok(Some(Kind::Boolean)),
    }
}

// All of one kind, and that one of those that the operator works on; it is what `+` gives.
fn fits(sign: &str, args: &[Option<Kind>], kinds: &[Kind]) -> Found {
    let known: Vec<Kind> = args.iter().flatten().copied().collect();
    let first = known.first().copied();
    if known.iter().all(|kind| kinds.contains(kind) && Some(*kind) == first) {
        return Ok(first.filter(|_| known.len() == args.len()));
    }
    let words: Vec<String> = known.iter().map(ToString::to_string).collect();
    Err(format!("{} does not work on {}", sign.trim_matches('_'), words.join(" and ")))
}
