//! Chains of `boottorrent lan`: with endpoints of the original's protocol in every place, and with
//! endpoints that are killed, stopped, slow or full in every place.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{AT_ONCE, Row, line};
use crate::lab::{Lab, Process, Rate, Slot, Spawn, wait_until};
use crate::setup;

/// Endpoints of a chain: a head, two in the middle, a tail.
const NODE_COUNT: usize = 4;

/// Half a second a mebibyte: accidents happen in mid-stream.
const LEN: usize = 12 << 20;
const RATE: &str = "32mbit";

const PORT: u16 = 2_893;

/// A transfer takes four seconds, with an accident two more.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Room of an endpoint that is full in mid-stream.
const SMALL: &str = "size=4m";

/// Whose program an endpoint or the origin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    /// `xtask/peers/lantorrent_peer.py`.
    Original,
}

/// What happens to an endpoint when it has a third of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accident {
    Killed,
    Stopped,
    /// From the start at a tenth of the rate.
    Slow,
    Full,
    /// Its link dies, and nobody is told.
    Unplugged,
    /// The destination's directory is removed.
    DirGone,
}

#[derive(Clone, Debug)]
enum Case {
    /// The origin, the endpoints, and the signatures' hash.
    Mixed(Whose, Vec<Whose>, &'static str),
    /// What happens to which endpoint.
    Broken(Accident, usize),
}

impl Case {
    fn name(&self) -> String {
        match self {
            Self::Mixed(origin, nodes, hash) => {
                let word = |whose: &Whose| match whose {
                    Whose::Ours => "ours",
                    Whose::Original => "original",
                };
                let nodes: Vec<_> = nodes.iter().map(word).collect();
                format!("lan {} → {} ({hash})", word(origin), nodes.join(" → "))
            }
            Self::Broken(accident, place) => {
                let place = match *place {
                    1 => "head",
                    NODE_COUNT => "tail",
                    _ => "middle",
                };
                format!("lan {accident:?} {place}").to_lowercase()
            }
        }
    }

    fn all() -> Vec<Self> {
        use Whose::{Original, Ours};
        let mut cases = vec![
            Self::Mixed(Ours, vec![Original, Original], "md5"),
            Self::Mixed(Original, vec![Ours, Ours], "md5"),
            Self::Mixed(Ours, vec![Ours, Original, Ours], "md5"),
            Self::Mixed(Original, vec![Original, Ours, Original], "md5"),
            Self::Mixed(Ours, vec![Original, Ours], "sha1"),
            Self::Mixed(Original, vec![Ours, Original], "sha1"),
        ];
        for accident in [Accident::Killed, Accident::Stopped, Accident::Full, Accident::Slow] {
            cases.extend([1, 2, NODE_COUNT].map(|place| Self::Broken(accident, place)));
        }
        cases.push(Self::Broken(Accident::Unplugged, 2));
        cases.push(Self::Broken(Accident::DirGone, 2));
        cases
    }
}

/// Runs the cases whose names have one of the filters in them.
pub(super) fn run(filters: &[String], dir: &Path) -> Vec<Row> {
    let is_wanted = |case: &Case| {
        filters.is_empty() || filters.iter().any(|filter| case.name().contains(filter.as_str()))
    };
    let cases: Vec<Case> = Case::all().into_iter().filter(is_wanted).collect();
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let name = case.name();
                    let keep = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
                    let logs = dir.join("logs").join(name.chars().map(keep).collect::<String>());
                    let error = run_one(case, &logs).err();
                    let row = Row { name, time: start.elapsed(), error };
                    eprintln!("{}", line(&row));
                    rows.lock().expect("nobody panics with this lock").push(row);
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("nobody panics with this lock");
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

fn run_one(case: &Case, logs: &Path) -> Result<()> {
    match case {
        Case::Mixed(origin, nodes, hash) => mixed(*origin, nodes, hash, logs),
        Case::Broken(accident, place) => broken(*accident, Slot::node(*place), logs),
    }
}

/// A lab with a file and a password.
struct Stage {
    /// They lie in the lab, so they go first.
    rooms: Vec<Room>,
    lab: Lab,
    content: Vec<u8>,
}

impl Stage {
    fn new(node_count: usize, rate: Option<Rate>, logs: &Path) -> Result<Self> {
        let lab = Lab::new(node_count, rate, logs)?;
        let content = super::content::bytes(5, LEN);
        let server = lab.slot_dir(Slot::SERVER);
        std::fs::write(server.join("source"), &content)?;
        std::fs::write(server.join("password"), "secret\n")?;
        for slot in lab.nodes() {
            std::fs::create_dir(lab.slot_dir(slot).join("vm"))?;
        }
        Ok(Self { rooms: vec![], lab, content })
    }

    fn file(&self, slot: Slot) -> PathBuf {
        self.lab.slot_dir(slot).join("vm/disk")
    }

    fn temporary(&self, slot: Slot) -> PathBuf {
        self.lab.slot_dir(slot).join("vm/disk.lantorrent")
    }

    fn target(&self, slot: Slot) -> String {
        format!("{}:{PORT}{}", slot.address(), self.file(slot).display())
    }

    fn targets(&self) -> Vec<String> {
        self.lab.nodes().map(|slot| self.target(slot)).collect()
    }

    fn endpoint(&self, slot: Slot, whose: Whose, compat: &str) -> Result<Process> {
        let port = PORT.to_string();
        let spawn = match whose {
            Whose::Ours => Spawn::new(slot.name(), crate::release_binary()?)
                .args(["lan", "serve", "--listen", &format!("{}:{PORT}", slot.address())])
                .args(["--compat", compat, "--root"])
                .arg(self.lab.slot_dir(slot))
                .arg("--password-file")
                .arg(self.lab.slot_dir(Slot::SERVER).join("password")),
            Whose::Original => python(slot.name()).args(["serve", compat, "secret"]).arg(port),
        };
        let process = self.lab.spawn(slot, spawn)?;
        process.wait_listening(PORT)?;
        Ok(process)
    }

    fn origin(&self, whose: Whose, compat: &str) -> Result<Process> {
        let source = self.lab.slot_dir(Slot::SERVER).join("source");
        let spawn = match whose {
            Whose::Ours => {
                let lines = self.targets().join("\n");
                std::fs::write(self.lab.slot_dir(Slot::SERVER).join("targets"), lines)?;
                Spawn::new("origin", "sh")
                    .args(["-c", r#"exec "$0" lan send "$1" --password-file password --compat "$2" -o json < targets"#])
                    .arg(crate::release_binary()?)
                    .arg(source)
                    .arg(compat)
            }
            Whose::Original => {
                python("origin").args(["send", compat, "secret"]).arg(source).args(self.targets())
            }
        };
        self.lab.spawn(Slot::SERVER, spawn)
    }

    fn check(&self, slot: Slot, origin: &Process) -> Result<()> {
        let found = std::fs::read(self.file(slot)).unwrap_or_default();
        ensure!(
            found == self.content,
            "{} has {} of {} bytes; the origin:\n{}",
            slot.name(),
            found.len(),
            LEN,
            origin.log()
        );
        ensure!(!self.temporary(slot).exists(), "{} keeps a temporary file", slot.name());
        Ok(())
    }
}

fn python(name: impl Into<String>) -> Spawn {
    let script = crate::root().join("xtask/peers/lantorrent_peer.py");
    Spawn::new(name, setup::PYTHON.file).arg(script)
}

fn mixed(origin: Whose, nodes: &[Whose], hash: &str, logs: &Path) -> Result<()> {
    let stage = Stage::new(nodes.len(), None, logs)?;
    let mut processes = vec![];
    for (slot, whose) in stage.lab.nodes().zip(nodes) {
        processes.push(stage.endpoint(slot, *whose, hash)?);
    }
    let origin = stage.origin(origin, hash)?;
    origin.succeed(TIMEOUT)?;
    stage.lab.nodes().try_for_each(|slot| stage.check(slot, &origin))
}

/// One endpoint has an accident; all others must have the file in the end, and the origin must say
/// what became of it.
fn broken(accident: Accident, victim: Slot, logs: &Path) -> Result<()> {
    let rate: Rate = RATE.parse()?;
    let mut stage = Stage::new(NODE_COUNT, Some(rate), logs)?;
    if accident == Accident::Full {
        let dir = stage.lab.slot_dir(victim).join("vm");
        stage.rooms.push(Room::new(&dir)?);
    }
    if accident == Accident::Slow {
        stage.lab.set_rate(victim, rate.divided_by(10))?;
    }
    let mut processes = vec![];
    for slot in stage.lab.nodes() {
        processes.push(stage.endpoint(slot, Whose::Ours, "off")?);
    }
    let origin = stage.origin(Whose::Ours, "off")?;
    let third = || {
        let len = std::fs::metadata(stage.temporary(victim)).map_or(0, |found| found.len());
        len >= LEN as u64 / 3 || origin.exit().is_some()
    };
    if !matches!(accident, Accident::Full | Accident::Slow) {
        ensure!(wait_until(TIMEOUT, third), "{} never has a third", victim.name());
    }
    cause(accident, &stage, victim, &processes[victim.number() - 1])?;
    let others = || stage.lab.nodes().filter(|slot| *slot != victim);
    if accident == Accident::Slow {
        let all = || others().all(|slot| stage.file(slot).exists());
        ensure!(wait_until(TIMEOUT, all), "the others wait:\n{}", origin.log());
        ensure!(!stage.file(victim).exists(), "the slow one was not slow");
        origin.succeed(TIMEOUT)?;
        return stage.lab.nodes().try_for_each(|slot| stage.check(slot, &origin));
    }
    let exit = origin.wait(TIMEOUT).context("the origin does not end")?;
    ensure!(exit.code == 1, "the origin ended with {}:\n{}", exit.code, origin.log());
    others().try_for_each(|slot| stage.check(slot, &origin))?;
    let expect = match accident {
        Accident::Full | Accident::DirGone => 503,
        _ => 506,
    };
    let host = format!("\"host\":\"{}\"", victim.address());
    let log = origin.log();
    let found = log.lines().find(|line| line.contains(&host) && line.contains("\"report\""));
    let found = found.with_context(|| format!("the victim is not reported:\n{log}"))?;
    ensure!(found.contains(&format!("\"code\":{expect},")), "expected {expect}: {found}");
    aftermath(accident, &stage, victim, &processes[victim.number() - 1])
}

fn cause(accident: Accident, stage: &Stage, victim: Slot, process: &Process) -> Result<()> {
    match accident {
        Accident::Killed => process.signal(libc::SIGKILL),
        Accident::Stopped => process.signal(libc::SIGSTOP),
        Accident::Unplugged => stage.lab.unplug(victim)?,
        Accident::DirGone => {
            std::fs::remove_dir_all(stage.lab.slot_dir(victim).join("vm"))?;
        }
        Accident::Slow | Accident::Full => {}
    }
    Ok(())
}

/// Whoever lives leaves no temporary file, even if it was stopped or cut off for a while.
fn aftermath(accident: Accident, stage: &Stage, victim: Slot, process: &Process) -> Result<()> {
    match accident {
        Accident::Killed => return Ok(()),
        Accident::Stopped => process.signal(libc::SIGCONT),
        Accident::Unplugged => stage.lab.plug(victim)?,
        Accident::Slow | Accident::Full | Accident::DirGone => {}
    }
    let clean = wait_until(TIMEOUT, || !stage.temporary(victim).exists());
    ensure!(clean, "{} keeps a temporary file:\n{}", victim.name(), process.log());
    ensure!(process.exit().is_none(), "{} died:\n{}", victim.name(), process.log());
    Ok(())
}

/// A little file system of its own, taken away in the end.
struct Room(PathBuf);

impl Room {
    fn new(dir: &Path) -> Result<Self> {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", SMALL, "boottorrent-lab"])
            .arg(dir)
            .status()
            .context("running mount")?;
        if !status.success() {
            bail!("mounting {}: {status}", dir.display());
        }
        Ok(Self(dir.to_owned()))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
