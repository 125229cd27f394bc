//! A clean Debian that runs systemd: packages are installed in it as on a server. Made by mmdebstrap
//! once for each release, kept by the hash of its recipe, and booted by systemd-nspawn without any
//! network.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::{deb, output};
use crate::bench::hex;
use crate::lab::{sweep, wait_until};
use crate::{e2e, setup, target_dir};

pub(super) const TOOLS: &[setup::Tool] =
    &[setup::CURL, setup::IP, setup::MMDEBSTRAP, setup::NSENTER, setup::NSPAWN];

/// A Debian that the server runs on.
pub(super) struct Release {
    pub(super) suite: &'static str,
    pub(super) name: &'static str,
    /// What the version of its own kernel begins with.
    pub(super) kernel: &'static str,
}

pub(super) const RELEASES: [Release; 2] = [
    Release { suite: "bookworm", name: "Debian 12", kernel: "6.1." },
    Release { suite: "trixie", name: "Debian 13", kernel: "6.12." },
];

/// Raised when the recipe stays but what it makes must be made again.
const EDITION: &str = "2";

/// What starts services, beside what our package depends on and recommends.
const PACKAGES: &[&str] = &["systemd-sysv"];

/// Languages and manuals, and drivers that no phase 1 has, which are a third of a tree. Kernels have
/// their modules in /lib in the one release and in /usr/lib in the other.
const EXCLUDED: &[&str] = &[
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "*/lib/modules/*/kernel/sound/*",
    "*/lib/modules/*/kernel/drivers/gpu/*",
    "*/lib/modules/*/kernel/drivers/media/*",
    "*/lib/modules/*/kernel/drivers/net/wireless/*",
];

/// A container starts in two seconds; a busy machine may take twenty times that.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);

/// A tree that was never booted, as an archive.
pub(super) struct Base(PathBuf);

impl Base {
    /// Made if it is not kept from an earlier run: 150 MB from the mirror. That it has all packages
    /// that ours names shows that they have these names there.
    pub(super) fn build(release: &Release) -> Result<Self> {
        let suite = release.suite;
        let packages: Vec<_> = PACKAGES.iter().copied().chain(deb::needs()).collect();
        let packages = packages.join(",");
        let recipe = [EDITION, suite, &packages, &EXCLUDED.join(" ")].join("\n");
        let digest = hex(&Sha256::digest(recipe.as_bytes()));
        let dir = std::path::absolute(target_dir().join("clean-debian").join(suite))?;
        let tar = dir.join(format!("{}.tar", &digest[..16]));
        if !tar.exists() {
            let start = Instant::now();
            eprintln!("making a clean {} from packages (once; about a minute)", release.name);
            e2e::fresh(&dir)?;
            let part = dir.join("part.tar");
            let mut command = Command::new("mmdebstrap");
            command.args(["--variant=minbase", "--quiet"]).arg(format!("--include={packages}"));
            command.arg("--aptopt=APT::Install-Recommends \"false\"");
            command.args(EXCLUDED.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
            // Nothing boots its kernel with an initramfs of its own. Debian 13 has /tmp in memory, which
            // on a small machine is less than a tree.
            output(command.arg(suite).arg(&part).env("INITRD", "No").env("TMPDIR", &dir))?;
            // Only a whole one has the final name.
            std::fs::rename(&part, &tar).context("naming the archive")?;
            eprintln!("{} made in {:.0} s", release.name, start.elapsed().as_secs_f64());
        }
        Ok(Self(tar))
    }

    /// Unpacks it into a folder, which is emptied.
    pub(super) fn unpack(&self, tree: &Path) -> Result<()> {
        e2e::fresh(tree)?;
        output(Command::new("tar").arg("-xf").arg(&self.0).arg("-C").arg(tree))?;
        // One that is drawn at the boot.
        std::fs::write(tree.join("etc/machine-id"), "").context("emptying /etc/machine-id")
    }
}

/// Its name in the folder for temporary files; the process follows.
const MEMORY_PREFIX: &str = "boottorrent-dist.";

/// A folder in memory for trees, which are written, booted and thrown away; gone when this is dropped.
pub(super) struct Memory(pub(super) PathBuf);

impl Memory {
    pub(super) fn mount() -> Result<Self> {
        remove_stale()?;
        let dir = std::env::temp_dir().join(format!("{MEMORY_PREFIX}{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let mut mount = Command::new("mount");
        // Trees of 480 and 240 MB, the last of them beside both, and a phase 1 in each.
        output(mount.args(["-t", "tmpfs", "-o", "size=2g", "boottorrent-dist"]).arg(&dir))?;
        Ok(Self(dir))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = output(Command::new("umount").arg("--lazy").arg(&self.0));
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Gives back the memory of runs that were killed.
fn remove_stale() -> Result<()> {
    for entry in std::fs::read_dir(std::env::temp_dir()).context("reading the temporary files")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let run = name.strip_prefix(MEMORY_PREFIX).and_then(|run| run.parse::<u32>().ok());
        if run.is_some_and(|pid| !sweep::is_xtask(pid)) {
            drop(Memory(path));
        }
    }
    Ok(())
}

/// A booted tree, which ends when this is dropped.
pub(super) struct Machine {
    nspawn: Child,
    /// Its process 1, as this machine counts.
    init: u32,
}

impl Machine {
    /// Boots a tree. Its only network is a card `lan0` with an address and nobody else on it.
    pub(super) fn boot(tree: &Path, address: &str) -> Result<Self> {
        let log = tree.with_extension("console");
        let console =
            std::fs::File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        // With us it ends, too: it takes its machine down when it is asked to end.
        let mut nspawn = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--", "systemd-nspawn", "--quiet", "--boot"])
            .args(["--private-network", "--register=no", "--keep-unit", "--console=pipe"])
            .arg(format!("--directory={}", tree.display()))
            // systemd 257 starts under no other control groups, whatever this machine has.
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()
            .context("starting systemd-nspawn")?;
        let until = Instant::now() + BOOT_TIMEOUT;
        let init = loop {
            if let Some(init) = child_of(nspawn.id()) {
                break init;
            }
            if let Some(status) = nspawn.try_wait()? {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("systemd-nspawn: {status}: {}", said.trim());
            }
            ensure!(Instant::now() < until, "systemd-nspawn starts nothing");
            std::thread::sleep(Duration::from_millis(20));
        };
        let machine = Self { nspawn, init };
        // `degraded` is a unit of Debian's that a container cannot run, which is none of ours.
        let is_up = wait_until(BOOT_TIMEOUT, || {
            let said = machine.command(&["systemctl", "is-system-running"]).output();
            said.is_ok_and(|said| [&b"running\n"[..], b"degraded\n"].contains(&&said.stdout[..]))
        });
        ensure!(is_up, "the machine is not up after {BOOT_TIMEOUT:?}; see {}", log.display());
        for line in [
            "link add lan0 type veth peer name lan1".to_owned(),
            "link set lan1 up".to_owned(),
            "link set lan0 up".to_owned(),
            format!("address add {address}/24 dev lan0"),
        ] {
            output(machine.outside("ip").args(line.split(' ')))?;
        }
        Ok(machine)
    }

    /// Runs a program of the machine in it.
    pub(super) fn run(&self, argv: &[&str]) -> Result<String> {
        output(&mut self.command(argv))
    }

    /// A program of this machine in the network of that one.
    pub(super) fn outside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--net", "--", program]);
        command
    }

    fn command(&self, argv: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--all", "--"]).args(argv);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let init = self.init as libc::pid_t;
        // SAFETY: kill has no memory effects; the pid is our child's child, which lives until it
        // is waited for by its parent, and that ends only after it.
        unsafe {
            libc::kill(init, libc::SIGKILL);
        }
        let _ = self.nspawn.wait();
    }
}

/// The process that systemd-nspawn has started and not ended, once that is systemd: what sets the
/// machine up before is another program.
fn child_of(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().filter_map(|child| child.parse().ok()).find(|child: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{child}/comm"));
        name.is_ok_and(|name| name == "systemd\n")
    })
}
