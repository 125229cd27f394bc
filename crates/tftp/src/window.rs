//! A run of blocks to send together.

use std::ops::Range;

use crate::packet::{Packet, data_header};

/// Consecutive blocks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first block's number, from 1, as if numbers on the wire had no end.
    pub first: u64,
    /// How many, at least one.
    pub count: u16,
    /// Bytes of each, but of the file's last.
    pub blksize: u16,
    /// Length of the file in bytes.
    pub file_len: u64,
}

impl Window {
    /// Where in the file the blocks' bytes are: empty if there is only the last block, and it is.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        let start = (self.first - 1) * u64::from(self.blksize);
        let end = start + u64::from(self.count) * u64::from(self.blksize);
        start.min(self.file_len)..end.min(self.file_len)
    }

    /// The packets: what comes before the bytes, and the bytes' place in [`Self::range`].
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = ([u8; 4], Range<usize>)> + use<> {
        let (first, blksize) = (self.first, usize::from(self.blksize));
        let range = self.range();
        // At most 65,535 blocks of 65,464 bytes.
        let len = (range.end - range.start) as usize;
        (0..self.count).map(move |at| {
            let start = (usize::from(at) * blksize).min(len);
            let number = (first + u64::from(at)) as u16;
            (data_header(number), start..(start + blksize).min(len))
        })
    }

    /// The packets' bytes, for a file that is at hand whole.
    #[must_use]
    pub fn encode(&self, file: &[u8]) -> Vec<Vec<u8>> {
        let range = self.range();
        let bytes = &file[range.start as usize..range.end as usize];
        let packet = |([_, _, high, low], at): ([u8; 4], Range<usize>)| {
            let block = u16::from_be_bytes([high, low]);
            Packet::Data { block, bytes: &bytes[at] }.to_bytes()
        };
        self.blocks().map(packet).collect()
    }
}
