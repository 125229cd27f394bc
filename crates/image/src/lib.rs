//! Images and kernels: build, import, state, phase 1.
//!
//! What nodes boot from, made out of what is installed on the server: archives that the kernel
//! unpacks ([`cpio`]), the boot programs that firmware asks for ([`boot_program`]), and the kernel
//! with initramfs that carries the agent ([`phase1`]).
#![deny(missing_docs)]

pub mod cpio;

pub mod phase1;

pub mod boot_program;
