//! A root that an NFS server has: mounted by NFS 4.2, each node in a folder of its own. The image is for
//! another kernel version than the lab's own phase 1, by which the node's boot script is another.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{IMAGE, SERVER_TIMEOUT, start, wait_ready};
use crate::e2e::Stage;
use crate::e2e::machine::{Firmware, Spec};
use crate::e2e::server::{Config, Server};
use crate::lab::{Lab, Process, Slot, Spawn};

/// NFS (RFC 7530 section 3.1).
const PORT: u16 = 2049;

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(0, None, &stage.dir)?;
    let spec = Spec::new(1, Firmware::Ipxe);
    let mut server = Server::init_as(&lab, Slot::SERVER, &Config::default(), stage.lab)?;
    let export = lab.slot_dir(Slot::SERVER).join("nfs");
    let root = export.join("n01");
    std::fs::create_dir_all(&export)?;
    let tree = stage.testos.live_tree()?;
    let copied = Command::new("cp").arg("-a").arg(&tree).arg(&root).status();
    ensure!(copied.context("running cp")?.success(), "the root cannot be copied");
    let ganesha = serve_nfs(&lab, &export)?;
    let release = &stage.testos.kernel().release;
    let config = format!(
        "dispname: Root on a server\nmethod: nfs\nroot: {}:/nfs/{{node}}\n\
         kernel_version: {release}\ncmdline: testos={IMAGE}\n",
        Slot::SERVER.address()
    );
    std::fs::create_dir_all(server.oss().join(IMAGE))?;
    server.write(&format!("oss/{IMAGE}/config.yaml"), &config)?;
    server.write("nodes.yaml", &format!("nodes:\n  n01: {{mac: {}}}\n", spec.mac()))?;
    server.start()?;
    server.run(&["node", "assign", "n01", IMAGE, "--yes"])?;
    let machine = start(&lab, stage, spec)?;
    wait_ready(&machine, IMAGE)?;
    let text = machine.console()?.text();
    for line in ["LIVE pid 1 root nfs4", "LIVE name n01", "LIVE initramfs 0", "LIVE written"] {
        ensure!(text.contains(line), "the console has no line `{line}`");
    }
    // What the node wrote is on the server.
    let written = std::fs::read_to_string(root.join("written")).context("nothing was written")?;
    ensure!(written.trim() == "written", "the node wrote `{written}`");
    server.wait_stage(&machine.mac(), "booted", SERVER_TIMEOUT)?;
    let log = server.log();
    ensure!(
        log.contains(&format!("/phase1/{release}/vmlinuz")),
        "the node did not load the kernel of its image:\n{log}"
    );
    server.keep_status(&stage.dir)?;
    drop(ganesha);
    server.stop()
}

/// Serves the folders below `export` as `/nfs`.
fn serve_nfs(lab: &Lab, export: &Path) -> Result<Process> {
    let dir = lab.slot_dir(Slot::SERVER);
    let (config, pid, recovery) =
        (dir.join("ganesha.conf"), dir.join("ganesha.pid"), dir.join("recovery"));
    std::fs::create_dir_all(&recovery)?;
    let text = format!(
        "NFS_CORE_PARAM {{ Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false; }}\n\
         NFSv4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = \"{}\"; \
         Only_Numeric_Owners = true; }}\n\
         EXPORT {{ Export_Id = 1; Path = \"{}\"; Pseudo = \"/nfs\"; Access_Type = RW; \
         Squash = No_Root_Squash; SecType = sys; Protocols = 4; Transports = TCP; \
         FSAL {{ Name = VFS; }} }}\n",
        recovery.display(),
        export.display()
    );
    std::fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
    let spawn = Spawn::new("ganesha", "ganesha.nfsd");
    let spawn = spawn.arg("-F").arg("-f").arg(&config).arg("-p").arg(&pid).arg("-L").arg("STDOUT");
    let process = lab.spawn(Slot::SERVER, spawn)?;
    process.wait_listening(PORT)?;
    Ok(process)
}
