//! The programs: how each is started as a seed and as a node, with the settings that its users have,
//! and how it says that it is complete.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::lab::{Lab, Process, Slot, Spawn, wait_until};
use crate::{release_binary, setup};

/// Where all of them take peers.
const PORT: u16 = 6_881;

const RPC_PORT: u16 = 9_091;

const WEB_PORT: u16 = 8_080;

/// What a torrent names as its web seed: the folder that has the file, or the torrent's folder.
pub(super) fn web_seed() -> String {
    format!("http://{}:{WEB_PORT}/", Slot::SERVER.address())
}

/// How long a seed may take to look at its files.
const SEED_TIMEOUT: Duration = Duration::from_secs(30);

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/libtorrent_interop.py");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Ours,
    Libtorrent,
    /// As a seed it does not know the hashes of blocks and refuses to tell them; as a node it does
    /// not know those of pieces, as after a magnet link, and asks for them.
    LibtorrentHashless,
    Aria2,
    Transmission,
    /// A web server, as a web seed: no peer at all.
    Nginx,
}

/// Where a program runs.
pub(super) struct Place<'a> {
    pub(super) lab: &'a Lab,
    pub(super) slot: Slot,
    pub(super) metainfo: &'a Path,
    pub(super) is_local: bool,
}

/// A program that runs.
pub(super) struct Peer {
    pub(super) process: Process,
    complete: Complete,
}

enum Complete {
    /// A line was printed.
    Line(Arc<AtomicBool>),
    /// A hook made a file.
    File(PathBuf),
    /// It is from the start.
    Always,
}

impl Peer {
    pub(super) fn is_complete(&self) -> bool {
        match &self.complete {
            Complete::Line(seen) => seen.load(Ordering::Relaxed),
            Complete::File(path) => path.exists(),
            Complete::Always => true,
        }
    }

    /// Waits until it has everything, or ends.
    fn wait_complete(&self) -> Result<()> {
        let is_over = || self.is_complete() || self.process.exit().is_some();
        wait_until(SEED_TIMEOUT, is_over);
        ensure!(
            self.is_complete(),
            "{} does not seed:\n{}",
            self.process.name(),
            self.process.log_tail()
        );
        Ok(())
    }
}

impl Program {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Libtorrent => "libtorrent",
            Self::LibtorrentHashless => "libtorrent without hashes",
            Self::Aria2 => "aria2",
            Self::Transmission => "Transmission",
            Self::Nginx => "nginx",
        }
    }

    /// Starts it with everything in its directory; returns when peers can come.
    pub(super) fn seed(self, place: &Place<'_>) -> Result<Peer> {
        let peer = match self {
            Self::Ours => ours(place, "seed")?,
            Self::Libtorrent => libtorrent(place, "seed")?,
            Self::LibtorrentHashless => libtorrent(place, "seed-unchecked")?,
            Self::Aria2 => aria2(place, &["--check-integrity=true"])?,
            Self::Transmission => transmission(place)?,
            Self::Nginx => nginx(place)?,
        };
        peer.process.wait_listening(if self == Self::Nginx { WEB_PORT } else { PORT })?;
        peer.wait_complete()?;
        Ok(peer)
    }

    /// Starts it with nothing. It stays when it is complete.
    pub(super) fn get(self, place: &Place<'_>) -> Result<Peer> {
        match self {
            Self::Ours => ours(place, "get"),
            Self::Libtorrent => libtorrent(place, "get"),
            Self::LibtorrentHashless => libtorrent(place, "get-without-layers"),
            Self::Aria2 => aria2(place, &[]),
            Self::Transmission => transmission(place),
            Self::Nginx => bail!("a web server does not download"),
        }
    }
}

impl Place<'_> {
    fn dir(&self) -> PathBuf {
        self.lab.slot_dir(self.slot)
    }

    fn listen(&self) -> String {
        format!("{}:{PORT}", self.slot.address())
    }

    fn spawn(&self, program: impl Into<std::ffi::OsString>) -> Spawn {
        Spawn::new(self.slot.name(), program)
    }

    fn start_with_line(&self, spawn: Spawn, marker: &'static str) -> Result<Peer> {
        let seen = Arc::new(AtomicBool::new(false));
        let complete = Complete::Line(Arc::clone(&seen));
        let spawn = spawn.on_line(move |line| {
            if line.contains(marker) {
                seen.store(true, Ordering::Relaxed);
            }
        });
        Ok(Peer { process: self.lab.spawn(self.slot, spawn)?, complete })
    }

    /// A program that makes a file, and the file.
    fn hook(&self) -> Result<(PathBuf, PathBuf)> {
        let (hook, file) = (self.dir().join("hook.sh"), self.dir().join("complete"));
        super::write(&hook, &format!("#!/bin/sh\n: >{}\n", file.display()))?;
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
        Ok((hook, file))
    }
}

fn ours(place: &Place<'_>, verb: &str) -> Result<Peer> {
    let mut spawn = place.spawn(release_binary()?).args(["torrent", verb, "-o", "json"]);
    spawn = spawn.args(["--listen", &place.listen()]).arg("--dir").arg(place.dir());
    if verb == "get" {
        spawn = spawn.args(["--then", "seed"]);
    }
    if !place.is_local {
        spawn = spawn.arg("--no-lsd");
    }
    let marker = if verb == "get" { r#""event":"complete""# } else { r#""event":"listening""# };
    place.start_with_line(spawn.arg(place.metainfo), marker)
}

fn libtorrent(place: &Place<'_>, role: &str) -> Result<Peer> {
    let mut spawn = place.spawn(setup::PYTHON.file).args([SCRIPT, role]).arg(place.metainfo);
    spawn = spawn.arg(place.dir()).arg(place.listen());
    if place.is_local {
        spawn = spawn.arg("--lsd");
    }
    place.start_with_line(spawn, "everything is here")
}

fn aria2(place: &Place<'_>, more: &[&str]) -> Result<Peer> {
    let (hook, file) = place.hook()?;
    let spawn = place.spawn("aria2c");
    let spawn = spawn
        // A namespace has no way to the Internet, where DHT would look for peers.
        .args(["--no-conf=true", "--enable-dht=false", "--disable-ipv6=true"])
        .args(["--seed-ratio=0.0", "--seed-time=10000", "--file-allocation=none"])
        .args(["--summary-interval=0", "--show-console-readout=false"])
        .arg(format!("--listen-port={PORT}"))
        .arg(format!("--on-bt-download-complete={}", hook.display()))
        .arg(format!("--dir={}", place.dir().display()))
        .args(more)
        .arg(place.metainfo);
    Ok(Peer { process: place.lab.spawn(place.slot, spawn)?, complete: Complete::File(file) })
}

fn transmission(place: &Place<'_>) -> Result<Peer> {
    let (hook, file) = place.hook()?;
    let config = place.dir().join("transmission");
    std::fs::create_dir_all(&config)?;
    let settings = serde_json::json!({
        "download-dir": place.dir(),
        "dht-enabled": false,
        "port-forwarding-enabled": false,
        "peer-port": PORT,
        "rpc-port": RPC_PORT,
        "rpc-bind-address": "127.0.0.1",
        "script-torrent-done-enabled": true,
        "script-torrent-done-filename": hook,
        "message-level": 3,
    });
    super::write(&config.join("settings.json"), &settings.to_string())?;
    let spawn = place.spawn("transmission-daemon").arg("--foreground").arg("--config-dir");
    let process = place.lab.spawn(place.slot, spawn.arg(&config))?;
    process.wait_listening(RPC_PORT)?;
    let remote = |args: &[&str]| {
        let endpoint = format!("127.0.0.1:{RPC_PORT}");
        place.lab.run(place.slot, &[&["transmission-remote", &endpoint][..], args].concat())
    };
    remote(&["--add", &place.metainfo.to_string_lossy()])?;
    Ok(Peer { process, complete: Complete::File(file) })
}

fn nginx(place: &Place<'_>) -> Result<Peer> {
    let dir = place.dir().display().to_string();
    let mut config = format!("daemon off; master_process off; user root; pid {dir}/nginx.pid;\n");
    config.push_str("error_log stderr; events {}\nhttp { access_log off;\n");
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        config.push_str(&format!("{kind}_temp_path {dir}/nginx-{kind};\n"));
    }
    config.push_str(&format!("server {{ listen {WEB_PORT}; root {dir}; }} }}\n"));
    let path = place.dir().join("nginx.conf");
    super::write(&path, &config)?;
    let nginx = setup::find(setup::NGINX.file).unwrap_or_else(|| "nginx".into());
    let spawn = place.spawn(nginx).arg("-p").arg(place.dir()).arg("-c").arg(&path);
    let process = place.lab.spawn(place.slot, spawn)?;
    Ok(Peer { process, complete: Complete::Always })
}
