//! What the first process of a system owes it: mounts, consoles, orphans, signals, and never to end.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::OnceLock;
use std::time::Duration;

use boot::{Failure, Stage};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, reboot};

use crate::console::{Console, Mark, failure_screen};
use crate::node::Node;
use crate::report::Reporter;

/// One file system of phase 1.
struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    data: Option<&'static std::ffi::CStr>,
}

const NO_PROGRAMS: MountFlags =
    MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// In this order. What an image takes is checked against the free memory before it is downloaded, so
/// the folder of images may have all of it: the usual half would be wasted. It has a mount of its own,
/// as `/run` becomes that of the image's system, which nobody but root may look into.
const MOUNTS: [Mount; 7] = [
    Mount { kind: "proc", target: "/proc", flags: NO_PROGRAMS, data: None },
    Mount { kind: "sysfs", target: "/sys", flags: NO_PROGRAMS, data: None },
    Mount { kind: "devtmpfs", target: "/dev", flags: MountFlags::NOSUID, data: Some(c"mode=0755") },
    Mount { kind: "devpts", target: "/dev/pts", flags: NO_PROGRAMS, data: Some(c"mode=0620") },
    Mount {
        kind: "tmpfs",
        target: "/run",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: Some(c"mode=0755"),
    },
    Mount {
        kind: "tmpfs",
        target: "/run/boottorrent",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: Some(c"size=100%,nr_inodes=0,mode=0700"),
    },
    Mount {
        kind: "tmpfs",
        target: "/tmp",
        flags: MountFlags::NOSUID.union(MountFlags::NODEV),
        data: Some(c"mode=1777"),
    },
];

/// Seconds until a kernel that has lost its first process starts the machine anew: somebody can take
/// a photograph, and a fleet comes back by itself.
const KERNEL_PANIC_S: &str = "30";

/// As long a look at the agent's own last words.
const PANIC_WAIT: Duration = Duration::from_secs(20);

/// Mounts what phase 1 needs. What is wrong is returned in sentences: there is no console yet.
pub(crate) fn mount_all() -> Vec<String> {
    let mut problems = vec![];
    for each in &MOUNTS {
        // It is there in the initramfs, but for those on /dev.
        let _ = std::fs::create_dir_all(each.target);
        match mount(each.kind, each.target, each.kind, each.flags, each.data) {
            // Mounted by the kernel or an initramfs of somebody else.
            Ok(()) | Err(Errno::BUSY) => {}
            Err(errno) => problems.push(format!("cannot mount {}: {errno}", each.target)),
        }
    }
    problems
}

/// Standard input, output and error of this process and its children are the kernel's console.
pub(crate) fn take_console() {
    if let Ok(console) = File::options().read(true).write(true).open("/dev/console") {
        let _ = rustix::stdio::dup2_stdin(&console);
        let _ = rustix::stdio::dup2_stdout(&console);
        let _ = rustix::stdio::dup2_stderr(&console);
    }
}

/// Whatever goes wrong from here on ends in another boot, not in a machine that stands still.
pub(crate) fn never_stand_still(cmdline: &str) {
    if !cmdline.split_ascii_whitespace().any(|word| word.starts_with("panic=")) {
        let _ = std::fs::write("/proc/sys/kernel/panic", KERNEL_PANIC_S);
    }
    // Ctrl-Alt-Del is a signal for us, instead of a reset in the middle of things.
    let _ = reboot(RebootCommand::CadOff);
}

/// Who is told when this program panics.
static WITNESSES: OnceLock<(Console, Reporter)> = OnceLock::new();

/// A panic in any thread is shown, reported, and followed by a new boot of the machine.
pub(crate) fn survive_panics(node: &Node) {
    let _ = WITNESSES.set((node.console.clone(), node.reporter()));
    std::panic::set_hook(Box::new(|panic| {
        // First, in case the thread that panics holds what the words below have to wait for.
        let last = std::thread::Builder::new().name("last".to_owned()).spawn(|| {
            std::thread::sleep(PANIC_WAIT);
            restart(RebootCommand::Restart)
        });
        if last.is_err() {
            restart(RebootCommand::Restart);
        }
        let reason = panic.to_string().replace('\n', " ");
        if let Some((console, reporter)) = WITNESSES.get() {
            let retry_in_s = PANIC_WAIT.as_secs();
            let failure = Failure::Internal;
            console.show(&failure_screen(failure, &reason));
            console.mark(&Mark::failed(failure, &reason, retry_in_s));
            console.show("The machine is started anew.");
            reporter.submit(Stage::Failed { failure, reason, retry_in_s });
        }
        // A panic that goes on ends the process, and the kernel with it, before anybody has read.
        loop {
            std::thread::park();
        }
    }));
}

/// Ctrl-Alt-Del and the words that busybox's `reboot`, `halt` and `poweroff` have for a first
/// process. To be called before there is another thread.
pub(crate) fn obey_signals(console: Console) {
    let wanted = [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2];
    // SAFETY: the set is initialised by sigemptyset before anything reads it.
    let set = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in wanted {
            libc::sigaddset(&raw mut set, signal);
        }
        // Of this thread and all that it starts: only sigwait takes them.
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    };
    let wait = move || {
        let mut signal = 0;
        // SAFETY: both are valid for the time of the call.
        while unsafe { libc::sigwait(&raw const set, &raw mut signal) } != 0 {}
        let (what, command) = match signal {
            libc::SIGUSR1 => ("halted", RebootCommand::Halt),
            libc::SIGUSR2 => ("switched off", RebootCommand::PowerOff),
            _ => ("started anew", RebootCommand::Restart),
        };
        console.say(&format!("The machine is {what}."));
        restart(command);
    };
    // Without the thread signals wait for ever, as for any first process without handlers.
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(wait);
}

/// The end of this boot.
pub(crate) fn restart(command: RebootCommand) -> ! {
    rustix::fs::sync();
    let _ = reboot(command);
    // Not permitted, outside PID 1; there the kernel does not come back.
    std::process::exit(1);
}

/// Takes leave of children that have ended, whoever started them: orphans become ours.
pub(crate) fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// Switches all network interfaces off.
pub(crate) fn network_down() {
    let Ok(entries) = std::fs::read_dir("/sys/class/net") else { return };
    for entry in entries.flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|name| *name != "lo")
            && let Err(error) = interface_down(name)
        {
            tracing::info!(%error, "{name} cannot be switched off");
        }
    }
}

fn interface_down(name: &str) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: an `ifreq` of zeros is one with an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One is left for the NUL at the end.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: both calls read and write no more than an `ifreq`, and `ifr_flags` is the member that
    // they are defined with.
    unsafe {
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_flags &= !(libc::IFF_UP as libc::c_short);
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
