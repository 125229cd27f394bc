//! Into the new root, for good: what switch_root(8) and systemd's switch-root do.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use boot::Failure;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{UnmountFlags, mount_bind, mount_move, unmount};
use rustix::system::RebootCommand;

use super::{INITS, NEW_ROOT};
use crate::booted::{self, Handover};
use crate::console::failure_screen;
use crate::failed::Fails as _;
use crate::init;
use crate::keyboard;
use crate::loader::LoadFailure;

/// What comes along.
const KEPT: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];

/// What the system reads as the kernel's command line, if words are to be added to it.
const CMDLINE: &str = "/run/boottorrent/cmdline";

/// `ramfs` and `tmpfs` (linux/magic.h): what an initramfs is. Nothing else is ever deleted.
const RAMFS_MAGIC: u64 = 0x8584_58f6;
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// How long words that end a boot stay on the screen.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// The init of the root at `root`: what `init=` on the command line names, or where it usually is.
/// Links in it are followed as the system itself will.
pub(super) fn find_init(root: &Path) -> Result<PathBuf, LoadFailure> {
    let failed = |source: io::Error| LoadFailure::Root { what: root.display().to_string(), source };
    let dir = File::open(root).map_err(failed)?;
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let wanted = line.split_ascii_whitespace().rev().find_map(|word| word.strip_prefix("init="));
    let candidates = wanted.into_iter().chain(INITS);
    for init in candidates.clone() {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found = rustix::fs::openat2(&dir, init, flags, Mode::empty(), ResolveFlags::IN_ROOT);
        let is_program = found.is_ok_and(|found| {
            let stat = rustix::fs::fstat(&found);
            stat.is_ok_and(|stat| {
                stat.st_mode & 0o170_000 == 0o100_000 && stat.st_mode & 0o111 != 0
            })
        });
        if is_program {
            return Ok(PathBuf::from(init));
        }
    }
    Err(LoadFailure::NoInit { tried: candidates.collect::<Vec<_>>().join(", ") })
}

/// Enters the new root and becomes its `init`. Comes back only while phase 1 is whole.
pub(super) fn enter(
    init: &Path,
    words: &str,
    hostname: Option<&str>,
    handover: &Handover,
) -> LoadFailure {
    let failed = |source: io::Error| LoadFailure::Root { what: NEW_ROOT.to_owned(), source };
    if let Err(error) = prepare(words, handover) {
        return failed(error);
    }
    // From here on there is no way back.
    match cross() {
        Ok(()) => {}
        Err(error) => end(&failed(error)),
    }
    if let Some(name) = hostname {
        // A system whose image says another name takes that.
        let _ = rustix::system::sethostname(name.as_bytes());
    }
    // A system without a node that seeds is still a system.
    if let Err(error) = booted::spawn() {
        tracing::warn!(%error, "this node does not go on seeding");
    }
    let modes = keyboard::pause();
    let error = become_init(init);
    drop(modes);
    end(&LoadFailure::Root { what: init.display().to_string(), source: error })
}

/// What can fail without harm.
fn prepare(words: &str, handover: &Handover) -> io::Result<()> {
    let line = std::fs::read_to_string("/proc/cmdline")?;
    if let Some(whole) = with_words(&line, words) {
        std::fs::write(CMDLINE, whole)?;
        mount_bind(CMDLINE, "/proc/cmdline")?;
    }
    for dir in KEPT {
        std::fs::create_dir_all(Path::new(NEW_ROOT).join(&dir[1..]))?;
    }
    handover.save()
}

/// The command line with the words that it has not yet; none if there are none.
fn with_words(line: &str, words: &str) -> Option<String> {
    let has: Vec<&str> = line.split_ascii_whitespace().collect();
    let missing: Vec<&str> =
        words.split_ascii_whitespace().filter(|word| !has.contains(word)).collect();
    (!missing.is_empty()).then(|| format!("{} {}\n", line.trim(), missing.join(" ")))
}

fn cross() -> io::Result<()> {
    empty_initramfs();
    let _ = unmount("/tmp", UnmountFlags::DETACH);
    for dir in KEPT {
        mount_move(dir, Path::new(NEW_ROOT).join(&dir[1..]))?;
    }
    rustix::process::chdir(NEW_ROOT)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// Gives the memory of the initramfs back. Files that are still used stay until they are not.
fn empty_initramfs() {
    let is_memory = rustix::fs::statfs("/").is_ok_and(|stat| {
        [RAMFS_MAGIC, TMPFS_MAGIC].contains(&u64::try_from(stat.f_type).unwrap_or(0))
    });
    let Ok(root) = std::fs::symlink_metadata("/") else { return };
    if is_memory {
        delete_below(Path::new("/"), root.dev());
    }
}

/// Deletes what is below `dir` on the device `device`, and nothing that is mounted on it.
fn delete_below(dir: &Path, device: u64) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() {
            delete_below(&path, device);
            // A mount point stays.
            let _ = std::fs::remove_dir(&path);
        } else {
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// As the kernel starts a first process: standard streams on the console and no other file open, no
/// signal blocked or ignored, its environment. Threads end with the exec.
fn become_init(init: &Path) -> io::Error {
    init::take_console();
    // SAFETY: these are system calls on this process alone. What closes at the exec is not used after
    // it, and is still there if it fails.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
        // The standard library hands the mask on as it is, and the agent has blocked some.
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
    Command::new(init).env_clear().env("HOME", "/").env("TERM", "linux").exec()
}

/// Nothing is left that could try again: says so, and the machine begins anew.
fn end(error: &LoadFailure) -> ! {
    init::take_console();
    let reason = crate::failed::chain(error);
    let failure: Failure = error.failure();
    for line in failure_screen(failure, &reason).lines() {
        eprintln!("{line}");
    }
    std::thread::sleep(LAST_WORDS);
    init::restart(RebootCommand::Restart)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn only_words_that_are_missing_are_added() {
        let check = |line, words, expect: Option<&str>| {
            assert_eq!(with_words(line, words).as_deref(), expect, "{line} + {words}");
        };
        check("quiet a=1\n", "a=1 b=2", Some("quiet a=1 b=2\n"));
        check("quiet a=1\n", "quiet", None);
        check("quiet\n", "", None);
    }

    #[test]
    fn an_init_is_found_through_links_as_the_system_follows_them() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(find_init(root.path()), Err(LoadFailure::NoInit { .. })));
        let program = root.path().join("lib/systemd/systemd");
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        std::fs::create_dir_all(root.path().join("usr/sbin")).unwrap();
        symlink("usr/sbin", root.path().join("sbin")).unwrap();
        symlink("/lib/systemd/systemd", root.path().join("usr/sbin/init")).unwrap();
        std::fs::write(&program, "").unwrap();
        assert!(matches!(find_init(root.path()), Err(LoadFailure::NoInit { .. })), "no program");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_init(root.path()).unwrap(), Path::new("/sbin/init"));
    }

    #[test]
    fn everything_below_is_deleted_on_its_own_device_alone() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::fs::write(root.path().join("a/b/c"), "c").unwrap();
        symlink("/etc", root.path().join("link")).unwrap();
        let device = std::fs::metadata(root.path()).unwrap().dev();
        delete_below(root.path(), device + 1);
        assert!(root.path().join("a/b/c").exists());
        delete_below(root.path(), device);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(Path::new("/etc").exists());
    }
}
