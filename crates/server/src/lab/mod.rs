//! A lab: the directory that holds everything one server needs to boot a fleet. See `docs/lab.md`.

pub(crate) mod settings;
