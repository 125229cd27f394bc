//! Phase 1: the kernel and the initramfs that nodes run first. The kernel is a distribution's, as it
//! is; the initramfs holds the agent as `/init`, busybox for a rescue shell, drivers and their
//! firmware, and the public half of the lab's key. `docs/phase1.md` tells it to people.
//!
//! It is built from what is installed on the server, or from a kernel package, without root and
//! without any other program. The same inputs make the same bytes.

pub mod build;
pub mod cache;
mod contents;
pub mod drivers;
pub mod record;

pub mod deb;
pub(crate) mod installed;
pub mod kernel;

pub mod closure;
pub mod firmware;
pub mod library;
pub mod modinfo;
mod program;

pub mod compression;
pub mod config;

mod error;
pub mod name;
mod progress;

#[cfg(test)]
mod tests;

pub use boot::kernel::KernelVersion;
pub use build::{Inputs, build};
pub use cache::{Phase1, ensure, list, open};
pub use error::Phase1Error;
pub use kernel::KernelChoice;
pub use name::ModuleName;
pub use program::ProgramError;
pub use progress::{Progress, Step};
pub use record::Record;
