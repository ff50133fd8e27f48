//! What is read and written when the program has ended.

pub mod termination;
