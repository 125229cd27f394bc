//! curl from nginx: what everybody can do without a swarm, and the yardstick for one node.

use std::fmt::Write as _;

use anyhow::Result;

use super::{Contender, Done, Stage, named};
use crate::bench::case::Case;
use crate::bench::image;
use crate::lab::{Process, Slot, Spawn};
use crate::setup::{self, Tool};

const PORT: u16 = 5_003;

pub(super) struct Curl;

impl Contender for Curl {
    fn name(&self) -> &'static str {
        "curl"
    }

    fn tools(&self) -> Vec<Tool> {
        vec![setup::NGINX, setup::CURL]
    }

    fn fits(&self, _: Case, node_count: usize) -> bool {
        // Everybody knows that N copies over one link take N times as long.
        node_count == 1
    }

    fn start_server(&self, stage: &Stage<'_>) -> Result<Vec<Process>> {
        let dir = stage.server_dir();
        let mut config = String::new();
        writeln!(config, "daemon off; master_process off; user root;")?;
        writeln!(config, "pid {0}/nginx.pid; error_log stderr;", dir.display())?;
        writeln!(config, "events {{ }}")?;
        writeln!(config, "http {{ access_log off; sendfile on; tcp_nopush on;")?;
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(config, "{kind}_temp_path {}/nginx-{kind};", dir.display())?;
        }
        writeln!(config, "server {{ listen {PORT}; root {}; }} }}", dir.display())?;
        let path = dir.join("nginx.conf");
        std::fs::write(&path, config)?;
        let nginx = setup::find(setup::NGINX.file).unwrap_or_else(|| "nginx".into());
        let spawn = Spawn::new("nginx", nginx).arg("-p").arg(&dir).arg("-c").arg(&path);
        let server = stage.lab.spawn(Slot::SERVER, spawn)?;
        server.wait_listening(PORT)?;
        Ok(vec![server])
    }

    fn node(&self, stage: &Stage<'_>, node: Slot) -> Result<(Spawn, Done)> {
        let url = format!("http://{}:{PORT}/{}", Slot::SERVER.address(), image::NAME);
        let curl = named(node, "curl").args(["--fail", "--silent", "--show-error", "-o"]);
        Ok((curl.arg(stage.result(node)).arg(url), Done::Exit))
    }
}
