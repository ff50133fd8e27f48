#![allow(dead_code)] // until the wiring uses them
mod leader;
mod settings;
mod shutdown;
mod telemetry;

fn main() {}
