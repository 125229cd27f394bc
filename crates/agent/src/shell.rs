//! The rescue shell: busybox on the console, for whom the node waits.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use crate::keyboard;
use crate::node::Node;

/// The shell of phase 1.
const BUSYBOX: &str = "bin/busybox";

/// Runs a shell until it is left. What goes on in other threads, such as a download, goes on.
pub(crate) fn run(node: &Node) {
    let console = &node.console;
    console.end_progress();
    console.say("A shell. `exit` goes on with the boot, `reboot -f` begins it anew.");
    let pause = keyboard::pause();
    let mut command = Command::new(node.options.root.join(BUSYBOX));
    command.arg("sh").env("PATH", "/sbin:/bin:/usr/sbin:/usr/bin").env("PS1", "boottorrent# ");
    // The console where a key was pressed last is where the person is.
    if let Some((input, output, error)) = keyboard::last_used() {
        command.stdin(input).stdout(output).stderr(error);
        // SAFETY: both are system calls that are allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                // A session of its own with the console as its terminal, so that Ctrl+C works.
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 1);
                Ok(())
            });
        }
    } else {
        command.stdin(Stdio::null());
    }
    let ended = command.spawn().and_then(|mut child| child.wait());
    console.reopen();
    drop(pause);
    match ended {
        Ok(_) => console.say("The shell is left; the boot goes on."),
        Err(error) => console.say(&format!("There is no shell: {BUSYBOX}: {error}")),
    }
}
