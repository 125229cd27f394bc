//! A tree as one file, a squashfs, by mksquashfs on all processors.

use std::fs::File;
use std::path::Path;

use super::root::Tree;
use crate::command::{Call, Event, Work};
use crate::error::ImageError;

/// The level of zstd. mksquashfs's own 15 makes 5 % less of a `/usr` and takes seven times as long; 3 makes
/// 6 % more in less than half of the time (`cargo xtask bench image`, docs/performance.md).
const ZSTD_LEVEL: &str = "9";

/// Bytes that are compressed together. The kernel's default is 128 KiB; twice that packs closer, and a
/// read of a small file unpacks twice as much: 2.4 % less of a `/usr`. Blocks of 1 MiB would save another
/// 4 %, and unpack four times as much again.
const BLOCK: &str = "256K";

/// What a running system makes anew, and what phase 1 has loaded before it mounts the file.
const EXCLUDED: &[&str] = &[
    "proc/*",
    "sys/*",
    "dev/*",
    "run/*",
    "tmp/*",
    "var/tmp/*",
    "var/cache/apt/*",
    "var/cache/dnf/*",
    "var/lib/apt/lists/*",
    "boot/initrd*",
    "boot/initramfs*",
    "boot/vmlinuz*",
];

/// Packs a tree.
///
/// # Errors
/// If mksquashfs is missing or fails.
pub fn pack(tree: &Tree, to: &Path, work: &Work<'_>) -> Result<(), ImageError> {
    work.step("packing")?;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Call::new("mksquashfs", "squashfs-tools")
        .arg(tree.whole())
        .arg(to)
        .args(["-noappend", "-comp", "zstd", "-Xcompression-level", ZSTD_LEVEL, "-b", BLOCK])
        .args(["-processors", &processors.to_string(), "-wildcards", "-e"])
        .args(EXCLUDED)
        .run_with(work, &mut |line| {
            if let Some((done, total)) = progress(line) {
                (work.tell)(Event::Progress { done, total });
            }
        })?;
    Ok(())
}

/// Unpacks one.
///
/// # Errors
/// If unsquashfs is missing or fails.
pub fn unpack(file: File, tree: &Tree, work: &Work<'_>) -> Result<(), ImageError> {
    work.step("unpacking")?;
    Call::new("unsquashfs", "squashfs-tools")
        .args(["-force", "-dest"])
        .arg(tree.whole())
        // Whatever has its name by now.
        .arg("/proc/self/fd/0")
        .stdin(file)
        .run_with(work, &mut |line| {
            if let Some((done, total)) = progress(line) {
                (work.tell)(Event::Progress { done, total });
            }
        })?;
    Ok(())
}

/// The figures of `[====  ] 400/800  50%`.
fn progress(line: &str) -> Option<(u64, u64)> {
    let (_, figures) = line.strip_prefix('[')?.split_once(']')?;
    let (done, total) = figures.split_whitespace().next()?.split_once('/')?;
    Some((done.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_of_mksquashfs_is_read() {
        assert_eq!(progress("[=====-      ]  400/800  50%"), Some((400, 800)));
        assert_eq!(progress("[====|] 7/7 100%"), Some((7, 7)));
        assert_eq!(progress("Parallel mksquashfs: Using 2 processors"), None);
    }
}
