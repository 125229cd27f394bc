//! QEMU's command line: what the image says, and what is added where it says nothing. Pure.

use std::net::SocketAddrV4;

use boot::image::Display;

use super::{GuestFailure, vnc};

/// The program, in the extension.
pub(super) const PROGRAM: &str = "/usr/bin/qemu-system-x86_64";

/// What QEMU takes beside the guest's memory: some 60 MiB of its own without a screen, the code that it
/// translates where there is no KVM (32 MiB and more), and the first pages of what the guest writes.
pub(super) const OVERHEAD: u64 = 160 << 20;

/// What a guest gets at least if nobody says how much: DOS would do with less, nothing newer would.
pub(super) const MEMORY_MIN: u64 = 64 << 20;

/// Of the memory that is left a guest gets so much; the rest is for what it writes, which stays in
/// memory, and for the swarm's sockets.
const SHARE: (u64, u64) = (3, 4);

/// No guest gets more than this unasked: a larger one has to wait until the kernel has cleared it.
const MEMORY_MAX: u64 = 16 << 30;

/// Options that say where the guest is seen.
const DISPLAYS: &[&str] =
    &["display", "nographic", "vnc", "curses", "sdl", "spice", "full-screen", "serial"];

/// Options that say what the guest runs on.
const ACCELERATORS: &[&str] = &["accel", "enable-kvm"];

/// Options that open QEMU's monitor, which could reach everything on the node.
const MONITORS: &[&str] = &["monitor", "mon", "qmp", "qmp-pretty"];

/// What a node has for a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Bytes of memory that are not needed for anything else.
    pub(super) memory: u64,
    pub(super) processors: u32,
    /// The processor can run guests itself, and the kernel has what that takes.
    pub(super) kvm: bool,
}

/// All arguments of QEMU. `args` are the image's; what the guest writes stays if `keeps`.
///
/// # Errors
/// If there is not enough memory.
pub(super) fn arguments(
    args: &[String],
    display: Display,
    left: Left,
    keeps: bool,
) -> Result<Vec<String>, GuestFailure> {
    let has = |options: &[&str]| options.iter().any(|option| has(args, option));
    let mut all: Vec<String> = vec![];
    let mut add = |words: &[&str]| all.extend(words.iter().map(|word| (*word).to_owned()));
    // What the guest writes goes into files without a name, in a folder in memory.
    if !keeps && !has(&["snapshot"]) {
        add(&["-snapshot"]);
    }
    if !has(ACCELERATORS) {
        match left.kvm {
            true if has(&["cpu"]) => add(&["-accel", "kvm"]),
            true => add(&["-accel", "kvm", "-cpu", "host"]),
            false => add(&["-accel", "tcg"]),
        }
    }
    let memory = memory(args, left.memory)?;
    if !has(&["m"]) {
        add(&["-m", &format!("{}M", memory >> 20)]);
    }
    if !has(&["smp"]) {
        // One is left for the swarm, if there are any to spare.
        let processors = if left.processors > 2 { left.processors - 1 } else { left.processors };
        add(&["-smp", &processors.max(1).to_string()]);
    }
    if !has(MONITORS) {
        add(&["-monitor", "none"]);
    }
    if !has(DISPLAYS) {
        match display {
            Display::Screen | Display::Unknown => add(&["-display", "curses"]),
            Display::Serial => {
                let line = "stdio,id=console,signal=off";
                add(&["-display", "none", "-chardev", line, "-serial", "chardev:console"]);
            }
            Display::Vnc { listen } => {
                let number = listen.port().saturating_sub(5900);
                let secret = format!("secret,id=vnc,file={}", vnc::PASSWORD_FILE);
                let place = format!("{}:{number},password-secret=vnc", listen.ip());
                add(&["-object", &secret, "-vnc", &place]);
            }
        }
    }
    all.extend_from_slice(args);
    Ok(all)
}

/// Whether QEMU needs the terminal: for its screen of text, or for the guest's serial line.
pub(super) fn needs_terminal(args: &[String], display: Display) -> bool {
    listens(args, display).is_none()
}

/// Where the guest is seen by VNC, unless the image's arguments say where it is seen.
pub(super) fn listens(args: &[String], display: Display) -> Option<SocketAddrV4> {
    let own = DISPLAYS.iter().any(|option| has(args, option));
    match display {
        Display::Vnc { listen } if !own => Some(listen),
        Display::Vnc { .. } | Display::Screen | Display::Serial | Display::Unknown => None,
    }
}

/// Bytes of memory that a guest with these arguments takes at least, with what runs it.
pub(crate) fn need(args: &[String]) -> u64 {
    asked(args).unwrap_or(MEMORY_MIN).saturating_add(OVERHEAD)
}

/// The guest's memory in bytes, of `left`.
fn memory(args: &[String], left: u64) -> Result<u64, GuestFailure> {
    let room = left.saturating_sub(OVERHEAD);
    let (least, most) = match asked(args) {
        Some(asked) => (asked, asked),
        None => (MEMORY_MIN, (room / SHARE.1 * SHARE.0).clamp(MEMORY_MIN, MEMORY_MAX)),
    };
    match least <= room {
        true => Ok(most),
        false => Err(GuestFailure::Memory { asked: least, left }),
    }
}

/// What `-m` says, in bytes: `512`, `1G`, `size=1G,slots=2`. Nothing if it is not understood, which is
/// then for QEMU to refuse.
fn asked(args: &[String]) -> Option<u64> {
    let at = args.iter().position(|arg| matches!(arg.as_str(), "-m" | "--m"))?;
    let first = args.get(at + 1)?.split(',').next()?;
    let text = first.strip_prefix("size=").unwrap_or(first);
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "M" => 20,
        "K" => 10,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Whether an option is there, with one dash or two.
fn has(args: &[String], option: &str) -> bool {
    args.iter().any(|arg| {
        let name = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'));
        name == Some(option)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[track_caller]
    fn check(args: &str, display: Display, left: (u64, u32, bool), expect: &str) {
        let (memory, processors, kvm) = (left.0 * MIB, left.1, left.2);
        let left = Left { memory, processors, kvm };
        let found = arguments(&words(args), display, left, false).unwrap();
        assert_eq!(found.join(" "), expect);
    }

    #[test]
    fn what_the_image_does_not_say_is_added() {
        check(
            "-cdrom disc.iso",
            Display::Screen,
            (560, 4, true),
            "-snapshot -accel kvm -cpu host -m 300M -smp 3 -monitor none -display curses \
             -cdrom disc.iso",
        );
        check(
            "-hda a.qcow2",
            Display::Serial,
            (224, 1, false),
            "-snapshot -accel tcg -m 64M -smp 1 -monitor none -display none -chardev \
             stdio,id=console,signal=off -serial chardev:console -hda a.qcow2",
        );
        let vnc = Display::Vnc { listen: "10.0.0.5:5901".parse().unwrap() };
        check(
            "-fda a",
            vnc,
            (560, 2, false),
            "-snapshot -accel tcg -m 300M -smp 2 -monitor none -object \
             secret,id=vnc,file=/run/boottorrent/vnc -vnc 10.0.0.5:1,password-secret=vnc -fda a",
        );
    }

    #[test]
    fn what_the_image_says_stands() {
        check(
            "--snapshot -enable-kvm -m 1G -smp 2 -monitor stdio -nographic -fda a",
            Display::Screen,
            (2048, 4, true),
            "--snapshot -enable-kvm -m 1G -smp 2 -monitor stdio -nographic -fda a",
        );
        check(
            "-cpu qemu64 -m 64 -display none",
            Display::Screen,
            (300, 1, true),
            "-snapshot -accel kvm -smp 1 -monitor none -cpu qemu64 -m 64 -display none",
        );
    }

    #[test]
    fn what_a_guest_keeps_is_written_at_once() {
        let left = Left { memory: 560 * MIB, processors: 1, kvm: false };
        let all = |keeps| arguments(&words("-m 64"), Display::Serial, left, keeps).unwrap();
        let has_snapshot = |keeps| all(keeps).iter().any(|arg| arg == "-snapshot");
        assert!(has_snapshot(false) && !has_snapshot(true));
    }

    #[test]
    fn memory_is_read_as_qemu_reads_it() {
        let check = |args: &str, expect| assert_eq!(asked(&words(args)), expect, "{args}");
        check("-m 512", Some(512 * MIB));
        check("-m 512M", Some(512 * MIB));
        check("-fda a --m 2g", Some(2048 * MIB));
        check("-m size=1G,slots=2,maxmem=4G", Some(1024 * MIB));
        check("-m", None);
        check("-m much", None);
        check("-m 99999999999999999999", None);
        check("-machine q35", None);
    }

    #[test]
    fn a_guest_that_does_not_fit_is_not_started() {
        let left = |mib| Left { memory: mib * MIB, processors: 1, kvm: false };
        let fits =
            |args: &str, mib| arguments(&words(args), Display::Serial, left(mib), false).is_ok();
        assert!(fits("-m 512", 672) && !fits("-m 512", 671));
        assert!(fits("-fda a", 224) && !fits("-fda a", 223));
        assert_eq!(need(&words("-m 512")), 672 * MIB);
        assert_eq!(need(&words("-fda a")), 224 * MIB);
    }

    #[test]
    fn who_needs_the_terminal() {
        let vnc = Display::Vnc { listen: "10.0.0.5:5900".parse().unwrap() };
        assert!(needs_terminal(&words("-fda a"), Display::Screen));
        assert!(needs_terminal(&words("-fda a"), Display::Serial));
        assert!(!needs_terminal(&words("-fda a"), vnc));
        assert!(needs_terminal(&words("-nographic"), vnc));
    }
}
