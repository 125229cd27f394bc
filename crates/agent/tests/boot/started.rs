//! The agent's program, running.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::lab::Lab;

const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Started {
    child: Child,
    lines: Receiver<String>,
    /// What it has said so far.
    said: Vec<String>,
}

impl Started {
    pub(crate) fn new(lab: &Lab, args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_boottorrent-agent"))
            .args(["run", "--no-init", "--interface", "none", "--retry-ms", "200"])
            .args(["--server", &lab.server.url(), "--mac", &lab.node().to_string()])
            .arg("--root")
            .arg(lab.root())
            .arg("--then")
            .arg(format!("save={}", lab.saved().display()))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, said: vec![] }
    }

    /// Waits for a line with this in it, which may have come already.
    pub(crate) fn wait_for(&mut self, what: &str) {
        let deadline = Instant::now() + DEADLINE;
        if self.said.iter().any(|line| line.contains(what)) {
            return;
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(error) => panic!("{error}: no {what:?} in\n{}", self.said.join("\n")),
            };
            self.said.push(line.clone());
            if line.contains(what) {
                return;
            }
        }
    }

    pub(crate) fn type_keys(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for its end. Says what it said if that is not success.
    pub(crate) fn ends_well(&mut self) -> bool {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("no end of\n{}", self.said.join("\n")),
            }
        }
        let status = self.child.wait().unwrap();
        if !status.success() {
            eprintln!("{status}\n{}", self.said.join("\n"));
        }
        status.success()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
