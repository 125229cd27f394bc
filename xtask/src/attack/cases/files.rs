//! What strangers' files and headers reach on this machine.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::super::attacker;
use super::super::scene::{Scene, write};
use super::super::victim;
use super::super::wire;
use super::floods::{endpoint, send};
use crate::lab::{Slot, Spawn};

/// What must not be found anywhere.
const SECRET: &str = "the secret of this machine";

/// The attacker takes a transfer for itself, and says what it heard to the server's endpoint.
pub(super) fn lan_header(scene: &mut Scene<'_>) -> Result<()> {
    let endpoint = endpoint(scene, Slot::SERVER)?;
    let heard = std::thread::scope(|scope| {
        let listening = scope.spawn(|| scene.attacker(|_| record()));
        // It is listened to before a program has started.
        let _ = send(scene, Slot::node(2), "10.77.66.1", Slot::SERVER);
        listening.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    ensure!(heard.windows(3).any(|part| part == b"EOH"), "no header was heard");
    scene.attacker(|_| {
        let to = std::net::SocketAddrV4::new(victim::server(), 2_893);
        let mut stream = wire::connect(attacker::address(1), to, None, wire::PATIENCE)?;
        stream.write_all(&heard)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer);
        Ok(())
    })?;
    // What it had begun to take is gone when the sender is.
    let log = endpoint.log();
    ensure!(log.contains("refused"), "the header for another endpoint was not refused: {log}");
    let dir = scene.lab.slot_dir(Slot::SERVER).join("vm");
    let found: Vec<_> = std::fs::read_dir(&dir)?.filter_map(Result::ok).collect();
    ensure!(found.is_empty(), "the header for another endpoint was taken: {found:?}");
    Ok(())
}

fn record() -> Result<Vec<u8>> {
    let listener = TcpListener::bind((attacker::address(1), 2_893))?;
    listener.set_nonblocking(true)?;
    let until = Instant::now() + Duration::from_secs(10);
    let mut heard = vec![];
    while Instant::now() < until && !heard.windows(3).any(|part| part == b"EOH") {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        heard.clear();
        let _ = stream.read_to_end(&mut heard);
    }
    Ok(heard)
}

pub(super) fn tftp_link(scene: &mut Scene<'_>) -> Result<()> {
    let dir = scene.lab.slot_dir(Slot::SERVER);
    let folder = dir.join("served");
    std::fs::create_dir_all(&folder)?;
    write(&folder.join("plain"), "a file")?;
    write(&dir.join("secret"), SECRET)?;
    symlink(dir.join("secret"), folder.join("link"))?;
    let spawn = Spawn::new("tftp", crate::release_binary()?).arg("tftp").arg(&folder);
    let process = scene.lab.spawn(Slot::SERVER, spawn)?;
    let started = || process.log().contains("tftp://");
    ensure!(crate::lab::wait_until(wire::PATIENCE, started), "{}", process.log_tail());
    scene.victim(|_| {
        let from = Slot::node(2).address();
        ensure!(victim::tftp(from, "plain")? == 6, "the file that is served is not whole");
        ensure!(victim::tftp(from, "link").is_err(), "a link out of the folder is served");
        Ok(())
    })
}

pub(super) fn squashfs_link(scene: &mut Scene<'_>) -> Result<()> {
    let dir = scene.lab.slot_dir(Slot::SERVER);
    let host = dir.join("host");
    std::fs::create_dir_all(&host)?;
    write(&host.join("secret"), SECRET)?;
    run("mksquashfs", &[&host, &dir.join("host.sq")], &["-quiet", "-no-progress"])?;
    for linked in ["LiveOS/rootfs.img", "LiveOS"] {
        let evil = dir.join("evil");
        crate::e2e::fresh(&evil)?;
        if linked == "LiveOS" {
            std::fs::create_dir_all(dir.join("elsewhere"))?;
            std::fs::copy(dir.join("host.sq"), dir.join("elsewhere/rootfs.img"))?;
            symlink(dir.join("elsewhere"), evil.join(linked))?;
        } else {
            std::fs::create_dir(evil.join("LiveOS"))?;
            symlink(dir.join("host.sq"), evil.join(linked))?;
        }
        let packed = dir.join("evil.sq");
        let _ = std::fs::remove_file(&packed);
        run("mksquashfs", &[&evil, &packed], &["-quiet", "-no-progress"])?;
        let from = format!("squashfs:{}", packed.display());
        let kernel = scene.stage.testos.kernel().release();
        let made = scene
            .server
            .run(&["image", "create", "evil", "--from", &from, "--kernel", kernel, "--yes"]);
        let error =
            made.err().with_context(|| format!("an image was made of a linked {linked}"))?;
        let text = format!("{error:#}");
        ensure!(
            text.contains("symbolic link"),
            "a linked {linked} is refused for something else: {text}"
        );
    }
    Ok(())
}

pub(super) fn setuid_tree(scene: &mut Scene<'_>) -> Result<()> {
    let dir = scene.lab.slot_dir(Slot::SERVER);
    let tree = dir.join("tree");
    for name in ["usr/bin", "etc", "dev", "proc", "sys", "sbin"] {
        std::fs::create_dir_all(tree.join(name))?;
    }
    let program = tree.join("usr/bin/rootsh");
    std::fs::copy("/bin/true", &program)?;
    std::fs::copy("/bin/true", tree.join("sbin/init"))?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755))?;
    write(&tree.join("etc/os-release"), "ID=debian\nPRETTY_NAME=\"a tree\"\n")?;
    run("tar", &[&dir.join("tree.tar"), &tree], &["-C", "-cf", "."])?;
    let from = format!("tar:{}", dir.join("tree.tar").display());
    // It may need more than this tree has; what is made of it until then is what counts.
    let made =
        scene.server.run(&["image", "create", "evn", "--kind", "nfs", "--from", &from, "--yes"]);
    let found = Command::new("find").arg(scene.server.dir()).args(["-name", "rootsh"]).output()?;
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    let path = found.lines().next();
    let path = path.with_context(|| format!("the tree was not unpacked: {made:?}"))?;
    // By a shell of theirs: setpriv itself looks programs up with what it still may as root.
    let shell = ["sh", "-c", "exec \"$0\"", path];
    let as_nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"].into_iter().chain(shell);
    let ran = Command::new("setpriv").args(as_nobody).status().context("running setpriv")?;
    ensure!(!ran.success(), "{path} runs for every user");
    Ok(())
}

/// `mksquashfs FROM TO OPTIONS`, or `tar -cf TO -C FROM .`
fn run(program: &str, paths: &[&Path], options: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    if program == "tar" {
        command.arg("-cf").arg(paths[0]).arg("-C").arg(paths[1]).arg(".");
    } else {
        command.args(paths).args(options);
    }
    let out = command.output().with_context(|| format!("running {program}"))?;
    ensure!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}
