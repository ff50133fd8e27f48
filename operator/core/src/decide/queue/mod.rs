//! Kind Queue: who is admitted, who waits and why, who is stopped for whom.
//!
//! Comes in: queues, namespaces' labels, what experiments ask for ([`Ask`]) and what their live Jobs hold
//! ([`Hold`]). Goes out: at every [`Engine::pass`] what follows from them at a time. There is one engine and one
//! caller, so nothing is decided twice; it keeps no truth of its own: fed anew after a restart it says the same.
//!
//! The rules, in the order in which they are asked:
//! 0. **Nodes** (`nodes`): what no node could take, were no run of a queue on it, is not admitted and takes nothing.
//! 1. **Fit** (`ledger`): a run fits if its queue stays within its cap, and its cohort within the sum of all quotas, where
//!    what a queue reserved counts as used. What it uses beyond its quota is borrowed.
//! 2. **Order** (`pending`): within a queue by priority, then by what the namespace used of late, then by age. Between
//!    queues of a cohort, those that stay within their quota come first, then the one with the smallest share of what
//!    is borrowed, by weight.
//! 3. **Overtaking** (`backfill`): behind a run that does not fit, another one starts only if the first is not delayed.
//! 4. **Preemption** (`preempt`): for a queue's own quota only, and for the first of its queue only.
//! 5. **Reasons** (`waiting`): everything that waits is told why, and told again only when that changes.

mod backfill;
mod engine;
mod holds;
mod ledger;
mod model;
mod nodes;
mod pass;
mod pending;
mod preempt;
mod report;
mod waiting;

pub use engine::Engine;
pub use holds::holds;
pub use model::{Admission, Ask, Bearer, Class, Eviction, Id, Outcome, Reading, Use, Wait};
