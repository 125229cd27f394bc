//! The phases 1 that a lab has built, so that a start builds only what has changed.

use std::cmp::Reverse;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::build::{INITRAMFS_FILE, Inputs, KERNEL_FILE, NEW, Parts, RECORD_FILE, package_key};
use super::error::Phase1Error;
use super::firmware;
use super::kernel::KernelChoice;
use super::progress::Progress;
use super::record::{self, File, Record};
use crate::host;
use boot::kernel::KernelVersion;

/// How many are kept in a lab: that of the running server, the one before it, to go back to, and
/// two that were tried out. Each has about 16 MB.
pub const KEPT_MAX: usize = 4;

/// A phase 1 that nodes can boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase1 {
    /// The folder of its files.
    pub dir: PathBuf,
    /// `vmlinuz`, unmodified.
    pub kernel: PathBuf,
    /// `initramfs.img`.
    pub initramfs: PathBuf,
    /// The kernel's version.
    pub version: KernelVersion,
    /// What is in it.
    pub record: Record,
}

/// Makes sure that the phase 1 of these inputs is in `cache`, a folder of a lab, and builds it only
/// if it is not. Says whether it was built now.
///
/// # Errors
/// If an input is missing or of no use, or something cannot be written. The cache is then as before.
pub fn ensure(
    inputs: &Inputs,
    cache: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Phase1, bool), Phase1Error> {
    host::create_dir_all(cache).map_err(Phase1Error::write(cache))?;
    // A package takes seconds to unpack, so what was made of it is found by its hash.
    if let KernelChoice::Package(package) = &inputs.kernel
        && let Some(phase1) = open(&cache.join(package_key(inputs, package)?))
        && firmware::is_unchanged(&inputs.root, &phase1.record)
    {
        return Ok((used(phase1), false));
    }
    let parts = Parts::gather(inputs, cache, progress)?;
    let dir = cache.join(parts.key());
    if let Some(phase1) = open(&dir)
        && parts.are_in(&phase1)
    {
        return Ok((used(phase1), false));
    }
    let built = parts.compress(&list(cache), progress)?;
    let new = tempfile::Builder::new()
        .prefix(NEW)
        .permissions(PermissionsExt::from_mode(0o755))
        .tempdir_in(cache)
        .map_err(Phase1Error::write(cache))?;
    built.write(new.path())?;
    // One that is there and cannot be opened is damaged.
    match host::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Phase1Error::Write { file: dir, source: error });
        }
        _ => {}
    }
    if let Err(source) = host::rename(new.path(), &dir) {
        // Somebody else may have built the same meanwhile.
        return match open(&dir) {
            Some(phase1) => Ok((phase1, true)),
            None => Err(Phase1Error::Write { file: dir, source }),
        };
    }
    forget_old(cache, &dir);
    Ok((Phase1::new(&dir, built.record), true))
}

/// The phase 1 in a folder, if it is whole and unaltered.
pub fn open(dir: &Path) -> Option<Phase1> {
    let record: Record = serde_json::from_slice(&host::read(&dir.join(RECORD_FILE)).ok()?).ok()?;
    let same = |file: &str, expect: &File| {
        host::read(&dir.join(file)).is_ok_and(|bytes| File::of(&bytes) == *expect)
    };
    let whole = record.format == record::FORMAT
        && same(KERNEL_FILE, &record.kernel)
        && same(INITRAMFS_FILE, &record.initramfs);
    whole.then(|| Phase1::new(dir, record))
}

/// All whole ones of a cache, the one that was used last at the front.
pub fn list(cache: &Path) -> Vec<Phase1> {
    let mut found: Vec<_> =
        dirs(cache).filter_map(|(time, dir)| Some((time, open(&dir)?))).collect();
    found.sort_by_key(|(time, _)| Reverse(*time));
    found.into_iter().map(|(_, phase1)| phase1).collect()
}

impl Phase1 {
    pub(super) fn new(dir: &Path, record: Record) -> Self {
        Self {
            dir: dir.to_owned(),
            kernel: dir.join(KERNEL_FILE),
            initramfs: dir.join(INITRAMFS_FILE),
            version: record.version.clone(),
            record,
        }
    }

    /// The first part of its initramfs, if that has this key.
    pub(super) fn base(&self, key: &str) -> Option<Vec<u8>> {
        if self.record.base.key != key {
            return None;
        }
        let mut bytes = host::read(&self.initramfs).ok()?;
        // It may have been replaced since it was opened.
        if File::of(&bytes) != self.record.initramfs {
            return None;
        }
        bytes.truncate(usize::try_from(self.record.base.len).ok()?);
        Some(bytes)
    }
}

/// Notes that it is used now, so that it is not the first to be forgotten. A cache that cannot be
/// written can still be read.
fn used(phase1: Phase1) -> Phase1 {
    let now = SystemTime::now();
    let _ = host::open(&phase1.dir).and_then(|dir| dir.set_modified(now));
    phase1
}

/// Removes all but those used last. That one stays behind is no reason to fail.
fn forget_old(cache: &Path, current: &Path) {
    let mut old: Vec<_> = dirs(cache).filter(|(_, dir)| dir != current).collect();
    old.sort_by_key(|(time, _)| Reverse(*time));
    for (_, dir) in old.into_iter().skip(KEPT_MAX - 1) {
        let _ = host::remove_dir_all(&dir);
    }
}

/// The folders of a cache, and when they were used.
fn dirs(cache: &Path) -> impl Iterator<Item = (SystemTime, PathBuf)> {
    let entries = host::entries(cache).unwrap_or_default();
    entries.into_iter().filter_map(|(path, metadata)| {
        let name = path.file_name().and_then(|name| name.to_str());
        let is_one = metadata.is_dir() && name.is_some_and(|name| !name.starts_with('.'));
        is_one.then_some(())?;
        Some((metadata.modified().ok()?, path))
    })
}
