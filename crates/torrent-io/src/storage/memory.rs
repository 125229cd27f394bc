//! A torrent in the memory of a diskless node: one memfd per file, because what comes next wants
//! files (`kexec_file_load` takes descriptors, a loop device takes one too). Sealed once complete:
//! the kernel itself then refuses any write to what was verified.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::error::StorageError;
use super::handle::FileHandle;
use super::layout::Layout;

/// The most files in memory. Each holds a descriptor, of which a process has 1024 by default; an
/// image for a diskless node is a handful of files.
pub const MEMORY_FILES_MAX: usize = 256;

/// Memory that the torrent must leave free: the node's own programs, socket buffers of a full
/// swarm (2 × 4 MiB for some peers) and the page tables of the image.
const RESERVE_LEN: u64 = 64 << 20;

#[derive(Debug)]
pub(super) struct Memory {
    files: Vec<FileHandle>,
    sealed: AtomicBool,
}

impl Memory {
    pub(super) fn new(layout: &Layout) -> Result<Self, StorageError> {
        let found = layout.files().len();
        if found > MEMORY_FILES_MAX {
            return Err(StorageError::TooManyFiles { found, max: MEMORY_FILES_MAX });
        }
        let len: u64 = layout.files().iter().map(|file| file.len).sum();
        check_room(len, available())?;
        let files = layout.files().iter().map(|file| {
            // For people; the kernel's own name of the file is only seen in /proc.
            let path = PathBuf::from(format!("memory:{}", file.path.display()));
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let fd = rustix::fs::memfd_create("boottorrent", flags)
                .and_then(|fd| {
                    rustix::fs::ftruncate(&fd, file.len)?;
                    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
                    Ok(fd)
                })
                .map_err(|errno| StorageError::new(&path, errno))?;
            Ok(FileHandle::new(fd, path, None))
        });
        Ok(Self {
            files: files.collect::<Result<_, StorageError>>()?,
            sealed: AtomicBool::new(false),
        })
    }

    /// The file of that index, to write to or only to read.
    pub(super) fn handle(&self, index: usize, write: bool) -> Result<FileHandle, StorageError> {
        // The kernel would refuse as well, but say no more than "not permitted".
        if write && self.sealed.load(Ordering::Relaxed) {
            return Err(StorageError::Complete);
        }
        Ok(self.files[index].clone())
    }

    pub(super) fn seal(&self) -> Result<(), StorageError> {
        self.sealed.store(true, Ordering::Relaxed);
        for file in &self.files {
            match rustix::fs::fcntl_add_seals(file, SealFlags::WRITE | SealFlags::SEAL) {
                // EPERM: sealed before.
                Ok(()) | Err(Errno::PERM) => {}
                Err(errno) => return Err(file.error(errno)),
            }
        }
        Ok(())
    }
}

fn check_room(len: u64, available: Option<u64>) -> Result<(), StorageError> {
    let needed = len.saturating_add(RESERVE_LEN);
    match available {
        Some(available) if available < needed => Err(StorageError::NoMemory { needed, available }),
        // No /proc: the node finds out the hard way.
        _ => Ok(()),
    }
}

/// What the kernel can give before it kills somebody; memory files are not bounded otherwise.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_is_known_before_the_start() {
        let found = check_room(100 << 20, Some(100 << 20)).unwrap_err();
        let said = found.to_string();
        assert!(said.starts_with("the image needs 67108864 more bytes"), "{said}");
        assert!(check_room(100 << 20, Some(164 << 20)).is_ok());
        assert!(available().is_some_and(|len| len > RESERVE_LEN));
    }
}
