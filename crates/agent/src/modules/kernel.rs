//! The one thing that is asked of the kernel: to take a module (finit_module(2)).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::system::finit_module;

/// `MODULE_INIT_COMPRESSED_FILE` of linux/module.h: the kernel decompresses it (Linux 5.17, if it
/// was built to).
const COMPRESSED_FILE: i32 = 4;

/// Who takes modules: the kernel, or a test's stand-in.
pub(crate) trait Kernel {
    /// Gives it a module's file with its parameters. One that it has already is no error.
    fn insert(&mut self, path: &Path, parameters: &str) -> Result<(), InsertError>;
}

/// Why the kernel does not take a module.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InsertError {
    /// The file cannot be read.
    #[error("it cannot be opened")]
    Open(#[source] io::Error),
    /// A parameter with a NUL.
    #[error("its parameters have a NUL byte")]
    Parameters,
    /// The kernel does not decompress modules.
    #[error(
        "it is compressed, and this kernel does not decompress modules: rebuild the initramfs \
         (`boottorrent phase1 build`)"
    )]
    Compressed,
    /// There is no such device: common with modules that many aliases lead to.
    #[error("it finds no device that it could drive")]
    NoDevice,
    /// Anything else; dmesg has the details.
    #[error("the kernel refuses it")]
    Refused(#[source] io::Error),
}

/// The running kernel.
pub(crate) struct RunningKernel;

impl Kernel for RunningKernel {
    fn insert(&mut self, path: &Path, parameters: &str) -> Result<(), InsertError> {
        let file = File::open(path).map_err(InsertError::Open)?;
        let parameters = CString::new(parameters).map_err(|_| InsertError::Parameters)?;
        let is_compressed = path.extension().is_some_and(|extension| extension != "ko");
        let flags = if is_compressed { COMPRESSED_FILE } else { 0 };
        match finit_module(&file, &parameters, flags) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            // Old kernels do not know the flag; others know it and cannot.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOEXEC) if is_compressed => {
                Err(InsertError::Compressed)
            }
            Err(Errno::NODEV) => Err(InsertError::NoDevice),
            Err(error) => Err(InsertError::Refused(error.into())),
        }
    }
}
