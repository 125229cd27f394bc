//! `cargo xtask browser`: the dashboard in a real browser, watched while 1,000 nodes report, and the
//! API fuzzed against its own document.
//!
//! Chromium is Debian's, driven by playwright-core, which brings no browser of its own; accessibility is
//! judged by axe-core. Both come by npm, at the versions of the lock file, and are in no commit.
//! Screenshots of each page are kept in `target/browser/shots`.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::crowd::{self, Nodes, Server};
use crate::{root, setup, target_dir};

const TOOLS: &[setup::Tool] = &[setup::CHROMIUM, setup::NODE, setup::NPM, setup::VENV];

/// Nodes that report: the size that the dashboard promises to be smooth with.
const NODES: usize = 1_000;

/// The fuzzer, at the version that this was written with.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

#[derive(Args, Default)]
pub(crate) struct BrowserArgs {
    /// Only look at the pages
    #[arg(long)]
    no_fuzz: bool,
}

pub(crate) fn run(args: &BrowserArgs) -> Result<()> {
    setup::require(TOOLS)?;
    crate::build_release()?;
    let dir = crowd::folder("browser/lab")?;
    let shots = crowd::folder("browser/shots")?;
    std::fs::create_dir_all(&shots).with_context(|| format!("creating {}", shots.display()))?;
    let tools = tools()?;
    let server = Server::start(&dir, NODES / 2)?;
    let nodes = Nodes::start(server.port, NODES);
    let base = format!("http://127.0.0.1:{}", server.port);
    let mut pages = Command::new("node");
    pages.arg(tools.join("pages.mjs")).args([&base, &NODES.to_string()]).arg(&shots);
    succeed(pages.current_dir(&tools), "the pages")?;
    nodes.finish()?;
    if !args.no_fuzz {
        fuzz(&base)?;
    }
    println!("screenshots: {}", shots.display());
    Ok(())
}

/// A folder with the script and what it needs.
fn tools() -> Result<std::path::PathBuf> {
    let to = target_dir().join("browser/tools");
    std::fs::create_dir_all(&to).with_context(|| format!("creating {}", to.display()))?;
    for name in ["package.json", "package-lock.json", "pages.mjs"] {
        let from = root().join("xtask/browser").join(name);
        std::fs::copy(&from, to.join(name))
            .with_context(|| format!("copying {}", from.display()))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--silent", "--no-audit", "--no-fund"]);
    succeed(npm.current_dir(&to), "npm ci")?;
    Ok(to)
}

/// Asks whatever the document allows and what it does not: nothing may be answered by 500, and every
/// answer must be as the document says. The stream of events has no end to wait for.
fn fuzz(base: &str) -> Result<()> {
    let venv = target_dir().join("browser/venv");
    let program = venv.join("bin/schemathesis");
    if !program.exists() {
        let mut python = Command::new(setup::PYTHON.file);
        succeed(python.args(["-m", "venv"]).arg(&venv), "python3 -m venv")?;
        let mut pip = Command::new(venv.join("bin/pip"));
        succeed(pip.args(["install", "--quiet", SCHEMATHESIS]), "pip install schemathesis")?;
    }
    let mut fuzzer = Command::new(program);
    fuzzer.arg("run").arg(format!("{base}/v1/openapi.json"));
    fuzzer.args(["--exclude-path", "/v1/events", "--max-examples", "25"]);
    fuzzer.args(["--request-timeout", "60", "--generation-deterministic", "--no-color"]);
    succeed(fuzzer.current_dir(Path::new(&target_dir())), "schemathesis")
}

fn succeed(command: &mut Command, what: &str) -> Result<()> {
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("running {what}"))?;
    ensure!(status.success(), "{what}: {status}");
    Ok(())
}
