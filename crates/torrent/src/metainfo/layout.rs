//! Where the files lie in the space of pieces, so that storage can turn a block into file ranges.
//!
//! In v1 files follow one another without a gap and a piece can hold the end of one and the start
//! of the next. In v2, and so in hybrid torrents, each file starts a new piece, and what is left of
//! the last piece of a file is padding: read as zeros, dropped when written.

use crate::geometry::{Geometry, GeometryError, PIECES_MAX};

use super::v1::Entry;
use super::{FilePath, MetainfoError, TOTAL_LEN_MAX, unit_len};

/// One file of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    path: FilePath,
    len: u64,
    executable: bool,
    start: u64,
}

/// The files of a torrent and the padding between them, in the space of pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    piece_len: u32,
    files: Vec<File>,
    /// What lies where: ascending, without gaps, none empty.
    spans: Vec<Span>,
    data_len: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u64,
    end: u64,
    /// Index of the file; padding if none.
    file: Option<usize>,
}

/// A part of a block that lies in one file, or in none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Bytes of a file.
    File {
        /// Index into [`Layout::files`].
        file: usize,
        /// First byte, relative to the file.
        offset: u64,
        /// Length in bytes, not zero.
        len: u32,
    },
    /// Zeros that are stored nowhere (BEP 47, 52).
    Padding {
        /// Length in bytes, not zero.
        len: u32,
    },
}

impl File {
    pub(super) const fn new(path: FilePath, len: u64, executable: bool) -> Self {
        Self { path, len, executable, start: 0 }
    }

    /// The path relative to the download folder; begins with the torrent's name, if the torrent is
    /// not a single file.
    #[must_use]
    pub const fn path(&self) -> &FilePath {
        &self.path
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// BEP 47 attribute `x`.
    #[must_use]
    pub const fn is_executable(&self) -> bool {
        self.executable
    }

    /// Its first byte in the space of pieces. Means nothing for an empty file.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }
}

impl Layout {
    /// Each file at the start of a piece (BEP 52).
    pub(super) fn aligned(
        piece_len: u32,
        files: impl Iterator<Item = File>,
    ) -> Result<Self, MetainfoError> {
        let mut layout = Self::empty(piece_len);
        for file in files {
            if !file.is_empty() {
                let padding = layout.end().next_multiple_of(u64::from(piece_len)) - layout.end();
                layout.push_padding(padding)?;
            }
            layout.push_file(file)?;
        }
        layout.not_empty()
    }

    /// Each entry directly behind the one before it (BEP 3).
    pub(super) fn packed(piece_len: u32, entries: &[Entry]) -> Result<Self, MetainfoError> {
        let mut layout = Self::empty(piece_len);
        for entry in entries {
            match entry {
                Entry::File(file) => layout.push_file(file.clone())?,
                Entry::Padding(len) => layout.push_padding(*len)?,
            }
        }
        layout.not_empty()
    }

    const fn empty(piece_len: u32) -> Self {
        Self { piece_len, files: vec![], spans: vec![], data_len: 0 }
    }

    fn push_file(&mut self, mut file: File) -> Result<(), MetainfoError> {
        file.start = self.end();
        self.data_len = add_len(self.data_len, file.len)?;
        self.push_span(file.len, Some(self.files.len()))?;
        self.files.push(file);
        Ok(())
    }

    fn push_padding(&mut self, len: u64) -> Result<(), MetainfoError> {
        self.push_span(len, None)
    }

    fn push_span(&mut self, len: u64, file: Option<usize>) -> Result<(), MetainfoError> {
        let start = self.end();
        let end = add_len(start, len)?;
        if len > 0 {
            self.spans.push(Span { start, end, file });
        }
        Ok(())
    }

    fn not_empty(self) -> Result<Self, MetainfoError> {
        match self.data_len {
            0 => Err(MetainfoError::TotalLen),
            _ => Ok(self),
        }
    }

    /// The geometry in which padding is not data: v2 and hybrid.
    pub(super) fn aligned_geometry(&self) -> Result<Geometry, MetainfoError> {
        let piece_len = u64::from(self.piece_len);
        let piece_count = self.end().div_ceil(piece_len);
        if piece_count > u64::from(PIECES_MAX) {
            return Err(GeometryError::PieceCount(piece_count).into());
        }
        let short = self
            .files
            .iter()
            .filter(|file| !file.len.is_multiple_of(piece_len))
            // In range: the count of pieces was checked.
            .map(|file| {
                let last = (file.start + file.len) / piece_len;
                (last as u32, (file.len % piece_len) as u32)
            })
            .collect();
        // In range: the count of pieces was checked.
        let unit_len = unit_len(self.data_len, self.piece_len, piece_count as u32);
        Ok(Geometry::new(piece_len, piece_count, unit_len, short)?)
    }

    /// The geometry in which padding is data: v1-only.
    pub(super) fn packed_geometry(&self) -> Result<Geometry, MetainfoError> {
        // Nothing smaller than a piece can be verified by its SHA-1.
        let unit_len = self.piece_len;
        Ok(Geometry::contiguous(self.end(), self.piece_len, unit_len)?)
    }

    /// The files, in the order of the torrent.
    #[must_use]
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Bytes of all files together.
    #[must_use]
    pub const fn data_len(&self) -> u64 {
        self.data_len
    }

    /// The end of the space of pieces as far as something lies there. Padding behind the last file
    /// counts only in a v1-only torrent.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.spans.last().map_or(0, |span| span.end)
    }

    /// What lies in bytes `offset..offset + len` of piece `piece`, in order. Ends early where the
    /// torrent does.
    pub fn segments(
        &self,
        piece: u32,
        offset: u32,
        len: u32,
    ) -> impl Iterator<Item = Segment> + '_ {
        let from = u64::from(piece) * u64::from(self.piece_len) + u64::from(offset);
        let to = from + u64::from(len);
        let first = self.spans.partition_point(|span| span.end <= from);
        self.spans[first..].iter().take_while(move |span| span.start < to).map(move |span| {
            let start = span.start.max(from);
            // Not longer than `len`.
            let len = (span.end.min(to) - start) as u32;
            match span.file {
                Some(file) => Segment::File { file, offset: start - span.start, len },
                None => Segment::Padding { len },
            }
        })
    }
}

/// Adds lengths that strangers name, up to what a torrent can hold.
pub(super) fn add_len(sum: u64, len: u64) -> Result<u64, MetainfoError> {
    sum.checked_add(len).filter(|&sum| sum <= TOTAL_LEN_MAX).ok_or(MetainfoError::TotalLen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, len: u64) -> File {
        File::new(FilePath::new([name]).unwrap(), len, false)
    }

    fn in_file(file: usize, offset: u64, len: u32) -> Segment {
        Segment::File { file, offset, len }
    }

    #[test]
    fn v1_files_run_across_pieces() {
        let entries = [
            Entry::File(file("a", 30)),
            Entry::File(file("empty", 0)),
            Entry::Padding(10),
            Entry::File(file("b", 60)),
        ];
        let layout = Layout::packed(50, &entries).unwrap();
        let segments = |piece, offset, len| layout.segments(piece, offset, len).collect::<Vec<_>>();
        assert_eq!(
            segments(0, 0, 50),
            [in_file(0, 0, 30), Segment::Padding { len: 10 }, in_file(2, 0, 10)]
        );
        assert_eq!(segments(0, 30, 10), [Segment::Padding { len: 10 }]);
        assert_eq!(segments(1, 5, 100), [in_file(2, 15, 45)]);
        assert_eq!(segments(2, 0, 1), []);
        assert_eq!(segments(u32::MAX, u32::MAX, u32::MAX), []);
        let geometry = layout.packed_geometry().unwrap();
        assert_eq!(geometry.data_len(), 100, "padding is data");
    }

    #[test]
    fn v2_files_start_a_piece() {
        let files = [file("a", 20_000), file("empty", 0), file("b", 16_384), file("c", 1)];
        let layout = Layout::aligned(16_384, files.into_iter()).unwrap();
        let geometry = layout.aligned_geometry().unwrap();
        assert_eq!(geometry.piece_count(), 4);
        let lens: Vec<u32> =
            (0..4).map(|piece| geometry.piece_data_len(geometry.piece(piece).unwrap())).collect();
        assert_eq!(lens, [16_384, 3_616, 16_384, 1]);
        assert_eq!(geometry.data_len(), layout.data_len());
        let segments: Vec<_> = layout.segments(1, 0, 16_384).collect();
        assert_eq!(segments, [in_file(0, 16_384, 3_616), Segment::Padding { len: 12_768 }]);
        assert_eq!(layout.segments(3, 0, 16_384).collect::<Vec<_>>(), [in_file(3, 0, 1)]);
    }

    #[test]
    fn sums_of_lengths_do_not_overflow() {
        let huge = || [file("a", u64::MAX), file("b", u64::MAX)].into_iter();
        assert_eq!(Layout::aligned(16_384, huge()), Err(MetainfoError::TotalLen));
        let none = Layout::aligned(16_384, [file("a", 0)].into_iter());
        assert_eq!(none, Err(MetainfoError::TotalLen));
    }
}
