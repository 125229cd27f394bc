//! Making a .torrent file of a file or folder on disk: walks, hashes in parallel, checks that
//! nothing changed meanwhile. What is written is decided by
//! [`torrent::metainfo::create`], and does not depend on the number of threads or on the order in
//! which the kernel lists a folder.

use std::fs::{self, File, Metadata};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use torrent::PieceIndex;
use torrent::metainfo::create::{Content, Draft, NewFile, PieceHash, Spec};
use torrent::metainfo::{FILES_MAX, Segment};

/// The least that is read at once, in bytes, where files are that long: at 1 MiB the cost of a
/// system call is no longer seen beside that of hashing, and a rotating disk spends most of its time
/// reading, not seeking.
pub const READ_LEN_MIN: u32 = 1 << 20;

/// Why no .torrent file was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A file or folder cannot be read.
    #[error("cannot read {}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Neither a regular file nor a folder.
    #[error("{} is a {kind}: only files and folders can be in a torrent", .path.display())]
    Kind {
        /// Which.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A folder with nothing in it, which a torrent cannot express.
    #[error("{} is an empty folder, which a torrent cannot hold", .0.display())]
    EmptyFolder(PathBuf),
    /// More than [`FILES_MAX`] files.
    #[error("{} has more than {FILES_MAX} files", .0.display())]
    TooManyFiles(PathBuf),
    /// A name that is not UTF-8, or none at all.
    #[error("{} has no name in UTF-8", .0.display())]
    Name(PathBuf),
    /// The file is not as it was when the folder was walked.
    #[error("{} changed while it was read", .0.display())]
    Changed(PathBuf),
    /// [`Options::stop`] was set.
    #[error("stopped before all of {} was read", .0.display())]
    Stopped(PathBuf),
    /// The files were found, but make no torrent.
    #[error("no torrent can be made of {}", .path.display())]
    Draft {
        /// Of what.
        path: PathBuf,
        /// Why not.
        source: torrent::metainfo::create::CreateError,
    },
}

/// The .torrent file of the file or folder `path`, hashed by `threads` threads.
///
/// `progress` is called now and then, by any thread, with the bytes hashed so far and those in all.
///
/// # Errors
/// If something cannot be read, is neither file nor folder (symbolic links are not followed), or
/// changes while it is read; or if the files make no torrent.
pub fn create(
    path: &Path,
    spec: Spec,
    threads: NonZeroUsize,
    progress: &(impl Fn(u64, u64) + Sync),
) -> Result<Vec<u8>, CreateError> {
    let stop = &AtomicBool::new(false);
    let options = Options {
        threads,
        progress,
        takes: &|_| true,
        known: &|_| None,
        begun: &|_| vec![],
        hashed: &|_, _, _| {},
        stop,
    };
    create_with(path, spec, &options).map(|created| created.bytes)
}

/// How [`create_with`] goes about it.
pub struct Options<'a> {
    /// How many threads hash.
    pub threads: NonZeroUsize,
    /// Called now and then, by any thread, with the bytes hashed so far and those in all, of what
    /// has to be hashed.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Whether what has this name at the top of the folder belongs to the torrent.
    pub takes: &'a dyn Fn(&str) -> bool,
    /// The hashes of all pieces of a file, if they are known: then it is not read.
    pub known: &'a dyn Fn(&FileState<'_>) -> Option<Vec<PieceHash>>,
    /// Hashes of some pieces of a file that is not known whole, by their number within the file.
    pub begun: &'a dyn Fn(&FileState<'_>) -> Vec<(u32, PieceHash)>,
    /// Told by any thread the hashes of pieces of one file, the first of which has this number within it: as
    /// [`Options::begun`] may give them again if this comes to no end.
    pub hashed: &'a (dyn Fn(&FileState<'_>, u32, &[PieceHash]) + Sync),
    /// Ends it within some milliseconds, by an error.
    pub stop: &'a AtomicBool,
}

/// What the hashes of a file's pieces depend on, as far as can be told without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// Its inode.
    pub inode: u64,
    /// Its bytes.
    pub len: u64,
    /// Seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    /// Bytes of a piece of the torrent.
    pub piece_len: u32,
    /// Whether the torrent ends with it: only then its last piece is not padded (BEP 47).
    pub is_last: bool,
}

/// A torrent that was made.
pub struct Created {
    /// The .torrent file.
    pub bytes: Vec<u8>,
    /// Bytes that were read to be hashed.
    pub read_len: u64,
    files: Vec<(Source, u32, bool, Vec<PieceHash>)>,
}

impl Created {
    /// Each file that has content, and the hashes of its pieces.
    pub fn files(&self) -> impl Iterator<Item = (FileState<'_>, &[PieceHash])> {
        self.files.iter().map(|(source, piece_len, is_last, hashes)| {
            (source.state(*piece_len, *is_last), hashes.as_slice())
        })
    }
}

/// As [`create`], but reads only what is not known.
///
/// # Errors
/// Those of [`create`].
pub fn create_with(path: &Path, spec: Spec, options: &Options<'_>) -> Result<Created, CreateError> {
    let name = name_of(path)?;
    let found = walk(path, options.takes)?;
    let refuse = |source| CreateError::Draft { path: path.to_owned(), source };
    let draft = Draft::new(&name, found.content, spec).map_err(refuse)?;
    // The draft has sorted the files: find each again by its path.
    let mut sources = found.sources;
    sources.sort_unstable_by(|a, b| a.parts.cmp(&b.parts));
    let mut hashes: Vec<Option<PieceHash>> = vec![None; draft.geometry().piece_count() as usize];
    let spans = spans(&draft);
    for (source, span) in sources.iter().zip(&spans) {
        let state = source.state(draft.geometry().piece_len(), span.is_last);
        let known = (options.known)(&state);
        let fits = |known: &Vec<PieceHash>| {
            known.len() == span.pieces.len() && known.iter().all(|hash| draft.takes(hash))
        };
        for (hash, known) in
            hashes[span.pieces.clone()].iter_mut().zip(known.filter(fits).into_iter().flatten())
        {
            *hash = Some(known);
        }
        let own = &mut hashes[span.pieces.clone()];
        if own.iter().any(Option::is_none) {
            for (index, known) in (options.begun)(&state) {
                if let Some(hash) = own.get_mut(index as usize).filter(|_| draft.takes(&known)) {
                    *hash = Some(known);
                }
            }
        }
    }
    let read_len = Hashing {
        draft: &draft,
        sources: &sources,
        spans: &spans,
        hashed: options.hashed,
        progress: options.progress,
        runs: runs(&draft, &hashes),
        next_run: AtomicUsize::new(0),
        done: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        stop: options.stop,
    }
    .run(options.threads, &mut hashes)?;
    if options.stop.load(Ordering::Relaxed) {
        return Err(CreateError::Stopped(path.to_owned()));
    }
    for source in &sources {
        source.check(&metadata(&source.path)?)?;
    }
    // Each has one by now; the draft would refuse another number.
    let hashes: Vec<PieceHash> = hashes.into_iter().flatten().collect();
    let bytes = draft.finish(&hashes).map_err(refuse)?;
    let piece_len = draft.geometry().piece_len();
    let file = |(source, span): (Source, Span)| {
        (!span.pieces.is_empty())
            .then(|| (source, piece_len, span.is_last, hashes[span.pieces].to_vec()))
    };
    let files = sources.into_iter().zip(spans).filter_map(file).collect();
    Ok(Created { bytes, read_len, files })
}

/// The pieces of a file, if none of them is another's, too.
struct Span {
    pieces: Range<usize>,
    is_last: bool,
}

/// One for each file of the draft. Pieces of v1 alone can be of several files: then no file has
/// pieces that are known to be its own.
fn spans(draft: &Draft) -> Vec<Span> {
    let piece_len = u64::from(draft.geometry().piece_len());
    let span = |file: &torrent::metainfo::File| {
        let first = file.start() / piece_len;
        let count = file.len().div_ceil(piece_len);
        let own = draft.is_aligned();
        let pieces = if own { first as usize..(first + count) as usize } else { 0..0 };
        Span { is_last: pieces.end == draft.geometry().piece_count() as usize, pieces }
    };
    draft.layout().files().iter().map(span).collect()
}

/// Pieces to be hashed, in portions of at least [`READ_LEN_MIN`] where that many follow each other.
fn runs(draft: &Draft, hashes: &[Option<PieceHash>]) -> Vec<Range<u32>> {
    let count_max = (READ_LEN_MIN / draft.geometry().piece_len()).max(1);
    let mut runs: Vec<Range<u32>> = vec![];
    for (index, _) in (0..).zip(hashes).filter(|(_, hash)| hash.is_none()) {
        match runs.last_mut() {
            Some(run) if run.end == index && run.end - run.start < count_max => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}

/// The name of the torrent: the last part of the path, or of what `.` stands for.
fn name_of(path: &Path) -> Result<String, CreateError> {
    let full = match path.file_name() {
        Some(_) => path.to_owned(),
        None => fs::canonicalize(path).map_err(|source| io_error(path, source))?,
    };
    let name = full.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| CreateError::Name(path.to_owned()))
}

/// What lies below a path.
struct Found {
    content: Content,
    sources: Vec<Source>,
}

/// A file to be read, as it was when it was found.
struct Source {
    path: PathBuf,
    /// Names below the torrent's folder; none for a single file.
    parts: Vec<String>,
    stamp: Stamp,
}

/// What tells that a file is still the same.
#[derive(PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Source {
    fn state(&self, piece_len: u32, is_last: bool) -> FileState<'_> {
        let Stamp { inode, len, modified, .. } = self.stamp;
        FileState { path: &self.path, inode, len, modified, piece_len, is_last }
    }

    fn check(&self, now: &Metadata) -> Result<(), CreateError> {
        if Stamp::new(now) == self.stamp {
            Ok(())
        } else {
            Err(CreateError::Changed(self.path.clone()))
        }
    }
}

fn walk(top_path: &Path, takes: &dyn Fn(&str) -> bool) -> Result<Found, CreateError> {
    let top = metadata(top_path)?;
    if top.is_file() {
        let content = Content::File { len: top.len(), executable: is_executable(&top) };
        let sources =
            vec![Source { path: top_path.to_owned(), parts: vec![], stamp: Stamp::new(&top) }];
        return Ok(Found { content, sources });
    }
    refuse_kind(top_path, &top)?;
    let mut files = vec![];
    let mut sources = vec![];
    let mut folders = vec![(top_path.to_owned(), vec![])];
    while let Some((folder, parts)) = folders.pop() {
        let mut is_empty = true;
        for entry in fs::read_dir(&folder).map_err(|source| io_error(&folder, source))? {
            let path = entry.map_err(|source| io_error(&folder, source))?.path();
            let name = name_of(&path)?;
            if parts.is_empty() && !takes(&name) {
                continue;
            }
            is_empty = false;
            let metadata = metadata(&path)?;
            let mut parts: Vec<String> = parts.clone();
            parts.push(name);
            if !metadata.is_file() {
                refuse_kind(&path, &metadata)?;
                folders.push((path, parts));
                continue;
            }
            if sources.len() == FILES_MAX {
                return Err(CreateError::TooManyFiles(top_path.to_owned()));
            }
            files.push(NewFile {
                path: parts.clone(),
                len: metadata.len(),
                executable: is_executable(&metadata),
            });
            sources.push(Source { path, parts, stamp: Stamp::new(&metadata) });
        }
        if is_empty {
            return Err(CreateError::EmptyFolder(folder));
        }
    }
    Ok(Found { content: Content::Folder(files), sources })
}

/// Refuses whatever is not a folder.
fn refuse_kind(path: &Path, metadata: &Metadata) -> Result<(), CreateError> {
    let kind = metadata.file_type();
    let kind = match () {
        () if kind.is_dir() => return Ok(()),
        () if kind.is_symlink() => "symbolic link",
        () if kind.is_socket() => "socket",
        () if kind.is_fifo() => "named pipe",
        () if kind.is_block_device() || kind.is_char_device() => "device",
        () => "special file",
    };
    Err(CreateError::Kind { path: path.to_owned(), kind })
}

fn is_executable(metadata: &Metadata) -> bool {
    metadata.mode() & 0o100 != 0
}

/// Of the file itself, not of what it links to.
fn metadata(path: &Path) -> Result<Metadata, CreateError> {
    fs::symlink_metadata(path).map_err(|source| io_error(path, source))
}

fn io_error(path: &Path, source: io::Error) -> CreateError {
    CreateError::Io { path: path.to_owned(), source }
}

/// Threads that each take the next few pieces until there are none.
struct Hashing<'a> {
    draft: &'a Draft,
    /// In the order of the draft's files.
    sources: &'a [Source],
    spans: &'a [Span],
    hashed: &'a (dyn Fn(&FileState<'_>, u32, &[PieceHash]) + Sync),
    progress: &'a (dyn Fn(u64, u64) + Sync),
    runs: Vec<Range<u32>>,
    next_run: AtomicUsize,
    done: AtomicU64,
    failed: AtomicBool,
    stop: &'a AtomicBool,
}

impl Hashing<'_> {
    /// Puts each hash in its place, and returns how many bytes were read.
    fn run(
        &self,
        threads: NonZeroUsize,
        hashes: &mut [Option<PieceHash>],
    ) -> Result<u64, CreateError> {
        let total = self.runs.iter().cloned().map(|run| self.len(run)).sum();
        let work = || {
            let result = self.work(total);
            if result.is_err() {
                // The others need not go on.
                self.failed.store(true, Ordering::Relaxed);
            }
            result
        };
        let threads = threads.get().min(self.runs.len());
        let results = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads.into_iter().map(join).collect::<Vec<_>>()
        });
        for result in results {
            for (piece, hash) in result? {
                hashes[piece.get() as usize] = Some(hash);
            }
        }
        Ok(self.done.load(Ordering::Relaxed))
    }

    /// The bytes of data in these pieces.
    fn len(&self, run: Range<u32>) -> u64 {
        let geometry = self.draft.geometry();
        let pieces = run.map_while(|index| geometry.piece(index));
        pieces.map(|piece| u64::from(geometry.piece_data_len(piece))).sum()
    }

    fn work(&self, total: u64) -> Result<Vec<(PieceIndex, PieceHash)>, CreateError> {
        let geometry = self.draft.geometry();
        let piece_len = geometry.piece_len() as usize;
        let mut buffer = vec![];
        let mut open = None;
        let mut hashes = vec![];
        while !self.failed.load(Ordering::Relaxed) && !self.stop.load(Ordering::Relaxed) {
            let Some(run) = self.runs.get(self.next_run.fetch_add(1, Ordering::Relaxed)) else {
                break;
            };
            buffer.resize(run.len() * piece_len, 0);
            self.read(run.start, &mut buffer, &mut open)?;
            let pieces = run.clone().map_while(|index| geometry.piece(index));
            let begin = hashes.len();
            for (piece, data) in pieces.zip(buffer.chunks(piece_len)) {
                let data = &data[..geometry.piece_data_len(piece) as usize];
                hashes.push((piece, self.draft.hash_piece(piece, data)));
            }
            self.tell(run.start, &hashes[begin..]);
            let len = self.len(run.clone());
            let done = self.done.fetch_add(len, Ordering::Relaxed) + len;
            (self.progress)(done, total);
        }
        Ok(hashes)
    }

    /// Tells the hashes of pieces from `first` on, each part of them with its file.
    fn tell(&self, first: u32, hashes: &[(PieceIndex, PieceHash)]) {
        let run = first as usize..first as usize + hashes.len();
        for (source, span) in self.sources.iter().zip(self.spans) {
            let (start, end) = (run.start.max(span.pieces.start), run.end.min(span.pieces.end));
            if start < end {
                let own: Vec<PieceHash> = hashes[start - run.start..end - run.start]
                    .iter()
                    .map(|(_, hash)| *hash)
                    .collect();
                let state = source.state(self.draft.geometry().piece_len(), span.is_last);
                (self.hashed)(&state, (start - span.pieces.start) as u32, &own);
            }
        }
    }

    /// Fills the buffer with pieces from `first` on; padding is left as it is, as it is not hashed
    /// from here. `open` is the file that was read last.
    fn read(
        &self,
        first: u32,
        buffer: &mut [u8],
        open: &mut Option<(usize, File)>,
    ) -> Result<(), CreateError> {
        let mut at = 0;
        let layout = self.draft.layout();
        for segment in layout.segments(first, 0, buffer.len() as u32) {
            match segment {
                Segment::Padding { len } => at += len as usize,
                Segment::File { file, offset, len } => {
                    let source = &self.sources[file];
                    let handle = match open {
                        Some((index, handle)) if *index == file => handle,
                        _ => &mut open.insert((file, open_same(source)?)).1,
                    };
                    let part = &mut buffer[at..at + len as usize];
                    handle.read_exact_at(part, offset).map_err(|error| {
                        if error.kind() == io::ErrorKind::UnexpectedEof {
                            CreateError::Changed(source.path.clone())
                        } else {
                            io_error(&source.path, error)
                        }
                    })?;
                    at += len as usize;
                }
            }
        }
        Ok(())
    }
}

/// Opens a file and checks that it is the one that was found, not what a link put in its place.
fn open_same(source: &Source) -> Result<File, CreateError> {
    let failed = |error| io_error(&source.path, error);
    let file = File::open(&source.path).map_err(failed)?;
    source.check(&file.metadata().map_err(failed)?)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
