//! The last step: an image that is whole and verified is run. Everything here takes a
//! [`VerifiedImage`], which only a complete download can make.

mod exec;
pub(crate) mod kexec;
pub(crate) mod root;
pub(crate) mod words;

use std::io;
use std::path::Path;

use boot::image::CMDLINE_LEN_MAX;
use boot::{Failure, Image, ImagePath, Loader};
use torrent::metainfo::Metainfo;
use torrent_io::storage::StorageError;

pub(crate) use self::root::ForNode;
use crate::booted::Handover;
use crate::download::VerifiedImage;
use crate::failed::Fails;
use crate::torrent as torrents;
use crate::{guest, memory};

/// Why an image cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadFailure {
    /// A newer server's word.
    #[error("`{image}` is to be loaded in a way that this agent does not know")]
    UnknownLoader {
        /// Which image.
        image: String,
    },
    /// It names a file that it does not have.
    #[error("`{image}` has no file `{path}`, which its loader needs")]
    FileMissing {
        /// Which image.
        image: String,
        /// What it lacks.
        path: ImagePath,
    },
    /// The command line is longer than a kernel takes.
    #[error("the command line has {len} bytes, the kernel takes {CMDLINE_LEN_MAX}")]
    CmdlineTooLong {
        /// How long it is.
        len: usize,
    },
    /// A kernel's command line ends at a NUL byte.
    #[error("the command line has a NUL byte in it")]
    CmdlineNul,
    /// A quote is not closed.
    #[error("the arguments `{args}` cannot be split: {reason}")]
    Args {
        /// As given.
        args: String,
        /// Why.
        reason: &'static str,
    },
    /// The bytes are not what they were.
    #[error("a file of the image cannot be used")]
    Storage(#[from] StorageError),
    /// The initrds cannot be put together.
    #[error("the initrds cannot be put together")]
    Initrd(#[source] io::Error),
    /// `kexec_file_load`.
    #[error("kexec_file_load: {source}: {hint}")]
    Refused {
        /// What the kernel says.
        source: io::Error,
        /// What it means here.
        hint: &'static str,
    },
    /// Everything was ready, and nothing happened.
    #[error("the new kernel was loaded, and the old one does not start it")]
    NotStarted(#[source] io::Error),
    /// A root cannot be mounted or entered.
    #[error("{what}: {source}{}", root_hint(source))]
    Root {
        /// What of it.
        what: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// Nothing in the root can be its first process.
    #[error("the root has no program that could be its init: there is none of {tried}")]
    NoInit {
        /// What was looked for.
        tried: String,
    },
    /// The program cannot be run.
    #[error("`{path}` cannot be run")]
    Exec {
        /// Which.
        path: ImagePath,
        /// Why.
        source: io::Error,
    },
}

impl Fails for LoadFailure {
    fn failure(&self) -> Failure {
        match self {
            Self::UnknownLoader { .. } => Failure::LoaderUnknown,
            Self::FileMissing { .. } => Failure::LoaderFileMissing,
            Self::CmdlineTooLong { .. }
            | Self::CmdlineNul
            | Self::Refused { .. }
            | Self::NotStarted(_) => Failure::KernelRefused,
            Self::Args { .. } | Self::Exec { .. } => Failure::LoaderFailed,
            Self::Root { .. } => Failure::RootRefused,
            Self::NoInit { .. } => Failure::NoInit,
            Self::Storage(_) => Failure::ImageAltered,
            Self::Initrd(_) => Failure::NotEnoughMemory,
        }
    }
}

/// What an error of a mount means on a node.
fn root_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENODEV) => ": the running kernel does not know this file system",
        Some(libc::EINVAL) => ": it is damaged, of another kind, or an option is not known",
        Some(libc::EACCES | libc::EPERM) => ": the server does not let this node mount it",
        Some(libc::ETIMEDOUT | libc::ECONNREFUSED | libc::EHOSTUNREACH) => {
            ": nothing answers there"
        }
        Some(libc::ENOENT) => ": there is nothing of this name",
        _ => "",
    }
}

/// Whether `image`, once it is there, can be loaded: asked before it is downloaded. Says how many
/// bytes of memory that takes beside the image.
///
/// # Errors
/// If it cannot.
pub(crate) fn check(image: &Image, metainfo: &Metainfo, cmdline: &str) -> Result<u64, LoadFailure> {
    let len = |path: &ImagePath| {
        let found = torrents::file(metainfo, path).map(|(_, len)| len);
        let missing =
            || LoadFailure::FileMissing { image: image.name.to_string(), path: path.clone() };
        found.ok_or_else(missing)
    };
    match &image.loader {
        Loader::Kexec { kernel, initrds, cmdline: of_image } => {
            kexec::cmdline(of_image, cmdline)?;
            let lens = initrds.iter().map(len).sum::<Result<u64, _>>()?;
            Ok(memory::kexec_len(lens.saturating_add(len(kernel)?)))
        }
        Loader::Exec { bin, args } => {
            words::split(args)?;
            len(bin).map(|_| 0)
        }
        Loader::Qemu { args, .. } => Ok(guest::need(&words::split(args)?)),
        Loader::Extension { rootfs } => len(rootfs).map(|_| 0),
        Loader::Livenet { rootfs, cmdline: of_image, .. } => {
            root::words(of_image, cmdline)?;
            len(rootfs).map(|_| memory::OVERLAY_HEADROOM)
        }
        Loader::Nfs { .. } | Loader::Unknown => {
            Err(LoadFailure::UnknownLoader { image: image.name.to_string() })
        }
    }
}

/// An image that is ready to be run.
#[derive(Debug)]
pub(crate) enum Plan {
    /// By kexec.
    Kexec(kexec::Plan),
    /// As a program.
    Exec(exec::Plan),
    /// As a root on the running kernel.
    Root(root::Plan),
}

impl Plan {
    /// Makes `image` ready; `cmdline` is added to its kernel's command line.
    ///
    /// # Errors
    /// If something that it needs is missing.
    pub(crate) fn new(image: &VerifiedImage, node: ForNode<'_>) -> Result<Self, LoadFailure> {
        let cmdline = node.cmdline;
        let name = || image.image().name.to_string();
        match &image.image().loader {
            Loader::Kexec { kernel, initrds, cmdline: of_image } => {
                let cmdline = kexec::cmdline(of_image, cmdline)?;
                Ok(Self::Kexec(kexec::Plan::new(image, kernel, initrds, cmdline)?))
            }
            Loader::Exec { bin, args } => Ok(Self::Exec(exec::Plan::new(image, bin, args, node)?)),
            Loader::Livenet { rootfs, cmdline, .. } => {
                Ok(Self::Root(root::Plan::in_memory(image, rootfs, cmdline, node)?))
            }
            Loader::Nfs { .. }
            | Loader::Qemu { .. }
            | Loader::Extension { .. }
            | Loader::Unknown => Err(LoadFailure::UnknownLoader { image: name() }),
        }
    }

    /// Makes an image without files ready.
    ///
    /// # Errors
    /// If it is none, or its command line is too long.
    pub(crate) fn without_files(image: &Image, node: ForNode<'_>) -> Result<Self, LoadFailure> {
        match &image.loader {
            Loader::Nfs { root, options, cmdline, .. } => {
                Ok(Self::Root(root::Plan::elsewhere(root, options, cmdline, node)?))
            }
            _ => Err(LoadFailure::UnknownLoader { image: image.name.to_string() }),
        }
    }

    /// Whether it is a root on the running kernel, under which this node goes on seeding.
    pub(crate) const fn is_root(&self) -> bool {
        matches!(self, Self::Root(_))
    }

    /// What will be run, in one line for people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Kexec(plan) => plan.describe(),
            Self::Exec(plan) => plan.describe(),
            Self::Root(plan) => plan.describe(),
        }
    }

    /// Writes what would be run into a folder, for tests.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn save(&self, folder: &Path) -> io::Result<()> {
        match self {
            Self::Kexec(plan) => plan.save(folder),
            Self::Exec(plan) => std::fs::write(folder.join("program"), plan.in_full()),
            Self::Root(plan) => std::fs::write(folder.join("root"), plan.describe()),
        }
    }

    /// All that can fail, so that what fails is known while the node is still a peer and can report.
    ///
    /// # Errors
    /// If the kernel refuses the image's.
    pub(crate) fn load(&self) -> Result<(), LoadFailure> {
        match self {
            Self::Kexec(plan) => plan.load(),
            Self::Exec(plan) => plan.make_executable(),
            Self::Root(plan) => plan.load(),
        }
    }

    /// The end of this program. It comes back only to say why not.
    pub(crate) fn start(self, handover: &Handover) -> LoadFailure {
        match self {
            Self::Kexec(_) => kexec::start(),
            Self::Exec(plan) => plan.start(),
            Self::Root(plan) => plan.start(handover),
        }
    }
}

/// A file of the image.
///
/// # Errors
/// If there is none, or it is not what was verified any more.
pub(crate) fn file(
    image: &VerifiedImage,
    path: &ImagePath,
) -> Result<(torrent_io::storage::FileHandle, u64), LoadFailure> {
    let missing =
        || LoadFailure::FileMissing { image: image.image().name.to_string(), path: path.clone() };
    image.file(path)?.ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torrent::tests::make;
    use boot::image::{After, Display};
    use torrent::metainfo::create::Format;

    /// What checking an image with files `vmlinuz` (5 bytes) and `initrd` (7 bytes) says.
    fn check(loader: Loader, extra: &str, expect: Result<u64, Failure>) {
        let temp = tempfile::tempdir().unwrap();
        let (image, bytes) = make(temp.path(), Format::Hybrid, &[("vmlinuz", 5), ("initrd", 7)]);
        let metainfo = Metainfo::decode(&bytes).unwrap();
        let image = Image { loader, ..image };
        let found = super::check(&image, &metainfo, extra).map_err(|error| error.failure());
        assert_eq!(found, expect);
    }

    fn kexec(kernel: &str, initrds: &[&str], cmdline: &str) -> Loader {
        Loader::Kexec {
            kernel: kernel.parse().unwrap(),
            initrds: initrds.iter().map(|path| path.parse().unwrap()).collect(),
            cmdline: cmdline.to_owned(),
        }
    }

    #[test]
    fn what_cannot_be_loaded_is_known_before_the_download() {
        check(kexec("vmlinuz", &["initrd", "initrd"], ""), "", Ok(38));
        check(kexec("vmlinuz", &[], "x"), "y", Ok(10));
        check(kexec("bzImage", &[], ""), "", Err(Failure::LoaderFileMissing));
        check(kexec("vmlinuz", &["initrd.gz"], ""), "", Err(Failure::LoaderFileMissing));
        let long = "x".repeat(CMDLINE_LEN_MAX);
        check(kexec("vmlinuz", &[], &long), "", Ok(10));
        check(kexec("vmlinuz", &[], &long), "y", Err(Failure::KernelRefused));
        check(Loader::Unknown, "", Err(Failure::LoaderUnknown));
        let guest = |args: &str| Loader::Qemu {
            args: args.to_owned(),
            display: Display::Screen,
            after: After::Menu,
            kept_on: None,
        };
        check(guest("-fda vmlinuz -m 512"), "", Ok(672 << 20));
        check(guest("-fda 'vmlinuz"), "", Err(Failure::LoaderFailed));
        let extension = |path: &str| Loader::Extension { rootfs: path.parse().unwrap() };
        check(extension("initrd"), "", Ok(0));
        check(extension("x"), "", Err(Failure::LoaderFileMissing));
        let exec = |bin: &str, args: &str| Loader::Exec {
            bin: bin.parse().unwrap(),
            args: args.to_owned(),
        };
        check(exec("vmlinuz", "a b"), "", Ok(0));
        check(exec("x", ""), "", Err(Failure::LoaderFileMissing));
        check(exec("vmlinuz", "'a"), "", Err(Failure::LoaderFailed));
    }
}
