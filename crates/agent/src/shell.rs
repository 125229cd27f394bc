//! The rescue shell: busybox on the console, for whom the node waits, if the lab lets him.

use std::process::{Command, Stdio};

use boot::manifest::Shell;

use crate::node::Node;
use crate::{keyboard, password};

/// The shell of phase 1.
const BUSYBOX: &str = "bin/busybox";

/// Runs a shell until it is left, if whoever wants it may have it. What goes on in other threads, such
/// as a download, goes on.
pub(crate) fn run(node: &Node) {
    let console = &node.console;
    console.end_progress();
    match &node.shell {
        Shell::Allowed => {}
        Shell::Password { hash } if password::ask(node, "the shell", hash) => {}
        Shell::Password { .. } => return,
        Shell::Forbidden | Shell::Unknown => return console.say("This lab gives nobody a shell."),
    }
    console.say("A shell. `exit` goes on with the boot, `reboot -f` begins it anew.");
    let pause = keyboard::pause();
    let mut command = Command::new(node.options.root.join(BUSYBOX));
    command.arg("sh").env("PATH", "/sbin:/bin:/usr/sbin:/usr/bin").env("PS1", "boottorrent# ");
    command.stdin(Stdio::null());
    keyboard::give_last_used(&mut command);
    let ended = command.spawn().and_then(|mut child| child.wait());
    console.reopen();
    drop(pause);
    match ended {
        Ok(_) => console.say("The shell is left; the boot goes on."),
        Err(error) => console.say(&format!("There is no shell: {BUSYBOX}: {error}")),
    }
}
