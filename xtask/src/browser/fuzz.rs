//! The API, asked whatever its document allows and what it does not, by schemathesis.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{crowd_token, succeed};
use crate::crowd::{self, Nodes, Server};
use crate::{setup, target_dir};

/// The fuzzer, at the version that this was written with; what it needs is of the day it is installed.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// Requests of each kind for each path.
const EXAMPLES: &str = "25";

/// Nodes that are there to be asked for.
const NODES: usize = 40;

/// Which nodes and which image are commanded: made-up ones would all be refused before anything is done.
const COMMANDED: &str = "[parameters]\nnode = \"c0003,c00[05-08]\"\nimage = \"lab\"\n";

/// Nothing may be answered by 500, and every answer must be as the document says. The stream of events
/// has no end to wait for.
pub(super) fn run() -> Result<()> {
    let lab = crowd::folder("browser/fuzz")?;
    let server = Server::start(&lab, NODES / 2, "")?;
    let nodes = Nodes::start(server.port, NODES);
    let program = install()?;
    let fuzzer = || {
        let mut fuzzer = Command::new(&program);
        fuzzer.arg("run").arg(format!("http://127.0.0.1:{}/v1/openapi.json", server.port));
        fuzzer.args(["--max-examples", EXAMPLES, "--request-timeout", "60", "--no-color"]);
        fuzzer.arg("--generation-deterministic").current_dir(&lab);
        fuzzer
    };
    // First as who may command: wrong tokens, which the second run says often, lock an address out for
    // a minute. That a command's body is accepted depends on images and nodes, of which a schema knows
    // nothing.
    std::fs::write(lab.join("schemathesis.toml"), COMMANDED).context("schemathesis.toml")?;
    let mut commands = fuzzer();
    commands.args(["--include-path-regex", "^/v1/(nodes|images)/.+/", "--header"]);
    commands.arg(format!("Authorization: Bearer {}", crowd_token(&lab)?));
    commands.args(["--exclude-checks", "ignored_auth,positive_data_acceptance"]);
    succeed(&mut commands, "schemathesis with the token")?;
    std::fs::remove_file(lab.join("schemathesis.toml")).context("schemathesis.toml")?;
    let mut all = fuzzer();
    succeed(all.args(["--exclude-path", "/v1/events"]), "schemathesis")?;
    nodes.finish().map(drop)
}

/// In an environment of its own; the program.
fn install() -> Result<std::path::PathBuf> {
    let venv = std::path::absolute(target_dir().join("browser/venv"))?;
    let program = venv.join("bin/schemathesis");
    if !program.exists() {
        let mut python = Command::new(setup::PYTHON.file);
        succeed(python.args(["-m", "venv", "--clear"]).arg(&venv), "python3 -m venv")?;
        pip(&venv, &["install", "--quiet", SCHEMATHESIS])?;
    }
    Ok(program)
}

fn pip(venv: &Path, args: &[&str]) -> Result<()> {
    succeed(Command::new(venv.join("bin/pip")).args(args), "pip")
}
