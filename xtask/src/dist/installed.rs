//! The packages in clean systems: what they bring is there, the lab is made, phase 1 is that of the
//! system's own kernel, the service runs as its user and answers, and removal leaves what is the
//! user's.

mod phase1;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::contents::COMPLETIONS;
use super::machine::{Base, Machine, Memory, RELEASES, Release};
use super::output;
use phase1::Phase1Record;

/// From the block for documentation; the machine is alone in its network.
const ADDRESS: &str = "192.0.2.1";

const LAB: &str = "/var/lib/boottorrent";

/// What `install` of either package must bring beside completions.
const FILES: &[&str] = &[
    "usr/bin/boottorrent",
    "usr/lib/boottorrent/boottorrent-agent",
    "usr/share/man/man1/boottorrent.1.gz",
    "usr/share/man/man1/boottorrent-start.1.gz",
    "usr/share/doc/boottorrent/operating.md",
    "usr/share/doc/boottorrent/grafana.json",
];

/// `CAP_NET_BIND_SERVICE` alone, as /proc shows sets.
const CAPABILITIES: &str = "0000000000000400";

/// systemd counts from 0, nothing can be reached, to 10, no confinement at all. What is left of it is
/// the network, a port below 1024 and what every user may see.
const EXPOSURE_MAX: f64 = 1.7;

/// An image: the server only hands it on, so any bytes do.
const IMAGE: &str = "mkdir oss/debian && echo a kernel >oss/debian/vmlinuz \
    && echo an initrd >oss/debian/initrd.img \
    && printf 'dispname: Debian\\nmethod: kexec\\nkernel: vmlinuz\\ninitrd: initrd.img\\n' \
       >oss/debian/config.yaml \
    && sed -i 's/^  # default: .*/  default: debian/' Boottorrent.yaml";

/// Installs both packages, each in clean trees.
pub(super) fn check_all(deb: &Path, rpm: &Path) -> Result<()> {
    // Before the clock is started: made once, kept for the next run.
    side_by_side(Base::build)?;
    let start = Instant::now();
    let memory = Memory::mount()?;
    side_by_side(|release| {
        check_deb(release, deb, &memory).with_context(|| format!("the package in {}", release.name))
    })?;
    let tree = memory.0.join("rpm");
    Base::build(&RELEASES[0])?.unpack(&tree)?;
    check_rpm(&tree, rpm).context("the rpm in a clean tree")?;
    println!("installed, started and removed in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Does something for each release at the same time; what came of it, in their order.
fn side_by_side<T: Send>(work: impl Fn(&'static Release) -> Result<T> + Sync) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            RELEASES.iter().map(|release| scope.spawn(|| work(release))).collect();
        workers.into_iter().map(|worker| worker.join().expect("no worker panics")).collect()
    })
}

fn check_deb(release: &'static Release, deb: &Path, memory: &Memory) -> Result<()> {
    let tree = memory.0.join(release.suite);
    Base::build(release)?.unpack(&tree)?;
    let debian = Debian { release, machine: Machine::boot(&tree, ADDRESS)?, tree: tree.clone() };
    debian.check(deb)?;
    drop(debian);
    std::fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))
}

struct Debian {
    release: &'static Release,
    machine: Machine,
    tree: PathBuf,
}

impl Debian {
    fn check(&self, deb: &Path) -> Result<()> {
        let start = Instant::now();
        let name = self.release.name;
        let say = |what| eprintln!("  {name}: {what} after {:.1} s", start.elapsed().as_secs_f64());
        self.install(deb)?;
        say("installed");
        brings_all(&self.tree)?;
        self.machine.run(&["systemd-analyze", "verify", "--man=no", "boottorrent.service"])?;
        let enabled = self.in_lab(
            "systemctl is-enabled boottorrent || systemctl is-active boottorrent || true",
        )?;
        ensure!(enabled == "disabled\ninactive\n", "after the installation it is {enabled}");
        self.in_lab(IMAGE)?;
        // As root does before the first start, which must not take the lab from the service.
        self.in_lab("boottorrent image create hello --kind demo && boottorrent dashboard token")?;
        self.machine.run(&["boottorrent", "-C", LAB, "check"])?;
        let phase1 = Phase1Record::build(self)?;
        say("has a phase 1");
        self.serves()?;
        phase1.is_served(self)?;
        say("serves");
        self.exchanges()?;
        self.is_confined()?;
        self.exposes_little()?;
        self.in_lab(
            "setpriv --reuid=boottorrent --regid=boottorrent --clear-groups cat state/token",
        )?;
        self.machine.run(&["systemctl", "reload", "boottorrent"])?;
        self.removes(deb)?;
        say("removed");
        Ok(())
    }

    fn install(&self, deb: &Path) -> Result<()> {
        std::fs::copy(deb, self.tree.join("boottorrent.deb")).context("copying the package")?;
        self.machine.run(&["dpkg", "--install", "/boottorrent.deb"]).map(drop)
    }

    /// Starts the service, which is done when it says so, and asks it.
    fn serves(&self) -> Result<()> {
        if let Err(error) = self.machine.run(&["systemctl", "enable", "--now", "boottorrent"]) {
            let log = self.machine.run(&["journalctl", "--no-pager", "-n30", "-u", "boottorrent"]);
            return Err(error.context(log.unwrap_or_default()));
        }
        self.machine.run(&["boottorrent", "-C", LAB, "status"])?;
        let url = format!("http://{ADDRESS}:8080/v1/images");
        let said = output(self.machine.outside("curl").args(["--fail", "--silent", &url]))?;
        let images: Value = serde_json::from_str(&said).context("/v1/images")?;
        let name = &images["images"][0]["name"];
        ensure!(name == "debian", "/v1/images says {images}");
        Ok(())
    }

    /// The service exchanges versions of an image that root has built, for who has the token.
    fn exchanges(&self) -> Result<()> {
        let server =
            format!("boottorrent --server http://{ADDRESS}:8080 --token-file state/token image");
        let said = self
            .in_lab(&format!("{server} publish hello --title Again && {server} rollback hello"))?;
        let expect = ["version 2", "version 1"];
        ensure!(
            said.lines().zip(expect).filter(|(line, version)| line.ends_with(version)).count() == 2,
            "publish and rollback say {said}"
        );
        let listed = self.in_lab(&format!("{server} list"))?;
        let line = listed.lines().find(|line| line.starts_with("hello")).unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().take(3).collect();
        ensure!(words == ["hello", "1", "2"], "the list says {listed}");
        Ok(())
    }

    /// What the kernel holds the running service to.
    fn is_confined(&self) -> Result<()> {
        let status = self.in_lab(
            "cat /proc/$(systemctl show -P MainPID boottorrent)/status; id -u boottorrent",
        )?;
        let uid = status.lines().last().unwrap_or_default().to_owned();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()).unwrap_or("nothing").to_owned()
        };
        for (name, expect) in [
            ("Uid:", uid.as_str()),
            ("CapEff:", CAPABILITIES),
            ("CapBnd:", CAPABILITIES),
            ("NoNewPrivs:", "1"),
            // 2 is a filter of system calls.
            ("Seccomp:", "2"),
        ] {
            ensure!(field(name) == expect, "{name} {} instead of {expect}", field(name));
        }
        Ok(())
    }

    /// systemd's own opinion of the unit, which differs from one release to the next.
    fn exposes_little(&self) -> Result<()> {
        let said =
            self.machine.run(&["systemd-analyze", "security", "--no-pager", "boottorrent"])?;
        let level = exposure(&said).with_context(|| format!("systemd-analyze says {said}"))?;
        eprintln!("  {}: systemd counts an exposure of {level:.1}", self.release.name);
        ensure!(
            level <= EXPOSURE_MAX,
            "the unit's exposure is {level}, more than {EXPOSURE_MAX}:\n{said}"
        );
        Ok(())
    }

    /// Removal leaves the lab, and so does purging while it has images.
    fn removes(&self, deb: &Path) -> Result<()> {
        let key = self.in_lab("cat keys/lab.key")?;
        self.machine.run(&["dpkg", "--remove", "boottorrent"])?;
        self.in_lab("! systemctl is-active --quiet boottorrent && ! test -e /usr/bin/boottorrent")?;
        self.in_lab("test -e Boottorrent.yaml && getent passwd boottorrent")?;
        self.install(deb)?;
        ensure!(self.in_lab("cat keys/lab.key")? == key, "installing again made another key");
        self.machine.run(&["dpkg", "--purge", "boottorrent"])?;
        ensure!(self.in_lab("cat keys/lab.key")? == key, "purging took a lab that has an image");
        self.install(deb)?;
        self.in_lab("rm -r oss/debian oss/hello")?;
        self.machine.run(&["dpkg", "--purge", "boottorrent"])?;
        self.machine.run(&["test", "!", "-e", LAB])?;
        Ok(())
    }

    /// A line of shell in the lab's folder, as root.
    fn in_lab(&self, line: &str) -> Result<String> {
        self.machine.run(&["sh", "-c", &format!("cd {LAB} && {line}")])
    }
}

/// The figure in `→ Overall exposure level for boottorrent.service: 1.9 OK :-)`.
fn exposure(said: &str) -> Option<f64> {
    let (_, verdict) = said.rsplit_once("Overall exposure level")?.1.split_once(": ")?;
    verdict.split_whitespace().next()?.parse().ok()
}

/// Installed by rpm in a tree whose base is another package manager's, so what it requires is only
/// compared, not resolved.
fn check_rpm(tree: &Path, rpm: &Path) -> Result<()> {
    let with = |args: &[&str]| {
        let mut command = Command::new("rpm");
        command.args(["--root"]).arg(tree).args(args);
        command
    };
    output(with(&["--install", "--nodeps"]).arg(rpm))?;
    brings_all(tree)?;
    let verified = output(&mut with(&["--verify", "--nodeps", "boottorrent"]))?;
    ensure!(verified.is_empty(), "rpm --verify says {verified}");
    let key = std::fs::read(tree.join("var/lib/boottorrent/keys/lab.key"))?;
    output(&mut with(&["--erase", "boottorrent"]))?;
    ensure!(
        !tree.join("usr/lib/boottorrent").exists(),
        "something is left in /usr/lib/boottorrent"
    );
    let left = std::fs::read(tree.join("var/lib/boottorrent/keys/lab.key"))?;
    ensure!(key == left, "removing took the key of the lab");
    Ok(())
}

/// Looks at what installing has made, from outside.
fn brings_all(tree: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    for path in FILES.iter().copied().chain(COMPLETIONS.iter().map(|(_, path)| *path)) {
        ensure!(tree.join(path).is_file(), "/{path} is not there");
    }
    let users = std::fs::read_to_string(tree.join("etc/passwd")).context("/etc/passwd")?;
    let user = users.lines().find_map(|line| line.strip_prefix("boottorrent:"));
    let user: Vec<&str> = user.context("there is no user boottorrent")?.split(':').collect();
    ensure!(user[4] == LAB && user[5].ends_with("/nologin"), "the user is {user:?}");
    let lab = tree.join(LAB.trim_start_matches('/'));
    for (path, mode) in
        [(".", 0o750), ("state", 0o750), ("Boottorrent.yaml", 0o644), ("keys/lab.key", 0o600)]
    {
        let path = lab.join(path);
        let meta = std::fs::metadata(&path).with_context(|| format!("{}", path.display()))?;
        let (owner, is_mode) = (meta.uid().to_string(), meta.mode() & 0o777);
        ensure!(
            owner == user[1] && is_mode == mode,
            "{} is of user {owner}, {is_mode:o}, instead of {}, {mode:o}",
            path.display(),
            user[1]
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposure_is_the_figure_of_the_last_line() {
        let said = "UMask= 0.1\n\n→ Overall exposure level for a.service: 1.9 OK :-)\n";
        assert_eq!(exposure(said), Some(1.9));
        assert_eq!(exposure("Failed to connect to bus"), None);
    }
}
