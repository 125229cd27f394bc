//! The way of the original: dracut's initramfs gets the root by HTTP itself, told so by the image's own
//! `boot.ipxe`; none of our programs runs on the node.

use anyhow::{Context as _, Result, ensure};

use super::debian::{MEMORY_MIB, TIMEOUT};
use super::{IMAGE, start};
use crate::e2e::Stage;
use crate::e2e::live::{Live, NAME};
use crate::e2e::machine::{Firmware, Spec};
use crate::e2e::server::{Config, Server};
use crate::lab::{Lab, Slot};

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let live = Live::build()?;
    let lab = Lab::new(0, None, &stage.dir)?;
    let mut server = Server::init_as(&lab, Slot::SERVER, &Config::default(), stage.lab)?;
    // The lab's default, which no node of this case boots.
    stage.testos.install(&server.oss(), IMAGE, 0)?;
    let folder = server.oss().parent().context("oss/ is in a lab")?.to_owned();
    live.install(&folder, NAME)?;
    let kernel = live.kernel()?;
    let made = format!("/boot/initrd.img-{kernel}");
    let mount = ["image", "mount", NAME, "--"];
    let dracut =
        ["dracut", "--force", "--no-hostonly", "--add", "network-legacy dmsquash-live livenet"];
    server.run(&[&mount[..], &dracut, &["--kver", &kernel, &made]].concat())?;
    server.run(&["image", "unmount", NAME])?;
    let spec = Spec::new(1, Firmware::Ipxe).memory_mib(MEMORY_MIB * 2);
    server.write("nodes.yaml", &format!("nodes:\n  n01: {{mac: {}}}\n", spec.mac()))?;
    server.start()?;
    let assign = ["node", "assign", "--classic", "n01", NAME, "--yes"];
    server.run(&[&assign[..], &["--cmdline", "console=ttyS0"]].concat())?;
    let machine = start(&lab, stage, spec)?;
    let time = machine.wait_for(" login:", TIMEOUT)?;
    eprintln!("  n01 asks for a login after {:.0} s", time.as_secs_f64());
    ensure!(
        !machine.console()?.has("BOOTTORRENT stage="),
        "the agent ran, which has no part in this"
    );
    server.keep_status(&stage.dir)?;
    server.stop()
}
