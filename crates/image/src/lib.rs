//! Images and kernels: build, import, state, phase 1.
//!
//! What nodes boot from, made out of what is installed on the server: archives that the kernel
//! unpacks ([`cpio`]), the boot programs that firmware asks for ([`boot_program`]), and the kernel
//! with initramfs that carries the agent ([`phase1`]).
//!
//! Images that are built: a [`kind`] makes what is in one ([`build`]), from a [`tree`] of files and a
//! kernel ([`kernels`]); the [`catalogue`] keeps versions of it.
#![deny(missing_docs)]
// Tests make what the code is to find.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod kind;

pub mod build;
pub mod edit;

pub mod tree;

mod host;

pub mod kernels;

pub mod catalogue;
pub mod data;
pub mod installations;
pub mod size;

pub mod command;
pub mod error;

pub mod cpio;

pub mod phase1;

pub mod boot_program;
