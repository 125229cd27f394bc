//! Programs for the initramfs: the agent and busybox. They must be static, since there are no
//! libraries beside them, and for the kernel's kind of processor.

use std::fmt;
use std::io;
use std::path::Path;

use boot::Arch;
use object::elf::PT_INTERP;
use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{Architecture, Endianness, Object as _};

use super::error::Phase1Error;
use crate::host;

/// What is wrong with a program.
#[derive(Debug)]
pub enum ProgramError {
    /// It is not there.
    Missing,
    /// It cannot be read.
    Unreadable(io::Error),
    /// It is no program for a 64-bit Linux.
    NotElf,
    /// It needs shared libraries.
    Dynamic,
    /// It is for other processors.
    OtherArch {
        /// The program's.
        program: Arch,
        /// The kernel's.
        kernel: Arch,
    },
}

impl fmt::Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is not there"),
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::NotElf => f.write_str("is no program for 64-bit Linux"),
            Self::Dynamic => f.write_str("needs shared libraries, and the initramfs has none"),
            Self::OtherArch { program, kernel } => {
                write!(f, "is for {program:?}, and the kernel is for {kernel:?}")
            }
        }
    }
}

/// Reads `file`, which is to be `what` and run under a kernel for `kernel`. If it cannot, `cure`
/// says what to do.
///
/// # Errors
/// [`Phase1Error::Program`].
pub(super) fn read(
    what: &'static str,
    file: &Path,
    kernel: Arch,
    cure: &str,
) -> Result<Vec<u8>, Phase1Error> {
    let refuse = |problem| Phase1Error::Program {
        what,
        file: file.to_owned(),
        problem,
        cure: cure.to_owned(),
    };
    let bytes = host::read(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refuse(ProgramError::Missing),
        _ => refuse(ProgramError::Unreadable(error)),
    })?;
    check(&bytes, kernel).map_err(refuse)?;
    Ok(bytes)
}

fn check(bytes: &[u8], kernel: Arch) -> Result<(), ProgramError> {
    let elf = ElfFile64::<Endianness>::parse(bytes).map_err(|_| ProgramError::NotElf)?;
    let endian = elf.endian();
    if elf.elf_program_headers().iter().any(|header| header.p_type(endian) == PT_INTERP) {
        return Err(ProgramError::Dynamic);
    }
    let program = match elf.architecture() {
        Architecture::X86_64 => Arch::X86_64,
        Architecture::Aarch64 => Arch::Arm64,
        _ => Arch::Unknown,
    };
    // A kernel whose kind is not known is given the benefit of the doubt.
    if kernel != Arch::Unknown && program != kernel {
        return Err(ProgramError::OtherArch { program, kernel });
    }
    Ok(())
}

/// Which processors a kernel is for. Kernels of today are UEFI programs (PE), too, whose header says
/// it: `MZ`, at 0x3c the offset of `PE\0\0`, then the machine (PE format, section COFF File Header).
pub(super) fn kernel_arch(image: &[u8]) -> Arch {
    let machine = || {
        let offset = u32::from_le_bytes(image.get(0x3c..0x40)?.try_into().ok()?);
        let header = image.get(usize::try_from(offset).ok()?..)?.get(..6)?;
        header.starts_with(b"PE\0\0").then(|| u16::from_le_bytes([header[4], header[5]]))
    };
    match machine().filter(|_| image.starts_with(b"MZ")) {
        Some(0x8664) => Arch::X86_64,
        Some(0xaa64) => Arch::Arm64,
        _ => Arch::Unknown,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The least of a program: a header, and program headers of these types.
    pub(in crate::phase1) fn elf(machine: u16, types: &[u32]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        bytes.extend(2_u16.to_le_bytes());
        bytes.extend(machine.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend(64_u64.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        for half in [64, 56, types.len() as u16, 64, 0, 0] {
            bytes.extend(half.to_le_bytes());
        }
        for kind in types {
            bytes.extend(kind.to_le_bytes());
            bytes.extend([0; 52]);
        }
        bytes
    }

    /// The least of a kernel that is a UEFI program.
    pub(in crate::phase1) fn kernel(machine: u16) -> Vec<u8> {
        let mut bytes = b"MZ".to_vec();
        bytes.resize(0x3c, 0);
        bytes.extend(0x40_u32.to_le_bytes());
        bytes.extend(b"PE\0\0");
        bytes.extend(machine.to_le_bytes());
        bytes
    }

    const LOAD: u32 = 1;
    const X86_64: u16 = 62;
    const AARCH64: u16 = 183;

    #[test]
    fn static_programs_for_the_kernel_are_taken() {
        assert!(check(&elf(X86_64, &[LOAD]), Arch::X86_64).is_ok());
        assert!(check(&elf(AARCH64, &[LOAD]), Arch::Arm64).is_ok());
        assert!(check(&elf(X86_64, &[LOAD]), Arch::Unknown).is_ok());
    }

    #[test]
    fn others_are_refused() {
        let check = |bytes: &[u8], expect: &str| {
            let error = check(bytes, Arch::X86_64).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(&elf(X86_64, &[LOAD, 3]), "shared libraries");
        check(&elf(AARCH64, &[LOAD]), "is for Arm64, and the kernel is for X86_64");
        check(b"#!/bin/sh\n", "no program");
        check(b"", "no program");
    }

    #[test]
    fn kernels_say_their_machine() {
        let check = |image: &[u8], expect| assert_eq!(kernel_arch(image), expect);
        check(&kernel(0x8664), Arch::X86_64);
        check(&kernel(0xaa64), Arch::Arm64);
        check(&kernel(0x14c), Arch::Unknown);
        check(b"MZ", Arch::Unknown);
        check(&[0xff; 100], Arch::Unknown);
    }
}
