//! What can go wrong on the way to a phase 1: each case names the file and what to do.

use std::io;
use std::path::{Path, PathBuf};

use super::closure::MODULES_MAX;
use super::deb::DebError;
use super::modinfo::ModInfoError;
use super::name::ModuleName;
use super::program::ProgramError;
use crate::cpio::CpioError;
use boot::kernel::KernelVersion;

/// Why there is no phase 1.
#[derive(Debug, thiserror::Error)]
pub enum Phase1Error {
    /// Nothing is installed to build from.
    #[error(
        "no kernel is installed: {} has no vmlinuz-VERSION with modules in {}; install \
         linux-image-amd64, or name a package with --kernel FILE.deb",
        boot.display(), modules.display()
    )]
    NoKernel {
        /// Where kernels were looked for.
        boot: PathBuf,
        /// And their modules.
        modules: PathBuf,
    },
    /// Another version is installed.
    #[error("kernel {wanted} is not installed; there is {}", list(found))]
    NoSuchKernel {
        /// What was asked for.
        wanted: KernelVersion,
        /// What there is.
        found: Vec<KernelVersion>,
    },
    /// A package is not one of a kernel.
    #[error(
        "{} is no kernel package: it holds no {lacks}; take linux-image-VERSION itself, not the \
         package linux-image-amd64 that only depends on it",
        package.display()
    )]
    NotAKernelPackage {
        /// The package.
        package: PathBuf,
        /// What is not in it.
        lacks: &'static str,
    },
    /// A package cannot be read.
    #[error("cannot read {}", package.display())]
    Package {
        /// The package.
        package: PathBuf,
        /// Why.
        source: DebError,
    },
    /// A module cannot be what it should be.
    #[error("module {path} cannot be used; reinstall the kernel's package")]
    Module {
        /// Its path below the folder of modules, or its file.
        path: String,
        /// Why.
        source: ModInfoError,
    },
    /// A module is of another kernel.
    #[error("module {path} was built for kernel {built_for}, not for {version}")]
    OtherKernel {
        /// Its path.
        path: String,
        /// What it says.
        built_for: String,
        /// What it should say.
        version: KernelVersion,
    },
    /// A module needs one that is not there.
    #[error(
        "module {module} needs {needs}, which kernel {version} does not have; reinstall its package"
    )]
    Incomplete {
        /// The one that needs.
        module: ModuleName,
        /// The one that is needed.
        needs: ModuleName,
        /// The kernel.
        version: KernelVersion,
    },
    /// A module that a person asked for is not there.
    #[error("kernel {version} has no module {name}{}", alike.as_ref().map(|it| format!("; is {it} meant?")).unwrap_or_default())]
    NoSuchModule {
        /// What was asked for.
        name: String,
        /// The kernel.
        version: KernelVersion,
        /// A module with a similar name.
        alike: Option<ModuleName>,
    },
    /// A package has more modules than any kernel.
    #[error("the kernel's package has more than {MODULES_MAX} modules")]
    TooManyModules,
    /// A program for the initramfs is not there or of no use.
    #[error("{what} {} {problem}; {cure}", file.display())]
    Program {
        /// What it is.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: ProgramError,
        /// What to do.
        cure: String,
    },
    /// The archive cannot hold something.
    #[error("cannot pack the initramfs")]
    Archive(#[from] CpioError),
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The compressor failed.
    #[error("cannot compress the initramfs")]
    Compress(#[source] io::Error),
}

impl Phase1Error {
    pub(super) fn read(file: &Path) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Read { file: file.to_owned(), source }
    }

    pub(super) fn write(file: &Path) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Write { file: file.to_owned(), source }
    }
}

fn list(versions: &[KernelVersion]) -> String {
    let texts: Vec<&str> = versions.iter().map(KernelVersion::as_str).collect();
    texts.join(", ")
}
