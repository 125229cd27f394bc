//! Where the bytes of a torrent live: in memory (diskless nodes) or in files.
//!
//! Ranges of the piece space go in and out at any position and from any thread, by `&self`. What is
//! verified is not known here: the swarm names what may be uploaded by its type ([`VerifiedBlock`]),
//! and [`Storage::complete`] is called when all is verified.

mod beneath;
mod error;
mod files;
mod handle;
mod layout;
mod memory;
mod resume;
#[cfg(test)]
mod tests;

use std::io::{IoSlice, IoSliceMut};
use std::path::Path;

use rustix::fs::Stat;
use torrent::{Bitfield, Block};

pub use self::error::{Change, StorageError};
pub use self::files::{Allocation, OPEN_FILES_MAX, Prior};
pub use self::handle::FileHandle;
pub use self::layout::{FILES_MAX, FileSpan, Layout, LayoutError, OutOfRange, Place, Segment};
pub use self::memory::MEMORY_FILES_MAX;

use self::files::Files;
use self::memory::Memory;

/// The bytes of one torrent.
#[derive(Debug)]
pub struct Storage {
    layout: Layout,
    store: Store,
}

#[derive(Debug)]
enum Store {
    Memory(Memory),
    Files(Files),
}

impl Storage {
    /// Room in memory for a download.
    ///
    /// # Errors
    /// If there is too little memory, or there are more than [`MEMORY_FILES_MAX`] files.
    pub fn memory(layout: Layout) -> Result<Self, StorageError> {
        let store = Store::Memory(Memory::new(&layout)?);
        Ok(Self { layout, store })
    }

    /// Room in `dir` for a download, and what an earlier one left there. `name` is the torrent's and
    /// `id` its infohash; both are for the resume file.
    ///
    /// # Errors
    /// If the space is too little, something else is in the way, or the directory is not there or
    /// cannot be written to.
    pub fn download(
        dir: &Path,
        layout: Layout,
        name: &str,
        id: &[u8],
        allocation: Allocation,
    ) -> Result<(Self, Prior), StorageError> {
        let (files, prior) = Files::download(dir, &layout, name, id, allocation)?;
        let store = Store::Files(files);
        Ok((Self { layout, store }, prior))
    }

    /// Files in `dir` that are there whole, to verify and to seed; nothing is written. From here on
    /// a changed file is an error at the next read of it. The first [`OPEN_FILES_MAX`] are open from
    /// here on: if they are deleted or others take their names, they still can be read.
    ///
    /// # Errors
    /// If a file is missing, is no file, or has another length.
    pub fn seed(dir: &Path, layout: Layout) -> Result<Self, StorageError> {
        let store = Store::Files(Files::seed(dir, &layout)?);
        Ok(Self { layout, store })
    }

    /// Which file lies where.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Stores a block, unverified. What of it is padding is dropped.
    ///
    /// # Errors
    /// If the block is not of this torrent, the torrent is complete, or the file cannot take it.
    ///
    /// # Panics
    /// If `data` is not as long as the block.
    pub fn write_block(&self, block: Block, data: &[u8]) -> Result<(), StorageError> {
        assert_eq!(data.len(), block.len as usize, "{block:?}");
        let start = self.layout.start_of(block);
        let mut rest = data;
        for segment in self.layout.segments(start, data.len() as u64)? {
            let (now, later) = rest.split_at(segment.len as usize);
            rest = later;
            if let Place::File { index, offset } = segment.place {
                self.write_handle(index)?.write(now, offset)?;
            }
        }
        Ok(())
    }

    /// Stores a run of adjacent blocks in few system calls: the first begins where `first` does,
    /// each other where the one before it ends. At most `u32::MAX` bytes.
    ///
    /// # Errors
    /// As [`Self::write_block`]; part of the run may be stored then.
    pub fn write_run(&self, first: Block, blocks: &[&[u8]]) -> Result<(), StorageError> {
        let len: usize = blocks.iter().map(|block| block.len()).sum();
        let mut rest = blocks.iter().copied();
        let mut now: &[u8] = &[];
        let mut run = Vec::with_capacity(blocks.len());
        for segment in self.layout.segments(self.layout.start_of(first), len as u64)? {
            run.clear();
            let mut missing = segment.len as usize;
            while missing > 0 {
                if now.is_empty() {
                    now = rest.next().unwrap_or_default();
                    continue;
                }
                let (part, later) = now.split_at(missing.min(now.len()));
                run.push(IoSlice::new(part));
                missing -= part.len();
                now = later;
            }
            if let Place::File { index, offset } = segment.place {
                self.write_handle(index)?.write_run(&mut run, offset)?;
            }
        }
        Ok(())
    }

    /// Reads a block, verified or not, to hash it. Padding reads as zeros.
    ///
    /// # Errors
    /// If the block is not of this torrent, or the file cannot be read or is not what it was.
    ///
    /// # Panics
    /// If `data` is not as long as the block.
    pub fn read_block(&self, block: Block, data: &mut [u8]) -> Result<(), StorageError> {
        assert_eq!(data.len(), block.len as usize, "{block:?}");
        self.read(self.layout.start_of(block), data)
    }

    /// Reads any range of the piece space, from byte `start` of it.
    ///
    /// # Errors
    /// As [`Self::read_block`].
    pub fn read(&self, start: u64, data: &mut [u8]) -> Result<(), StorageError> {
        let mut rest = data;
        for segment in self.layout.segments(start, rest.len() as u64)? {
            let (now, later) = rest.split_at_mut(segment.len as usize);
            rest = later;
            match segment.place {
                Place::File { index, offset } => self.file(index)?.read(now, offset)?,
                Place::Padding => now.fill(0),
            }
        }
        Ok(())
    }

    /// Reads a run of adjacent blocks in few system calls; the counterpart of [`Self::write_run`].
    ///
    /// # Errors
    /// As [`Self::read_block`].
    pub fn read_run(&self, first: Block, blocks: &mut [&mut [u8]]) -> Result<(), StorageError> {
        let len: usize = blocks.iter().map(|block| block.len()).sum();
        let start = self.layout.start_of(first);
        let mut rest = blocks.iter_mut();
        let mut now: &mut [u8] = &mut [];
        for segment in self.layout.segments(start, len as u64)? {
            let mut run = Vec::with_capacity(rest.len() + 1);
            let mut missing = segment.len as usize;
            while missing > 0 {
                if now.is_empty() {
                    now = rest.next().map(|block| &mut **block).unwrap_or_default();
                    continue;
                }
                let (part, later) = now.split_at_mut(missing.min(now.len()));
                missing -= part.len();
                run.push(IoSliceMut::new(part));
                now = later;
            }
            match segment.place {
                Place::File { index, offset } => self.file(index)?.read_run(&mut run, offset)?,
                Place::Padding => run.iter_mut().for_each(|part| part.fill(0)),
            }
        }
        Ok(())
    }

    /// Whether nothing is stored in a range, so that it reads as zeros without being read.
    ///
    /// # Errors
    /// If the range is not of this torrent or a file cannot be opened.
    pub fn is_hole(&self, start: u64, len: u64) -> Result<bool, StorageError> {
        for segment in self.layout.segments(start, len)? {
            if let Place::File { index, offset } = segment.place
                && !self.file(index)?.is_hole(offset, segment.len)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A file, by its index in [`Layout::files`]: what a loader takes once the torrent is complete.
    ///
    /// # Errors
    /// If the file is gone, or is not the one that was verified.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn file(&self, index: usize) -> Result<FileHandle, StorageError> {
        match &self.store {
            Store::Memory(memory) => memory.handle(index, false),
            Store::Files(files) => files.handle(&self.layout, index, false),
        }
    }

    /// What the kernel tells of each file, in the order of [`Layout::files`].
    ///
    /// # Errors
    /// If a file is gone, or is not the one that was verified.
    pub(crate) fn stats(&self) -> Result<Vec<Stat>, StorageError> {
        (0..self.layout.files().len()).map(|index| self.file(index)?.stat()).collect()
    }

    /// Notes which pieces are good, for the next start; `closed` at an orderly end, when no block is
    /// written any more. A crash loses nothing but the time to hash, so every half a minute is
    /// enough. Syncs a file of some KiB: not for the thread that drives sockets.
    ///
    /// # Errors
    /// If the resume file cannot be written.
    pub fn save(&self, good: &Bitfield, closed: bool) -> Result<(), StorageError> {
        match &self.store {
            Store::Memory(_) => Ok(()),
            Store::Files(files) => files.save(good.clone(), closed),
        }
    }

    /// All is verified: puts it on the disk for good and seals it against writing, ours as well.
    /// Waits for the disk: not for the thread that drives sockets.
    ///
    /// # Errors
    /// If the disk does not take it, or somebody else changed a file.
    pub fn complete(&self) -> Result<(), StorageError> {
        match &self.store {
            Store::Memory(memory) => memory.seal(),
            Store::Files(files) => files.complete(&self.layout),
        }
    }

    fn write_handle(&self, index: usize) -> Result<FileHandle, StorageError> {
        match &self.store {
            Store::Memory(memory) => memory.handle(index, true),
            Store::Files(files) => files.handle(&self.layout, index, true),
        }
    }
}
