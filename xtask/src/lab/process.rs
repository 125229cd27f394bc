//! A process inside a lab: started in a namespace, watched, and accounted for at its end.
//!
//! One thread per process waits for its end, so the moment it ends is known to well under a
//! millisecond; another reads its output if somebody wants to know of a line the moment it is
//! written. `std::process::Child` is not used for waiting as it cannot report CPU time.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// How a process ended and what it had used. Times of its own children that it waited for count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exit {
    /// Exit code, or the negated number of the signal that ended it.
    pub(crate) code: i32,
    pub(crate) at: Instant,
    pub(crate) cpu: Duration,
}

type OnLine = Box<dyn FnMut(&str) + Send>;
type OnExit = Box<dyn FnOnce(Exit) + Send>;

/// A command to start in a lab.
pub(crate) struct Spawn {
    name: String,
    argv: Vec<OsString>,
    held: bool,
    on_line: Option<OnLine>,
    on_exit: Option<OnExit>,
}

impl Spawn {
    /// `name` names the log file; it must be unique among the processes of a run.
    pub(crate) fn new(name: impl Into<String>, program: impl Into<OsString>) -> Self {
        let argv = vec![program.into()];
        Self { name: name.into(), argv, held: false, on_line: None, on_exit: None }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.argv.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Another name for the log.
    pub(crate) fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The process gets a pipe as standard input and is expected to wait for the line that
    /// [`Process::release`] writes: an interpreter's start is not part of a transfer.
    pub(crate) fn held(mut self) -> Self {
        self.held = true;
        self
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Called with each line of standard output as it is written.
    pub(crate) fn on_line(mut self, on_line: impl FnMut(&str) + Send + 'static) -> Self {
        self.on_line = Some(Box::new(on_line));
        self
    }

    /// Called once at the end.
    pub(crate) fn on_exit(mut self, on_exit: impl FnOnce(Exit) + Send + 'static) -> Self {
        self.on_exit = Some(Box::new(on_exit));
        self
    }

    pub(super) fn start(self, namespace: &str, dir: &Path, logs: &Path) -> Result<Process> {
        let log = logs.join(format!("{}.log", self.name));
        let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).args(&self.argv).current_dir(dir);
        // A backtrace at the end of a log hides the sentence that says what is wrong.
        command.env("RUST_BACKTRACE", "0");
        command.stdin(if self.held { Stdio::piped() } else { Stdio::null() });
        command.stderr(file.try_clone()?);
        if self.on_line.is_some() {
            command.stdout(Stdio::piped());
        } else {
            command.stdout(file.try_clone()?);
        }
        let mut child = command.spawn().with_context(|| format!("starting {:?}", self.argv))?;
        let pid = i32::try_from(child.id()).context("a pid beyond i32")?;
        if let (Some(on_line), Some(stdout)) = (self.on_line, child.stdout.take()) {
            thread::spawn(move || copy_lines(stdout, file, on_line));
        }
        let shared = Arc::new(Shared { exit: Mutex::new(None), ended: Condvar::new() });
        let reaper = Arc::clone(&shared);
        let on_exit = self.on_exit;
        thread::spawn(move || {
            let exit = reaper.reap(pid);
            if let Some(on_exit) = on_exit {
                on_exit(exit);
            }
        });
        Ok(Process { name: self.name, pid, stdin: child.stdin.take(), shared, log })
    }
}

/// A started process. Dropping it kills it.
pub(crate) struct Process {
    name: String,
    pid: i32,
    stdin: Option<ChildStdin>,
    shared: Arc<Shared>,
    log: std::path::PathBuf,
}

impl Process {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its number; of somebody else once it has ended.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Lets a held process go.
    pub(crate) fn release(&mut self) -> Result<()> {
        if let Some(mut stdin) = self.stdin.take() {
            stdin.write_all(b"go\n").with_context(|| format!("releasing {}", self.name))?;
        }
        Ok(())
    }

    /// How it ended, if it has.
    pub(crate) fn exit(&self) -> Option<Exit> {
        *self.shared.lock()
    }

    /// Sends a signal, unless the process has ended.
    pub(crate) fn signal(&self, signal: i32) {
        let exit = self.shared.lock();
        // The lock keeps the reaper from freeing the pid for somebody else in between.
        if exit.is_none() {
            kill(self.pid, signal);
        }
    }

    /// Waits for the end for a limited time.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<Exit> {
        let guard = self.shared.lock();
        let waited = self.shared.ended.wait_timeout_while(guard, timeout, |exit| exit.is_none());
        *waited.expect("no thread panics with this lock").0
    }

    /// Waits for success; anything else is an error that shows the end of the log.
    pub(crate) fn succeed(&self, timeout: Duration) -> Result<Exit> {
        match self.wait(timeout) {
            Some(exit) if exit.code == 0 => Ok(exit),
            Some(exit) => bail!("{} ended with {}:\n{}", self.name, exit.code, self.log_tail()),
            None => bail!("{} is not done after {timeout:?}:\n{}", self.name, self.log_tail()),
        }
    }

    /// Asks it to end, insists after `grace`.
    pub(crate) fn stop(&self, grace: Duration) -> Option<Exit> {
        self.signal(libc::SIGTERM);
        self.wait(grace).or_else(|| {
            self.signal(libc::SIGKILL);
            self.wait(grace)
        })
    }

    /// Waits until the process listens on a TCP port, without connecting to it.
    pub(crate) fn wait_listening(&self, port: u16) -> Result<()> {
        let found = wait_until(Duration::from_secs(20), || {
            self.exit().is_some() || listens(self.pid, port)
        });
        ensure!(
            found && self.exit().is_none(),
            "{} does not listen on port {port}:\n{}",
            self.name,
            self.log_tail()
        );
        Ok(())
    }

    /// What it has written so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of its log, for an error message.
    pub(crate) fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n");
        format!("{tail}\n({})", self.log.display())
    }

    /// Anonymous memory now, in bytes: what the process keeps beside files and shared memory.
    pub(crate) fn anonymous_len(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
    }
}

struct Shared {
    exit: Mutex<Option<Exit>>,
    ended: Condvar,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Exit>> {
        self.exit.lock().expect("no thread panics with this lock")
    }

    /// Waits for the end without freeing the pid, then frees it under the lock.
    fn reap(&self, pid: i32) -> Exit {
        // SAFETY: waitid and wait4 only write to the zeroed structures given to them.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED | libc::WNOWAIT;
            while libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) == -1
                && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
            {
            }
        }
        let at = Instant::now();
        let mut guard = self.lock();
        let mut status = 0;
        // SAFETY: as above.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::wait4(pid, &mut status, 0, &mut usage);
            usage
        };
        let code = if libc::WIFSIGNALED(status) {
            -libc::WTERMSIG(status)
        } else {
            libc::WEXITSTATUS(status)
        };
        let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
        let exit = Exit { code, at, cpu };
        *guard = Some(exit);
        self.ended.notify_all();
        exit
    }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000)
}

pub(super) fn kill(pid: i32, signal: i32) {
    // SAFETY: kill has no memory effects here; callers pass pids of the lab's own processes.
    unsafe {
        libc::kill(pid, signal);
    }
}

fn copy_lines(stdout: ChildStdout, mut log: File, mut on_line: OnLine) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
        on_line(String::from_utf8_lossy(&line).trim_end());
        let _ = log.write_all(&line);
        line.clear();
    }
}

fn listens(pid: i32, port: u16) -> bool {
    // Columns: slot, local address, remote address, state; 0A is LISTEN.
    let wanted = format!(":{port:04X}");
    ["tcp", "tcp6"].iter().any(|table| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        text.lines().any(|line| {
            let mut columns = line.split_whitespace().skip(1);
            let local = columns.next().unwrap_or_default();
            local.ends_with(&wanted) && columns.nth(1) == Some("0A")
        })
    })
}

/// Looks every few milliseconds whether something has become true.
pub(crate) fn wait_until(timeout: Duration, mut is_true: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        if is_true() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
