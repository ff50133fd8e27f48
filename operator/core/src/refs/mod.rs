//! References: `${params.lr}`, `${stages["train-model"].metrics["val/acc"].max}`, `${= expression}`.
//!
//! In: the strings of a stage or experiment as JSON, and one JSON value per name that they may mention.
//! Out: which references there are and where, what they read, and the same JSON with them resolved.
//!
//! A string is parsed left to right:
//!
//! | Text | Means |
//! |---|---|
//! | `${head.path}`, `${head["any name"][0]}` | a reference; an unknown head is an error |
//! | `${= expression}` | CEL over the same names |
//! | `$${` | a literal `${` |
//! | anything else, `${HOME}` and `${VAR:-x}` too | itself |
//!
//! There are two scopes. [`Scope::Outer`] (`pipeline`, `stages`, `matrix`, `repeat`) is resolved when a stage's experiment is
//! created, [`Scope::Own`] (`params`, `inputs`, `outputs`, `run`) stays in the template and is resolved when the pod is
//! rendered. What the first pass inserts is data: the second never parses it again (see [`escape`]).

mod check;
mod choice;
mod dates;
mod error;
mod eval;
mod expression;
mod field;
mod functions;
mod insert;
mod lex;
mod members;
mod params;
mod path;
mod resolve;
mod template;
mod types;

pub use check::{Known, Reference, check, scan, unused_params};
pub use choice::Choice;
pub use error::{Located, RefError};
pub(crate) use error::{instead, list as listed};
pub use expression::{Expression, MAX_EXPRESSION, eval_bool};
pub use field::{FieldPath, FieldSegment};
pub(crate) use functions::equal;
pub use insert::{Insert, escape};
pub use params::resolve_params;
pub use path::{Head, PathRef, Scope, Segment};
pub(crate) use path::{is_identifier, parse_bracket};
pub use resolve::{Names, resolve, resolve_text};
pub use template::{Part, Template};
pub use types::Kind;
