//! The nouns of a boot, and the contract between the agent on a node and the server.
//!
//! Pure: no I/O, no clock. `server` and `agent` meet only here. Every enum that crosses the wire has
//! a variant for what a newer program says, so that old agents and new servers understand each other.
//!
//! Read in this order: what a node is, what an image is, the manifest that names the images of a lab
//! and the signature over it, then what a node reports on its way and what it can be told to do.
#![deny(missing_docs)]

pub mod hex;
pub mod node;
pub mod nodeset;

pub mod image;
pub mod kernel;
pub mod password;

pub mod keymap;
pub mod manifest;
pub mod signature;

pub mod help;

pub mod failure;
pub mod order;
pub mod report;
pub mod stage;

pub use failure::Failure;
pub use image::{Image, ImageName, ImagePath, Loader};
pub use kernel::{KernelVersion, Phase1};
pub use manifest::Manifest;
pub use node::{Arch, Firmware, Mac};
pub use order::Order;
pub use password::PasswordHash;
pub use report::Report;
pub use signature::{LabKey, LabPublicKey, Signature};
pub use stage::Stage;
