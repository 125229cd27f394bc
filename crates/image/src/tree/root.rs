//! Files of a tree that was made by strangers. A symbolic link in it, `etc/shadow -> /etc/shadow`,
//! must lead to the tree's own file and never to this machine's: `openat2` with `RESOLVE_IN_ROOT`
//! takes the tree for `/`.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};

use crate::error::ImageError;

/// The most bytes of a file that is changed: `/etc/shadow` of thousands of users fits.
const TEXT_LEN_MAX: u64 = 4 << 20;

/// A tree of files.
pub struct Root {
    path: PathBuf,
    folder: OwnedFd,
}

impl Root {
    /// Opens one.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| ImageError::read(path)(error.into()))?;
        Ok(Self { path: path.to_owned(), folder })
    }

    fn at(&self, path: &str, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
        let mode = Mode::from_raw_mode(mode);
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(&self.folder, path, flags | OFlags::CLOEXEC, mode, inside)?)
    }

    /// Whether it has a file, folder or device of this path.
    pub fn has(&self, path: &str) -> bool {
        self.at(path, OFlags::PATH, 0).is_ok()
    }

    /// Where what is at a path of the tree really is, links followed within the tree; nothing if it is not
    /// there.
    pub fn real(&self, path: &str) -> Option<PathBuf> {
        // Out of this machine's own root nothing leads, and the service, which looks for kernels there, may not
        // call `openat2`: systemd's RestrictSUIDSGID= takes it away.
        if self.path == Path::new("/") {
            return fs::canonicalize(self.path.join(path)).ok();
        }
        let found = self.at(path, OFlags::PATH, 0).ok()?;
        fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn file(&self, path: &str) -> Result<File, ImageError> {
        let opened = self.at(path, OFlags::RDONLY | OFlags::NONBLOCK, 0).map(File::from);
        opened.map_err(ImageError::read(&self.path.join(path)))
    }

    /// The text of a file; nothing if it is not there.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn text(&self, path: &str) -> Result<Option<String>, ImageError> {
        let shown = self.path.join(path);
        let file = match self.at(path, OFlags::RDONLY | OFlags::NONBLOCK, 0) {
            Ok(file) => File::from(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ImageError::Read { file: shown, source }),
        };
        let mut text = String::new();
        file.take(TEXT_LEN_MAX).read_to_string(&mut text).map_err(ImageError::read(&shown))?;
        Ok(Some(text))
    }

    /// Writes a file; a new one gets the mode, one that is there keeps its own.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &str, text: &str, mode: u32) -> Result<(), ImageError> {
        let shown = self.path.join(path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NONBLOCK;
        self.at(path, flags, mode)
            .and_then(|file| File::from(file).write_all(text.as_bytes()))
            .map_err(ImageError::write(&shown))
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
            made.map_err(ImageError::write(&self.path.join(&above)))?;
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
        made.map_err(ImageError::write(&self.path.join(folder).join(name)))
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
                Err(ImageError::Write { file: self.path.join(folder).join(name), source: error })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(root.real("etc/shadow"), None);
        assert_eq!(root.real("up"), fs::canonicalize(tree.join("etc")).ok());
        let machine = Root::open(Path::new("/")).unwrap();
        assert_eq!(machine.real("proc/self/exe"), std::env::current_exe().ok());
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
