//! A node: a computer of the fleet that boots from the network.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hex;

/// The Ethernet address of the interface that a node boots from, by which a lab knows it. Written
/// `52:54:00:12:34:56`; read with `:` or `-` between the bytes, or nothing, in either case, as
/// firmwares and inventories write them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// A text that is no Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an Ethernet address: write it like 52:54:00:12:34:56")]
pub struct MacError(String);

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let error = || MacError(text.chars().take(32).collect());
        let digits = match text.len() {
            12 => text.to_owned(),
            17 => {
                let separators: Vec<u8> =
                    text.bytes().enumerate().filter(|(i, _)| i % 3 == 2).map(|(_, b)| b).collect();
                if separators != b":::::" && separators != b"-----" {
                    return Err(error());
                }
                text.replace([':', '-'], "")
            }
            _ => return Err(error()),
        };
        hex::decode(&digits).map(Self).ok_or_else(error)
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which kernels a node can run. Not to be confused with [`Firmware`], which says which boot program
/// it can load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Arm64,
    /// What a newer program calls otherwise, or what is not known yet.
    #[serde(other)]
    Unknown,
}

/// What asks first for something to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Firmware {
    /// A BIOS with a PXE option ROM.
    Bios,
    /// UEFI, network boot by TFTP.
    Uefi,
    /// UEFI, network boot by HTTP (UEFI 2.5).
    UefiHttp,
    /// iPXE, in the ROM or loaded by one of the others.
    Ipxe,
    /// What a newer program calls otherwise, or what is not known yet.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0x00, 0x12, 0x34, 0xab]);

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for text in ["52:54:00:12:34:ab", "52-54-00-12-34-AB", "5254001234AB"] {
            assert_eq!(text.parse(), Ok(MAC), "{text}");
        }
        assert_eq!(MAC.to_string(), "52:54:00:12:34:ab");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "52:54:00:12:34", "52:54:00:12:34:ag", "52:54-00:12:34:ab", "é2:54:00:12:34:a"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_newer_program_says_is_unknown() {
        assert_eq!(serde_json::from_str::<Arch>("\"riscv64\"").unwrap(), Arch::Unknown);
        assert_eq!(serde_json::from_str::<Firmware>("\"coreboot\"").unwrap(), Firmware::Unknown);
    }
}
