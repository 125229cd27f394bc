//! `phase1.json`: what is in a phase 1, beside its files.

use std::collections::BTreeMap;

use boot::{Arch, hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::compression::Compression;
use super::name::ModuleName;
use boot::kernel::KernelVersion;

/// The form of the record. One of another form is not understood, and its phase 1 is built anew.
pub const FORMAT: u32 = 1;

/// What is in a phase 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// The program that built it.
    pub built_by: String,
    /// Says all that went in: two with the same key are the same, byte for byte.
    pub key: String,
    /// The version of the kernel.
    pub version: KernelVersion,
    /// For which processors it is.
    pub arch: Arch,
    /// Where kernel and modules are from.
    pub origin: String,
    /// `vmlinuz`.
    pub kernel: File,
    /// `initramfs.img`.
    pub initramfs: File,
    /// How it is compressed.
    pub compression: Compression,
    /// Its first part, which does not depend on the lab.
    pub base: Base,
    /// Its bytes when unpacked.
    pub unpacked_len: u64,
    /// The agent in it.
    pub agent: File,
    /// The busybox in it.
    pub busybox: File,
    /// The id of the lab's key in it.
    pub lab_key: String,
    /// The modules in it, with their bytes.
    pub modules: BTreeMap<ModuleName, u64>,
    /// Usual drivers that the kernel does not have, as modules or built in.
    pub drivers_absent: Vec<String>,
    /// The firmware in it, with its bytes.
    pub firmware: BTreeMap<String, u64>,
    /// Firmware that drivers would load and that is not installed.
    pub firmware_missing: BTreeMap<ModuleName, Vec<String>>,
    /// What will not work with this kernel.
    pub warnings: Vec<String>,
}

/// The part of an initramfs that holds drivers and firmware. It takes longest to compress, so it is
/// taken from what was built before if it is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Two with the same key are the same.
    pub key: String,
    /// Its bytes, compressed.
    pub len: u64,
}

/// A file, by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Bytes.
    pub len: u64,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
}

impl File {
    /// That of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { len: bytes.len() as u64, sha256: hex::encode(&Sha256::digest(bytes)) }
    }
}

impl Record {
    /// The bytes of all modules together.
    pub fn modules_len(&self) -> u64 {
        self.modules.values().sum()
    }

    /// The bytes of all firmware together.
    pub fn firmware_len(&self) -> u64 {
        self.firmware.values().sum()
    }
}
