//! Messages for tests, as firmwares and systems send them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use dhcproto::v4::MessageType;

use crate::boot_files::BootFiles;
use crate::config::{Audience, Config, LabId, Mode, Range, Subnet};
use crate::mac::Mac;
use crate::message::Message;
use crate::proof::{Proof, Prover};
use crate::service::Start;

pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// The Ethernet address of the machine with a number.
pub(crate) fn mac(number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    Mac([0x52, 0x54, 0, 0, high, low])
}

/// 10.0.0.`last`.
pub(crate) const fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

/// Gives 10.0.0.50 to 10.0.0.`last` for an hour.
pub(crate) fn config(last: u8) -> Config {
    let subnet = Subnet::of(SERVER, 24);
    Config {
        mode: Mode::Server,
        force: true,
        lab: LabId([7; 8]),
        address: SERVER,
        subnet,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        ranges: vec![Range { first: ip(50), last: ip(last), subnet, router: Some(ip(254)) }],
        reservations: vec![],
        lease_time: Duration::from_secs(3600),
        dns: vec![ip(2), ip(3)],
        domain: Some("lab.test".to_owned()),
        boot: BootFiles::usual(SERVER, 8080),
        audience: Audience::ALL,
    }
}

/// A first start with the lab's key.
pub(crate) fn start(lab: LabId, seed: u64) -> Start {
    Start { leases: vec![], last_role: None, prover: Box::new(Key(lab)), seed }
}

/// Stands for a lab's key: its signature is a sum that others do not make.
#[derive(Debug)]
pub(crate) struct Key(pub(crate) LabId);

impl Key {
    fn proof(lab: LabId, bytes: &[u8]) -> Proof {
        let sum = bytes.iter().fold(7_u8, |sum, byte| sum.wrapping_mul(31) ^ byte);
        Proof { key: [lab.0[0]; 32], signature: [sum; 64] }
    }
}

impl Prover for Key {
    fn sign(&self, bytes: &[u8]) -> Option<Proof> {
        Some(Self::proof(self.0, bytes))
    }

    fn holds(&self, lab: LabId, bytes: &[u8], proof: &Proof) -> bool {
        *proof == Self::proof(lab, bytes)
    }
}

/// A message from somebody else, in the making.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    header: [u8; 240],
    options: Vec<u8>,
}

impl Ask {
    pub(crate) fn new(kind: MessageType, number: u16) -> Self {
        let mut header = [0; 240];
        header[..3].copy_from_slice(&[1, 1, 6]);
        header[4..8].copy_from_slice(&[0xa, 0xb, 0xc, 0xd]);
        header[28..34].copy_from_slice(&mac(number).0);
        header[236..].copy_from_slice(&[99, 130, 83, 99]);
        Self { header, options: vec![] }.option(53, &[kind.into()])
    }

    pub(crate) fn discover(number: u16) -> Self {
        Self::new(MessageType::Discover, number)
    }

    /// The request for an offered address.
    pub(crate) fn select(number: u16, address: Ipv4Addr) -> Self {
        Self::new(MessageType::Request, number)
            .option(54, &SERVER.octets())
            .option(50, &address.octets())
    }

    /// The request of a machine that has been switched on again and remembers its address.
    pub(crate) fn reboot(number: u16, address: Ipv4Addr) -> Self {
        Self::new(MessageType::Request, number).option(50, &address.octets())
    }

    /// The request of a machine that uses its address and wants to keep it.
    pub(crate) fn renew(number: u16, address: Ipv4Addr) -> Self {
        Self::new(MessageType::Request, number).ciaddr(address)
    }

    pub(crate) fn option(mut self, code: u8, data: &[u8]) -> Self {
        self.options.extend_from_slice(&[code, u8::try_from(data.len()).unwrap()]);
        self.options.extend_from_slice(data);
        self
    }

    /// A PXE ROM of an architecture type.
    pub(crate) fn pxe(self, kind: u16) -> Self {
        let class = format!("PXEClient:Arch:{kind:05}:UNDI:003016");
        self.option(60, class.as_bytes()).option(93, &kind.to_be_bytes())
    }

    /// UEFI HTTP boot of an architecture type.
    pub(crate) fn http(self, kind: u16) -> Self {
        let class = format!("HTTPClient:Arch:{kind:05}:UNDI:003001");
        self.option(60, class.as_bytes()).option(93, &kind.to_be_bytes())
    }

    pub(crate) fn ciaddr(self, address: Ipv4Addr) -> Self {
        self.patch(12, &address.octets())
    }

    pub(crate) fn giaddr(self, address: Ipv4Addr) -> Self {
        self.patch(24, &address.octets())
    }

    pub(crate) fn patch(mut self, at: usize, bytes: &[u8]) -> Self {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&self.header[..], &self.options, &[255]].concat()
    }

    pub(crate) fn message(&self) -> Message {
        Message::decode(&self.bytes()).unwrap()
    }
}

/// Where machines without an address send from.
pub(crate) const NOWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
