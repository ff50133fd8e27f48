//! Conformance of the pipeline language: one behaviour a file in `e2e/cases/conformance`.
//!
//! In: the files. Out: [`Case`]s, and what is wrong with how one was [`Seen`] to go. Who plays them is elsewhere: the
//! replay of `cultivar-core` does it in memory, with crashes and lost events, the e2e tests on simulated nodes, and those that
//! read and write files run on a real one.

mod case;
mod check;
mod load;

pub use case::{Act, Awaited, Case, Deed, Expect, Object, PIPELINE, Play, RUN, Verdict};
pub use check::{Seen, has_ended};
pub use load::all;
