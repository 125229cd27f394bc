//! A lab: the directory that holds everything one server needs to boot a fleet. See `docs/lab.md`.

mod config;
mod problem;
pub(crate) mod settings;
mod yaml;
