//! What is served: names, and where their bytes are.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use anyhow::{Context, ensure};
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

    /// All files of a folder and those in it, as they are called now.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub(crate) fn of_folder(folder: &Path) -> anyhow::Result<Self> {
        let mut root = Self::default();
        root.add_folder(folder, "", 0)?;
        Ok(root)
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    fn add_folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> anyhow::Result<()> {
        let reading = || format!("cannot read {}", folder.display());
        ensure!(depth <= DEPTH_MAX, "{} is too deep: is it a link to above?", folder.display());
        for entry in std::fs::read_dir(folder).with_context(reading)? {
            let path = entry.with_context(reading)?.path();
            // A name that is not text could not be asked for.
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let name = format!("{prefix}{name}");
            if path.is_dir() {
                self.add_folder(&path, &format!("{name}/"), depth + 1)?;
            } else if path.is_file() {
                self.insert(&name, Source::File(path.clone()))?;
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
        let content = match root.sources.get(name).ok_or(OpenError::NotFound)? {
            Source::Bytes(bytes) => Content::Bytes(Arc::clone(bytes)),
            Source::File(path) => Content::File(self.open_file(path).map_err(|error| {
                tracing::warn!(path = %path.display(), %error, "cannot open a file for TFTP");
                OpenError::Unreadable
            })?),
        };
        let len = content.len();
        Ok((content, len))
    }

    fn open_file(&mut self, path: &Path) -> io::Result<Arc<OpenFile>> {
        if let Some(known) = self.files.get(path).and_then(Weak::upgrade)
            && std::fs::metadata(path).is_ok_and(|now| Identity::of(&now) == known.identity)
        {
            return Ok(known);
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a file"));
        }
        let opened = Arc::new(OpenFile { file, identity: Identity::of(&metadata) });
        self.files.retain(|_, file| file.strong_count() > 0);
        self.files.insert(path.to_owned(), Arc::downgrade(&opened));
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
