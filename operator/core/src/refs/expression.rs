//! A CEL expression: parsed once, bounded, and known by what it reads.
//!
//! In: the text between `${=` and `}`, or a stage's `when`. Out: [`Expression`], its scope, the paths it uses, and its
//! value for given [`Names`].
//!
//! The `cel` crate parses; evaluation is ours (`eval.rs`), on JSON. The crate's own evaluator copies every name it is
//! given, panics on struct literals and on `-int.min`, takes a field of a number for `false`, loops as long as it is
//! told to, and holds that 5 is not 5.0, while JSON and YAML do not tell the two apart.

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use serde_json::Value;

use super::check::Known;
use super::error::RefError;
use super::eval::Evaluation;
use super::functions;
use super::lex;
use super::path::{Head, PathRef, Scope, Segment, kind};
use super::resolve::Names;
use super::types::{Kind, Walk};

/// The longest expression, in bytes.
pub const MAX_EXPRESSION: usize = 1024;

/// A parsed expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    source: String,
    tree: IdedExpr,
    uses: Vec<PathRef>,
    scope: Scope,
}

impl Expression {
    /// Parses CEL.
    ///
    /// # Errors
    /// When it is too long or too deep, is not CEL, uses a name or function that does not exist, or mixes the two scopes.
    pub fn parse(source: &str) -> Result<Expression, RefError> {
        let source = source.trim();
        if let Some(tree) = dollar_literal(source) {
            return Ok(Expression { source: source.to_owned(), tree, uses: Vec::new(), scope: Scope::Own });
        }
        let error = |problem: String| RefError::expression(source, problem);
        if source.is_empty() {
            return Err(error("it is empty".to_owned()));
        }
        if source.len() > MAX_EXPRESSION {
            return Err(error(format!("it is longer than {MAX_EXPRESSION} bytes")));
        }
        lex::check_bounds(source).map_err(error)?;
        let tree = parse_cel(source).map_err(error)?;
        let mut reader = Reader::default();
        reader.read(&tree).map_err(error)?;
        let scope = scope_of(source, &reader.uses)?;
        Ok(Expression { source: source.to_owned(), tree, uses: reader.uses, scope })
    }

    /// The text, without `${=` and `}`.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Outer if it mentions an outer name, else own.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// What it reads, each as far as the path is spelled out: `stages[params.x]` counts as `stages`.
    #[must_use]
    pub fn uses(&self) -> &[PathRef] {
        &self.uses
    }

    /// What kind of value it gives, where that can be told before any name has a value.
    ///
    /// # Errors
    /// It can never work: an operator between values that do not fit it.
    pub fn gives(&self, known: &Known) -> Result<Option<Kind>, RefError> {
        let paths = |path: &PathRef| known.kind(path);
        Walk::new(&paths).kind(&self.tree).map_err(|problem| RefError::expression(&self.source, problem))
    }

    /// Its value as JSON.
    ///
    /// # Errors
    /// Whatever goes wrong on the way: a missing name, values that do not fit an operator, too much work.
    pub fn eval(&self, names: &Names<'_>) -> Result<Value, RefError> {
        Evaluation::new(names).value(&self.tree).map_err(|problem| RefError::expression(&self.source, problem))
    }

    /// Its value as a condition.
    ///
    /// # Errors
    /// As [`Expression::eval`], and when the value is not a boolean.
    pub fn eval_bool(&self, names: &Names<'_>) -> Result<bool, RefError> {
        let value = self.eval(names)?;
        value.as_bool().ok_or_else(|| {
            RefError::expression(
                &self.source,
                format!("it gives {}, but a condition must be true or false", kind(&value)),
            )
        })
    }
}

/// Evaluates a condition such as a stage's `when`.
///
/// # Errors
/// As [`Expression::parse`] and [`Expression::eval_bool`].
pub fn eval_bool(source: &str, names: &Names<'_>) -> Result<bool, RefError> {
    Expression::parse(source)?.eval_bool(names)
}

/// `"$$$"`, which escaped data is full of, without a parser: see [`super::escape`].
fn dollar_literal(source: &str) -> Option<IdedExpr> {
    let dollars = source.strip_prefix('"')?.strip_suffix('"')?;
    let literal = LiteralValue::String(dollars.to_owned().into());
    dollars.bytes().all(|b| b == b'$').then_some(IdedExpr { id: 1, expr: Expr::Literal(literal) })
}

/// The stack that the parser gets. Unoptimized it takes up to 4 MiB within the bounds of `lex.rs`, twice what a thread has.
const PARSER_STACK: usize = 16 << 20;

/// Runs the parser on a stack of its own, and takes a panic in it for what it is: an expression that cannot be read.
fn parse_cel(source: &str) -> Result<IdedExpr, String> {
    let text = source.to_owned();
    let thread = std::thread::Builder::new().name("cel-parser".to_owned()).stack_size(PARSER_STACK);
    let parser = thread
        .spawn(move || cel::parser::Parser::default().parse(&text).map_err(|errors| first_error(&errors)))
        .map_err(|error| format!("it cannot be parsed now: {error}"))?;
    parser.join().unwrap_or_else(|_| Err("it is not CEL".to_owned()))
}

fn first_error(errors: &cel::ParseErrors) -> String {
    errors.errors.first().map_or_else(
        || "it is not CEL".to_owned(),
        |e| format!("{} (at column {})", e.msg.trim_start_matches("Syntax error: "), e.pos.1.max(1)),
    )
}

fn scope_of(source: &str, uses: &[PathRef]) -> Result<Scope, RefError> {
    let first = |scope| uses.iter().map(|path| path.head).find(|head| head.scope() == scope);
    match (first(Scope::Outer), first(Scope::Own)) {
        (Some(outer), Some(own)) => Err(RefError::MixedScopes { expression: super::error::quote(source), outer, own }),
        (Some(_), None) => Ok(Scope::Outer),
        (None, _) => Ok(Scope::Own),
    }
}

/// Collects the paths that a tree reads and refuses what could never be evaluated.
#[derive(Default)]
struct Reader {
    uses: Vec<PathRef>,
    bound: Vec<String>,
}

impl Reader {
    fn read(&mut self, tree: &IdedExpr) -> Result<(), String> {
        if let Some(path) = self.path(tree) {
            if !self.uses.contains(&path) {
                self.uses.push(path);
            }
            return Ok(());
        }
        match &tree.expr {
            Expr::Literal(LiteralValue::Bytes(_)) => Err("bytes literals are not supported".to_owned()),
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) if self.bound.contains(name) => Ok(()),
            Expr::Ident(name) => Err(format!("unknown name \"{name}\"; an expression may use {}", Head::list())),
            Expr::Select(select) => self.read(&select.operand),
            Expr::List(items) => items.elements.iter().try_for_each(|item| self.read(item)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => self.read(&entry.key).and_then(|()| self.read(&entry.value)),
                EntryExpr::StructField(field) => self.read(&field.value),
            }),
            Expr::Call(call) => {
                functions::check(call)?;
                if let Some(members) = self.looked_through(call) {
                    self.uses.push(members);
                    return call.args[1..].iter().try_for_each(|part| self.read(part));
                }
                call.target.as_deref().into_iter().chain(&call.args).try_for_each(|part| self.read(part))
            }
            Expr::Comprehension(loops) => {
                self.read(&loops.iter_range)?;
                self.read(&loops.accu_init)?;
                let outside = self.bound.len();
                self.bound.extend([loops.iter_var.clone(), loops.accu_var.clone()]);
                let parts = [&loops.loop_cond, &loops.loop_step, &loops.result];
                let read = parts.into_iter().try_for_each(|part| self.read(part));
                self.bound.truncate(outside);
                read
            }
            Expr::Struct(message) => {
                Err(format!("message literals such as {}{{…}} are not supported", message.type_name))
            }
            Expr::Unspecified => Err("it is not complete".to_owned()),
        }
    }

    /// The members that `best(stages.train, …)` looks through: it reads nothing else of the stage.
    fn looked_through(&self, call: &CallExpr) -> Option<PathRef> {
        let path = call.args.first().filter(|_| call.func_name == "best").and_then(|stage| self.path(stage))?;
        let is_a_stage = path.head == Head::Stages && path.segments.len() == 1;
        let segments = path.segments.iter().cloned().chain([Segment::Key("members".to_owned())]).collect();
        is_a_stage.then_some(PathRef { segments, ..path })
    }

    /// The path that a tree spells out from a head on, if it does.
    fn path(&self, tree: &IdedExpr) -> Option<PathRef> {
        if matches!(&tree.expr, Expr::Select(_) | Expr::Call(_) | Expr::Ident(_)) {
            spelled_path(tree).filter(|path| !self.bound.iter().any(|name| name == path.head.as_str()))
        } else {
            None
        }
    }
}

/// The path that a tree spells out, taking heads for what they are outside of any loop.
pub(super) fn spelled_path(tree: &IdedExpr) -> Option<PathRef> {
    let (inner, segment) = match &tree.expr {
        Expr::Ident(name) => {
            return Head::parse(name).map(|head| PathRef { head, segments: Vec::new() });
        }
        Expr::Select(select) => (&*select.operand, Segment::Key(field_name(&select.field).to_owned())),
        Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
            [inner, IdedExpr { expr: Expr::Literal(LiteralValue::String(key)), .. }] => {
                (inner, Segment::Key(key.inner().to_owned()))
            }
            [inner, IdedExpr { expr: Expr::Literal(LiteralValue::Int(index)), .. }] => {
                (inner, Segment::Index(usize::try_from(*index.inner()).ok()?))
            }
            _ => return None,
        },
        _ => return None,
    };
    let mut path = spelled_path(inner)?;
    path.segments.push(segment);
    Some(path)
}

/// A field's name without the backticks that CEL allows around it.
pub(super) fn field_name(field: &str) -> &str {
    field.strip_prefix('`').and_then(|f| f.strip_suffix('`')).unwrap_or(field)
}
