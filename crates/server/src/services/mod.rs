//! Everything that runs inside `boottorrent start`.
//!
//! Read in this order: how a start goes, what it publishes, how it seeds, how it is controlled.

pub(crate) mod control;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod notify;
mod seeder;
pub(crate) mod status;
