//! Trees that would lead out of themselves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;
use crate::command::tests::with_work;

/// A tree as unsquashfs leaves it, and a file of this machine that nothing may touch.
struct Trap {
    dir: tempfile::TempDir,
    canary: PathBuf,
}

const SECRET: &str = "of this machine";

impl Trap {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        let canary = dir.path().join("canary");
        fs::write(&canary, SECRET).unwrap();
        Self { dir, canary }
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    /// What is made of it is refused, with the name of the entry, and nothing has happened to the canary.
    #[track_caller]
    fn is_refused(&self, entry: &str) {
        let tree = Tree::new(self.tree());
        let error = with_work(|work| live_root(&tree, work)).unwrap_err();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text.push_str(&error.to_string());
            cause = error.source();
        }
        assert!(text.contains(entry), "{text}");
        assert_eq!(fs::read_to_string(&self.canary).unwrap(), SECRET);
        assert!(self.tree().exists(), "the tree is as it was");
    }
}

#[test]
fn a_file_system_behind_a_link_is_not_taken() {
    let trap = Trap::new();
    fs::create_dir(trap.tree().join("LiveOS")).unwrap();
    symlink(&trap.canary, trap.tree().join("LiveOS/rootfs.img")).unwrap();
    trap.is_refused("rootfs.img");
}

#[test]
fn nor_is_one_in_a_folder_behind_a_link() {
    let trap = Trap::new();
    fs::rename(&trap.canary, trap.dir.path().join("rootfs.img")).unwrap();
    symlink(trap.dir.path(), trap.tree().join("LiveOS")).unwrap();
    let trap = Trap { canary: trap.dir.path().join("rootfs.img"), dir: trap.dir };
    trap.is_refused("LiveOS");
}

#[test]
fn nor_is_what_is_no_file() {
    let trap = Trap::new();
    fs::create_dir(trap.tree().join("LiveOS")).unwrap();
    let fifo = trap.tree().join("LiveOS/rootfs.img");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    trap.is_refused("rootfs.img");
}

#[test]
fn a_link_within_the_tree_is_not_followed_either() {
    let trap = Trap::new();
    fs::create_dir_all(trap.tree().join("real/LiveOS")).unwrap();
    fs::write(trap.tree().join("real/LiveOS/rootfs.img"), "x").unwrap();
    symlink("real/LiveOS", trap.tree().join("LiveOS")).unwrap();
    trap.is_refused("LiveOS");
}

#[test]
fn a_tree_without_one_stays_as_it_is() {
    let trap = Trap::new();
    fs::write(trap.tree().join("init"), "x").unwrap();
    with_work(|work| live_root(&Tree::new(trap.tree()), work)).unwrap();
    assert!(trap.tree().join("init").exists());
}
