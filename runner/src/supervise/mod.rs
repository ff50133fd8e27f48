//! The program as a process: started, signalled, waited for, and cleared away.
//!
//! Comes in: a command and what the kubelet signals. Goes out: the program's output, unchanged and at once, and its exit
//! code. Works as the container's first process and, by being a subreaper, as any other.

mod output;
mod process;
mod signals;

pub use output::{Pumps, Tee};
pub use process::{Child, StartError, prepare};
pub use signals::{Signalled, Signals};
