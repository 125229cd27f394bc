//! Where in the piece space each file lies: BEP 3 concatenates the files of a torrent, BEP 52 and
//! BEP 47 put padding between them. This maps ranges of the piece space to ranges of files. It
//! opens nothing and knows no hash.

use std::path::{Component, Path, PathBuf};

use torrent::Block;
use torrent::metainfo::Metainfo;

use super::resume;

/// The most files of one torrent. A distribution's package mirror has some 10^5; each costs about
/// 100 bytes here, and a metainfo of more is refused before anything is allocated for them.
pub const FILES_MAX: usize = 200_000;

/// One file in the piece space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSpan {
    /// Relative to the directory; for a multi-file torrent its name is the first component.
    pub path: PathBuf,
    /// First byte in the piece space.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// BEP 47: reads as zeros, is stored nowhere.
    pub padding: bool,
}

impl FileSpan {
    /// The first byte behind the file, in the piece space.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// The files of a torrent in the order of the piece space. What no file covers is padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    piece_len: u32,
    files: Vec<FileSpan>,
    total_len: u64,
}

/// Why files cannot lie like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A piece length of zero.
    #[error("pieces have no length")]
    PieceLen,
    /// Nothing to store.
    #[error("the torrent has no data")]
    Empty,
    /// More than [`FILES_MAX`].
    #[error("{0} files: more than {FILES_MAX}")]
    TooManyFiles(usize),
    /// Absolute, empty, with `..` or `.`, or a name that we use ourselves.
    #[error("file name {0:?} is not allowed in a torrent")]
    Path(PathBuf),
    /// The same path twice, or a path below a file.
    #[error("file name {0:?} is taken by another file of the torrent")]
    Duplicate(PathBuf),
    /// Starts before the file before it ends, or ends past 2^63.
    #[error("file {0:?} lies across its neighbour in the torrent")]
    Overlap(PathBuf),
}

/// A range that the torrent does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes {start} to {end} are past the end of the torrent")]
pub struct OutOfRange {
    /// First byte in the piece space.
    pub start: u64,
    /// First byte behind the range.
    pub end: u64,
}

/// Part of a range that lies in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where.
    pub place: Place,
    /// Length in bytes, at least 1.
    pub len: u64,
}

/// Where a segment lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file, from this byte of it.
    File {
        /// Index into [`Layout::files`].
        index: usize,
        /// First byte, relative to the file.
        offset: u64,
    },
    /// Nowhere: zeros.
    Padding,
}

impl TryFrom<&Metainfo> for Layout {
    type Error = LayoutError;

    /// As the metainfo says; the padding behind the last file of a v1-only torrent included, since
    /// there it is hashed.
    fn try_from(metainfo: &Metainfo) -> Result<Self, LayoutError> {
        let layout = metainfo.layout();
        let mut spans: Vec<FileSpan> = layout
            .files()
            .iter()
            .map(|file| FileSpan {
                path: file.path().components().iter().collect(),
                start: file.start(),
                len: file.len(),
                padding: false,
            })
            .collect();
        let end = spans.last().map_or(0, FileSpan::end);
        if end < layout.end() {
            let len = layout.end() - end;
            spans.push(FileSpan { path: PathBuf::new(), start: end, len, padding: true });
        }
        Self::new(metainfo.geometry().piece_len(), spans)
    }
}

impl Layout {
    /// Files in ascending order of their start.
    ///
    /// # Errors
    /// If a path could leave the directory, two are the same, or two files overlap.
    pub fn new(piece_len: u32, spans: Vec<FileSpan>) -> Result<Self, LayoutError> {
        if piece_len == 0 {
            return Err(LayoutError::PieceLen);
        }
        if spans.len() > FILES_MAX {
            return Err(LayoutError::TooManyFiles(spans.len()));
        }
        let mut total_len = 0;
        for span in &spans {
            let end = span.start.checked_add(span.len);
            match end.filter(|&end| span.start >= total_len && end <= i64::MAX as u64) {
                Some(end) => total_len = end,
                None => return Err(LayoutError::Overlap(span.path.clone())),
            }
        }
        if total_len == 0 {
            return Err(LayoutError::Empty);
        }
        let files: Vec<_> = spans.into_iter().filter(|span| !span.padding).collect();
        vet(&files)?;
        Ok(Self { piece_len, files, total_len })
    }

    /// The files of a torrent. What the metainfo calls padding is here what no file covers.
    ///
    /// # Errors
    /// As [`Self::new`]: a name that we use ourselves is the only one that metainfo allows.
    pub fn of(metainfo: &Metainfo) -> Result<Self, LayoutError> {
        let layout = metainfo.layout();
        let span = |file: &torrent::metainfo::File| FileSpan {
            path: file.path().components().iter().collect(),
            start: file.start(),
            len: file.len(),
            padding: false,
        };
        Self::new(metainfo.geometry().piece_len(), layout.files().iter().map(span).collect())
    }

    /// The nominal piece length in bytes.
    #[must_use]
    pub const fn piece_len(&self) -> u32 {
        self.piece_len
    }

    /// How many pieces the files reach into.
    #[must_use]
    pub fn piece_count(&self) -> u32 {
        u32::try_from(self.total_len.div_ceil(u64::from(self.piece_len))).unwrap_or(u32::MAX)
    }

    /// The files that are stored: those that are not padding.
    #[must_use]
    pub fn files(&self) -> &[FileSpan] {
        &self.files
    }

    /// Length of the piece space, padding included, in bytes.
    #[must_use]
    pub const fn total_len(&self) -> u64 {
        self.total_len
    }

    /// Whether the torrent is one bare file, not a folder: its path is its name.
    #[must_use]
    pub fn is_single_file(&self) -> bool {
        matches!(&self.files[..], [file] if file.path.components().count() == 1)
    }

    /// The range of `piece` in the piece space: (start, length); empty past the end.
    #[must_use]
    pub fn piece_range(&self, piece: u32) -> (u64, u64) {
        let start = u64::from(piece) * u64::from(self.piece_len);
        let rest = self.total_len.saturating_sub(start);
        (start, rest.min(u64::from(self.piece_len)))
    }

    /// The first byte of `block` in the piece space.
    #[must_use]
    pub fn start_of(&self, block: Block) -> u64 {
        u64::from(block.piece) * u64::from(self.piece_len) + u64::from(block.offset)
    }

    /// Where the bytes `start..start + len` of the piece space lie, in order.
    ///
    /// # Errors
    /// If they reach past the end of the torrent.
    pub fn segments(
        &self,
        start: u64,
        len: u64,
    ) -> Result<impl Iterator<Item = Segment> + '_, OutOfRange> {
        let end = start.saturating_add(len);
        if end > self.total_len {
            return Err(OutOfRange { start, end });
        }
        let mut index = self.files.partition_point(|file| file.end() <= start);
        let mut at = start;
        Ok(std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            while self.files.get(index).is_some_and(|file| file.end() <= at) {
                index += 1;
            }
            let (place, until) = match self.files.get(index) {
                Some(file) if file.start <= at => {
                    (Place::File { index, offset: at - file.start }, file.end())
                }
                Some(file) => (Place::Padding, file.start),
                None => (Place::Padding, end),
            };
            let len = until.min(end) - at;
            at += len;
            Some(Segment { place, len })
        }))
    }
}

/// The last line of defence against a metainfo that writes outside the directory.
fn vet(files: &[FileSpan]) -> Result<(), LayoutError> {
    let mut paths: Vec<&Path> = Vec::with_capacity(files.len());
    for file in files {
        let mut components = file.path.components();
        let bytes = file.path.as_os_str().as_encoded_bytes();
        // `components` drops `.`, doubled and trailing slashes silently, so two spellings of one
        // path would pass as two files: only the plain spelling is allowed.
        let plain: PathBuf = file.path.components().collect();
        let ours = resume::is_ours(&file.path);
        if bytes.is_empty()
            || bytes.contains(&0)
            || ours
            || plain.as_os_str() != file.path.as_os_str()
            || !components.all(|component| matches!(component, Component::Normal(_)))
        {
            return Err(LayoutError::Path(file.path.clone()));
        }
        paths.push(&file.path);
    }
    // Paths sort by component, so whatever lies below a file comes right behind it.
    paths.sort_unstable();
    match paths.windows(2).find(|pair| pair[1].starts_with(pair[0])) {
        Some(pair) => Err(LayoutError::Duplicate(pair[1].to_owned())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(path: &str, start: u64, len: u64) -> FileSpan {
        FileSpan { path: path.into(), start, len, padding: false }
    }

    fn padding(start: u64, len: u64) -> FileSpan {
        FileSpan { padding: true, ..span(".pad/1", start, len) }
    }

    fn file(index: usize, offset: u64, len: u64) -> Segment {
        let place = Place::File { index, offset };
        Segment { place, len }
    }

    fn zeros(len: u64) -> Segment {
        let place = Place::Padding;
        Segment { place, len }
    }

    #[test]
    fn ranges_are_cut_at_files_and_padding() {
        let layout = Layout::new(
            16,
            vec![
                span("t/a", 0, 10),
                padding(10, 6),
                span("t/empty", 16, 0),
                span("t/b", 16, 20),
                span("t/c", 40, 5),
            ],
        )
        .unwrap();
        let check = |start, len, expect: &[Segment]| {
            let found: Vec<_> = layout.segments(start, len).unwrap().collect();
            assert_eq!(found, expect, "{start}+{len}");
        };
        check(0, 10, &[file(0, 0, 10)]);
        check(3, 2, &[file(0, 3, 2)]);
        check(9, 8, &[file(0, 9, 1), zeros(6), file(2, 0, 1)]);
        check(12, 2, &[zeros(2)]);
        check(30, 15, &[file(2, 14, 6), zeros(4), file(3, 0, 5)]);
        check(5, 0, &[]);
        assert!(layout.segments(40, 6).is_err());
        assert!(layout.segments(u64::MAX, 2).is_err());
        assert_eq!(layout.piece_count(), 3);
        assert_eq!(layout.piece_range(2), (32, 13));
    }

    #[test]
    fn padding_at_the_end_counts() {
        let layout = Layout::new(16, vec![span("a", 0, 10), padding(10, 6)]).unwrap();
        let found: Vec<_> = layout.segments(8, 8).unwrap().collect();
        assert_eq!(found, [file(0, 8, 2), zeros(6)]);
    }

    #[test]
    fn paths_that_leave_the_directory_are_refused() {
        let long = ".x.boottorrent-resume";
        for path in ["", "/etc/passwd", "..", "a/../b", "./a", "a//b", "a/", "a\0b", long] {
            let found = Layout::new(16, vec![span(path, 0, 1)]);
            assert_eq!(found, Err(LayoutError::Path(path.into())), "{path:?}");
        }
    }

    #[test]
    fn a_path_is_taken_once() {
        for (first, second) in [("a", "a"), ("a", "a/b"), ("a/b/c", "a/b")] {
            let found = Layout::new(16, vec![span(first, 0, 1), span(second, 1, 1)]);
            assert!(matches!(found, Err(LayoutError::Duplicate(_))), "{first} {second}");
        }
        assert!(Layout::new(16, vec![span("a-b", 0, 1), span("a", 1, 1)]).is_ok());
    }

    #[test]
    fn files_do_not_overlap() {
        for (start, len) in [(9, 1), (10, u64::MAX), (10, i64::MAX as u64)] {
            let found = Layout::new(16, vec![span("a", 0, 10), span("b", start, len)]);
            assert_eq!(found, Err(LayoutError::Overlap("b".into())));
        }
    }

    #[test]
    fn only_a_bare_file_is_single() {
        let single = |spans| Layout::new(16, spans).unwrap().is_single_file();
        assert!(single(vec![span("a", 0, 1)]));
        assert!(!single(vec![span("t/a", 0, 1)]));
        assert!(!single(vec![span("a", 0, 1), span("b", 1, 1)]));
    }
}
