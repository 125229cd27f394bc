//! Making a .torrent file of a file or folder on disk: walks, hashes in parallel, checks that
//! nothing changed meanwhile. What is written is decided by
//! [`torrent::metainfo::create`], and does not depend on the number of threads or on the order in
//! which the kernel lists a folder.

use std::fs::{self, File, Metadata};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
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
    let name = name_of(path)?;
    let found = walk(path)?;
    let refuse = |source| CreateError::Draft { path: path.to_owned(), source };
    let draft = Draft::new(&name, found.content, spec).map_err(refuse)?;
    // The draft has sorted the files: find each again by its path.
    let mut sources = found.sources;
    sources.sort_unstable_by(|a, b| a.parts.cmp(&b.parts));
    let hashes = Hashing {
        draft: &draft,
        sources: &sources,
        progress,
        next_piece: AtomicU32::new(0),
        done: AtomicU64::new(0),
        failed: AtomicBool::new(false),
    }
    .run(threads)?;
    for source in &sources {
        source.check(&metadata(&source.path)?)?;
    }
    draft.finish(&hashes).map_err(refuse)
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
    fn check(&self, now: &Metadata) -> Result<(), CreateError> {
        if Stamp::new(now) == self.stamp {
            Ok(())
        } else {
            Err(CreateError::Changed(self.path.clone()))
        }
    }
}

fn walk(top_path: &Path) -> Result<Found, CreateError> {
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
            is_empty = false;
            let metadata = metadata(&path)?;
            let mut parts: Vec<String> = parts.clone();
            parts.push(name_of(&path)?);
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
struct Hashing<'a, P> {
    draft: &'a Draft,
    /// In the order of the draft's files.
    sources: &'a [Source],
    progress: &'a P,
    next_piece: AtomicU32,
    done: AtomicU64,
    failed: AtomicBool,
}

impl<P: Fn(u64, u64) + Sync> Hashing<'_, P> {
    fn run(&self, threads: NonZeroUsize) -> Result<Vec<PieceHash>, CreateError> {
        let work = || {
            let result = self.work();
            if result.is_err() {
                // The others need not go on.
                self.failed.store(true, Ordering::Relaxed);
            }
            result
        };
        let results = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads.get()).map(|_| scope.spawn(work)).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads.into_iter().map(join).collect::<Vec<_>>()
        });
        let mut hashes = vec![];
        for result in results {
            hashes.extend(result?);
        }
        hashes.sort_unstable_by_key(|&(piece, _)| piece);
        Ok(hashes.into_iter().map(|(_, hash)| hash).collect())
    }

    fn work(&self) -> Result<Vec<(PieceIndex, PieceHash)>, CreateError> {
        let geometry = self.draft.geometry();
        let piece_len = geometry.piece_len();
        let count = (READ_LEN_MIN / piece_len).max(1);
        let mut buffer = vec![0; (count * piece_len) as usize];
        let mut open = None;
        let mut hashes = vec![];
        while !self.failed.load(Ordering::Relaxed) {
            let first = self.next_piece.fetch_add(count, Ordering::Relaxed);
            if first >= geometry.piece_count() {
                break;
            }
            self.read(first, &mut buffer, &mut open)?;
            let mut len = 0;
            let pieces = (first..first + count).map_while(|index| geometry.piece(index));
            for (piece, data) in pieces.zip(buffer.chunks(piece_len as usize)) {
                let data = &data[..geometry.piece_data_len(piece) as usize];
                hashes.push((piece, self.draft.hash_piece(piece, data)));
                len += data.len() as u64;
            }
            let done = self.done.fetch_add(len, Ordering::Relaxed) + len;
            (self.progress)(done, geometry.data_len());
        }
        Ok(hashes)
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
