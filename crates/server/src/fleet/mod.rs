//! The fleet: what is known of each node, folded from events. Pure: no I/O, no clock, no threads.
//!
//! The services say what nodes do ([`Event`]); each event changes one node at most, and what those have
//! given from which it says it has its image, and says what is
//! worth a line in the log ([`Change`]). Nothing here is trusted for booting: a stranger can send
//! packets in any node's name, and the worst that comes of it is a wrong line in a table.
//!
//! **Limits.** Nodes that the configuration names are always known. Of all others
//! [`STRANGERS_MAX`] are kept; when a further one comes, the one that has only ever asked by DHCP and
//! has been silent longest gives way, then one that has been silent for [`STRANGER_KEPT_MS`]; if there
//! is neither, the newcomer is counted and not kept. So a flood of invented addresses neither grows
//! the fleet nor hides a node that boots.

mod event;
mod history;
mod keeper;
mod log;
mod node;
mod priority;
mod shared;
mod timeline;
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
pub(crate) use node::{Effect, Node, Standing, Summary, UnixMs, percent, printable};
pub(crate) use priority::{Priority, Standings, strangers};
pub(crate) use shared::SharedFleet;
pub(crate) use timeline::{LastFailure, Step};
pub(crate) use why::{Why, durations, why};

/// Nodes kept that the configuration does not name. With [`node::EVENTS_MAX`], the agent's log and
/// the timelines of its boots one takes 32 KiB at most, so 256 MiB in all, if each of them has booted
/// and failed for days.
pub(crate) const STRANGERS_MAX: usize = 8_192;

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
    /// Has asked, and nothing more.
    Asking,
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
    /// The fleet that was, as [`History`] has kept it.
    pub(crate) fn restore(nodes: impl IntoIterator<Item = Node>) -> Self {
        let mut fleet = Self::default();
        for mut node in nodes.into_iter().take(STRANGERS_MAX) {
            // The configuration says it anew.
            node.summary.known = false;
            let mac = node.summary.mac;
            if let Some(address) = node.summary.address {
                fleet.addresses.insert(address, mac);
            }
            fleet.nodes.insert(mac, node);
            fleet.index(mac);
        }
        fleet
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
        let mac = self.whose(event)?;
        if !self.make_room(now, mac) {
            return None;
        }
        self.unindex(mac);
        let node = self.nodes.entry(mac).or_insert_with(|| {
            let mut node = Node::new(mac, now);
            node.summary.standing = self.newcomers.standing(mac);
            node
        });
        let address_before = node.summary.address;
        let mut gains = vec![];
        let effect = match event {
            Event::Asked { asker, arch, .. } => node.asked(now, *asker, *arch),
            Event::Offered { .. } => node.offered(now),
            Event::Leased { address, .. } => node.leased(now, *address),
            Event::Fetched { service, what, .. } => node.fetched(now, *service, what),
            Event::Script { address, asked } => {
                node.leased(now, *address);
                node.asked_for_script(now, asked)
            }
            Event::Reported { address, report } => {
                if let Some(address) = address {
                    node.leased(now, *address);
                }
                node.reported(now, report, &mut gains)
            }
            Event::Up { .. } => node.up(now),
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
        if let Some(Change { label, text, .. }) = change.clone() {
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

    /// Whom to prefer of those who ask from `address` and others, where there is not room for all.
    pub(crate) fn priority(&self, address: Ipv4Addr) -> Priority {
        match self.addresses.get(&address).and_then(|mac| self.nodes.get(mac)) {
            Some(node) if node.summary.known => Priority::Named,
            Some(_) => Priority::Leased,
            None => Priority::Stranger,
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
            Event::Asked { mac, asker: Asker::System | Asker::Agent, .. }
            | Event::Offered { mac, .. }
            | Event::Leased { mac, .. }
            | Event::Up { mac } => self.nodes.contains_key(mac).then_some(*mac),
            Event::Asked { mac, .. } => Some(*mac),
            Event::Script { asked, .. } => Some(asked.mac),
            Event::Reported { report, .. } => Some(report.node),
            Event::Fetched { address, .. } => self.addresses.get(address).copied(),
        }
    }

    /// Whether there is a place for `mac`, made if need be.
    fn make_room(&mut self, now: UnixMs, mac: Mac) -> bool {
        if self.nodes.contains_key(&mac) || self.strangers.len() < STRANGERS_MAX {
            return true;
        }
        let Some(&(class, seen, oldest)) = self.strangers.first() else {
            return true;
        };
        let gives_way = class == Class::Asking || now.since(seen) > STRANGER_KEPT_MS;
        if gives_way {
            self.unindex(oldest);
            self.forget(oldest);
        } else {
            self.refused_count += 1;
        }
        gives_way
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
        if let Some(other) = self.addresses.insert(after, mac)
            && other != mac
            && let Some(node) = self.nodes.get_mut(&other)
        {
            node.summary.address = None;
            self.revision += 1;
            node.summary.revision = self.revision;
            self.dirty.insert(other);
        }
    }

    fn place(&self, mac: Mac) -> Option<(Class, UnixMs, Mac)> {
        let summary = &self.nodes.get(&mac)?.summary;
        let class = match summary.stage {
            None | Some(Stage::Discovered | Stage::Offered) => Class::Asking,
            _ => Class::Booting,
        };
        (!summary.known).then_some((class, summary.seen, mac))
    }

    fn index(&mut self, mac: Mac) {
        if let Some(place) = self.place(mac) {
            self.strangers.insert(place);
        }
    }

    fn unindex(&mut self, mac: Mac) {
        if let Some(place) = self.place(mac) {
            self.strangers.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests;
