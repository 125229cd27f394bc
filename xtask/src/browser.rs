//! `cargo xtask browser`: the dashboard in a real browser, watched while 1,000 nodes report, commanded over
//! TLS by the keyboard, and the API fuzzed against its own document.
//!
//! Chromium is Debian's, driven by playwright-core, which brings no browser of its own; accessibility is
//! judged by axe-core. Both come by npm, at the versions of the lock file, and are in no commit.
//! Screenshots of each page are kept in `target/browser/shots`.

mod fuzz;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::crowd::{self, Nodes, Server};
use crate::guard::Guard;
use crate::{root, setup, target_dir};

const TOOLS: &[setup::Tool] = &[setup::PYTHON, setup::VENV];

/// What a [`Watcher`] needs.
pub(crate) const WATCHER_TOOLS: &[setup::Tool] = &[setup::CHROMIUM, setup::NODE, setup::NPM];

/// Nodes that report: the size that the dashboard promises to be smooth with.
const CROWD: usize = 1_000;

/// Nodes that are commanded; the lab names half of them.
const COMMANDED: usize = 40;

/// For localhost and 127.0.0.1, in the server's own tests, too.
const CERTIFICATE: &str = "crates/server/tests/fixtures/tls/certificate.pem";
const KEY: &str = "crates/server/tests/fixtures/tls/key.pem";

#[derive(Args, Default)]
pub(crate) struct BrowserArgs {
    /// Take the programs in target/release as they are
    #[arg(long)]
    pub(crate) no_build: bool,
}

pub(crate) fn run(args: &BrowserArgs) -> Result<()> {
    setup::install(&[TOOLS, WATCHER_TOOLS].concat())?;
    let shots = target_dir().join("browser/shots");
    std::fs::create_dir_all(&shots).with_context(|| format!("creating {}", shots.display()))?;
    let shots = std::path::absolute(shots)?;
    let tools = tools()?;
    if !args.no_build {
        crate::build_release()?;
    }
    timed("pages", || pages(&tools, &shots))?;
    timed("commands", || commands(&tools, &shots))?;
    timed("fuzzing", fuzz::run)?;
    println!("screenshots: {}", shots.display());
    Ok(())
}

/// A browser that watches machines from power-on to their own systems.
pub(crate) struct Watcher(Guard);

impl Watcher {
    /// Has it look at the dashboard at `base`, where `count` machines are to boot within `timeout`. What it
    /// sees is kept in `shots`.
    pub(crate) fn start(base: &str, count: usize, timeout: Duration, shots: &Path) -> Result<Self> {
        let mut script = script(&tools()?, "room.mjs");
        script.arg(base).arg(count.to_string()).arg(timeout.as_secs().to_string()).arg(shots);
        script.stdin(Stdio::null());
        Ok(Self(Guard(script.spawn().context("running node")?)))
    }

    /// Waits for what it has seen: an error unless the page shows each machine on its way, at its goal, and
    /// what it did.
    pub(crate) fn finish(mut self) -> Result<()> {
        let status = self.0.0.wait().context("waiting for node")?;
        ensure!(status.success(), "what the browser saw is not a room that boots: {status}");
        Ok(())
    }
}

fn timed(what: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    step().context(what.to_owned())?;
    println!("{what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Looks at every page while a crowd reports.
fn pages(tools: &Path, shots: &Path) -> Result<()> {
    let server = Server::start(&crowd::folder("browser/lab")?, CROWD / 2, "")?;
    let nodes = Nodes::start(server.port, CROWD);
    let base = format!("http://127.0.0.1:{}", server.port);
    let mut pages = script(tools, "pages.mjs");
    succeed(pages.args([&base, &CROWD.to_string()]).arg(shots), "the pages")?;
    nodes.finish().map(drop)
}

/// Logs in over TLS and commands, with another server, as what it is told is kept.
fn commands(tools: &Path, shots: &Path) -> Result<()> {
    let dir = crowd::folder("browser/commands")?;
    let (certificate, tls_port) = (root().join(CERTIFICATE), crowd::free_port()?);
    let settings = format!(
        "dashboard:\n  certificate: {}\n  key: {}\n  tls_port: {tls_port}\n",
        certificate.display(),
        root().join(KEY).display()
    );
    let server = Server::start(&dir, COMMANDED / 2, &settings)?;
    let nodes = Nodes::start(server.port, COMMANDED);
    let mut commands = script(tools, "commands.mjs");
    commands.arg(format!("http://127.0.0.1:{}", server.port));
    commands.arg(format!("https://127.0.0.1:{tls_port}")).arg(&certificate);
    commands.arg(crowd_token(&dir)?).arg(shots);
    succeed(&mut commands, "the commands")?;
    nodes.finish()?;
    let written = std::fs::read_to_string(dir.join("nodes.yaml")).context("nodes.yaml")?;
    ensure!(written.contains("image: debian"), "nothing is assigned in nodes.yaml:\n{written}");
    Ok(())
}

/// What the server of a lab takes for a command.
fn crowd_token(lab: &Path) -> Result<String> {
    let mut token = Command::new(crate::release_binary()?);
    let token = token.arg("-C").arg(lab).args(["dashboard", "token"]).output().context("token")?;
    ensure!(token.status.success(), "token: {}", String::from_utf8_lossy(&token.stderr).trim());
    Ok(String::from_utf8_lossy(&token.stdout).trim().to_owned())
}

/// A folder with the scripts and what they need.
fn tools() -> Result<PathBuf> {
    let (from, to) = (root().join("xtask/browser"), target_dir().join("browser/tools"));
    std::fs::create_dir_all(&to).with_context(|| format!("creating {}", to.display()))?;
    for entry in std::fs::read_dir(&from).with_context(|| format!("reading {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().context("a file without a name")?;
        std::fs::copy(&path, to.join(name))
            .with_context(|| format!("copying {}", path.display()))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--silent", "--no-audit", "--no-fund"]);
    succeed(npm.current_dir(&to), "npm ci")?;
    std::path::absolute(&to).context("finding the tools")
}

fn script(tools: &Path, name: &str) -> Command {
    let mut node = Command::new("node");
    node.arg(tools.join(name)).current_dir(tools);
    node
}

fn succeed(command: &mut Command, what: &str) -> Result<()> {
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("running {what}"))?;
    ensure!(status.success(), "{what}: {status}");
    Ok(())
}
