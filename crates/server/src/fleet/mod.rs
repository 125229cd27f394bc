//! The fleet: what is known of each node, folded from events. Pure: no I/O, no clock, no threads.
//!
//! The services say what nodes do ([`Event`]); each event changes one node at most, and what those have
//! given from which it says it has its image, and says what is
//! worth a line in the log ([`Change`]). What a node says counts if it is proved to be that node's
//! ([`trust`]); the rest is hearsay, of which the latest is kept for who looks, and which changes nothing.
//! DHCP cannot be proved: it says no more than that somebody asks, and not while an agent says otherwise.
//!
//! **Limits.** Nodes that the configuration names are always known. Of all others
//! [`STRANGERS_MAX`] are kept, in [`STRANGERS_LEN_MAX`] bytes; when a further one comes, one of the lowest
//! [`Class`] gives way, unless the newcomer's is lower, and of those who has been silent longest. Who has been
//! seen booting gives way after [`STRANGER_KEPT_MS`] of silence. Else the newcomer is counted and not kept. So
//! a flood of invented addresses neither grows the fleet nor hides a node that boots.

mod event;
mod history;
mod keeper;
mod log;
mod node;
mod priority;
mod proof;
mod shared;
mod shown;
mod timeline;
mod trust;
mod why;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Bound;

use boot::{ImageName, Mac, Stage};

pub(crate) use event::{Asker, Event, Fetched, ScriptAsked, Service};
pub(crate) use history::History;
#[cfg(test)]
pub(crate) use keeper::Keep;
pub(crate) use keeper::{Keeper, of_lab as keep_in_lab};
pub(crate) use log::{FleetLog, LOG_MAX, LogLine};
pub(crate) use node::{Effect, Node, Reach, Standing, Summary, UnixMs, percent, printable};
pub(crate) use priority::{Standings, strangers};
pub(crate) use proof::ProofKey;
pub(crate) use shared::SharedFleet;
pub(crate) use timeline::{LastFailure, Step};
pub(crate) use trust::{Caller, Claim, DhcpRole, Ground, Hearsay, Proven, Segment, Sight, UpSaid};
pub(crate) use why::{Why, durations, why};

/// Nodes kept that the configuration does not name: the machines of a large site, seen once.
pub(crate) const STRANGERS_MAX: usize = 8_192;

/// Bytes that they take in all, by [`Node::len`]: 8 KiB each if all are there, as much as a few boots that
/// went well need, and a fifth of what the whole server may have. One that fails for days takes 32 KiB.
const STRANGERS_LEN_MAX: usize = 64 << 20;

/// Nodes kept of which there is nothing but hearsay: enough to see what is wrong in a room whose reports come
/// from elsewhere than they should.
const HEARD_MAX: usize = 1_024;

/// After so many milliseconds of silence a stranger may give way to a new one though it has been
/// seen booting: an hour, longer than any boot.
pub(crate) const STRANGER_KEPT_MS: u64 = 3_600_000;

/// All nodes.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    nodes: BTreeMap<Mac, Node>,
    addresses: BTreeMap<Ipv4Addr, Mac>,
    /// Those that may have to give way, first who does so first.
    strangers: BTreeSet<(Class, UnixMs, Mac)>,
    /// What those take.
    strangers_len: usize,
    /// Who gives nodes their addresses.
    dhcp: DhcpRole,
    /// Changed since [`Self::take_changed`].
    dirty: BTreeSet<Mac>,
    /// Newcomers for whom there was no room.
    refused_count: u64,
    /// What becomes of nodes that the configuration does not name.
    newcomers: Strangers,
    /// Counts changes.
    revision: u64,
    /// Nodes that are gone, and at which revision: the latest few.
    gone: VecDeque<(u64, Mac)>,
    log: FleetLog,
}

/// How nodes are received that the configuration does not name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Strangers {
    /// They boot without being accepted.
    pub(crate) boot: bool,
    /// Somebody is to decide about them.
    pub(crate) are_listed: bool,
    /// About whom that is decided: they are left alone.
    pub(crate) ignored: BTreeSet<Mac>,
}

impl Default for Strangers {
    fn default() -> Self {
        Self { boot: true, are_listed: true, ignored: BTreeSet::new() }
    }
}

impl Strangers {
    fn standing(&self, mac: Mac) -> Standing {
        match (self.are_listed && !self.ignored.contains(&mac), self.boot) {
            (false, _) => Standing::Ignored,
            (true, true) => Standing::Pending,
            (true, false) => Standing::Waiting,
        }
    }
}

/// Nodes that are gone which are remembered as such: who asks less often for what changed asks anew.
const GONE_MAX: usize = 256;

/// Who gives way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Somebody has said something in its name.
    Heard,
    /// Somebody has asked by DHCP in its name, and nothing more.
    Asking,
    /// Holds a lease of this server.
    Leased,
    /// Has been seen booting.
    Booting,
}

/// Something worth a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) mac: Mac,
    /// The node's name, or its Ethernet address.
    pub(crate) label: String,
    /// Where it is now.
    pub(crate) text: String,
}

/// A node that downloads says so each second; one that has said nothing for so long was switched off.
const DOWNLOAD_SILENCE_MS_MAX: u64 = 15_000;

impl Fleet {
    /// The fleet that was, as [`History`] has kept it: all that the configuration names, and of the others as
    /// many as there is room for, in the order in which they come.
    pub(crate) fn restore(
        nodes: impl IntoIterator<Item = Node>,
        known: &BTreeMap<Mac, Option<String>>,
    ) -> Self {
        let mut fleet = Self::default();
        let (mut room, mut len) = (STRANGERS_MAX, 0);
        for mut node in nodes {
            let mac = node.summary.mac;
            node.summary.known = known.contains_key(&mac);
            if !node.summary.known {
                len += node.len();
                if room == 0 || len > STRANGERS_LEN_MAX {
                    continue;
                }
                room -= 1;
            }
            // Before this was noted, any stranger could have said it.
            node.summary.address = node.summary.address.filter(|_| node.sight.is_some());
            if let Some(address) = node.summary.address {
                fleet.addresses.insert(address, mac);
            }
            fleet.nodes.insert(mac, node);
            fleet.index(mac);
        }
        fleet
    }

    /// Who gives addresses from now on.
    pub(crate) const fn set_dhcp(&mut self, role: DhcpRole) {
        self.dhcp = role;
    }

    /// How others than the configuration names are received; to be followed by [`Self::configure`].
    pub(crate) fn receive(&mut self, strangers: Strangers) {
        self.newcomers = strangers;
    }

    /// The nodes that the configuration names, and what it calls them.
    pub(crate) fn configure(&mut self, now: UnixMs, known: &BTreeMap<Mac, Option<String>>) {
        let all: BTreeSet<Mac> = self.nodes.keys().chain(known.keys()).copied().collect();
        for mac in all {
            self.unindex(mac);
            let node = self.nodes.entry(mac).or_insert_with(|| Node::new(mac, now));
            let (was_known, name) = (node.summary.known, known.get(&mac).cloned());
            self.revision += 1;
            node.summary.revision = self.revision;
            node.summary.known = name.is_some();
            node.summary.standing = match name {
                Some(_) => Standing::Known,
                None => self.newcomers.standing(mac),
            };
            node.summary.name = name.flatten();
            if was_known && !node.summary.known && node.summary.stage.is_none() {
                self.forget(mac);
            }
            self.index(mac);
        }
    }

    /// Takes note of an event.
    pub(crate) fn handle(&mut self, now: UnixMs, event: &Event) -> Option<Change> {
        if let Event::Leased { mac, address } = event {
            self.vacate(*mac, *address);
        }
        let mac = self.whose(event)?;
        if !self.make_room(now, mac, class_of(event)) {
            return None;
        }
        let settled = self.settled(event);
        self.unindex(mac);
        let node = self.nodes.entry(mac).or_insert_with(|| {
            let mut node = Node::new(mac, now);
            node.summary.standing = self.newcomers.standing(mac);
            node
        });
        let address_before = node.summary.address;
        let mut gains = vec![];
        if let Some((address, sight)) = settled {
            node.settled(now, address, sight);
        }
        let effect = match event {
            Event::Asked { asker, .. } => node.asked(now, *asker),
            Event::Offered { .. } => node.offered(now),
            Event::Leased { .. } => Effect::Noted,
            Event::Fetched { service, what, .. } => node.fetched(now, *service, what),
            Event::Script(proven) => node.asked_for_script(now, proven),
            Event::Reported(proven) => node.reported(now, proven, &mut gains),
            Event::Up(proven) => node.up(now, proven),
        };
        let change = (effect == Effect::Moved).then(|| Change {
            mac,
            label: node.label(),
            text: node.summary.stage_text(),
        });
        if effect != Effect::Nothing {
            self.dirty.insert(mac);
            self.revision += 1;
            node.summary.revision = self.revision;
        }
        let is_booted = matches!(node.summary.stage, Some(Stage::Booted { .. }));
        // Who only asks by DHCP could push everything else out.
        let is_for_log = is_booted || !matches!(event, Event::Asked { .. } | Event::Offered { .. });
        if let Some(Change { label, text, .. }) = change.clone().filter(|_| is_for_log) {
            let is_failure = matches!(node.summary.stage, Some(Stage::Failed { .. }));
            self.log.push(LogLine { number: 0, at: now, mac, label, text, is_failure });
        }
        if let Some(address) = node.summary.address
            && address_before != Some(address)
        {
            self.settle(mac, address_before, address);
        }
        self.index(mac);
        self.credit(mac, &gains);
        change
    }

    /// Keeps what was said in a node's name for who looks. Nothing else comes of it.
    pub(crate) fn hear(&mut self, now: UnixMs, mac: Mac, from: Option<Ipv4Addr>, text: &str) {
        if !self.make_room(now, mac, Class::Heard) {
            return;
        }
        self.unindex(mac);
        let node = self.nodes.entry(mac).or_insert_with(|| {
            let mut node = Node::new(mac, now);
            node.summary.standing = self.newcomers.standing(mac);
            self.revision += 1;
            node.summary.revision = self.revision;
            node
        });
        node.heard = Some(Hearsay::after(node.heard.as_ref(), now, from, text));
        self.index(mac);
    }

    /// The address that an event shows to be its node's, and how.
    fn settled(&self, event: &Event) -> Option<(Ipv4Addr, Sight)> {
        let (mac, address, ground) = match event {
            Event::Leased { address, .. } => return Some((*address, Sight::Lease)),
            Event::Script(proven) => (proven.what().mac, proven.address()?, proven.ground()),
            Event::Reported(proven) => (proven.what().node, proven.address()?, proven.ground()),
            Event::Up(proven) => (proven.what().0, proven.address()?, proven.ground()),
            _ => return None,
        };
        match ground {
            Ground::Own => None,
            Ground::Seen(sight) => Some((address, sight)),
            // What this server leased says more than where somebody says something from.
            Ground::Proof(_) => self.is_unleased(mac, address).then_some((address, Sight::Said)),
        }
    }

    /// What a node that asks for its script is at, which decides what it boots once.
    pub(crate) fn turn(&self, asked: &Proven<ScriptAsked>) -> Turn {
        let node = self.nodes.get(&asked.what().mac);
        let is_heard = match (self.dhcp, asked.ground()) {
            (DhcpRole::Off, _)
            | (_, Ground::Own | Ground::Proof(_) | Ground::Seen(Sight::Said)) => true,
            (_, Ground::Seen(Sight::Lease | Sight::Neighbour)) => {
                node.is_some_and(|node| node.has_asked)
            }
        };
        Turn { boot: node.map_or(0, |node| node.summary.boot_count), is_heard }
    }

    /// When a proof that is issued for a node now has to say that it was issued: after all that were used, also
    /// if another server of the lab has issued those, whose clock is ahead.
    pub(crate) fn next_proof(&self, now: UnixMs, mac: Mac) -> UnixMs {
        let newest = self.nodes.get(&mac).map_or(UnixMs(0), |node| node.newest_proof);
        now.max(UnixMs(newest.0.saturating_add(1)))
    }

    /// Notes what a node has had from others with those of them that are nodes.
    fn credit(&mut self, taker: Mac, gains: &[(IpAddr, i64)]) {
        for (address, bytes) in gains {
            let IpAddr::V4(address) = address else { continue };
            let Some(&giver) = self.addresses.get(address) else { continue };
            let is_other = giver != taker && *bytes != 0;
            let Some(node) = self.nodes.get_mut(&giver).filter(|_| is_other) else { continue };
            self.dirty.insert(giver);
            if node.gave(*bytes) {
                self.revision += 1;
                node.summary.revision = self.revision;
            }
        }
    }

    /// Somebody has decided something about a node, which is to be seen in its events and in the log.
    pub(crate) fn note(&mut self, now: UnixMs, mac: Mac, text: &str) -> Option<Change> {
        let node = self.nodes.get_mut(&mac)?;
        node.told(now, text);
        self.revision += 1;
        node.summary.revision = self.revision;
        self.dirty.insert(mac);
        let (label, text) = (node.label(), text.to_owned());
        let change = Change { mac, label: label.clone(), text: text.clone() };
        self.log.push(LogLine { number: 0, at: now, mac, label, text, is_failure: false });
        Some(change)
    }

    /// Forgets what nodes did before `until`, and those that the configuration does not name and that
    /// were silent since.
    pub(crate) fn forget_until(&mut self, until: UnixMs) {
        let is_gone = |node: &&Node| !node.summary.known && node.summary.seen < until;
        let gone: Vec<Mac> = self.nodes().filter(is_gone).map(|node| node.summary.mac).collect();
        for mac in gone {
            self.unindex(mac);
            self.forget(mac);
        }
        for (mac, node) in &mut self.nodes {
            if node.forget_until(until) {
                self.revision += 1;
                node.summary.revision = self.revision;
                self.dirty.insert(*mac);
            }
        }
    }

    /// All nodes, by Ethernet address.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The first node after that of this Ethernet address; the first of all if there is none.
    pub(crate) fn node_after(&self, mac: Option<Mac>) -> Option<&Node> {
        let after = mac.map_or(Bound::Unbounded, Bound::Excluded);
        self.nodes.range((after, Bound::Unbounded)).next().map(|(_, node)| node)
    }

    /// How many nodes download an image at `now`.
    pub(crate) fn downloading(&self, image: &ImageName, now: UnixMs) -> u32 {
        let is_one = |node: &&Node| match &node.summary.stage {
            Some(Stage::Downloading(progress)) => {
                progress.image == *image && now.since(node.summary.seen) < DOWNLOAD_SILENCE_MS_MAX
            }
            _ => false,
        };
        u32::try_from(self.nodes().filter(is_one).count()).unwrap_or(u32::MAX)
    }

    /// How much `address` is worth a place, where there is not room for all.
    pub(crate) fn priority(&self, address: Ipv4Addr) -> places::Standing {
        match self.addresses.get(&address).and_then(|mac| self.nodes.get(mac)) {
            Some(node) if node.summary.known => places::Standing::Named,
            Some(_) => places::Standing::Leased,
            None => places::Standing::Stranger,
        }
    }

    pub(crate) fn node(&self, mac: Mac) -> Option<&Node> {
        self.nodes.get(&mac)
    }

    /// A node by its Ethernet address or its name.
    pub(crate) fn find(&self, which: &str) -> Option<&Node> {
        match which.parse() {
            Ok(mac) => self.node(mac),
            Err(_) => self.nodes().find(|node| node.summary.name.as_deref() == Some(which)),
        }
    }

    /// Newcomers for whom there was no room.
    pub(crate) fn refused_count(&self) -> u64 {
        self.refused_count
    }

    /// Counts changes: while it is the same, nothing has changed.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Nodes that were forgotten after `revision`; none if that is too long ago to know.
    pub(crate) fn gone_after(&self, revision: u64) -> Option<Vec<Mac>> {
        let is_complete = self.gone.len() < GONE_MAX
            || self.gone.front().is_some_and(|&(first, _)| first <= revision);
        let after = self.gone.iter().filter(|(at, _)| *at > revision);
        is_complete.then(|| after.map(|&(_, mac)| mac).collect())
    }

    /// What nodes did.
    pub(crate) fn log(&self) -> &FleetLog {
        &self.log
    }

    /// How many nodes are at each stage, in the order of a boot.
    pub(crate) fn stages(&self) -> Vec<(&'static str, usize)> {
        let mut counts: BTreeMap<(u8, &'static str), usize> = BTreeMap::new();
        for stage in self.nodes().filter_map(|node| node.summary.stage.as_ref()) {
            *counts.entry((stage.rank().unwrap_or(u8::MAX), stage.name())).or_default() += 1;
        }
        counts.into_iter().map(|((_, name), count)| (name, count)).collect()
    }

    /// The nodes that have changed since this was asked last, or are gone, and whether the configuration
    /// names them.
    pub(crate) fn take_changed(&mut self) -> Vec<(Mac, bool)> {
        let dirty = std::mem::take(&mut self.dirty);
        let is_known = |mac: &Mac| self.nodes.get(mac).is_some_and(|node| node.summary.known);
        dirty.into_iter().map(|mac| (mac, is_known(&mac))).collect()
    }

    /// The node that an event is about.
    fn whose(&self, event: &Event) -> Option<Mac> {
        match event {
            // A machine that does not boot from here is none of ours, whatever it asks for.
            Event::Asked { mac, asker: Asker::System | Asker::Agent }
            | Event::Offered { mac, .. }
            | Event::Leased { mac, .. } => self.nodes.contains_key(mac).then_some(*mac),
            Event::Up(proven) => {
                let UpSaid(mac) = proven.what();
                self.nodes.contains_key(mac).then_some(*mac)
            }
            Event::Asked { mac, .. } => Some(*mac),
            Event::Script(proven) => Some(proven.what().mac),
            Event::Reported(proven) => Some(proven.what().node),
            Event::Fetched { address, .. } => self.addresses.get(address).copied(),
        }
    }

    /// Whether there is a place for `mac`, made if need be, where it will be of this `class`.
    fn make_room(&mut self, now: UnixMs, mac: Mac, class: Class) -> bool {
        let is_full = self.strangers.len() >= STRANGERS_MAX
            || (class == Class::Heard && self.heard_count() >= HEARD_MAX);
        if !is_full || self.nodes.contains_key(&mac) {
            return true;
        }
        let Some(&(lowest, seen, oldest)) = self.strangers.first() else {
            return true;
        };
        let is_lower = lowest <= class && lowest < Class::Booting;
        let gives_way = is_lower || (class > Class::Heard && now.since(seen) > STRANGER_KEPT_MS);
        if gives_way {
            self.unindex(oldest);
            self.forget(oldest);
        } else {
            self.refused_count += 1;
        }
        gives_way
    }

    fn heard_count(&self) -> usize {
        self.strangers.iter().take_while(|(class, ..)| *class == Class::Heard).count()
    }

    fn forget(&mut self, mac: Mac) {
        if let Some(node) = self.nodes.remove(&mac)
            && let Some(address) = node.summary.address
            && self.addresses.get(&address) == Some(&mac)
        {
            self.addresses.remove(&address);
        }
        self.dirty.insert(mac);
        self.revision += 1;
        if self.gone.len() >= GONE_MAX {
            self.gone.pop_front();
        }
        self.gone.push_back((self.revision, mac));
    }

    /// `after` is the address of `mac` now, its only one and nobody else's.
    fn settle(&mut self, mac: Mac, before: Option<Ipv4Addr>, after: Ipv4Addr) {
        if let Some(before) = before
            && self.addresses.get(&before) == Some(&mac)
        {
            self.addresses.remove(&before);
        }
        if self.addresses.get(&after).is_some_and(|other| *other != mac) {
            self.vacate(mac, after);
        }
        self.addresses.insert(after, mac);
    }

    /// `address` is leased to `mac`, whoever that is, and so nobody else's any more.
    fn vacate(&mut self, mac: Mac, address: Ipv4Addr) {
        let before = self.addresses.get(&address).copied().filter(|before| *before != mac);
        let Some(before) = before else { return };
        self.unindex(before);
        self.addresses.remove(&address);
        if let Some(node) = self.nodes.get_mut(&before) {
            node.summary.address = None;
            node.sight = None;
            self.revision += 1;
            node.summary.revision = self.revision;
            self.dirty.insert(before);
        }
        self.index(before);
    }

    fn place(&self, mac: Mac) -> Option<(Class, UnixMs, Mac)> {
        let node = self.nodes.get(&mac)?;
        let summary = &node.summary;
        let class = match summary.stage {
            None if summary.boot_count == 0 && node.heard.is_some() => Class::Heard,
            None | Some(Stage::Discovered | Stage::Offered) => match node.sight {
                Some(Sight::Lease) => Class::Leased,
                _ => Class::Asking,
            },
            _ => Class::Booting,
        };
        (!summary.known).then_some((class, summary.seen, mac))
    }

    fn index(&mut self, mac: Mac) {
        if let Some(place) = self.place(mac) {
            self.strangers.insert(place);
            self.strangers_len += self.nodes.get(&mac).map_or(0, Node::len);
        }
        while self.strangers_len > STRANGERS_LEN_MAX
            && let Some(&(.., first)) = self.strangers.first()
        {
            self.unindex(first);
            self.forget(first);
        }
    }

    /// To be followed by [`Self::index`], or nothing: in between the node may change.
    fn unindex(&mut self, mac: Mac) {
        if let Some(place) = self.place(mac)
            && self.strangers.remove(&place)
        {
            let len = self.nodes.get(&mac).map_or(0, Node::len);
            self.strangers_len = self.strangers_len.saturating_sub(len);
        }
    }
}

/// What a node is at least of which this is the first that is seen.
const fn class_of(event: &Event) -> Class {
    match event {
        Event::Asked { .. } | Event::Offered { .. } => Class::Asking,
        Event::Leased { .. } => Class::Leased,
        Event::Fetched { .. } | Event::Script(_) | Event::Reported(_) | Event::Up(_) => {
            Class::Booting
        }
    }
}

/// Where a node is that asks for its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Counts its boots.
    pub(crate) boot: u64,
    /// Its firmware has asked by DHCP since an agent last spoke, or could not be heard: this is a boot.
    pub(crate) is_heard: bool,
}

#[cfg(test)]
mod tests;
