//! Looks for other DHCP servers, as a node would: with a DISCOVER.
//!
//! The question says that it comes from a PXE ROM, so that proxyDHCP servers answer too, and carries
//! a marker in an option for private use. BootTorrent servers answer a marked question with a marker
//! of their own and never with an address, so that two labs know each other where plain DHCP could
//! not tell them from any server. Ordinary nodes never see a marker.
//!
//! An answer's marker is signed with the lab's key over the question; without that anybody could say
//! to be a lab. A question's is not: nothing follows from it but an answer.
//!
//! Every second question is put as a relay agent would, so that the answer comes to port 67: port 68
//! may belong to the machine's own DHCP client.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use dhcproto::v4::{Flags, MessageType};

use crate::answer::{destination, send};
use crate::config::{Config, LabId};
use crate::io::{Output, Port};
use crate::message::{Draft, Message, code};
use crate::proof::{Proof, Prover, signed};
use crate::time::Time;

/// When questions are sent, from the beginning: a lost one is made up for, and so is one that came
/// while a switch port was still being opened.
const QUESTIONS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_millis(1_500),
    Duration::from_millis(1_700),
];

/// When the answer is "nobody". Servers that look whether an address is free before they offer it
/// take their time: ISC's a second, dnsmasq three.
pub(crate) const LISTENING: Duration = Duration::from_millis(4_500);

const CLASS: &[u8] = b"PXEClient:Arch:00000:UNDI:002001";
const PREFIX: &[u8; 11] = b"BootTorrent";
const MARKER_LEN: usize = 11 + 8 + 8 + 1;

/// Who a BootTorrent server is: its lab, and a number of its own for this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Marker {
    pub(crate) lab: LabId,
    pub(crate) run: [u8; 8],
    /// It serves; else it has not decided yet, or waits.
    pub(crate) serves: bool,
}

impl Marker {
    pub(crate) fn of(message: &Message) -> Option<Self> {
        let bytes: &[u8; MARKER_LEN] = message.option(code::MARKER)?.try_into().ok()?;
        let (prefix, rest) = bytes.split_first_chunk::<11>()?;
        let (lab, rest) = rest.split_first_chunk::<8>()?;
        let (run, serves) = rest.split_first_chunk::<8>()?;
        let serves = *serves != [0];
        (prefix == PREFIX).then_some(Self { lab: LabId(*lab), run: *run, serves })
    }

    fn encode(self) -> Vec<u8> {
        [&PREFIX[..], &self.lab.0, &self.run, &[u8::from(self.serves)]].concat()
    }
}

/// What was heard of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) address: Ipv4Addr,
    pub(crate) marker: Option<Marker>,
    /// Whether the marker is signed with the key of its lab, for our question.
    pub(crate) is_proved: bool,
    /// Whether it gives addresses.
    pub(crate) gives_addresses: bool,
    pub(crate) boot_file: Option<String>,
}

/// One search, from the first question to the end of listening.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    xid: u32,
    began: Time,
    ends: Time,
    sent: usize,
}

impl Probe {
    pub(crate) fn new(now: Time, xid: u32) -> Self {
        Self { xid, began: now, ends: now + LISTENING, sent: 0 }
    }

    pub(crate) fn next_timeout(&self) -> Time {
        QUESTIONS.get(self.sent).map_or(self.ends, |after| self.ends.min(self.began + *after))
    }

    pub(crate) fn is_over(&self, now: Time) -> bool {
        now >= self.ends
    }

    /// Ends after `time`, if not before.
    pub(crate) fn hurry(&mut self, now: Time, time: Duration) {
        self.ends = self.ends.min(now + time);
    }

    /// The questions that are due.
    pub(crate) fn questions(&mut self, now: Time, config: &Config, me: Marker) -> Vec<Output> {
        let mut questions = vec![];
        while let Some(after) = QUESTIONS.get(self.sent) {
            if now < self.began + *after {
                break;
            }
            questions.extend(self.question(config, me, self.sent % 2 == 1));
            self.sent += 1;
        }
        questions
    }

    fn question(&self, config: &Config, me: Marker, as_relay: bool) -> Option<Output> {
        let mut draft = Draft::question(MessageType::Discover, config.mac, self.xid);
        // We have no ear for unicasts to the address that will be offered.
        draft.header().set_flags(Flags::default().set_broadcast());
        if as_relay {
            draft.header().set_giaddr(config.address).set_hops(1);
        }
        // Not the machine's own identifier, whose lease this must not touch.
        let id = [&[0xff], &me.run[..]].concat();
        draft.option(code::CLIENT_ID, &id).option(code::MARKER, &me.encode());
        draft.option(code::CLASS, CLASS).option(code::ARCHITECTURE, &[0, 0]);
        let parameters = [code::SUBNET_MASK, code::ROUTER, code::VENDOR, code::BOOT_FILE];
        draft.option(code::PARAMETERS, &parameters);
        let port = if as_relay { Port::Server } else { Port::Client };
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, Port::Server.number());
        send(draft, port, to)
    }

    /// An answer, if it is one to our questions.
    pub(crate) fn answer(
        &self,
        config: &Config,
        me: Marker,
        prover: &dyn Prover,
        reply: &Message,
        from: Ipv4Addr,
    ) -> Option<Heard> {
        let address = reply.address(code::SERVER_ID).unwrap_or(from);
        let is_offer = matches!(reply.kind, MessageType::Offer | MessageType::Ack);
        let ours = reply.xid == self.xid && reply.mac == config.mac;
        if !is_offer || !ours || address == config.address {
            return None;
        }
        let file = reply.option(code::BOOT_FILE).unwrap_or(&reply.file);
        let file = String::from_utf8_lossy(file).trim_end_matches('\0').to_owned();
        let marker = Marker::of(reply);
        let is_proved = marker.is_some_and(|marker| {
            let proof = reply.option(code::PROOF).and_then(Proof::decode);
            let bytes = signed(&marker.encode(), address.octets(), self.xid, me.run);
            proof.is_some_and(|proof| prover.holds(marker.lab, &bytes, &proof))
        });
        Some(Heard {
            address,
            marker,
            is_proved,
            gives_addresses: !reply.yiaddr.is_unspecified(),
            boot_file: (!file.is_empty()).then_some(file),
        })
    }
}

/// Our answer to another server's question.
pub(crate) fn introduce(
    config: &Config,
    me: Marker,
    prover: &dyn Prover,
    asker: Marker,
    question: &Message,
) -> Option<Output> {
    let mut draft = Draft::answer(question, MessageType::Offer);
    draft.address(code::SERVER_ID, config.address).option(code::MARKER, &me.encode());
    let bytes = signed(&me.encode(), config.address.octets(), question.xid, asker.run);
    if let Some(proof) = prover.sign(&bytes) {
        draft.option(code::PROOF, &proof.encode());
    }
    send(draft, Port::Server, destination(question, MessageType::Offer))
}
