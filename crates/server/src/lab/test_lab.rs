//! A lab for tests, in a temporary folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::client::Target;

/// A lab with the image `debian`.
pub(crate) struct TestLab(TempDir);

impl TestLab {
    pub(crate) fn new() -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        lab.put(
            "Boottorrent.yaml",
            "version: 1\nserver: {interface: lo, address: 127.0.0.1}\ndhcp: {mode: off}\n",
        );
        lab.put_image("debian");
        lab
    }

    pub(crate) fn put_image(&self, name: &str) {
        self.put(
            &format!("oss/{name}/config.yaml"),
            &format!("dispname: The {name}\nmethod: kexec\nkernel: vmlinuz\ninitrd: initrd.img\n"),
        );
        self.put(&format!("oss/{name}/vmlinuz"), &"k".repeat(100_000));
        self.put(&format!("oss/{name}/initrd.img"), &"i".repeat(70_000));
    }

    /// Writes a file that was changed long ago, as far as its time tells.
    pub(crate) fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let old = SystemTime::now() - Duration::from_secs(3600);
        fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir().join(path)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    /// What a command is told that is run in it.
    pub(crate) fn target(&self) -> Target {
        Target::Lab(self.dir().to_owned())
    }
}
