//! kexec: the running kernel loads the image's kernel, and steps aside for it.
//!
//! `kexec_file_load` takes files, not memory, so that a kernel that insists on signatures can check
//! them itself (Secure Boot): the same call works with and without.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use boot::ImagePath;
use boot::image::CMDLINE_LEN_MAX;
use rustix::fs::MemfdFlags;
use rustix::system::RebootCommand;
use torrent_io::storage::FileHandle;

use super::LoadFailure;
use crate::console::mib;
use crate::download::VerifiedImage;
use crate::init;

/// The kernel's unpacker finds the next archive of an initrd where four divides its position; it
/// passes over the zeros before it (Documentation/driver-api/early-userspace/buffer-format.rst).
const ALIGN: u64 = 4;

/// What is to be loaded.
#[derive(Debug)]
pub(crate) struct Plan {
    kernel: (FileHandle, u64),
    initrd: Option<Initrd>,
    cmdline: CString,
}

#[derive(Debug)]
enum Initrd {
    /// A file of the image as it is.
    One(FileHandle, u64),
    /// Several, one behind the other.
    Joined(OwnedFd, u64),
}

impl Initrd {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::One(file, _) => file.as_fd(),
            Self::Joined(fd, _) => fd.as_fd(),
        }
    }

    const fn len(&self) -> u64 {
        match self {
            Self::One(_, len) | Self::Joined(_, len) => *len,
        }
    }
}

/// The command line of an image, and what is added for this node.
///
/// # Errors
/// If it is longer than a kernel takes.
pub(super) fn cmdline(of_image: &str, of_node: &str) -> Result<CString, LoadFailure> {
    let both = [of_image.trim(), of_node.trim()];
    let parts: Vec<&str> = both.into_iter().filter(|part| !part.is_empty()).collect();
    let line = parts.join(" ");
    if line.len() > CMDLINE_LEN_MAX {
        return Err(LoadFailure::CmdlineTooLong { len: line.len() });
    }
    CString::new(line).map_err(|_| LoadFailure::CmdlineNul)
}

impl Plan {
    pub(super) fn new(
        image: &VerifiedImage,
        kernel: &ImagePath,
        initrds: &[ImagePath],
        cmdline: CString,
    ) -> Result<Self, LoadFailure> {
        let kernel = super::file(image, kernel)?;
        let initrd = match initrds {
            [] => None,
            [one] => {
                let (file, len) = super::file(image, one)?;
                Some(Initrd::One(file, len))
            }
            several => {
                let files: Vec<_> = several
                    .iter()
                    .map(|path| super::file(image, path))
                    .collect::<Result<_, _>>()?;
                let (fd, len) = join(&files).map_err(LoadFailure::Initrd)?;
                Some(Initrd::Joined(fd, len))
            }
        };
        Ok(Self { kernel, initrd, cmdline })
    }

    pub(super) fn describe(&self) -> String {
        let initrd = match &self.initrd {
            Some(initrd) => format!("initrd of {}", mib(initrd.len())),
            None => "no initrd".to_owned(),
        };
        let cmdline = self.cmdline.to_string_lossy();
        format!("kexec: kernel of {}, {initrd}, command line: {cmdline}", mib(self.kernel.1))
    }

    pub(super) fn save(&self, folder: &Path) -> io::Result<()> {
        copy(self.kernel.0.as_fd(), &mut File::create(folder.join("kernel"))?)?;
        if let Some(initrd) = &self.initrd {
            copy(initrd.fd(), &mut File::create(folder.join("initrd"))?)?;
        }
        std::fs::write(folder.join("cmdline"), self.cmdline.as_bytes())
    }

    pub(super) fn load(&self) -> Result<(), LoadFailure> {
        self.kernel.0.check_unchanged()?;
        load_files(self.kernel.0.as_fd(), self.initrd.as_ref().map(Initrd::fd), &self.cmdline)
    }
}

/// Gives a kernel to the running one; [`start`] starts it.
///
/// # Errors
/// If that refuses it.
pub(crate) fn load_files(
    kernel: BorrowedFd<'_>,
    initrd: Option<BorrowedFd<'_>>,
    cmdline: &CStr,
) -> Result<(), LoadFailure> {
    let (initrd, flags) = match initrd {
        Some(initrd) => (initrd.as_raw_fd(), 0),
        None => (-1, libc::KEXEC_FILE_NO_INITRAMFS),
    };
    let cmdline = cmdline.to_bytes_with_nul();
    // SAFETY: the descriptors are open for the time of the call, and the kernel reads
    // `cmdline.len()` bytes from `cmdline`, the last of them NUL as it demands.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            libc::c_long::from(kernel.as_raw_fd()),
            libc::c_long::from(initrd),
            cmdline.len(),
            cmdline.as_ptr(),
            libc::c_long::from(flags),
        )
    };
    if result == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    let hint = hint(source.raw_os_error().unwrap_or(0));
    Err(LoadFailure::Refused { source, hint })
}

/// Starts what was loaded. It comes back only to say why not.
pub(crate) fn start() -> LoadFailure {
    rustix::fs::sync();
    // A card that goes on writing what it receives to where a driver once wanted it would write into
    // the new kernel.
    init::network_down();
    match rustix::system::reboot(RebootCommand::Kexec) {
        Ok(()) => LoadFailure::NotStarted(io::Error::other("reboot came back")),
        Err(errno) => LoadFailure::NotStarted(errno.into()),
    }
}

/// The files one behind the other, in memory.
fn join(files: &[(FileHandle, u64)]) -> io::Result<(OwnedFd, u64)> {
    let fd = rustix::fs::memfd_create("initrd", MemfdFlags::CLOEXEC)?;
    let mut out = File::from(fd);
    let mut len = 0;
    for (file, file_len) in files {
        file.check_unchanged().map_err(io::Error::other)?;
        let padding = len_to_align(len);
        out.write_all(&[0; ALIGN as usize][..padding])?;
        len += padding as u64 + file_len;
        if copy(file.as_fd(), &mut out)? != *file_len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((readable(&out)?, len))
}

/// Bytes as a file in memory.
///
/// # Errors
/// If there is no memory.
pub(crate) fn in_memory(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    readable(&file)
}

/// The same file to be read only: the kernel refuses to load one that somebody could still write to.
fn readable(file: &File) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into())
}

const fn len_to_align(len: u64) -> usize {
    (len.next_multiple_of(ALIGN) - len) as usize
}

/// Copies a file from its beginning.
fn copy(from: BorrowedFd<'_>, to: &mut File) -> io::Result<u64> {
    let mut from = File::from(from.try_clone_to_owned()?);
    from.seek(SeekFrom::Start(0))?;
    let len = from.metadata()?.len();
    io::copy(&mut from.take(len), to)
}

/// What an error of `kexec_file_load` means on a node.
fn hint(errno: i32) -> &'static str {
    match errno {
        libc::EPERM => {
            "it is not permitted: kexec is switched off (kernel.kexec_load_disabled), or the kernel \
             is locked down and demands a signature that it knows"
        }
        libc::ENOEXEC => "this is no kernel that it can start: another architecture, or no kernel",
        libc::ENOKEY | libc::EKEYREJECTED | libc::EBADMSG | libc::ENODATA => {
            "the image's kernel is not signed with a key that the running kernel trusts (Secure Boot)"
        }
        libc::ENOMEM | libc::EADDRNOTAVAIL | libc::EINVAL => {
            "there is no room for kernel and initrd, which may take half of the memory, or the \
             command line does not fit"
        }
        libc::ENOSYS => "the running kernel has no kexec_file_load (CONFIG_KEXEC_FILE)",
        libc::EBUSY => "another kernel is being loaded",
        libc::ETXTBSY => "the file is still being written to",
        _ => "the running kernel gives no other reason",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_words_follow_the_images() {
        let check = |image: &str, node: &str, expect: &str| {
            assert_eq!(cmdline(image, node).unwrap().to_str().unwrap(), expect);
        };
        check("quiet ", " ip=dhcp", "quiet ip=dhcp");
        check("", "ip=dhcp", "ip=dhcp");
        check("quiet", "", "quiet");
        check("", "", "");
        assert!(matches!(cmdline("a\0b", ""), Err(LoadFailure::CmdlineNul)));
    }

    #[test]
    fn archives_begin_where_four_divides() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(len_to_align), [0, 3, 2, 1, 0, 3]);
    }

    #[test]
    fn an_error_of_the_kernel_is_explained() {
        assert!(hint(libc::ENOKEY).contains("Secure Boot"));
        assert!(hint(libc::ENOEXEC).contains("no kernel"));
        assert!(hint(0).contains("no other reason"));
    }
}
