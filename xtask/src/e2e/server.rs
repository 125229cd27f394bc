//! Our server in a slot of a lab: a folder made by `boottorrent init`, its settings, the process.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::lab::{Lab, Process, Slot, Spawn, wait_until};
use crate::{interrupt, release_binary};

/// Where HTTP is served.
pub(crate) const HTTP_PORT: u16 = 8_080;

/// One with a key of its own packs phase 1 first, with what machines of other cases leave of the processors.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// What the phase 1 of all labs has beside the usual: for the disk of the node in `guest`.
const PHASE1_MODULE: &str = "ext4";

const LOOK_INTERVAL: Duration = Duration::from_millis(300);

/// What a case sets; the rest is as the program has it when nothing is said.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// What nodes boot.
    pub(crate) image: &'static str,
    /// `auto`, `server`, `proxy` or `off`.
    pub(crate) dhcp: &'static str,
    pub(crate) tracker: bool,
    pub(crate) external_tracker: Option<&'static str>,
    pub(crate) seed_time_s: u64,
    /// How long the menu waits; 0 for none.
    pub(crate) menu_timeout_s: u64,
    /// `ipxe` or `pxelinux`.
    pub(crate) loader: &'static str,
    /// The layout of keyboards; the screen is a console then, too.
    pub(crate) keyboard: Option<&'static str>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image: "tiny",
            dhcp: "server",
            tracker: true,
            external_tracker: None,
            seed_time_s: 2,
            menu_timeout_s: 0,
            loader: "ipxe",
            keyboard: None,
        }
    }
}

impl Config {
    /// `Boottorrent.yaml` for the server in this slot.
    fn yaml(&self, slot: Slot) -> String {
        let trackers =
            self.external_tracker.map_or(String::new(), |url| format!("  trackers: {url}\n"));
        let consoles = match self.keyboard {
            None => "  cmdline: console=ttyS0,115200\n".to_owned(),
            Some(layout) => format!("console:\n  serial: ttyS0\n  keyboard: {layout}\n"),
        };
        format!(
            "version: 1\n\
             server:\n  interface: eth0\n  address: {}\n\
             boot:\n  default: {}\n  timeout: {}\n  seed_time: {}\n\
             dhcp:\n  mode: {}\n  ranges: 10.77.200.1-10.77.200.250\n\
             swarm:\n  tracker: {}\n{trackers}\
             phase1:\n  loader: {}\n  modules: [{PHASE1_MODULE}]\n{consoles}",
            slot.address(),
            self.image,
            self.menu_timeout_s,
            self.seed_time_s,
            self.dhcp,
            self.tracker,
            self.loader,
        )
    }
}

/// A lab's folder and, while it runs, its server.
pub(crate) struct Server<'a> {
    lab: &'a Lab,
    slot: Slot,
    dir: PathBuf,
    start_count: u32,
    process: Option<Process>,
}

impl<'a> Server<'a> {
    /// `boottorrent init`, then other settings than it wrote. It has a key, and so a phase 1, of its
    /// own.
    pub(crate) fn init(lab: &'a Lab, slot: Slot, config: &Config) -> Result<Self> {
        let dir = lab.slot_dir(slot).join("lab");
        let server = Self { lab, slot, dir, start_count: 0, process: None };
        let dir = server.dir.display().to_string();
        lab.run(slot, &[&release_binary()?.display().to_string(), "init", &dir])?;
        server.configure(config)?;
        Ok(server)
    }

    /// As [`Server::init`], with the key of a lab that was made before, and its phase 1: to pack one
    /// takes a quarter of a minute.
    pub(crate) fn init_as(lab: &'a Lab, slot: Slot, config: &Config, as_in: &Path) -> Result<Self> {
        let server = Self::init(lab, slot, config)?;
        for name in ["keys", "state/phase1"] {
            copy_all(&as_in.join(name), &server.dir.join(name))?;
        }
        Ok(server)
    }

    /// Other settings, for the next start.
    pub(crate) fn configure(&self, config: &Config) -> Result<()> {
        self.write("Boottorrent.yaml", &config.yaml(self.slot))
    }

    /// Writes a file of the lab.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    pub(crate) fn oss(&self) -> PathBuf {
        self.dir.join("oss")
    }

    /// `boottorrent start`, until it serves.
    pub(crate) fn start(&mut self) -> Result<()> {
        let process = self.spawn()?;
        let deadline = Instant::now() + START_TIMEOUT;
        while self.run(&["status", "-o", "json"]).is_err() {
            interrupt::check()?;
            if let Some(exit) = process.exit() {
                bail!("the server ended with {}:\n{}", exit.code, process.log_tail());
            }
            ensure!(
                Instant::now() < deadline,
                "the server does not serve:\n{}",
                process.log_tail()
            );
            std::thread::sleep(LOOK_INTERVAL);
        }
        self.process = Some(process);
        Ok(())
    }

    /// Starts it beside another DHCP server, where it must wait with its own; what it says.
    pub(crate) fn wait_with_dhcp(&mut self, timeout: Duration) -> Result<String> {
        let process = self.spawn()?;
        let waits = || process.log_tail().contains("DHCP waits until it is alone");
        let has_said = wait_until(timeout, || waits() || process.exit().is_some());
        let log = process.log_tail();
        ensure!(has_said && process.exit().is_none(), "the server does not wait:\n{log}");
        process.signal(libc::SIGKILL);
        process.wait(Duration::from_secs(5)).context("the server survived kill -9")?;
        Ok(log)
    }

    fn spawn(&mut self) -> Result<Process> {
        self.start_count += 1;
        let name = format!("{}-start-{}", self.slot.name(), self.start_count);
        let spawn = Spawn::new(name, release_binary()?).arg("-C").arg(&self.dir).arg("start");
        self.lab.spawn(self.slot, spawn)
    }

    /// SIGTERM; it must end by itself, without an error.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let process = self.process.take().context("the server does not run")?;
        process.signal(libc::SIGTERM);
        process.succeed(Duration::from_secs(5)).map(drop)
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.signal(libc::SIGKILL);
            process.wait(Duration::from_secs(5));
        }
    }

    /// The process, while it was told to run.
    pub(crate) fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The end of what it has logged, for error messages.
    pub(crate) fn log_tail(&self) -> String {
        self.process
            .as_ref()
            .map_or_else(|| "the server does not run".to_owned(), Process::log_tail)
    }

    /// All that it has logged since it was started.
    pub(crate) fn log(&self) -> String {
        self.process.as_ref().map_or_else(String::new, Process::log)
    }

    /// A command of our program on this lab; its output.
    pub(crate) fn run(&self, args: &[&str]) -> Result<String> {
        let (program, dir) =
            (release_binary()?.display().to_string(), self.dir.display().to_string());
        self.lab.run(self.slot, &[&[program.as_str(), "-C", &dir][..], args].concat())
    }

    /// Runs a command as from a machine that has nothing of the lab but its token.
    pub(crate) fn run_elsewhere(&self, args: &[&str]) -> Result<String> {
        self.run(&["dashboard", "token"])?;
        let (program, token) = (release_binary()?, self.dir.join("state/token"));
        let (program, token) = (program.display().to_string(), token.display().to_string());
        let server = format!("http://{}:{HTTP_PORT}", self.slot.address());
        let target = ["--server", &server, "--token-file", &token];
        self.lab.run(self.slot, &[&[program.as_str()], &target[..], args].concat())
    }

    /// `boottorrent status`.
    pub(crate) fn status(&self) -> Result<Value> {
        serde_json::from_str(&self.run(&["status", "-o", "json"])?).context("status is not JSON")
    }

    /// What the status says of a node, nothing if it was not seen.
    pub(crate) fn node(&self, mac: &str) -> Result<Option<Value>> {
        let status = self.status()?;
        let nodes = status["nodes"].as_array().context("the status has no nodes")?;
        Ok(nodes.iter().find(|node| node["mac"] == mac).cloned())
    }

    /// Waits until the status says of a node what is wanted; `what` names that.
    pub(crate) fn wait_node(
        &self,
        mac: &str,
        what: &str,
        timeout: Duration,
        is_so: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + timeout;
        loop {
            let node = self.node(mac)?;
            if let Some(node) = node.as_ref().filter(|node| is_so(node)) {
                return Ok(node.clone());
            }
            interrupt::check()?;
            ensure!(
                Instant::now() < deadline,
                "the status of {mac} is not `{what}` within {} s: {node:?}\n{}",
                timeout.as_secs(),
                self.log_tail()
            );
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Waits until a node is in this stage.
    pub(crate) fn wait_stage(&self, mac: &str, stage: &str, timeout: Duration) -> Result<Value> {
        self.wait_node(mac, stage, timeout, |node| node["stage"] == stage)
    }

    /// Deletes its folder.
    pub(crate) fn remove(mut self) -> Result<()> {
        self.kill();
        std::fs::remove_dir_all(&self.dir)
            .with_context(|| format!("removing {}", self.dir.display()))
    }

    /// Keeps the status beside the consoles.
    pub(crate) fn keep_status(&self, evidence: &Path) -> Result<()> {
        let text = self.run(&["status", "-o", "json"])?;
        let path = evidence.join("status.json");
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}

/// Makes or finds a lab of which only key and phase 1 are used, in `dir`.
pub(crate) fn prepare_phase1(dir: &Path) -> Result<()> {
    if !dir.join("keys/lab.pub").exists() {
        super::fresh(dir)?;
        ours(&[OsStr::new("init"), dir.as_os_str()])?;
    }
    let build = ["phase1", "build", "--module", PHASE1_MODULE].map(OsStr::new);
    ours(&[&[OsStr::new("-C"), dir.as_os_str()], &build[..]].concat())
}

/// Runs our program here; what it says goes to standard error.
pub(super) fn ours(args: &[&OsStr]) -> Result<()> {
    let mut command = Command::new(release_binary()?);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().context("running boottorrent")?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), &to)
                .with_context(|| format!("copying {}", entry.path().display()))?;
        }
    }
    Ok(())
}
