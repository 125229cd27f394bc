//! Files of a tree that was made by strangers. A symbolic link in it, `etc/shadow -> /etc/shadow`,
//! must lead to the tree's own file and never to this machine's: `openat2` with `RESOLVE_IN_ROOT`
//! takes the tree for `/`. What is no plain file, a device or a FIFO, is neither read nor written: a
//! device of the tree is a device of this machine.
//!
//! Of a [`Tree`] no path can be made, so that what is in it is reached through its [`Root`] alone.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::ImageError;

/// The most bytes of a file that is changed: `/etc/shadow` of thousands of users fits.
const TEXT_LEN_MAX: u64 = 4 << 20;

/// Folders in folders, each of which is open while those in it are counted: systems have twenty.
const DEPTH_MAX: usize = 256;

/// Where a tree of files is that others have made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree(PathBuf);

impl Tree {
    /// The one in this folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The system that runs here, whose links are its owner's.
    pub fn of_machine() -> Self {
        Self("/".into())
    }

    /// Opens it.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn root(&self) -> Result<Root, ImageError> {
        Root::open(&self.0)
    }

    /// Its folder as a whole: to be made, moved, removed, shown, or named to a program that follows none of
    /// its links. To this nothing is ever joined, which `cargo xtask tidy` looks for.
    pub fn whole(&self) -> &Path {
        &self.0
    }

    /// A place beside it.
    pub(crate) fn beside(&self, extension: &str) -> Self {
        Self(self.0.with_extension(extension))
    }
}

/// Whose links are followed, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Links {
    /// This machine's own root, out of which nothing leads. The service, which looks for kernels there, may
    /// not call `openat2`: systemd's RestrictSUIDSGID= takes it away.
    OfMachine,
    /// Within the tree, as they would be if it were booted.
    Within,
    /// None at all.
    Never,
}

/// A tree of files that is open.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    folder: OwnedFd,
    links: Links,
}

impl Root {
    /// Opens one, of which links are followed within it.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let links = if path == Path::new("/") { Links::OfMachine } else { Links::Within };
        let folder = open_folder(path, OFlags::empty()).map_err(ImageError::read(path))?;
        Ok(Self { path: path.to_owned(), folder, links })
    }

    /// Opens a folder of the lab, which is no link itself and of which none is followed: whoever writes
    /// there need not be who reads, as root does for the packaged service.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn without_links(path: &Path) -> io::Result<Self> {
        let folder = open_folder(path, OFlags::NOFOLLOW)?;
        Ok(Self { path: path.to_owned(), folder, links: Links::Never })
    }

    /// A path of it as a person is shown it.
    pub fn shown(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path.join(path)
    }

    fn at(&self, path: impl AsRef<Path>, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
        let (path, flags, mode) =
            (path.as_ref(), flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode));
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match self.links {
            Links::OfMachine => {
                let below = path.strip_prefix("/").unwrap_or(path);
                Ok(rustix::fs::openat(&self.folder, below, flags, mode)?)
            }
            Links::Within => Ok(rustix::fs::openat2(&self.folder, path, flags, mode, inside)?),
            Links::Never => self.plain_at(path, flags, mode),
        }
    }

    /// Opens one folder below the other, none of which is a link, nor is what is last.
    fn plain_at(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let mut folder = None;
        let mut names = path.components().filter(|it| *it != Component::CurDir).peekable();
        let mut below = PathBuf::new();
        while let Some(name) = names.next() {
            let Component::Normal(name) = name else {
                return Err(io::Error::other(format!("{} leads out of it", path.display())));
            };
            below.push(name);
            let within = folder.as_ref().unwrap_or(&self.folder).as_fd();
            if let Ok(stat) = rustix::fs::statat(within, name, AtFlags::SYMLINK_NOFOLLOW)
                && FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
            {
                return Err(not_followed(&below, within, name));
            }
            let is_last = names.peek().is_none();
            let flags = if is_last { flags } else { OFlags::PATH | OFlags::DIRECTORY };
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            folder = Some(rustix::fs::openat(within, name, flags, mode)?);
        }
        match folder {
            Some(found) => Ok(found),
            None => Ok(rustix::fs::openat(&self.folder, ".", flags, mode)?),
        }
    }

    fn stat(&self, path: impl AsRef<Path>) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(self.at(path, OFlags::PATH, 0)?)?)
    }

    fn kind(&self, path: impl AsRef<Path>) -> Option<FileType> {
        self.stat(path).ok().map(|stat| FileType::from_raw_mode(stat.st_mode))
    }

    /// Whether it has a file, folder or device of this path.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.kind(path).is_some()
    }

    /// Whether it has a plain file there.
    pub fn has_file(&self, path: impl AsRef<Path>) -> bool {
        self.kind(path) == Some(FileType::RegularFile)
    }

    /// Whether it has a folder there.
    pub fn has_dir(&self, path: impl AsRef<Path>) -> bool {
        self.kind(path) == Some(FileType::Directory)
    }

    /// Whether what is of this kind may be read here: a file, or a link that may lead to one.
    pub(crate) fn follows(&self, kind: FileType) -> bool {
        kind == FileType::RegularFile || (kind == FileType::Symlink && self.links != Links::Never)
    }

    /// Opens a plain file for reading; nothing if there is none of this name.
    ///
    /// # Errors
    /// If it cannot be read, or is something else than a file.
    pub fn try_file(&self, path: impl AsRef<Path>) -> io::Result<Option<File>> {
        let path = path.as_ref();
        match self.at(path, OFlags::PATH, 0) {
            Ok(found) => opened(&found, path, OFlags::RDONLY).map(Some),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a plain file for reading.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn file(&self, path: impl AsRef<Path>) -> Result<File, ImageError> {
        let path = path.as_ref();
        let found = self.try_file(path).and_then(|it| it.ok_or_else(absent));
        found.map_err(ImageError::read(&self.shown(path)))
    }

    /// Opens a plain file that no link leads to, also none within; nothing if there is none of this name.
    ///
    /// # Errors
    /// If it, or a folder above it, is a link or anything else.
    pub fn plain_file(&self, path: impl AsRef<Path>) -> Result<Option<File>, ImageError> {
        let path = path.as_ref();
        let found = match self.plain_at(path, OFlags::PATH, Mode::empty()) {
            Err(error) if is_absence(&error) => return Ok(None),
            found => found.and_then(|found| opened(&found, path, OFlags::RDONLY)),
        };
        found.map(Some).map_err(ImageError::read(&self.shown(path)))
    }

    /// Opens a folder, for programs to work in and for what is in it.
    ///
    /// # Errors
    /// If there is none.
    pub fn folder(&self, path: impl AsRef<Path>) -> Result<OwnedFd, ImageError> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        self.at(path, flags, 0).map_err(ImageError::read(&self.shown(path)))
    }

    /// Opens a folder that no link leads to; nothing if it is not there, or something else.
    pub fn plain_folder(&self, path: impl AsRef<Path>) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        self.plain_at(path.as_ref(), flags, Mode::empty()).ok()
    }

    /// Opens what is a plain file without a link leading to it, to be mounted on; nothing else.
    pub(crate) fn plain_place(&self, path: impl AsRef<Path>) -> Option<OwnedFd> {
        let found = self.plain_at(path.as_ref(), OFlags::PATH, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&found).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(found)
    }

    /// What is in a folder, by name; links are what they are.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn entries(&self, path: impl AsRef<Path>) -> io::Result<Vec<(OsString, FileType)>> {
        let folder = self.at(path, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
        let mut entries = vec![];
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = std::os::unix::ffi::OsStrExt::from_bytes(entry.file_name().to_bytes());
            let name: &std::ffi::OsStr = name;
            if matches!(name.to_str(), Some("." | "..")) {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode)
                }
                kind => kind,
            };
            entries.push((name.to_owned(), kind));
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    /// Bytes of all files. A file with several names counts once.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn content(&self) -> Result<u64, ImageError> {
        let refuse = |error: Errno| ImageError::read(&self.path)(error.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut seen = std::collections::BTreeSet::new();
        let mut bytes = 0_u64;
        let top = rustix::fs::openat(&self.folder, ".", flags, Mode::empty()).map_err(refuse)?;
        let mut left = vec![Dir::new(top).map_err(refuse)?];
        while let Some(dir) = left.last_mut() {
            let Some(entry) = dir.read() else {
                left.pop();
                continue;
            };
            let entry = entry.map_err(refuse)?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let within = dir.fd().map_err(refuse)?;
            let stat = rustix::fs::statat(within, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.map_err(refuse)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if left.len() < DEPTH_MAX => {
                    let within = left.last_mut().map(|dir| dir.fd()).transpose().map_err(refuse)?;
                    let Some(within) = within else { continue };
                    let below = rustix::fs::openat(within, entry.file_name(), flags, Mode::empty());
                    left.push(Dir::new(below.map_err(refuse)?).map_err(refuse)?);
                }
                FileType::RegularFile
                    if stat.st_nlink == 1 || seen.insert((stat.st_dev, stat.st_ino)) =>
                {
                    bytes += u64::try_from(stat.st_size).unwrap_or(0);
                }
                _ => {}
            }
        }
        Ok(bytes)
    }

    /// The text of a file; nothing if it is not there.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn text(&self, path: &str) -> Result<Option<String>, ImageError> {
        let shown = self.shown(path);
        let Some(file) = self.try_file(path).map_err(ImageError::read(&shown))? else {
            return Ok(None);
        };
        let mut text = String::new();
        file.take(TEXT_LEN_MAX).read_to_string(&mut text).map_err(ImageError::read(&shown))?;
        Ok(Some(text))
    }

    /// Writes a file; a new one gets the mode, one that is there keeps its own.
    ///
    /// # Errors
    /// If it cannot be written, or what is there is no plain file.
    pub fn write(&self, path: &str, text: &str, mode: u32) -> Result<(), ImageError> {
        let write = || {
            let mut file = match self.at(path, OFlags::PATH, 0) {
                Ok(found) => opened(&found, Path::new(path), OFlags::WRONLY | OFlags::TRUNC)?,
                Err(error) if is_absence(&error) => {
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK;
                    File::from(self.at(path, flags, mode)?)
                }
                Err(error) => return Err(error),
            };
            file.write_all(text.as_bytes())
        };
        write().map_err(ImageError::write(&self.shown(path)))
    }

    /// Makes a file that is not there yet.
    ///
    /// # Errors
    /// If something of the name is there, or its folder is not.
    pub fn create(&self, path: &str, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        self.at(path, flags, mode).map(File::from)
    }

    /// Puts a file in the place of what has its name, in one step.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn replace(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let new = format!(".{name}.new");
        match rustix::fs::unlinkat(&self.folder, &new, AtFlags::empty()) {
            Err(error) if error != Errno::NOENT => return Err(error.into()),
            _ => {}
        }
        let mut file = self.create(&new, mode)?;
        file.write_all(bytes).and_then(|()| file.sync_all())?;
        Ok(rustix::fs::renameat(&self.folder, &new, &self.folder, name)?)
    }

    /// Moves a plain file out of the tree, to a place of this machine on the same file system.
    ///
    /// # Errors
    /// If it is not there, or cannot be moved.
    pub fn move_out(&self, folder: &str, name: &str, to: &Path) -> Result<(), ImageError> {
        let folder = self.plain_at(Path::new(folder), OFlags::PATH, Mode::empty());
        let moved = folder.and_then(|it| Ok(rustix::fs::renameat(it, name, CWD, to)?));
        moved.map_err(ImageError::write(to))
    }

    /// Makes a folder and those above it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn make_dir(&self, path: &str, mode: u32) -> Result<(), ImageError> {
        let mut above = String::new();
        for name in path.split('/') {
            let parent = if above.is_empty() { ".".to_owned() } else { above.clone() };
            above = if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") };
            if self.has(&above) {
                continue;
            }
            let made = self.at(&parent, OFlags::PATH | OFlags::DIRECTORY, 0).and_then(|parent| {
                Ok(rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode))?)
            });
            made.map_err(ImageError::write(&self.shown(&above)))?;
        }
        Ok(())
    }

    /// Makes a symbolic link in a folder that is there, in place of what has its name.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn link(&self, to: &str, folder: &str, name: &str) -> Result<(), ImageError> {
        self.remove(folder, name)?;
        let made = self
            .at(folder, OFlags::PATH | OFlags::DIRECTORY, 0)
            .and_then(|dir| Ok(rustix::fs::symlinkat(to, dir, name)?));
        made.map_err(ImageError::write(&self.shown(folder).join(name)))
    }

    /// Removes a file or link of a folder, if it is there.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self, folder: &str, name: &str) -> Result<(), ImageError> {
        let removed = self
            .at(folder, OFlags::PATH | OFlags::DIRECTORY, 0)
            .and_then(|dir| Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?));
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ImageError::Write { file: self.shown(folder).join(name), source: error })
            }
            _ => Ok(()),
        }
    }
}

fn open_folder(path: &Path, more: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | more;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Opens what was found, if it is a plain file: to open a device or FIFO can do things by itself.
fn opened(found: &OwnedFd, entry: &Path, flags: OFlags) -> io::Result<File> {
    let stat = rustix::fs::fstat(found)?;
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let same = format!("/proc/self/fd/{}", found.as_raw_fd());
            let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
            return Ok(rustix::fs::openat(CWD, same, flags, Mode::empty())?.into());
        }
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "of an unknown kind",
    };
    Err(io::Error::other(format!(
        "{} is {what}: only plain files are taken; put the file itself there",
        entry.display()
    )))
}

fn not_followed(
    entry: &Path,
    within: std::os::fd::BorrowedFd<'_>,
    name: &std::ffi::OsStr,
) -> io::Error {
    let to = rustix::fs::readlinkat(within, name, vec![]);
    let to = to.map(|to| to.to_string_lossy().into_owned()).unwrap_or_default();
    io::Error::other(format!(
        "{} is a symbolic link to {to}: not followed, since it may lead to files of this machine; put the \
         file itself there",
        entry.display()
    ))
}

fn absent() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// Whether there is nothing of the name.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_leads_to_the_tree_s_own_file() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("secret"));
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::write(&outside, "of this machine").unwrap();
        symlink(&outside, tree.join("etc/shadow")).unwrap();
        symlink("../../../../../../etc", tree.join("up")).unwrap();
        let root = Root::open(&tree).unwrap();
        assert_eq!(root.text("etc/shadow").unwrap(), None);
        assert!(!root.has("etc/shadow") && root.has_dir("up"));
        let machine = Root::open(Path::new("/")).unwrap();
        assert!(machine.has_file("proc/self/exe"));
        assert!(root.write("etc/shadow", "x", 0o600).is_err());
        root.write("up/hosts", "inside", 0o644).unwrap();
        assert_eq!(fs::read_to_string(outside).unwrap(), "of this machine");
        assert_eq!(fs::read_to_string(tree.join("etc/hosts")).unwrap(), "inside");
    }

    #[test]
    fn folders_and_links_are_made_within() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        root.make_dir("etc/systemd/network", 0o755).unwrap();
        root.make_dir("etc/systemd/network", 0o755).unwrap();
        root.link("/a", "etc/systemd", "b").unwrap();
        root.link("/c", "etc/systemd", "b").unwrap();
        let link = fs::read_link(dir.path().join("etc/systemd/b")).unwrap();
        assert_eq!(link, Path::new("/c"));
        root.remove("etc/systemd", "b").unwrap();
        root.remove("etc/systemd", "b").unwrap();
        assert!(!root.has("etc/systemd/b"));
    }
}
