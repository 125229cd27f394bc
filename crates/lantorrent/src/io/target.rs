//! The files that a transfer is written to, and the directories that they must be in.
//!
//! A path is opened with `openat2` and `RESOLVE_BENEATH` (Linux 5.6), so neither `..` nor a symbolic
//! link leaves a root, whoever changes the tree meanwhile.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::TEMPORARY_SUFFIX;
use crate::code::Code;
use crate::header::Request;

/// The only path outside the roots: what is written there is only passed on and hashed.
const NULL: &str = "/dev/null";

/// How long to wait until another transfer of the same file has ended: that of a predecessor that
/// just died is still cleaning up.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Directories that files may be written beneath.
#[derive(Debug)]
pub struct Roots(Vec<(PathBuf, OwnedFd)>);

/// A root that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} as a root", path.display())]
pub struct RootError {
    path: PathBuf,
    source: io::Error,
}

impl Roots {
    /// Opens them.
    ///
    /// # Errors
    /// [`RootError`] names the one that is no directory.
    pub fn open(paths: &[PathBuf]) -> Result<Self, RootError> {
        let roots = paths.iter().map(|path| {
            let refuse = |source| RootError { path: path.clone(), source };
            let full = path.canonicalize().map_err(refuse)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(&full, flags, Mode::empty())
                .map_err(|errno| refuse(errno.into()))?;
            Ok((full, fd))
        });
        Ok(Self(roots.collect::<Result<_, _>>()?))
    }

    /// A file without a name, in the first root.
    pub(super) fn spool(&self) -> io::Result<File> {
        let (path, _) = self.0.first().ok_or(io::ErrorKind::NotFound)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?.into())
    }

    /// The directory that `path` lies in, and its name there.
    fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a std::ffi::OsStr), String> {
        let outside = || format!("{} is in none of this endpoint's directories", path.display());
        let name = path.file_name().ok_or_else(outside)?;
        let dir = path.parent().filter(|_| path.is_absolute()).ok_or_else(outside)?;
        for (root, fd) in &self.0 {
            let Ok(relative) = dir.strip_prefix(root) else { continue };
            let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            return match rustix::fs::openat2(fd, relative, flags, Mode::empty(), beneath) {
                Ok(dir) => Ok((dir, name)),
                Err(Errno::XDEV) => Err(outside()),
                Err(errno) => Err(format!("{}: {errno}", dir.display())),
            };
        }
        Err(outside())
    }
}

/// The files of a transfer.
pub(super) struct Outputs {
    files: Vec<Output>,
}

struct Output {
    request: Request,
    /// `None` for /dev/null.
    place: Option<Place>,
}

struct Place {
    dir: OwnedFd,
    name: std::ffi::OsString,
    /// What it is called while it grows.
    temporary: std::ffi::OsString,
    file: Arc<File>,
}

/// A file that could not be opened, written or renamed.
pub(super) struct Failed {
    pub(super) request: Request,
    pub(super) code: Code,
    pub(super) why: String,
}

impl Outputs {
    /// Opens all that can be opened.
    pub(super) fn open(roots: &Roots, requests: &[Request]) -> (Self, Vec<Failed>) {
        let (mut files, mut failed) = (Vec::new(), Vec::new());
        for request in requests {
            let request = request.clone();
            if request.filename == NULL {
                files.push(Output { request, place: None });
                continue;
            }
            match Place::open(roots, &request) {
                Ok(place) => files.push(Output { request, place: Some(place) }),
                Err(why) => failed.push(Failed { request, code: Code::FILE, why }),
            }
        }
        (Self { files }, failed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// A file that holds all that was written.
    pub(super) fn store(&self) -> Option<Arc<File>> {
        self.files.iter().find_map(|output| output.place.as_ref()).map(|p| Arc::clone(&p.file))
    }

    /// Writes to all; those that cannot be written are closed and removed.
    pub(super) fn write(&mut self, bytes: &[u8], at: u64) -> Vec<Failed> {
        self.keep(|output| match &output.place {
            Some(place) => place.file.write_all_at(bytes, at).map_err(|error| error.to_string()),
            None => Ok(()),
        })
    }

    /// Finds files whose directory has been removed meanwhile.
    pub(super) fn check(&mut self) -> Vec<Failed> {
        self.keep(|output| match &output.place {
            Some(place) => place.check(),
            None => Ok(()),
        })
    }

    /// Gives the files their names. The requests that are fulfilled, and the others.
    pub(super) fn commit(&mut self) -> (Vec<Request>, Vec<Failed>) {
        let failed = self.keep(|output| match &output.place {
            Some(place) => place.commit(),
            None => Ok(()),
        });
        (self.files.drain(..).map(|output| output.request).collect(), failed)
    }

    /// Takes away those that nobody wants any more.
    pub(super) fn cancel(&mut self, ids: &[String]) -> Vec<Failed> {
        let mut failed = self.keep(|output| match ids.contains(&output.request.id) {
            true => Err("cancelled".to_owned()),
            false => Ok(()),
        });
        failed.iter_mut().for_each(|failed| failed.code = Code::UNKNOWN);
        failed
    }

    /// Removes all that is not whole; the requests that are not fulfilled.
    pub(super) fn discard(&mut self) -> Vec<Request> {
        let files = self.files.drain(..);
        files
            .map(|output| {
                output.discard();
                output.request
            })
            .collect()
    }

    fn keep(&mut self, mut ok: impl FnMut(&Output) -> Result<(), String>) -> Vec<Failed> {
        let mut failed = Vec::new();
        for output in std::mem::take(&mut self.files) {
            match ok(&output) {
                Ok(()) => self.files.push(output),
                Err(why) => {
                    output.discard();
                    failed.push(Failed { request: output.request, code: Code::FILE, why });
                }
            }
        }
        failed
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.discard();
    }
}

impl Output {
    fn discard(&self) {
        if let Some(place) = &self.place {
            let _ = rustix::fs::unlinkat(&place.dir, &place.temporary, AtFlags::empty());
        }
    }
}

impl Place {
    fn open(roots: &Roots, request: &Request) -> Result<Self, String> {
        let path = Path::new(&request.filename);
        let (dir, name) = roots.parent(path)?;
        let mut temporary = name.to_owned();
        if request.rename {
            temporary.push(TEMPORARY_SUFFIX);
        }
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            let file = open_locked(&dir, &temporary);
            match file {
                Ok(file) => {
                    let (name, file) = (name.to_owned(), Arc::new(file));
                    return Ok(Self { dir, name, temporary, file });
                }
                Err(Errno::AGAIN) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(Errno::AGAIN) => {
                    return Err(format!("another transfer writes {}", path.display()));
                }
                Err(errno) => return Err(format!("{}: {errno}", path.display())),
            }
        }
    }

    /// The name must still lead to the file that is written.
    fn check(&self) -> Result<(), String> {
        let vanished = || "its directory, or the file itself, has been removed".to_owned();
        let named = rustix::fs::statat(&self.dir, &self.temporary, AtFlags::SYMLINK_NOFOLLOW);
        let own = self.file.metadata().map_err(|error| error.to_string())?;
        match named {
            Ok(named) if named.st_ino == own.ino() => Ok(()),
            Ok(_) | Err(Errno::NOENT) => Err(vanished()),
            Err(errno) => Err(errno.to_string()),
        }
    }

    fn commit(&self) -> Result<(), String> {
        self.check()?;
        if self.temporary == self.name {
            return Ok(());
        }
        rustix::fs::renameat(&self.dir, &self.temporary, &self.dir, &self.name)
            .map_err(|errno| format!("renaming it: {errno}"))
    }
}

/// Opens a regular file, made or emptied, that no other transfer writes.
fn open_locked(dir: &OwnedFd, name: &std::ffi::OsStr) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // O_NONBLOCK: opening a FIFO must not wait.
    let fd = rustix::fs::openat(dir, name, flags | OFlags::NONBLOCK, Mode::from_raw_mode(0o666))?;
    let stat = rustix::fs::fstat(&fd)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    rustix::fs::flock(fd.as_fd(), FlockOperation::NonBlockingLockExclusive)?;
    // Who had the lock may have renamed or removed the file that was opened here.
    let named = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if named.st_ino != stat.st_ino {
        return Err(Errno::AGAIN);
    }
    rustix::fs::ftruncate(&fd, 0)?;
    Ok(fd.into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn request(path: &Path, rename: bool) -> Request {
        Request { filename: path.display().to_string(), id: "r".into(), rename }
    }

    fn open(root: &Path, paths: &[&Path], rename: bool) -> (Outputs, Vec<Failed>) {
        let roots = Roots::open(&[root.to_owned()]).unwrap();
        let requests: Vec<Request> = paths.iter().map(|path| request(path, rename)).collect();
        Outputs::open(&roots, &requests)
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_outside_the_roots_is_opened() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), root.path().join("out")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("x"), root.path().join("link")).unwrap();
        for path in [
            outside.path().join("a"),
            root.path().join("out/a"),
            root.path().join("../a"),
            root.path().join("link"),
            PathBuf::from("/dev/zero"),
            PathBuf::from("relative"),
            root.path().join(".."),
        ] {
            let (outputs, failed) = open(root.path(), &[&path], false);
            assert!(outputs.is_empty() && failed.len() == 1, "{}", path.display());
        }
        assert!(names(outside.path()).is_empty());
    }

    #[test]
    fn l12_a_file_gets_its_name_at_the_end_and_leaves_nothing_if_it_has_none() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("a"), root.path().join("b"));
        let (mut outputs, _) = open(root.path(), &[&a, &b], true);
        assert!(outputs.write(b"hello", 0).is_empty());
        assert_eq!(names(root.path()), ["a.lantorrent", "b.lantorrent"]);
        assert_eq!(outputs.commit().0.len(), 2);
        drop(outputs);
        assert_eq!(names(root.path()), ["a", "b"]);
        let (mut outputs, _) = open(root.path(), &[&a], true);
        outputs.write(b"other", 0);
        drop(outputs);
        assert_eq!(names(root.path()), ["a", "b"]);
        assert_eq!(fs::read(&a).unwrap(), b"hello");
    }

    #[test]
    fn l12_dev_null_is_written_and_never_deleted() {
        let root = tempfile::tempdir().unwrap();
        let (mut outputs, failed) = open(root.path(), &[Path::new(NULL)], true);
        assert!(failed.is_empty() && outputs.write(b"x", 0).is_empty());
        drop(outputs);
        assert!(Path::new(NULL).exists());
    }

    #[test]
    fn a_removed_directory_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("vm")).unwrap();
        let (mut outputs, _) = open(root.path(), &[&root.path().join("vm/disk")], true);
        assert!(outputs.check().is_empty());
        fs::remove_dir_all(root.path().join("vm")).unwrap();
        assert_eq!(outputs.check().len(), 1);
        assert!(outputs.is_empty());
    }

    #[test]
    fn two_transfers_never_write_one_file() {
        let root = tempfile::tempdir().unwrap();
        let a = root.path().join("a");
        let (_first, _) = open(root.path(), &[&a], true);
        let (_, failed) = open(root.path(), &[&a], true);
        assert!(failed[0].why.contains("another transfer"), "{}", failed[0].why);
    }
}
