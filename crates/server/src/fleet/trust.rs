//! Whom to believe. What is known of a node is the lab's word, this server's own sight, the agent's word if
//! it is proved to be that node's, or hearsay: what somebody says in its name. Hearsay is shown and used
//! nowhere; what decides takes [`Proven`], which only [`Fleet::judge`] makes.
//!
//! A claim is proved by the secret that this server gave the node for its boot ([`super::proof`]), or by
//! the address that it comes from, if this server saw that this is the node's:
//!
//! 1. It leased the address to that Ethernet address. Then no other address counts.
//! 2. The kernel speaks with the address on this segment at that Ethernet address.
//! 3. The address is beyond a router or a web server of this machine that passes requests on, where neither
//!    can be seen: the first that speaks for the node after this server answered its firmware by DHCP, until
//!    that boot is over.

use std::net::Ipv4Addr;

use boot::{Mac, Report};
use serde::{Deserialize, Serialize};

use super::event::ScriptAsked;
use super::node::{Node, UnixMs, printable};
use super::proof::Proof;
use super::{Fleet, STRANGER_KEPT_MS};

/// For so many milliseconds after its last word an address beyond a router stays its node's, whoever else
/// speaks for it: six reports may be lost.
const HELD_MS: u64 = 30_000;

/// Characters kept of hearsay: a word or two and a number.
const HEARSAY_LEN_MAX: usize = 48;

/// What was said in a node's name and not proved to be its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hearsay {
    /// When it was said last.
    #[serde(rename = "unix_ms")]
    pub(crate) at: UnixMs,
    /// From where.
    pub(crate) address: Option<Ipv4Addr>,
    /// In a few words.
    pub(crate) text: String,
    /// How often something was said so, in all.
    pub(crate) count: u32,
}

/// Whether this server gives nodes their addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DhcpRole {
    /// It hears no DHCP at all.
    #[default]
    Off,
    /// Somebody else gives addresses; it hears who asks for them and adds what to boot.
    Beside,
    /// It does, or does not know yet.
    Leases,
}

/// How this server knows the address of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sight {
    /// It leased it.
    Lease,
    /// The kernel has that Ethernet address for it.
    Neighbour,
    /// It spoke for the node first, or proved that it may.
    Said,
}

/// What the kernel knows of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// It is at this Ethernet address.
    At(Mac),
    /// It is on no network of this machine, or behind one of its own addresses.
    Beyond,
    /// It was not to be found out.
    Unknown,
}

/// Who says something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caller {
    /// From where, if that is an IPv4 address.
    pub(crate) address: Option<Ipv4Addr>,
    /// The lab's owner, or a program on the machine of a lab that is on loopback.
    pub(crate) is_own: bool,
    /// The node's secret for a boot, checked.
    pub(crate) proof: Option<Proof>,
}

/// On which ground something is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    Own,
    Proof(UnixMs),
    Seen(Sight),
}

/// What comes of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Believed(Ground),
    Hearsay,
    /// That depends on who is at the address.
    AskKernel,
}

/// Something that a node said itself. Nothing but [`Fleet`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proven<T> {
    what: T,
    address: Option<Ipv4Addr>,
    ground: Ground,
}

impl<T> Proven<T> {
    pub(crate) const fn what(&self) -> &T {
        &self.what
    }

    pub(crate) const fn address(&self) -> Option<Ipv4Addr> {
        self.address
    }

    pub(crate) const fn ground(&self) -> Ground {
        self.ground
    }

    /// To have it say something else.
    #[cfg(test)]
    pub(crate) const fn what_mut(&mut self) -> &mut T {
        &mut self.what
    }

    /// As if the node had said it from `address`, which was leased to it.
    #[cfg(test)]
    pub(crate) const fn for_tests(what: T, address: Option<Ipv4Addr>) -> Self {
        Self { what, address, ground: Ground::Seen(Sight::Lease) }
    }
}

/// What is said in a node's name.
pub(crate) trait Claim {
    /// The node's.
    fn node(&self) -> Mac;
    /// For who looks at hearsay.
    fn text(&self) -> String;
}

impl Claim for Report {
    fn node(&self) -> Mac {
        self.node
    }

    fn text(&self) -> String {
        format!("reports the stage {}", self.stage.name())
    }
}

impl Claim for ScriptAsked {
    fn node(&self) -> Mac {
        self.mac
    }

    fn text(&self) -> String {
        "asks for its boot script".to_owned()
    }
}

/// That the system of the node with this Ethernet address is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UpSaid(pub(crate) Mac);

impl Claim for UpSaid {
    fn node(&self) -> Mac {
        self.0
    }

    fn text(&self) -> String {
        "says that its system is up".to_owned()
    }
}

impl Fleet {
    /// What to make of something that `caller` says for the node `mac`; `segment` is where the caller is, if
    /// the kernel was asked.
    pub(super) fn judge(
        &self,
        now: UnixMs,
        mac: Mac,
        caller: &Caller,
        segment: Option<Segment>,
    ) -> Verdict {
        let node = self.nodes.get(&mac);
        if caller.is_own {
            return Verdict::Believed(Ground::Own);
        }
        if let Some(proof) = caller.proof
            && proof.is_for(mac)
            && node.is_none_or(|node| node.newest_proof <= proof.issued())
        {
            return Verdict::Believed(Ground::Proof(proof.issued()));
        }
        let Some(address) = caller.address else { return Verdict::Hearsay };
        let (is_leased_to, is_its) =
            (self.leased_to(address), self.addresses.get(&address) == Some(&mac));
        match (node.and_then(|node| node.sight), is_leased_to) {
            (Some(Sight::Lease), _) if self.dhcp == DhcpRole::Leases => match is_its {
                true => return Verdict::Believed(Ground::Seen(Sight::Lease)),
                false => return Verdict::Hearsay,
            },
            (_, Some(other)) if other != mac => return Verdict::Hearsay,
            _ => {}
        }
        match segment {
            None => Verdict::AskKernel,
            Some(Segment::At(at)) if at == mac => Verdict::Believed(Ground::Seen(Sight::Neighbour)),
            Some(Segment::Beyond) if is_its || self.is_free(now, node) => {
                Verdict::Believed(Ground::Seen(Sight::Said))
            }
            Some(_) => Verdict::Hearsay,
        }
    }

    /// Believes a claim, or gives it back.
    pub(super) fn prove<T: Claim>(
        &self,
        now: UnixMs,
        caller: &Caller,
        what: T,
        segment: Option<Segment>,
    ) -> Result<Proven<T>, (T, bool)> {
        match self.judge(now, what.node(), caller, segment) {
            Verdict::Believed(ground) => Ok(Proven { what, address: caller.address, ground }),
            verdict => Err((what, verdict == Verdict::AskKernel)),
        }
    }

    /// Whether neither the node nor the address has another of the two by a lease of this server.
    pub(super) fn is_unleased(&self, mac: Mac, address: Ipv4Addr) -> bool {
        let is_leased = self.dhcp == DhcpRole::Leases
            && self.nodes.get(&mac).is_some_and(|node| node.sight == Some(Sight::Lease));
        !is_leased && self.leased_to(address).is_none_or(|other| other == mac)
    }

    /// Whose an address is by a lease of this server. What it leased before somebody else gave addresses says
    /// nothing of today.
    fn leased_to(&self, address: Ipv4Addr) -> Option<Mac> {
        if self.dhcp != DhcpRole::Leases {
            return None;
        }
        let mac = *self.addresses.get(&address)?;
        (self.nodes.get(&mac)?.sight == Some(Sight::Lease)).then_some(mac)
    }

    /// Whether an address beyond a router may become that of a node.
    fn is_free(&self, now: UnixMs, node: Option<&Node>) -> bool {
        let silent_ms = node.filter(|node| node.sight.is_some()).map(|node| now.since(node.spoke));
        match self.dhcp {
            DhcpRole::Off => silent_ms.is_none_or(|ms| ms > STRANGER_KEPT_MS),
            DhcpRole::Beside | DhcpRole::Leases => {
                node.is_some_and(|node| node.is_answered) && silent_ms.is_none_or(|ms| ms > HELD_MS)
            }
        }
    }
}

impl Hearsay {
    /// After `before`, if there was something.
    pub(super) fn after(
        before: Option<&Self>,
        at: UnixMs,
        address: Option<Ipv4Addr>,
        text: &str,
    ) -> Self {
        let count = before.map_or(0, |before| before.count).saturating_add(1);
        Self { at, address, text: printable(text, HEARSAY_LEN_MAX), count }
    }

    /// In a sentence, without the time.
    pub(crate) fn sentence(&self) -> String {
        let from = self.address.map(|address| format!(" from {address}")).unwrap_or_default();
        let times =
            if self.count > 1 { format!(", {} times so far", self.count) } else { String::new() };
        format!("somebody{from} {} in its name{times}; not proved, and used for nothing", self.text)
    }
}
