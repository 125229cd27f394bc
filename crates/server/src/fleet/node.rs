//! What is known of one node, and how each event changes it.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use boot::report::{Card, Disk, Hardware, LOG_LEN_MAX, Machine, PARTS_MAX, SOURCES_MAX, Source};
use boot::{Arch, Failure, Firmware, ImageName, Mac, Report, Stage};
use serde::{Deserialize, Serialize};

use super::event::{Asker, Fetched, ScriptAsked, Service};
use super::timeline::{self, LastFailure, Step};
use super::trust::{Ground, Hearsay, Proven, Sight, UpSaid};

/// Events kept of a node: two boots' worth.
pub(crate) const EVENTS_MAX: usize = 32;

/// Past boots kept of a node: enough to see that every third one fails.
pub(crate) const BOOTS_MAX: usize = 16;

/// Characters kept of a text that an agent sends: two lines of a terminal.
pub(crate) const TEXT_LEN_MAX: usize = 240;

/// Characters kept of the name of a thing, as of a driver or a disk.
pub(super) const NAME_LEN_MAX: usize = 64;

/// Lines kept of an agent's log.
const LOG_LINES_MAX: usize = 64;

/// While an agent has spoken within so many milliseconds its machine was not switched off and on: it says
/// something every five seconds, and firmware needs longer to ask for its first address. Where it does not, the
/// boot begins a moment later, with the boot script or the new agent's first word.
const SPEAKS_MS: u64 = 6_000;

/// A report that was on its way when its machine was reset arrives within so many milliseconds: agents give up
/// after two seconds. What says later that the boot before goes on is right: it was not the node that asked.
const LATE_MS: u64 = 5_000;

/// A boot script that was not answered well is asked for again within 60 s. After so many milliseconds
/// another boot has begun, where DHCP could not tell.
const SCRIPT_AGAIN_MS: u64 = 300_000;

/// Milliseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct UnixMs(pub(crate) u64);

impl UnixMs {
    /// Milliseconds from `earlier` to this, none if clocks were set back.
    pub(crate) const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A node in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) mac: Mac,
    /// From the configuration.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// Whether the configuration names it.
    #[serde(default)]
    pub(crate) known: bool,
    /// Whether it is one of the lab's nodes, or what it is instead.
    #[serde(default)]
    pub(crate) standing: Standing,
    #[serde(default)]
    pub(crate) address: Option<Ipv4Addr>,
    /// What asked first in this boot.
    #[serde(default)]
    pub(crate) firmware: Option<Firmware>,
    #[serde(default)]
    pub(crate) arch: Option<Arch>,
    #[serde(default)]
    pub(crate) uuid: Option<String>,
    /// Where it is; nothing if it was never seen.
    #[serde(flatten)]
    pub(crate) stage: Option<Stage>,
    /// Since when it is there.
    #[serde(rename = "since_unix_ms", default)]
    pub(crate) since: UnixMs,
    /// When it was last heard of.
    #[serde(rename = "seen_unix_ms", default)]
    pub(crate) seen: UnixMs,
    /// When this boot began.
    #[serde(rename = "boot_unix_ms", default)]
    pub(crate) boot_began: UnixMs,
    /// Boots that were seen, this one included.
    #[serde(default)]
    pub(crate) boot_count: u64,
    /// Bytes that other nodes have had from it, in this boot.
    #[serde(rename = "uploads_bytes", default)]
    pub(crate) uploads: u64,
    /// What it is, as its agent says.
    #[serde(default)]
    pub(crate) machine: Option<Machine>,
    /// The failure that it had last, in this boot or one before.
    #[serde(default)]
    pub(crate) last_failure: Option<LastFailure>,
    /// The fleet's revision when something of it changed last.
    #[serde(skip)]
    pub(crate) revision: u64,
}

/// What a node is to the lab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// The configuration names it.
    Known,
    /// It does not, and the node boots meanwhile.
    #[default]
    Pending,
    /// It does not, and the node waits until it does.
    Waiting,
    /// It is left alone.
    Ignored,
}

impl Standing {
    /// Who needs somebody first.
    pub(crate) const fn urgency(self) -> u8 {
        match self {
            Self::Waiting => 0,
            Self::Pending => 1,
            Self::Ignored => 2,
            Self::Known => 3,
        }
    }

    /// The word for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Pending => "pending",
            Self::Waiting => "waiting",
            Self::Ignored => "ignored",
        }
    }
}

/// All that is known of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    #[serde(flatten)]
    pub(crate) summary: Summary,
    /// What it did, oldest first.
    #[serde(default)]
    pub(crate) events: VecDeque<Entry>,
    /// The latest lines of its agent's log.
    #[serde(default)]
    pub(crate) log: VecDeque<String>,
    /// The stages of this boot, oldest first.
    #[serde(default)]
    pub(crate) steps: VecDeque<Step>,
    /// Its boots before this one, oldest first.
    #[serde(default)]
    pub(crate) past: VecDeque<PastBoot>,
    /// What it is made of. Not in lists, which would be twice as long with it.
    #[serde(default)]
    pub(crate) hardware: Hardware,
    /// Who gave it what it has of its image, in this boot, most first.
    #[serde(default)]
    pub(crate) sources: Vec<Source>,
    /// Bytes that others say they had from it, in this boot: the sum of what they list.
    #[serde(default)]
    taken: u64,
    /// The agent's number for this boot.
    #[serde(default)]
    boot: Option<u64>,
    /// Its number for the boot before, of which reports may still arrive.
    #[serde(default)]
    boot_before: Option<u64>,
    /// The last report's.
    #[serde(default)]
    sequence: u64,
    /// When that came.
    #[serde(default)]
    reported: UnixMs,
    /// iPXE was fetched and has not asked for its script yet: its DHCP belongs to this boot.
    #[serde(default)]
    awaits_ipxe: bool,
    /// What its agent had whole in this boot, and so may have loaded.
    #[serde(default)]
    whole: Option<ImageName>,
    /// Since when its kernel ran at its last report.
    #[serde(default, skip_serializing_if = "is_default")]
    uptime_ms: u64,
    /// When it asked for its script last.
    #[serde(default, skip_serializing_if = "is_default")]
    script_at: UnixMs,
    /// How this server knows its address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) sight: Option<Sight>,
    /// When it said something last that was proved.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) spoke: UnixMs,
    /// When the latest proof was issued that it has used.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) newest_proof: UnixMs,
    /// Its firmware has asked by DHCP since its agent last spoke.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) has_asked: bool,
    /// And this server has answered.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) is_answered: bool,
    /// What was said in its name and not proved, the latest.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) heard: Option<Hearsay>,
}

/// Whether a field is as in a node of which nothing is known: it need not be stored.
fn is_default<T: Default + PartialEq>(field: &T) -> bool {
    *field == T::default()
}

/// A boot that can be told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The number that its agent has drawn for it.
    pub(crate) boot: u64,
    /// For how long its kernel has run.
    pub(crate) uptime_ms: u64,
}

/// Something that a node did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    #[serde(rename = "unix_ms")]
    pub(crate) at: UnixMs,
    pub(crate) text: String,
    /// How often in a row; the time is that of the last.
    #[serde(default = "once")]
    pub(crate) count: u32,
}

const fn once() -> u32 {
    1
}

/// A boot that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PastBoot {
    #[serde(rename = "unix_ms")]
    pub(crate) began: UnixMs,
    /// How long it took to the stage that it reached.
    pub(crate) took_ms: u64,
    /// That stage's word.
    pub(crate) stage: String,
    pub(crate) image: Option<ImageName>,
    pub(crate) failure: Option<Failure>,
    /// Its stages, oldest first.
    #[serde(default)]
    pub(crate) steps: VecDeque<Step>,
}

/// What an event did to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It is at another stage, or a quarter further in its download.
    Moved,
    /// Something about it is known better.
    Noted,
    /// Nothing: the event is old, or says nothing new.
    Nothing,
}

impl Node {
    /// A node of which nothing is known yet.
    pub(crate) fn new(mac: Mac, now: UnixMs) -> Self {
        let summary = Summary {
            mac,
            name: None,
            known: false,
            standing: Standing::Pending,
            address: None,
            firmware: None,
            arch: None,
            uuid: None,
            stage: None,
            since: now,
            seen: now,
            boot_began: now,
            boot_count: 0,
            uploads: 0,
            machine: None,
            last_failure: None,
            revision: 0,
        };
        Self {
            summary,
            events: VecDeque::new(),
            log: VecDeque::new(),
            steps: VecDeque::new(),
            past: VecDeque::new(),
            boot: None,
            hardware: Hardware::default(),
            sources: vec![],
            taken: 0,
            boot_before: None,
            sequence: 0,
            reported: UnixMs(0),
            awaits_ipxe: false,
            whole: None,
            uptime_ms: 0,
            script_at: UnixMs(0),
            sight: None,
            spoke: UnixMs(0),
            newest_proof: UnixMs(0),
            has_asked: false,
            is_answered: false,
            heard: None,
        }
    }

    /// What it is called: its name, or its Ethernet address.
    pub(crate) fn label(&self) -> String {
        self.summary.label()
    }

    /// Its boot, if its agent was heard of within `silent_ms` and has not given its place to another kernel:
    /// then it can be told something.
    pub(crate) fn boot_in_reach(&self, now: UnixMs, silent_ms: u64) -> Option<Reach> {
        let is_gone = matches!(self.summary.stage, Some(Stage::Loading { .. }));
        let silent = now.since(self.reported);
        let uptime_ms = self.uptime_ms.saturating_add(silent);
        let boot = self.boot.filter(|_| !is_gone && silent <= silent_ms)?;
        Some(Reach { boot, uptime_ms })
    }

    /// Somebody has decided something about it.
    pub(super) fn told(&mut self, now: UnixMs, text: &str) {
        self.note(now, &printable(text, TEXT_LEN_MAX));
    }

    /// DHCP.
    pub(super) fn asked(&mut self, now: UnixMs, asker: Asker) -> Effect {
        self.summary.seen = now;
        match asker {
            Asker::Firmware(firmware) => self.asked_by_firmware(now, firmware),
            Asker::Agent if self.is_before(&Stage::Lease) => self.enter(now, Stage::Lease),
            Asker::Agent => Effect::Nothing,
            Asker::System => self.asked_by_system(now),
        }
    }

    fn asked_by_firmware(&mut self, now: UnixMs, firmware: Firmware) -> Effect {
        let goes_on = match self.summary.stage {
            // It asks again until somebody answers.
            Some(Stage::Discovered | Stage::Offered) => true,
            // The boot program that it loaded asks for itself.
            Some(Stage::Bootloader) => firmware == Firmware::Ipxe && self.awaits_ipxe,
            _ => false,
        };
        self.has_asked = true;
        if goes_on {
            return Effect::Nothing;
        }
        if self.boot.is_some() && now.since(self.reported) <= SPEAKS_MS {
            self.note(now, "firmware asks by DHCP in its name, while its agent speaks");
            return Effect::Noted;
        }
        self.begin_boot(now);
        self.summary.firmware = Some(firmware);
        self.note(now, "its firmware asks by DHCP");
        self.enter(now, Stage::Discovered)
    }

    /// An operating system asks. If the agent had an image whole, its last word was that it loads it,
    /// or that word was lost, and this is the image's system. (No time that passes says the same: a kernel that panicked is as silent as
    /// one with a fixed address, which can say itself that it is up.)
    fn asked_by_system(&mut self, now: UnixMs) -> Effect {
        match &self.summary.stage {
            Some(Stage::Booted { .. }) => Effect::Nothing,
            _ if self.whole.is_some() => self.is_up(now),
            _ => {
                self.note(now, "a system that this boot did not load asks by DHCP");
                Effect::Noted
            }
        }
    }

    /// Its own system says that it is up.
    pub(super) fn up(&mut self, now: UnixMs, said: &Proven<UpSaid>) -> Effect {
        self.spoken(now, said);
        self.is_up(now)
    }

    fn is_up(&mut self, now: UnixMs) -> Effect {
        self.summary.seen = now;
        if matches!(self.summary.stage, Some(Stage::Booted { .. })) {
            return Effect::Nothing;
        }
        let image = self.whole.clone().or_else(|| self.summary.image().cloned());
        self.enter(now, Stage::booted(image))
    }

    pub(super) fn offered(&mut self, now: UnixMs) -> Effect {
        self.summary.seen = now;
        self.is_answered |= self.has_asked;
        match self.summary.stage {
            Some(Stage::Discovered) => self.enter(now, Stage::Offered),
            _ => Effect::Nothing,
        }
    }

    /// This is its address from now on.
    pub(super) fn settled(&mut self, now: UnixMs, address: Ipv4Addr, sight: Sight) {
        self.summary.seen = now;
        self.sight = Some(sight);
        if self.summary.address != Some(address) {
            self.summary.address = Some(address);
            self.note(now, &format!("has the address {address}"));
        }
    }

    /// It has said something itself.
    fn spoken<T>(&mut self, now: UnixMs, said: &Proven<T>) {
        (self.summary.seen, self.spoke) = (now, now);
        if let Ground::Proof(issued) = said.ground() {
            self.newest_proof = self.newest_proof.max(issued);
        }
    }

    pub(super) fn fetched(&mut self, now: UnixMs, service: Service, what: &Fetched) -> Effect {
        self.summary.seen = now;
        self.note(now, &format!("fetches {what} by {service}"));
        match what {
            Fetched::BootProgram(_) => {
                self.awaits_ipxe = true;
                self.at_bootloader(now)
            }
            Fetched::Phase1(_) => self.at_bootloader(now),
            Fetched::Manifest | Fetched::Torrent(_) | Fetched::Image(_) => Effect::Noted,
        }
    }

    pub(super) fn asked_for_script(&mut self, now: UnixMs, asked: &Proven<ScriptAsked>) -> Effect {
        self.spoken(now, asked);
        let asked = asked.what();
        // Without DHCP of ours this is the first that is seen of a boot.
        let was_left = self.script_at != UnixMs(0) && now.since(self.script_at) > SCRIPT_AGAIN_MS;
        let is_at_script = matches!(self.summary.stage, Some(Stage::Bootloader));
        if !self.is_before(&Stage::Agent) || (was_left && is_at_script && !self.awaits_ipxe) {
            self.begin_boot(now);
        }
        self.script_at = now;
        self.awaits_ipxe = false;
        let summary = &mut self.summary;
        // It does not tell the two ways of UEFI apart, as DHCP does.
        summary.firmware = match (summary.firmware, asked.firmware) {
            (Some(Firmware::UefiHttp), Some(Firmware::Uefi)) => Some(Firmware::UefiHttp),
            (known, said) => {
                said.or(known.filter(|&known| known != Firmware::Ipxe)).or(Some(Firmware::Ipxe))
            }
        };
        summary.arch = asked.arch.or(summary.arch);
        summary.uuid = asked.uuid.clone().or(summary.uuid.take());
        self.note(now, "asks for its boot script");
        self.at_bootloader(now)
    }

    fn at_bootloader(&mut self, now: UnixMs) -> Effect {
        match self.is_before(&Stage::Bootloader) {
            true => self.enter(now, Stage::Bootloader),
            false => Effect::Noted,
        }
    }

    /// An agent's report; `gains` is by how many bytes what it lists of others is more than in the report
    /// before. A list has the largest alone: who leaves it and comes again is not to count twice.
    pub(super) fn reported(
        &mut self,
        now: UnixMs,
        said: &Proven<Report>,
        gains: &mut Vec<(IpAddr, i64)>,
    ) -> Effect {
        let report = said.what();
        let is_late = now.since(self.summary.boot_began) < LATE_MS;
        let is_old = (self.boot_before == Some(report.boot) && (self.boot.is_some() || is_late))
            || (self.boot == Some(report.boot) && report.sequence <= self.sequence);
        if is_old {
            return Effect::Nothing;
        }
        let begins = match self.boot {
            Some(boot) => boot != report.boot,
            None => matches!(self.summary.stage, Some(Stage::Booted { .. })),
        };
        // A boot that nobody saw begin: its DHCP was not ours.
        if begins || self.summary.boot_count == 0 {
            self.begin_boot(now);
        }
        self.spoken(now, said);
        self.boot = Some(report.boot);
        // It was not the node that asked by DHCP meanwhile.
        self.boot_before = self.boot_before.filter(|before| *before != report.boot);
        self.sequence = report.sequence;
        self.reported = now;
        self.uptime_ms = report.uptime_ms;
        (self.has_asked, self.is_answered) = (false, false);
        if let Some(machine) = &report.machine {
            self.learn(machine);
        }
        if let Some(hardware) = &report.hardware {
            self.hardware = checked(hardware);
        }
        self.take_sources(&report.sources, gains);
        self.keep_log(&report.log);
        if let Stage::Downloading(progress) = &report.stage {
            self.summary.uploads = self.summary.uploads.max(progress.uploaded_bytes);
        }
        if let Stage::Booted { seeding: Some(seeding), .. } = &report.stage {
            self.summary.uploads = self.summary.uploads.max(seeding.uploaded_bytes);
        }
        if let Stage::Verified { image } | Stage::Loading { image } = &report.stage {
            self.whole = Some(image.clone());
        }
        match &report.stage {
            Stage::Unknown => {
                self.note(now, "is at a stage that this server does not know");
                Effect::Noted
            }
            Stage::Failed { failure, reason, retry_in_s } => {
                let reason = printable(reason, TEXT_LEN_MAX);
                self.note(now, &format!("{}: {reason}", failure.code()));
                let last = LastFailure { at: now, failure: *failure, reason: reason.clone() };
                self.summary.last_failure = Some(last);
                let retry_in_s = *retry_in_s;
                self.enter(now, Stage::Failed { failure: *failure, reason, retry_in_s })
            }
            stage => self.enter(now, stage.clone()),
        }
    }

    fn take_sources(&mut self, sources: &[Source], gains: &mut Vec<(IpAddr, i64)>) {
        if sources.is_empty() {
            return;
        }
        let told: Vec<Source> = sources.iter().take(SOURCES_MAX).cloned().collect();
        let had = std::mem::replace(&mut self.sources, told);
        let bytes = |source: &Source| i64::try_from(source.bytes).unwrap_or(i64::MAX);
        let listed = |list: &[Source], address| {
            list.iter().find(|source| source.address == address).map_or(0, bytes)
        };
        let address = |source: &Source| source.address;
        let addresses: BTreeSet<_> = had.iter().chain(&self.sources).map(address).collect();
        let more = |address| listed(&self.sources, address) - listed(&had, address);
        gains.extend(addresses.into_iter().map(|address| (address, more(address))));
    }

    fn learn(&mut self, machine: &Machine) {
        let text = |text: &str| printable(text, NAME_LEN_MAX);
        let optional = |field: &Option<String>| field.as_deref().map(text);
        let machine = Machine {
            arch: machine.arch,
            firmware: machine.firmware,
            uuid: optional(&machine.uuid),
            product: optional(&machine.product),
            serial_number: optional(&machine.serial_number),
            memory_bytes: machine.memory_bytes,
            processors: machine.processors,
            interface: optional(&machine.interface),
            driver: optional(&machine.driver),
            address: optional(&machine.address),
            agent: text(&machine.agent),
            kernel: text(&machine.kernel),
        };
        let summary = &mut self.summary;
        summary.arch = Some(machine.arch);
        summary.firmware = summary.firmware.or(Some(machine.firmware));
        summary.uuid = machine.uuid.clone().or(summary.uuid.take());
        summary.machine = Some(machine);
    }

    fn keep_log(&mut self, lines: &[String]) {
        for line in lines.iter().rev().take(LOG_LINES_MAX).rev() {
            self.log.push_back(printable(line, TEXT_LEN_MAX));
        }
        let mut len: usize = self.log.iter().map(String::len).sum();
        while self.log.len() > LOG_LINES_MAX || len > LOG_LEN_MAX {
            len -= self.log.pop_front().map_or(0, |line| line.len());
        }
    }

    /// Forgets events and boots of before; whether there were any.
    pub(super) fn forget_until(&mut self, until: UnixMs) -> bool {
        let before = (self.events.len(), self.past.len());
        self.events.retain(|entry| entry.at >= until);
        self.past.retain(|boot| boot.began >= until);
        before != (self.events.len(), self.past.len())
    }

    fn begin_boot(&mut self, now: UnixMs) {
        if self.summary.boot_count > 0
            && let Some(stage) = &self.summary.stage
        {
            let failure = match stage {
                Stage::Failed { failure, .. } => Some(*failure),
                _ => None,
            };
            let past = PastBoot {
                began: self.summary.boot_began,
                took_ms: self.summary.since.since(self.summary.boot_began),
                stage: stage.name().to_owned(),
                image: self.summary.image().cloned(),
                failure,
                steps: std::mem::take(&mut self.steps),
            };
            push(&mut self.past, past, BOOTS_MAX);
        }
        self.boot_before = self.boot.take().or(self.boot_before);
        self.sequence = 0;
        self.awaits_ipxe = false;
        self.whole = None;
        self.log.clear();
        self.steps.clear();
        self.sources.clear();
        self.taken = 0;
        let summary = &mut self.summary;
        summary.stage = None;
        summary.firmware = None;
        summary.uploads = 0;
        summary.boot_began = now;
        summary.boot_count += 1;
    }

    /// Another lists so many bytes more from it. Between its last report of a download and the first under
    /// its system it does not say itself what it gives. Whether what is known of it has changed.
    pub(super) fn gave(&mut self, bytes: i64) -> bool {
        self.taken = self.taken.saturating_add_signed(bytes);
        let before = self.summary.uploads;
        self.summary.uploads = before.max(self.taken);
        self.summary.uploads != before
    }

    /// Whether it has not come to `stage` yet in this boot.
    fn is_before(&self, stage: &Stage) -> bool {
        match &self.summary.stage {
            None => true,
            Some(now) => now.rank().is_some_and(|rank| Some(rank) < stage.rank()),
        }
    }

    fn enter(&mut self, now: UnixMs, stage: Stage) -> Effect {
        let before = self.summary.stage.replace(stage);
        let stage = self.summary.stage.as_ref();
        let is_same = before.as_ref().map(Stage::name) == stage.map(Stage::name);
        if !is_same {
            self.summary.since = now;
            self.note_step(now);
            let text = self.summary.stage_text();
            self.note(now, &text);
            return Effect::Moved;
        }
        match (&before, stage) {
            (Some(Stage::Downloading(before)), Some(Stage::Downloading(after)))
                if quarter(before) != quarter(after) =>
            {
                Effect::Moved
            }
            (Some(Stage::Failed { failure: before, .. }), Some(Stage::Failed { failure, .. }))
                if before != failure =>
            {
                self.summary.since = now;
                self.note_step(now);
                Effect::Moved
            }
            _ => Effect::Noted,
        }
    }

    fn note_step(&mut self, now: UnixMs) {
        if let Some(stage) = &self.summary.stage {
            timeline::note(&mut self.steps, now, stage);
        }
    }

    fn note(&mut self, at: UnixMs, text: &str) {
        if let Some(last) = self.events.back_mut()
            && last.text == text
        {
            last.at = at;
            last.count = last.count.saturating_add(1);
            return;
        }
        let text = text.to_owned();
        push(&mut self.events, Entry { at, text, count: 1 }, EVENTS_MAX);
    }
}

impl Summary {
    /// The image that it is about.
    pub(crate) fn image(&self) -> Option<&ImageName> {
        match self.stage.as_ref()? {
            Stage::Downloading(progress) => Some(&progress.image),
            Stage::Verified { image } | Stage::Loading { image } => Some(image),
            Stage::Booted { image, .. } => image.as_ref(),
            _ => None,
        }
    }

    /// What it is called: its name, or its Ethernet address.
    pub(crate) fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.mac.to_string())
    }

    /// Where it is, in a few words.
    pub(crate) fn stage_text(&self) -> String {
        match &self.stage {
            None => "never seen".to_owned(),
            Some(Stage::Downloading(progress)) => {
                let way = if progress.http { " by HTTP" } else { "" };
                format!("downloading {}{way}, {} %", progress.image, percent(progress))
            }
            Some(Stage::Verified { image }) => format!("verified {image}"),
            Some(Stage::Loading { image }) => format!("loading {image}"),
            Some(Stage::Booted { image: Some(image), seeding }) => match seeding {
                Some(seeding) if !seeding.paused => format!("booted {image}, seeding"),
                _ => format!("booted {image}"),
            },
            Some(Stage::Failed { failure, reason, retry_in_s }) => {
                format!("failed {failure}: {reason}; tries again in {retry_in_s} s")
            }
            Some(stage) => stage.name().to_owned(),
        }
    }
}

/// What an agent says of hardware, as far as it fits.
fn checked(hardware: &Hardware) -> Hardware {
    let text = |text: &String| printable(text, NAME_LEN_MAX);
    let optional = |field: &Option<String>| field.as_ref().map(text);
    let disks = hardware.disks.iter().map(|disk| Disk {
        name: text(&disk.name),
        len_bytes: disk.len_bytes,
        model: optional(&disk.model),
    });
    let cards = hardware.cards.iter().map(|card| Card {
        name: text(&card.name),
        mac: card.mac,
        driver: optional(&card.driver),
        mbit_per_s: card.mbit_per_s,
    });
    Hardware {
        processor: optional(&hardware.processor),
        disks: disks.take(PARTS_MAX).collect(),
        cards: cards.take(PARTS_MAX).collect(),
    }
}

/// How much of its download a node has verified, of 100.
pub(crate) fn percent(progress: &boot::stage::Progress) -> u64 {
    let done = u128::from(progress.verified_bytes) * 100;
    let share = done.checked_div(u128::from(progress.total_bytes)).unwrap_or(100);
    u64::try_from(share.min(100)).unwrap_or(100)
}

fn quarter(progress: &boot::stage::Progress) -> u64 {
    percent(progress) / 25
}

/// `text` without what could steer a terminal, cut to `len_max` characters.
pub(crate) fn printable(text: &str, len_max: usize) -> String {
    text.chars().take(len_max).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn push<T>(queue: &mut VecDeque<T>, item: T, len_max: usize) {
    if queue.len() >= len_max {
        queue.pop_front();
    }
    queue.push_back(item);
}
