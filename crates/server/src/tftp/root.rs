//! What is served: names, and where their bytes are.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use anyhow::{Context, ensure};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use tftp::{FileName, OpenError};

/// The most folders within folders of [`Root::of_folder`]: more is a link in a circle.
const DEPTH_MAX: usize = 16;

/// Where the bytes of a name are.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// At hand.
    Bytes(Arc<[u8]>),
    /// In a file, which is looked at anew for each transfer. To change it, rename another to its
    /// name: transfers go on with the one that they began with.
    File(PathBuf),
    /// In a file of a folder, as [`Self::File`], and never outside it, wherever links lead.
    Beneath(Arc<Folder>, PathBuf),
}

/// A folder that files are served of.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens what is at a path of it; links are followed as long as they stay in it.
    fn at(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), beneath)?))
    }
}

impl Source {
    /// The path to the bytes, for people and to know it again.
    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Bytes(_) => None,
            Self::File(path) => Some(path.clone()),
            Self::Beneath(folder, path) => Some(folder.path.join(path)),
        }
    }

    fn at(&self, flags: OFlags) -> io::Result<File> {
        match self {
            Self::Bytes(_) => Err(io::ErrorKind::Unsupported.into()),
            Self::File(path) => {
                let flags = flags | OFlags::CLOEXEC;
                Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
            }
            Self::Beneath(folder, path) => folder.at(path, flags),
        }
    }
}

/// Names, and where their bytes are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Root {
    sources: BTreeMap<FileName, Source>,
}

impl Root {
    /// Serves something under a name; what had that name before is served no more.
    ///
    /// # Errors
    /// If nobody can ask for this name.
    pub(crate) fn insert(&mut self, name: &str, source: Source) -> anyhow::Result<()> {
        let name = FileName::parse(name.as_bytes())
            .with_context(|| format!("cannot serve `{name}` by TFTP"))?;
        self.sources.insert(name, source);
        Ok(())
    }

    /// All files of a folder and those in it, as they are called now. What is no file, and links out of
    /// the folder, are left out, and said in the log.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub(crate) fn of_folder(folder: &Path) -> anyhow::Result<Self> {
        let reading = || format!("cannot read {}", folder.display());
        let mut root = Self::default();
        let folder = Arc::new(Folder::open(folder).with_context(reading)?);
        root.add_folder(&folder, Path::new(""), 0)?;
        Ok(root)
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    fn add_folder(&mut self, folder: &Arc<Folder>, at: &Path, depth: usize) -> anyhow::Result<()> {
        let shown = folder.path.join(at);
        let reading = || format!("cannot read {}", shown.display());
        ensure!(depth <= DEPTH_MAX, "{} is too deep: is it a link to above?", shown.display());
        let here = if depth == 0 { Path::new(".") } else { at };
        let opened = folder.at(here, OFlags::RDONLY | OFlags::DIRECTORY).with_context(reading)?;
        for entry in rustix::fs::Dir::read_from(opened).with_context(reading)? {
            let entry = entry.with_context(reading)?;
            // A name that is not text could not be asked for.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let path = at.join(name);
            match folder.at(&path, OFlags::PATH).and_then(|found| found.metadata()) {
                Ok(found) if found.is_dir() => self.add_folder(folder, &path, depth + 1)?,
                Ok(found) if found.is_file() => {
                    let name = path.to_str().unwrap_or_default().to_owned();
                    self.insert(&name, Source::Beneath(Arc::clone(folder), path))?;
                }
                Ok(_) => {
                    let path = folder.path.join(path);
                    tracing::warn!(path = %path.display(), "left out: it is no file");
                }
                Err(error) => {
                    let path = folder.path.join(path);
                    tracing::warn!(
                        path = %path.display(), %error,
                        "left out: it cannot be opened, or is a link out of the folder"
                    );
                }
            }
        }
        Ok(())
    }
}

/// Something that can be read at any place, by many transfers at once.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Bytes(Arc<[u8]>),
    File(Arc<OpenFile>),
}

impl Content {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(file) => file.identity.len,
        }
    }

    /// Fills `to` with what is at `offset`.
    pub(super) fn read(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).map_err(io::Error::other)?;
                let from = bytes.get(start..start + to.len());
                to.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Self::File(file) => file.file.read_exact_at(to, offset),
        }
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    identity: Identity,
}

/// Which file it is: another one of the same name, or the same with other content, differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Files that are open: one descriptor for all transfers of a file, since a fleet reads few files
/// and a process may have few descriptors.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    /// As many as the roots had names; those that nobody reads any more go at the next opening.
    files: BTreeMap<PathBuf, Weak<OpenFile>>,
}

impl OpenFiles {
    /// Finds a name's content and length.
    pub(super) fn open(
        &mut self,
        root: &Root,
        name: &FileName,
    ) -> Result<(Content, u64), OpenError> {
        let source = root.sources.get(name).ok_or(OpenError::NotFound)?;
        let content = match source {
            Source::Bytes(bytes) => Content::Bytes(Arc::clone(bytes)),
            Source::File(_) | Source::Beneath(..) => {
                Content::File(self.open_file(source).map_err(|error| {
                    let path = source.path().unwrap_or_default();
                    tracing::warn!(path = %path.display(), %error, "cannot open a file for TFTP");
                    OpenError::Unreadable
                })?)
            }
        };
        let len = content.len();
        Ok((content, len))
    }

    fn open_file(&mut self, source: &Source) -> io::Result<Arc<OpenFile>> {
        let path = source.path().unwrap_or_default();
        if let Some(known) = self.files.get(&path).and_then(Weak::upgrade) {
            let now = source.at(OFlags::PATH).and_then(|now| now.metadata());
            if now.is_ok_and(|now| Identity::of(&now) == known.identity) {
                return Ok(known);
            }
        }
        // O_NONBLOCK: what has become a FIFO must not hold up all transfers; files do not care.
        let file = source.at(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a file"));
        }
        let opened = Arc::new(OpenFile { file, identity: Identity::of(&metadata) });
        self.files.retain(|_, file| file.strong_count() > 0);
        self.files.insert(path, Arc::downgrade(&opened));
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> FileName {
        FileName::parse(text.as_bytes()).unwrap()
    }

    fn text(content: &Content) -> String {
        let mut bytes = vec![0; usize::try_from(content.len()).unwrap()];
        content.read(0, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn transfers_of_one_file_share_a_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/a"), "one").unwrap();
        let root = Root::of_folder(dir.path()).unwrap();
        let mut files = OpenFiles::default();
        let open = |files: &mut OpenFiles| match files.open(&root, &name("/sub/a")).unwrap() {
            (Content::File(file), 3) => file,
            other => panic!("{other:?}"),
        };
        let first = open(&mut files);
        assert!(Arc::ptr_eq(&first, &open(&mut files)));
    }

    #[test]
    fn file_that_was_replaced_is_opened_anew_and_the_old_one_read_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "one").unwrap();
        let root = Root::of_folder(dir.path()).unwrap();
        let mut files = OpenFiles::default();
        let (old, _) = files.open(&root, &name("a")).unwrap();
        std::fs::write(dir.path().join("b"), "two!").unwrap();
        std::fs::rename(dir.path().join("b"), &path).unwrap();
        let (new, len) = files.open(&root, &name("a")).unwrap();
        assert_eq!((text(&old).as_str(), text(&new).as_str(), len), ("one", "two!", 4));
    }

    #[test]
    fn links_are_served_within_the_folder_and_never_out_of_it() {
        use std::os::unix::fs::symlink;
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = outside.path().join("shadow");
        std::fs::write(&secret, "secret").unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        for name in ["file", "later"] {
            std::fs::write(dir.path().join(name), "mine").unwrap();
        }
        for (link, target) in [
            ("sub/link", Path::new("../file")),
            ("absolute", &secret),
            ("folder", outside.path()),
            ("magic", Path::new("/proc/self/root/etc/passwd")),
            ("sub/above", Path::new("../../../../../../etc/passwd")),
            ("dangling", Path::new("nothing")),
        ] {
            symlink(target, dir.path().join(link)).unwrap();
        }
        let fifo = dir.path().join("fifo");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let root = Root::of_folder(dir.path()).unwrap();
        let names: Vec<&str> = root.sources.keys().map(FileName::as_str).collect();
        assert_eq!(names, ["file", "later", "sub/link"]);
        let mut files = OpenFiles::default();
        assert_eq!(text(&files.open(&root, &name("sub/link")).unwrap().0), "mine");
        // What becomes a link, or a FIFO, after the start.
        for swap in [&secret, &fifo] {
            std::fs::remove_file(dir.path().join("later")).unwrap();
            symlink(swap, dir.path().join("later")).unwrap();
            assert_eq!(files.open(&root, &name("later")).unwrap_err(), OpenError::Unreadable);
        }
        std::fs::remove_file(dir.path().join("later")).unwrap();
        std::fs::rename(&fifo, dir.path().join("later")).unwrap();
        assert_eq!(files.open(&root, &name("later")).unwrap_err(), OpenError::Unreadable);
    }

    #[test]
    fn names_that_are_not_there_and_files_that_are_gone_differ() {
        let mut root = Root::default();
        root.insert("/gone", Source::File("/nonexistent/file".into())).unwrap();
        root.insert("bytes", Source::Bytes(Arc::from(*b"x"))).unwrap();
        assert!(root.insert("../x", Source::Bytes(Arc::from(*b"x"))).is_err());
        let mut files = OpenFiles::default();
        assert_eq!(files.open(&root, &name("other")).unwrap_err(), OpenError::NotFound);
        assert_eq!(files.open(&root, &name("gone")).unwrap_err(), OpenError::Unreadable);
        assert_eq!(files.open(&root, &name("bytes")).unwrap().1, 1);
    }
}
