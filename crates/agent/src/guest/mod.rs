//! A virtual machine on the node: an image that no kexec can start. QEMU comes as an extension
//! ([`extension`]), runs on the image's files ([`command`]), and the node goes on seeding under it.
//!
//! The agent stays the first process. What the guest writes goes to files without names in memory, and
//! is gone with it, or stays on a disk of the node ([`disk`]); the image's own files stay as they were
//! verified.

mod command;
pub(crate) mod disk;
pub(crate) mod extension;
mod overlay;
mod process;
mod vnc;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use boot::image::{After, DiskLabel, Display};
use boot::{Failure, ImageName, Stage};
use torrent::metainfo::Metainfo;

use self::command::Left;
pub(crate) use self::command::need;
use self::process::{Process, Terminal};
use crate::booted::seeding::{Seeding, Terms};
use crate::console::mib;
use crate::events::{Event, Key};
use crate::failed::{Failed, Fails};
use crate::memory::HEADROOM;
use crate::node::Node;
use crate::{modules, shell};

/// How often it is looked whether the guest has ended, and around.
const TICK: Duration = Duration::from_millis(500);

/// Bytes per second that a node sends while a guest runs, if the lab does not say: a quarter of a gigabit
/// link, so that what the guest itself sends and receives has the rest. It is an eighth of a processor at
/// most, as both ends of a transfer take 2.2 to 3.8 s of one for a GiB (docs/performance.md). Four such
/// nodes send as much as a server at wire speed.
pub(crate) const UPLOAD_LIMIT: u64 = 32 << 20;

/// How many numbers events of its sessions may take: one goes with each time that seeding resumes.
const NUMBERS: u32 = 1 << 16;

/// How long the last report may hold up what follows.
const LAST_REPORT_TIMEOUT: Duration = Duration::from_millis(500);

/// Why there is no guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuestFailure {
    /// What runs it is not there.
    #[error("the lab offers no extension `{name}`")]
    NoExtension {
        /// Which.
        name: String,
    },
    /// It does not fit.
    #[error(
        "the guest needs {} and what runs it {} more, but {} are left",
        mib(*asked), mib(command::OVERHEAD), mib(*left)
    )]
    Memory {
        /// Bytes of the guest's memory.
        asked: u64,
        /// Bytes that there are.
        left: u64,
    },
    /// What it writes cannot stay.
    #[error("what the guest writes is to stay on the file system `{label}`: {what}")]
    Disk {
        /// Where it is to stay.
        label: DiskLabel,
        /// What is wrong with that.
        what: String,
    },
    /// QEMU cannot be started.
    #[error("QEMU cannot be started: {0}")]
    Start(#[source] std::io::Error),
    /// It ended with an error.
    #[error("QEMU ended with {status} after {} s: {}", .after.as_secs(), if .said.is_empty() { "it said nothing" } else { .said })]
    Ended {
        /// Its status.
        status: String,
        /// How long it ran.
        after: Duration,
        /// Its last words.
        said: String,
    },
}

impl Fails for GuestFailure {
    fn failure(&self) -> Failure {
        match self {
            Self::NoExtension { .. } => Failure::NoExtension,
            Self::Memory { .. } => Failure::GuestMemory,
            Self::Disk { .. } => Failure::GuestDisk,
            Self::Start(_) | Self::Ended { .. } => Failure::LoaderFailed,
        }
    }
}

/// A guest that can be started.
pub(crate) struct Guest {
    pub(crate) image: ImageName,
    /// Which of its versions: its infohash.
    pub(crate) version: String,
    /// The image's files.
    pub(crate) folder: PathBuf,
    /// The root of the extension.
    pub(crate) root: PathBuf,
    /// QEMU's arguments, as the image has them.
    pub(crate) args: Vec<String>,
    pub(crate) display: Display,
    pub(crate) after: After,
    /// Where what it writes stays.
    pub(crate) kept_on: Option<DiskLabel>,
    /// What is seeded meanwhile, the image first.
    pub(crate) torrents: Vec<(Metainfo, std::sync::Arc<torrent_io::storage::Storage>)>,
    pub(crate) terms: Terms,
}

impl Guest {
    /// What will be run, in one line for people.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub(crate) fn describe(&self, node: &Node) -> Result<String, GuestFailure> {
        Ok(format!("QEMU: {}", self.arguments(node, false)?.join(" ")))
    }

    fn arguments(&self, node: &Node, kvm: bool) -> Result<Vec<String>, GuestFailure> {
        let available = node.available_memory().unwrap_or(u64::MAX / 2);
        let memory = available.saturating_sub(HEADROOM);
        let left = Left { memory, processors: node.machine.processors, kvm };
        command::arguments(&self.own().0, self.display, left, self.kept_on.is_some())
    }

    /// The image's arguments, and the disks in them of which is kept what the guest writes.
    fn own(&self) -> (Vec<String>, Vec<overlay::Disk>) {
        match self.kept_on {
            Some(_) => {
                overlay::replace(&self.args, &disk::folder(self.image.as_str(), &self.version))
            }
            None => (self.args.clone(), vec![]),
        }
    }

    /// Makes ready what is kept of it, if anything is.
    fn keep(&self, node: &Node) -> Result<Option<disk::Kept>, GuestFailure> {
        let Some(label) = &self.kept_on else { return Ok(None) };
        let kept = disk::prepare(self, label, &self.own().1)?;
        node.console.say(&format!("What the guest writes stays in {}.", kept.place));
        if let Some(others) = &kept.others {
            node.console.say(others);
        }
        Ok(Some(kept))
    }

    /// Runs it to its end, and seeds meanwhile.
    ///
    /// # Errors
    /// If it cannot be started, or ends with an error.
    pub(crate) fn run(mut self, node: &mut Node) -> Result<After, Failed> {
        let kvm = has_kvm();
        let kept = self.keep(node)?;
        let args = self.arguments(node, kvm)?;
        if !kvm {
            node.console.say(
                "There is no KVM: the guest is emulated, which is slow. It takes a processor with \
                 virtualisation switched on, and the modules kvm_intel or kvm_amd in phase 1.",
            );
        }
        node.console.say(&format!("QEMU: {}", args.join(" ")));
        if let Some(listen) = command::listens(&self.args, self.display) {
            let password = vnc::password().map_err(GuestFailure::Start)?;
            node.console.say(&vnc::invitation(listen, node.machine.address.as_deref(), &password));
        }
        let image = self.image.clone();
        node.enter(Stage::Loading { image: image.clone() }, &[("image", image.as_str())]);
        let torrents = std::mem::take(&mut self.torrents);
        let number = node.number(NUMBERS);
        let mut seeding = Seeding::new(torrents, self.terms.clone(), number, node.inbox.sender());
        seeding.resume();
        let wants = command::needs_terminal(&self.args, self.display);
        let terminal = wants.then(|| Terminal::take(&node.console));
        let mut process = Process::start(&self, &args, terminal)?;
        let ended = attend(node, &image, &mut process, &mut seeding);
        seeding.suspend();
        drop(process);
        drop(kept);
        ended?;
        node.console.say(&format!("The guest {image} has ended."));
        node.leave();
        node.finish_reports(LAST_REPORT_TIMEOUT);
        Ok(self.after)
    }
}

/// Waits for the end of the guest.
fn attend(
    node: &mut Node,
    image: &ImageName,
    process: &mut Process,
    seeding: &mut Seeding,
) -> Result<(), Failed> {
    let started = Instant::now();
    let mut looked = started;
    let mut is_told = false;
    loop {
        if let Some(status) = process.ended().map_err(GuestFailure::Start)? {
            if status.success() {
                return Ok(());
            }
            let (status, said) = (status.to_string(), process.last_words());
            return Err(GuestFailure::Ended { status, after: started.elapsed(), said }.into());
        }
        match node.inbox.next(looked + TICK) {
            Some(Event::Session(number, event)) => seeding.take(number, event),
            // Where the guest has no terminal the agent has it.
            Some(Event::Key(Key::Char('s') | Key::Control('s'))) => shell::run(node),
            Some(_) => {}
            None => {
                let elapsed = looked.elapsed();
                looked = Instant::now();
                seeding.look_around(elapsed);
                let stage = Stage::Booted { image: Some(image.clone()), seeding: seeding.state() };
                // Whoever ends at once never was booted.
                if is_told {
                    node.amend(stage);
                } else {
                    is_told = true;
                    node.log.add(&format!("the guest {image} runs"));
                    node.report(stage);
                }
            }
        }
    }
}

/// Whether guests can run on the processor itself.
fn has_kvm() -> bool {
    // One of them is for another processor, and says so.
    load(&["kvm_intel", "kvm_amd"]);
    std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// Modules that phase 1 may have.
fn load(names: &[&str]) {
    for name in names {
        if let Err(error) = modules::load(Path::new("/"), name) {
            tracing::info!(module = name, %error, "not loaded");
        }
    }
}
