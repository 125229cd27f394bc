//! What each kind of firmware is given to boot, and where it is.

use std::net::Ipv4Addr;

use crate::asker::{Asker, Machine};

/// The longest name or URL: what one option holds.
pub const FILE_NAME_LEN_MAX: usize = 255;

/// A file name or URL that fits in an answer: 1 to [`FILE_NAME_LEN_MAX`] bytes of visible ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName(String);

/// A name that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot be the name of a boot file: 1 to 255 visible ASCII characters can")]
pub struct FileNameError(String);

impl FileName {
    /// Takes a name.
    ///
    /// # Errors
    /// If it is empty, too long or has other characters.
    pub fn new(name: impl Into<String>) -> Result<Self, FileNameError> {
        let name = name.into();
        let fits = (1..=FILE_NAME_LEN_MAX).contains(&name.len());
        if fits && name.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(name))
        } else {
            Err(FileNameError(name.chars().take(64).collect()))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Options 209 and 210 (RFC 5071), for a BIOS that is given PXELINUX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pxelinux {
    /// The configuration file, relative to the prefix.
    pub config: FileName,
    /// What PXELINUX puts before every name.
    pub prefix: Option<FileName>,
}

/// What there is to boot. Names without a scheme are at the TFTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFiles {
    /// The TFTP server.
    pub next_server: Ipv4Addr,
    /// For a BIOS.
    pub bios: FileName,
    /// Set if `bios` is PXELINUX.
    pub pxelinux: Option<Pxelinux>,
    /// For UEFI on x86-64.
    pub uefi_x64: FileName,
    /// For UEFI on arm64.
    pub uefi_arm64: FileName,
    /// For UEFI HTTP boot on x86-64, a URL.
    pub http_x64: FileName,
    /// For UEFI HTTP boot on arm64, a URL.
    pub http_arm64: FileName,
    /// For iPXE, a URL.
    pub script: FileName,
}

impl BootFiles {
    /// The usual names, at a server with this address.
    #[must_use]
    pub fn usual(server: Ipv4Addr, http_port: u16) -> Self {
        let name = |name: &str| FileName(name.to_owned());
        let url = |path: &str| FileName(format!("http://{server}:{http_port}/{path}"));
        Self {
            next_server: server,
            bios: name("undionly.kpxe"),
            pxelinux: None,
            uefi_x64: name("snponly.efi"),
            uefi_arm64: name("snponly-arm64.efi"),
            http_x64: url("ipxe/snponly.efi"),
            http_arm64: url("ipxe/snponly-arm64.efi"),
            script: url("boot.ipxe"),
        }
    }

    /// The same with PXELINUX for a BIOS.
    #[must_use]
    pub fn with_pxelinux(mut self) -> Self {
        self.bios = FileName("pxelinux.0".to_owned());
        let config = FileName("pxelinux.cfg/default".to_owned());
        self.pxelinux = Some(Pxelinux { config, prefix: None });
        self
    }

    /// What to give; nothing to what does not boot or cannot be served.
    #[must_use]
    pub const fn of(&self, asker: Asker) -> Option<&FileName> {
        match asker {
            Asker::Bios | Asker::Ipxe { uefi: None, http: false } => Some(&self.bios),
            Asker::Uefi(Machine::X64) | Asker::Ipxe { uefi: Some(Machine::X64), http: false } => {
                Some(&self.uefi_x64)
            }
            Asker::Uefi(Machine::Arm64)
            | Asker::Ipxe { uefi: Some(Machine::Arm64), http: false } => Some(&self.uefi_arm64),
            Asker::UefiHttp(Machine::X64) => Some(&self.http_x64),
            Asker::UefiHttp(Machine::Arm64) => Some(&self.http_arm64),
            Asker::Ipxe { http: true, .. } => Some(&self.script),
            Asker::Unsupported(_) | Asker::Agent | Asker::Plain => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_firmware_has_a_program_of_its_own() {
        let files = BootFiles::usual(Ipv4Addr::new(10, 0, 0, 1), 8080);
        for (asker, expect) in [
            (Asker::Bios, "undionly.kpxe"),
            (Asker::Uefi(Machine::X64), "snponly.efi"),
            (Asker::Uefi(Machine::Arm64), "snponly-arm64.efi"),
            (Asker::UefiHttp(Machine::X64), "http://10.0.0.1:8080/ipxe/snponly.efi"),
            (Asker::UefiHttp(Machine::Arm64), "http://10.0.0.1:8080/ipxe/snponly-arm64.efi"),
            (Asker::Ipxe { uefi: None, http: true }, "http://10.0.0.1:8080/boot.ipxe"),
            (Asker::Ipxe { uefi: Some(Machine::X64), http: false }, "snponly.efi"),
        ] {
            assert_eq!(files.of(asker).map(FileName::as_str), Some(expect), "{asker}");
        }
        for asker in [Asker::Plain, Asker::Agent, Asker::Unsupported(6)] {
            assert_eq!(files.of(asker), None);
        }
    }

    #[test]
    fn names_that_no_firmware_could_read_are_refused() {
        let long = "x".repeat(FILE_NAME_LEN_MAX + 1);
        for name in ["", "a b", "ä", "a\0", long.as_str()] {
            assert!(FileName::new(name).is_err(), "{name:?}");
        }
    }
}
