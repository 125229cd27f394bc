//! Programs of the system that builds need: mmdebstrap, dnf, mksquashfs, tar.
//!
//! Each runs so that nothing of it can outlive us: in mount and process namespaces of its own, whose
//! first process the kernel kills when this program ends, however it ends. What was mounted there is
//! then gone, too. (util-linux's `unshare` and `setpriv` do this, which every Linux has.)

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use crate::host;
use crate::tree::root::Tree;

/// How many of a program's last lines an error shows: enough for apt's and dnf's explanations.
const LAST_LINES: usize = 12;

/// How long a line is kept: mmdebstrap prints whole command lines.
const LINE_LEN_MAX: usize = 400;

/// How soon Ctrl+C is noticed.
const STOP_INTERVAL: Duration = Duration::from_millis(50);

/// What long work says of itself, and what can end it.
pub struct Work<'a> {
    /// Hears of steps and progress.
    pub tell: &'a dyn Fn(Event<'_>),
    /// Set by whoever wants the work to end: Ctrl+C.
    pub stop: &'a AtomicBool,
}

/// Something to show while one waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A step begins.
    Step(&'a str),
    /// How far the step is.
    Progress {
        /// What is done, in bytes or parts.
        done: u64,
        /// Of these.
        total: u64,
    },
    /// Something that a person should know, though it goes on.
    Warning(&'a str),
}

impl Work<'_> {
    /// Says that a step begins, unless the work is to end.
    ///
    /// # Errors
    /// If it is to end.
    pub fn step(&self, step: &str) -> Result<(), CommandError> {
        if self.is_stopped() {
            return Err(CommandError::Interrupted);
        }
        (self.tell)(Event::Step(step));
        Ok(())
    }

    /// Whether the work is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not installed.
    #[error("{program} is not installed: install the package {package}")]
    Missing {
        /// The program.
        program: String,
        /// Debian's package.
        package: &'static str,
    },
    /// It cannot be run.
    #[error("cannot run {command}")]
    Run {
        /// With its arguments.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It failed.
    #[error("{command}\nended with {status}; its last lines:\n{}", indent(last_lines))]
    Failed {
        /// With its arguments.
        command: String,
        /// Its exit status.
        status: ExitStatus,
        /// What it said at the end.
        last_lines: Vec<String>,
    },
    /// Ctrl+C.
    #[error("interrupted: nothing was changed")]
    Interrupted,
}

fn indent(lines: &[String]) -> String {
    match lines {
        [] => "    (it said nothing)".to_owned(),
        lines => lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n"),
    }
}

/// A program and its arguments.
pub struct Call {
    program: &'static str,
    package: &'static str,
    args: Vec<OsString>,
    envs: Vec<(&'static str, OsString)>,
    within: Option<OwnedFd>,
    proc: PathBuf,
    stdin: Option<std::fs::File>,
}

impl Call {
    /// A program of this Debian package.
    pub fn new(program: &'static str, package: &'static str) -> Self {
        let proc = PathBuf::from("/proc");
        Self { program, package, args: vec![], envs: vec![], within: None, proc, stdin: None }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name, value.as_ref().to_owned()));
        self
    }

    /// Has it find its processes in a tree that it makes its root.
    pub fn proc(mut self, tree: &Tree) -> Self {
        self.proc = tree.whole().to_owned();
        self.proc.push("proc");
        self
    }

    /// The folder that it runs in, whatever its name leads to by then.
    pub fn within(mut self, folder: OwnedFd) -> Self {
        self.within = Some(folder);
        self
    }

    /// What it reads.
    pub fn stdin(mut self, file: std::fs::File) -> Self {
        self.stdin = Some(file);
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// If it is missing, fails, or the work is to end.
    pub fn run(self, work: &Work<'_>) -> Result<(), CommandError> {
        self.run_with(work, &mut |_| {})
    }

    /// Runs it, and hands on each line that it prints.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with(
        mut self,
        work: &Work<'_>,
        line: &mut dyn FnMut(&str),
    ) -> Result<(), CommandError> {
        let shown = self.shown();
        if !is_installed(self.program) {
            return Err(CommandError::Missing {
                program: self.program.to_owned(),
                package: self.package,
            });
        }
        let mut child = self
            .command()
            .spawn()
            .map_err(|source| CommandError::Run { command: shown.clone(), source })?;
        let last_lines = follow(&mut child, work, line);
        let status =
            child.wait().map_err(|source| CommandError::Run { command: shown.clone(), source })?;
        if work.is_stopped() {
            return Err(CommandError::Interrupted);
        }
        match status.success() {
            true => Ok(()),
            false => {
                Err(CommandError::Failed { command: shown, status, last_lines: last_lines.into() })
            }
        }
    }

    /// As a person would have typed it.
    fn shown(&self) -> String {
        let mut text = self.program.to_owned();
        for arg in &self.args {
            let arg = arg.to_string_lossy();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+%@".contains(c);
            match !arg.is_empty() && arg.chars().all(plain) {
                true => text.push_str(&format!(" {arg}")),
                false => text.push_str(&format!(" '{}'", arg.replace('\'', "'\\''"))),
            }
        }
        text
    }

    fn command(&mut self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if rustix::process::geteuid().is_root() {
            command.args(["unshare", "--mount", "--propagation", "private", "--pid", "--fork"]);
            let mut mount = OsString::from("--mount-proc=");
            mount.push(&self.proc);
            command.arg("--kill-child=KILL").arg(mount).arg("--");
        }
        command.arg(self.program).args(&self.args);
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        // Messages are read by people who search for them, and by us.
        command.env("LC_ALL", "C.UTF-8");
        if let Some(folder) = &self.within {
            command.current_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        }
        command.stdin(self.stdin.take().map_or_else(Stdio::null, Stdio::from));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Whether a program is in `PATH` or where the system's programs are.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir| dir.join(program)).any(|file| host::is_file(&file))
}

/// Says that something needs root, unless we are.
///
/// # Errors
/// If we are not.
pub fn need_root(what: &'static str) -> Result<(), crate::error::ImageError> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(crate::error::ImageError::NoRoot(what)),
    }
}

/// Reads what a program says until it says no more, and kills it when the work is to end.
fn follow(child: &mut Child, work: &Work<'_>, line: &mut dyn FnMut(&str)) -> VecDeque<String> {
    let (sender, lines) = mpsc::channel();
    let mut readers = vec![];
    if let Some(out) = child.stdout.take() {
        readers.push(reader(out, sender.clone()));
    }
    if let Some(err) = child.stderr.take() {
        readers.push(reader(err, sender));
    }
    let mut last = VecDeque::new();
    let mut killed = false;
    loop {
        match lines.recv_timeout(STOP_INTERVAL) {
            Ok(text) => {
                line(&text);
                if last.len() == LAST_LINES {
                    last.pop_front();
                }
                last.push_back(text);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if work.is_stopped() && !killed {
            // It may have ended by itself meanwhile.
            let _ = child.kill();
            killed = true;
        }
    }
    for reader in readers {
        // A thread that only reads and sends does not panic.
        let _ = reader.join();
    }
    last
}

/// Sends each line: one ends with a line feed, or with the carriage return of a progress bar.
fn reader(mut from: impl Read + Send + 'static, to: Sender<String>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut line: Vec<u8> = vec![];
        let mut buf = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buf) {
            for &byte in &buf[..count] {
                if !matches!(byte, b'\n' | b'\r') {
                    if line.len() < LINE_LEN_MAX {
                        line.push(byte);
                    }
                    continue;
                }
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if !text.is_empty() && to.send(text).is_err() {
                    return;
                }
            }
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if !text.is_empty() {
            // Nobody listens any more: then nobody is to hear it.
            let _ = to.send(text);
        }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Work that nobody watches.
    pub(crate) fn with_work<T>(test: impl FnOnce(&Work<'_>) -> T) -> T {
        test(&Work { tell: &|_| {}, stop: &AtomicBool::new(false) })
    }

    fn sh(script: &str) -> Call {
        Call::new("sh", "dash").args(["-c", script])
    }

    #[test]
    fn a_failure_has_command_status_and_last_lines() {
        let error = with_work(|work| sh("echo one; echo two >&2; exit 7").run(work)).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("sh -c 'echo one; echo two >&2; exit 7'\n"), "{text}");
        assert!(text.contains("exit status: 7"), "{text}");
        assert!(text.contains("one") && text.contains("two"), "{text}");
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let error = with_work(|work| sh("seq 1 1000; exit 1").run(work)).unwrap_err();
        let CommandError::Failed { last_lines, .. } = error else { panic!("{error}") };
        assert_eq!(last_lines.len(), LAST_LINES);
        assert_eq!(last_lines.last().map(String::as_str), Some("1000"));
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let call = Call::new("no-such-program", "its-package");
        let text = with_work(|work| call.run(work)).unwrap_err().to_string();
        assert_eq!(text, "no-such-program is not installed: install the package its-package");
    }

    #[test]
    fn each_step_of_a_progress_bar_is_a_line() {
        let mut lines = vec![];
        with_work(|work| {
            sh("printf '1/2\\r2/2\\n'").run_with(work, &mut |line| lines.push(line.to_owned()))
        })
        .unwrap();
        assert_eq!(lines, ["1/2", "2/2"]);
    }

    #[test]
    fn a_program_ends_when_the_work_does() {
        let stop = AtomicBool::new(false);
        let work = Work { tell: &|_| {}, stop: &stop };
        // It would never end; its first line tells that it runs.
        let result = sh("echo up; exec tail -f /dev/null")
            .run_with(&work, &mut |_| stop.store(true, Ordering::Relaxed));
        assert!(matches!(result, Err(CommandError::Interrupted)), "{result:?}");
    }
}
