//! The agent's program in a terminal of tmux, with real keys: what a person sees and does.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::lab::Lab;

const DEADLINE: Duration = Duration::from_secs(60);

const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A terminal of its own server of tmux, which ends with it.
pub(crate) struct Terminal {
    dir: tempfile::TempDir,
}

impl Terminal {
    /// Starts the agent in a terminal of this size.
    pub(crate) fn new(lab: &Lab, width: u16, height: u16) -> Self {
        let terminal = Self { dir: tempfile::tempdir().unwrap() };
        let agent = format!(
            "exec '{}' run --no-init --interface none --retry-ms 200 --keyboard --server {} --mac {} \
             --root '{}' --then 'save={}'",
            env!("CARGO_BIN_EXE_boottorrent-agent"),
            lab.server.url(),
            lab.node(),
            lab.root().display(),
            lab.saved().display(),
        );
        let (width, height) = (width.to_string(), height.to_string());
        terminal.tmux(&["new-session", "-d", "-x", &width, "-y", &height, &agent]);
        terminal
    }

    /// Presses keys, by tmux's names for them.
    pub(crate) fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    pub(crate) fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height]);
    }

    /// Waits until the screen has this text; the screen.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let screen = self.tmux(&["capture-pane", "-p"]);
            if screen.contains(text) {
                return screen;
            }
            assert!(Instant::now() < deadline, "no {text:?} on\n{screen}");
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Waits for what the agent does out of sight.
    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so() {
            assert!(Instant::now() < deadline, "not yet: {what}");
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.dir.path().join("socket")).args(["-f", "/dev/null"]).args(args);
        let out = command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).output();
        let out = out.expect("these tests need tmux: `cargo xtask setup` installs it");
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "tmux {args:?}: {error}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let socket = self.dir.path().join("socket");
        // It may have ended with the agent.
        let _ = Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
    }
}
